// Package controllers makes the objects of the cluster follow from one another:
// ReplicaSets from Deployments, Pods from ReplicaSets, EndpointSlices from
// Services and Pods, and so on, one file per kind. It reads through watches
// that it shares, writes through engine/resources, and never touches a node.
package controllers

import (
	"context"
	"log/slog"
	"sync"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/event"
	"berth.dev/berth/engine/resources"
)

// Options are what the controllers are made of. All must be set.
type Options struct {
	Resources *resources.Resources
	Clock     clock.WithTicker
	Log       *slog.Logger
}

// Run runs every controller and the scheduler until the context ends.
func Run(ctx context.Context, o Options) error {
	c := newCluster(o)
	g, ctx := errgroup.WithContext(ctx)
	deployments := newDeployments(c)
	replicaSets := newReplicaSets(c)
	endpoints := newEndpoints(c)
	scheduling := newScheduling(c)
	namespaces := newNamespaces(c)
	for _, run := range []func(context.Context) error{
		deployments.Run, replicaSets.Run, endpoints.Run, scheduling.Run, namespaces.Run,
		newCollector(c).Run, newEventExpiry(c).Run,
		// Last, so that every controller has its handlers in place.
		c.run,
	} {
		g.Go(func() error { return run(ctx) })
	}
	return g.Wait()
}

// cluster is the shared view of what exists.
type cluster struct {
	resources *resources.Resources
	clock     clock.WithTicker
	log       *slog.Logger
	events    *event.Recorder

	nodes       *view[*corev1.Node]
	namespaces  *view[*corev1.Namespace]
	pods        *view[*corev1.Pod]
	services    *view[*corev1.Service]
	deployments *view[*appsv1.Deployment]
	replicaSets *view[*appsv1.ReplicaSet]
}

func newCluster(o Options) *cluster {
	return &cluster{
		resources: o.Resources, clock: o.Clock, log: o.Log,
		events:      &event.Recorder{Client: o.Resources, Component: "berth", Clock: o.Clock, Log: o.Log},
		nodes:       newView[*corev1.Node](),
		namespaces:  newView[*corev1.Namespace](),
		pods:        newView[*corev1.Pod](),
		services:    newView[*corev1.Service](),
		deployments: newView[*appsv1.Deployment](),
		replicaSets: newView[*appsv1.ReplicaSet](),
	}
}

// run fills the views.
func (c *cluster) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	follow := func(list client.ObjectList, f client.Follower) {
		g.Go(func() error { return client.Follow(ctx, c.resources, list, client.ListOptions{}, f) })
	}
	follow(&corev1.NodeList{}, c.nodes)
	follow(&corev1.NamespaceList{}, c.namespaces)
	follow(&corev1.PodList{}, c.pods)
	follow(&corev1.ServiceList{}, c.services)
	follow(&appsv1.DeploymentList{}, c.deployments)
	follow(&appsv1.ReplicaSetList{}, c.replicaSets)
	return g.Wait()
}

// synced blocks until the views that a controller reads are complete.
func synced(ctx context.Context, views ...interface{ ready() <-chan struct{} }) bool {
	for _, v := range views {
		select {
		case <-ctx.Done():
			return false
		case <-v.ready():
		}
	}
	return true
}

// view is all objects of one kind, as of a moment ago. The objects in it are
// shared and must not be changed.
type view[T client.Object] struct {
	complete chan struct{}

	mu       sync.RWMutex
	byKey    map[types.NamespacedName]T
	byOwner  map[types.UID]map[types.NamespacedName]T
	byNS     map[string]map[types.NamespacedName]T
	handlers []func(old, now T)
}

func newView[T client.Object]() *view[T] {
	return &view[T]{
		complete: make(chan struct{}),
		byKey:    map[types.NamespacedName]T{},
		byOwner:  map[types.UID]map[types.NamespacedName]T{},
		byNS:     map[string]map[types.NamespacedName]T{},
	}
}

func (v *view[T]) ready() <-chan struct{} { return v.complete }

// onChange calls f after each change: old is nil for a new object, now for one
// that is gone. It must be called before run.
func (v *view[T]) onChange(f func(old, now T)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.handlers = append(v.handlers, f)
}

// Synced implements client.Follower.
func (v *view[T]) Synced() { close(v.complete) }

// Set implements client.Follower.
func (v *view[T]) Set(obj client.Object) {
	now := obj.(T)
	key := client.Key(obj)
	v.mu.Lock()
	old, existed := v.byKey[key]
	if existed {
		v.unindex(key, old)
	}
	v.byKey[key] = now
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
func (v *view[T]) Gone(obj client.Object) {
	key := client.Key(obj)
	var none T
	v.mu.Lock()
	old := v.byKey[key]
	v.unindex(key, old)
	delete(v.byKey, key)
	handlers := v.handlers
	v.mu.Unlock()
	for _, h := range handlers {
		h(old, none)
	}
}

func (v *view[T]) unindex(key types.NamespacedName, old T) {
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

func (v *view[T]) get(key types.NamespacedName) (T, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	obj, ok := v.byKey[key]
	return obj, ok
}

// all returns every object, in no order.
func (v *view[T]) all() []T {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return values(v.byKey)
}

func (v *view[T]) ownedBy(uid types.UID) []T {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return values(v.byOwner[uid])
}

func (v *view[T]) inNamespace(ns string) []T {
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
