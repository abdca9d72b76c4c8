// Package live holds what exists in the cluster, as of a moment ago: one view
// per kind, filled by watches and shared by everything in the engine that reads
// much. The objects in it are shared and must not be changed. It writes nothing.
package live

import (
	"context"
	"strconv"
	"sync"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
)

// Cluster is the views of all kinds that the engine follows.
type Cluster struct {
	Sources        *View[*v1alpha1.Source]
	Nodes          *View[*corev1.Node]
	Namespaces     *View[*corev1.Namespace]
	Pods           *View[*corev1.Pod]
	Services       *View[*corev1.Service]
	EndpointSlices *View[*discoveryv1.EndpointSlice]
	Deployments    *View[*appsv1.Deployment]
	ReplicaSets    *View[*appsv1.ReplicaSet]
	StatefulSets   *View[*appsv1.StatefulSet]
	DaemonSets     *View[*appsv1.DaemonSet]
	Revisions      *View[*appsv1.ControllerRevision]
	Claims         *View[*corev1.PersistentVolumeClaim]
	Volumes        *View[*corev1.PersistentVolume]
	Classes        *View[*storagev1.StorageClass]
	Leases         *View[*coordinationv1.Lease]
	Jobs           *View[*batchv1.Job]
	CronJobs       *View[*batchv1.CronJob]
	Budgets        *View[*policyv1.PodDisruptionBudget]
	Controllers    *View[*corev1.ReplicationController]
	Quotas         *View[*corev1.ResourceQuota]
	Autoscalers    *View[*autoscalingv2.HorizontalPodAutoscaler]
}

// New makes empty views.
func New() *Cluster {
	return &Cluster{
		Sources:        newView[*v1alpha1.Source](),
		Nodes:          newView[*corev1.Node](),
		Namespaces:     newView[*corev1.Namespace](),
		Pods:           newView[*corev1.Pod](),
		Services:       newView[*corev1.Service](),
		EndpointSlices: newView[*discoveryv1.EndpointSlice](),
		Deployments:    newView[*appsv1.Deployment](),
		ReplicaSets:    newView[*appsv1.ReplicaSet](),
		StatefulSets:   newView[*appsv1.StatefulSet](),
		DaemonSets:     newView[*appsv1.DaemonSet](),
		Revisions:      newView[*appsv1.ControllerRevision](),
		Claims:         newView[*corev1.PersistentVolumeClaim](),
		Volumes:        newView[*corev1.PersistentVolume](),
		Classes:        newView[*storagev1.StorageClass](),
		Leases:         newView[*coordinationv1.Lease](),
		Jobs:           newView[*batchv1.Job](),
		CronJobs:       newView[*batchv1.CronJob](),
		Budgets:        newView[*policyv1.PodDisruptionBudget](),
		Controllers:    newView[*corev1.ReplicationController](),
		Quotas:         newView[*corev1.ResourceQuota](),
		Autoscalers:    newView[*autoscalingv2.HorizontalPodAutoscaler](),
	}
}

// Run fills the views until the context ends. Handlers must be in place before.
func (c *Cluster) Run(ctx context.Context, from client.Client) error {
	g, ctx := errgroup.WithContext(ctx)
	follow := func(list client.ObjectList, f client.Follower) {
		g.Go(func() error { return client.Follow(ctx, from, list, client.ListOptions{}, f) })
	}
	follow(&v1alpha1.SourceList{}, c.Sources)
	follow(&corev1.NodeList{}, c.Nodes)
	follow(&corev1.NamespaceList{}, c.Namespaces)
	follow(&corev1.PodList{}, c.Pods)
	follow(&corev1.ServiceList{}, c.Services)
	follow(&discoveryv1.EndpointSliceList{}, c.EndpointSlices)
	follow(&appsv1.DeploymentList{}, c.Deployments)
	follow(&appsv1.ReplicaSetList{}, c.ReplicaSets)
	follow(&appsv1.StatefulSetList{}, c.StatefulSets)
	follow(&appsv1.DaemonSetList{}, c.DaemonSets)
	follow(&appsv1.ControllerRevisionList{}, c.Revisions)
	follow(&corev1.PersistentVolumeClaimList{}, c.Claims)
	follow(&corev1.PersistentVolumeList{}, c.Volumes)
	follow(&storagev1.StorageClassList{}, c.Classes)
	follow(&coordinationv1.LeaseList{}, c.Leases)
	follow(&batchv1.JobList{}, c.Jobs)
	follow(&batchv1.CronJobList{}, c.CronJobs)
	follow(&policyv1.PodDisruptionBudgetList{}, c.Budgets)
	follow(&corev1.ReplicationControllerList{}, c.Controllers)
	follow(&corev1.ResourceQuotaList{}, c.Quotas)
	follow(&autoscalingv2.HorizontalPodAutoscalerList{}, c.Autoscalers)
	return g.Wait()
}

// Synced blocks until views are complete; false when the context ends first.
func Synced(ctx context.Context, views ...interface{ Ready() <-chan struct{} }) bool {
	for _, v := range views {
		select {
		case <-ctx.Done():
			return false
		case <-v.Ready():
		}
	}
	return true
}

// View is all objects of one kind, as of a moment ago. The objects in it are
// shared and must not be changed.
type View[T client.Object] struct {
	complete chan struct{}

	mu       sync.RWMutex
	version  int64
	listing  bool
	byKey    map[types.NamespacedName]T
	byOwner  map[types.UID]map[types.NamespacedName]T
	byNS     map[string]map[types.NamespacedName]T
	handlers []func(old, now T)
}

func newView[T client.Object]() *View[T] {
	return &View[T]{
		complete: make(chan struct{}),
		byKey:    map[types.NamespacedName]T{},
		byOwner:  map[types.UID]map[types.NamespacedName]T{},
		byNS:     map[string]map[types.NamespacedName]T{},
	}
}

// Ready closes when the view is complete.
func (v *View[T]) Ready() <-chan struct{} { return v.complete }

// OnChange calls f after each change: old is nil for a new object, now for one
// that is gone. It must be called before Run.
func (v *View[T]) OnChange(f func(old, now T)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.handlers = append(v.handlers, f)
}

// Synced implements client.Follower.
func (v *View[T]) Synced() { close(v.complete) }

// Set implements client.Follower.
func (v *View[T]) Set(obj client.Object) {
	now := obj.(T)
	key := client.Key(obj)
	v.mu.Lock()
	old, existed := v.byKey[key]
	if existed {
		v.unindex(key, old)
	}
	v.byKey[key] = now
	v.reach(Version(now))
	for _, owner := range obj.GetOwnerReferences() {
		put(v.byOwner, owner.UID, key, now)
	}
	put(v.byNS, obj.GetNamespace(), key, now)
	handlers := v.handlers
	v.mu.Unlock()
	for _, h := range handlers {
		h(old, now)
	}
}

// Gone implements client.Follower.
func (v *View[T]) Gone(obj client.Object) {
	key := client.Key(obj)
	var none T
	v.mu.Lock()
	old, existed := v.byKey[key]
	if !existed {
		v.mu.Unlock()
		return
	}
	v.unindex(key, old)
	delete(v.byKey, key)
	v.reach(Version(obj)) // a watch tells of a deletion with its own version
	handlers := v.handlers
	v.mu.Unlock()
	for _, h := range handlers {
		h(old, none)
	}
}

// reach notes how far the view has come. A list is in no order of time.
func (v *View[T]) reach(version int64) {
	if !v.listing {
		v.version = max(v.version, version)
	}
}

// Listing says that objects are going to be set in no order of time.
func (v *View[T]) Listing() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.listing = true
}

// Listed says that the view shows everything up to a version of the store.
func (v *View[T]) Listed(version string) {
	n, _ := strconv.ParseInt(version, 10, 64) // the store writes numbers
	v.mu.Lock()
	defer v.mu.Unlock()
	v.listing = false
	v.version = max(v.version, n)
}

func (v *View[T]) unindex(key types.NamespacedName, old T) {
	for _, owner := range old.GetOwnerReferences() {
		drop(v.byOwner, owner.UID, key)
	}
	drop(v.byNS, old.GetNamespace(), key)
}

func put[K comparable, T any](index map[K]map[types.NamespacedName]T, k K, key types.NamespacedName, obj T) {
	if index[k] == nil {
		index[k] = map[types.NamespacedName]T{}
	}
	index[k][key] = obj
}

func drop[K comparable, T any](index map[K]map[types.NamespacedName]T, k K, key types.NamespacedName) {
	delete(index[k], key)
	if len(index[k]) == 0 {
		delete(index, k)
	}
}

// Get returns an object by its key.
func (v *View[T]) Get(key types.NamespacedName) (T, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	obj, ok := v.byKey[key]
	return obj, ok
}

// Version is how far the view has come: it has seen whatever happened to objects
// of its kind up to that version of the store.
func (v *View[T]) Version() int64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.version
}

// Version is the store's revision that wrote an object, 0 when it has none.
func Version(obj metav1.Object) int64 {
	n, _ := strconv.ParseInt(obj.GetResourceVersion(), 10, 64) // the store writes numbers
	return n
}

// All returns every object, in no order.
func (v *View[T]) All() []T {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return values(v.byKey)
}

// OwnedBy returns the objects that name an owner, in no order.
func (v *View[T]) OwnedBy(uid types.UID) []T {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return values(v.byOwner[uid])
}

// InNamespace returns the objects of a namespace, in no order.
func (v *View[T]) InNamespace(ns string) []T {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return values(v.byNS[ns])
}

func values[K comparable, T any](m map[K]T) []T {
	out := make([]T, 0, len(m))
	for _, obj := range m {
		out = append(out, obj)
	}
	return out
}
