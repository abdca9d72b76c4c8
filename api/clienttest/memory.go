// Package clienttest has an in-memory client.Client for tests, and the contract
// suite that every client.Client must pass. It is for tests alone.
package clienttest

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/watch"

	"berth.dev/berth/api/client"
)

// Memory is a small API server in memory: revisions, watches with selectors,
// a status of its own, and the graceful deletion of Pods. It neither defaults
// nor validates, and collects no garbage.
type Memory struct {
	mu       sync.Mutex
	revision int64
	objects  map[string]map[types.NamespacedName]client.Object // by type
	log      []change
	watchers map[*watcher]bool
	down     error
}

type change struct {
	kind     string
	revision int64
	before   client.Object // nil when it is new
	after    client.Object // nil when it is gone
}

var _ client.Client = (*Memory)(nil)

// NewMemory returns an empty one.
func NewMemory() *Memory {
	return &Memory{revision: 1, objects: map[string]map[types.NamespacedName]client.Object{}, watchers: map[*watcher]bool{}}
}

// SetDown makes every call fail with err, and ends all watches, until it is set
// to nil: a control plane that is away.
func (m *Memory) SetDown(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = err
	if err != nil {
		for w := range m.watchers {
			w.end()
			delete(m.watchers, w)
		}
	}
}

func kindOf(obj runtime.Object) string { return reflect.TypeOf(obj).Elem().String() }

func itemKind(list client.ObjectList) string { return strings.TrimSuffix(kindOf(list), "List") }

func resourceOf(obj runtime.Object) schema.GroupResource {
	name := reflect.TypeOf(obj).Elem().Name()
	return schema.GroupResource{Resource: strings.ToLower(name) + "s"}
}

func clone(obj client.Object) client.Object { return obj.DeepCopyObject().(client.Object) }

func fill(into, from client.Object) {
	reflect.ValueOf(into).Elem().Set(reflect.ValueOf(clone(from)).Elem())
}

// Get implements client.Client.
func (m *Memory) Get(_ context.Context, key types.NamespacedName, into client.Object) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return m.down
	}
	obj := m.objects[kindOf(into)][key]
	if obj == nil {
		return apierrors.NewNotFound(resourceOf(into), key.Name)
	}
	fill(into, obj)
	return nil
}

// List implements client.Client.
func (m *Memory) List(_ context.Context, into client.ObjectList, opts client.ListOptions) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return m.down
	}
	var found []client.Object
	for _, obj := range m.objects[itemKind(into)] {
		if selects(opts, obj) {
			found = append(found, clone(obj))
		}
	}
	slices.SortFunc(found, func(a, b client.Object) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	items := make([]runtime.Object, len(found))
	for i := range found {
		items[i] = found[i]
	}
	if err := meta.SetList(into, items); err != nil {
		return err
	}
	into.SetResourceVersion(strconv.FormatInt(m.revision, 10))
	return nil
}

func selects(opts client.ListOptions, obj client.Object) bool {
	if obj == nil || opts.Namespace != "" && obj.GetNamespace() != opts.Namespace {
		return false
	}
	if opts.Labels != nil && !opts.Labels.Matches(labels.Set(obj.GetLabels())) {
		return false
	}
	set := fields.Set{"metadata.name": obj.GetName(), "metadata.namespace": obj.GetNamespace()}
	if pod, ok := obj.(*corev1.Pod); ok {
		set["spec.nodeName"], set["status.phase"] = pod.Spec.NodeName, string(pod.Status.Phase)
	}
	return opts.Fields == nil || opts.Fields.Matches(set)
}

// Create implements client.Client.
func (m *Memory) Create(_ context.Context, obj client.Object) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return m.down
	}
	if obj.GetResourceVersion() != "" {
		return apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	}
	next := clone(obj)
	if next.GetName() == "" && next.GetGenerateName() != "" {
		next.SetName(next.GetGenerateName() + string(uuid.NewUUID())[:5])
	}
	if m.objects[kindOf(obj)][client.Key(next)] != nil {
		return apierrors.NewAlreadyExists(resourceOf(obj), next.GetName())
	}
	if next.GetUID() == "" {
		next.SetUID(uuid.NewUUID())
	}
	if created := next.GetCreationTimestamp(); created.IsZero() {
		next.SetCreationTimestamp(metav1.Now().Rfc3339Copy())
	}
	next.SetGeneration(1)
	m.store(nil, next)
	fill(obj, next)
	return nil
}

// Update implements client.Client.
func (m *Memory) Update(_ context.Context, obj client.Object) error {
	return m.replace(obj, func(live, next client.Object) {
		copyStatus(next, live)
		if !reflect.DeepEqual(spec(live), spec(next)) {
			next.SetGeneration(live.GetGeneration() + 1)
		}
	})
}

// UpdateStatus implements client.Client.
func (m *Memory) UpdateStatus(_ context.Context, obj client.Object) error {
	return m.replace(obj, func(live, next client.Object) {
		wanted := clone(next)
		fill(next, live)
		copyStatus(next, wanted)
	})
}

func (m *Memory) replace(obj client.Object, merge func(live, next client.Object)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return m.down
	}
	live := m.objects[kindOf(obj)][client.Key(obj)]
	if live == nil {
		return apierrors.NewNotFound(resourceOf(obj), obj.GetName())
	}
	if v := obj.GetResourceVersion(); v != "" && v != live.GetResourceVersion() {
		return apierrors.NewConflict(resourceOf(obj), obj.GetName(), fmt.Errorf("the object has been modified; please apply your changes to the latest version and try again"))
	}
	if uid := obj.GetUID(); uid != "" && uid != live.GetUID() {
		return apierrors.NewConflict(resourceOf(obj), obj.GetName(), fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s)", uid, live.GetUID()))
	}
	next := clone(obj)
	merge(live, next)
	next.SetUID(live.GetUID())
	next.SetCreationTimestamp(live.GetCreationTimestamp())
	next.SetDeletionTimestamp(live.GetDeletionTimestamp())
	next.SetDeletionGracePeriodSeconds(live.GetDeletionGracePeriodSeconds())
	if next.GetGeneration() == 0 {
		next.SetGeneration(live.GetGeneration())
	}
	next.SetResourceVersion(live.GetResourceVersion())
	if reflect.DeepEqual(live, next) { // nothing changes, nothing is written
		fill(obj, live)
		return nil
	}
	m.store(live, next)
	fill(obj, next)
	return nil
}

func field(obj client.Object, name string) reflect.Value {
	return reflect.ValueOf(obj).Elem().FieldByName(name)
}

func spec(obj client.Object) any {
	if f := field(obj, "Spec"); f.IsValid() {
		return f.Interface()
	}
	return nil
}

func copyStatus(to, from client.Object) {
	if f := field(to, "Status"); f.IsValid() {
		f.Set(field(clone(from), "Status"))
	}
}

// Delete implements client.Client.
func (m *Memory) Delete(_ context.Context, obj client.Object, opts client.DeleteOptions) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return m.down
	}
	live := m.objects[kindOf(obj)][client.Key(obj)]
	if live == nil {
		return apierrors.NewNotFound(resourceOf(obj), obj.GetName())
	}
	if opts.UID != "" && opts.UID != live.GetUID() || opts.ResourceVersion != "" && opts.ResourceVersion != live.GetResourceVersion() {
		return apierrors.NewConflict(resourceOf(obj), obj.GetName(), fmt.Errorf("the precondition of the deletion does not hold"))
	}
	if pod, ok := live.(*corev1.Pod); ok {
		if grace := podGrace(pod, opts.GracePeriodSeconds); grace > 0 {
			m.markDeleted(pod, grace)
			return nil
		}
	}
	m.store(live, nil)
	return nil
}

// podGrace is 0 for a Pod that no node runs: nothing has to be stopped.
func podGrace(pod *corev1.Pod, asked *int64) int64 {
	if pod.Spec.NodeName == "" || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return 0
	}
	grace := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if pod.Spec.TerminationGracePeriodSeconds != nil {
		grace = *pod.Spec.TerminationGracePeriodSeconds
	}
	if asked != nil {
		grace = *asked
	}
	return grace
}

// markDeleted notes the wish to delete. A later one can only shorten the time.
func (m *Memory) markDeleted(pod *corev1.Pod, grace int64) {
	if have := pod.DeletionGracePeriodSeconds; pod.DeletionTimestamp != nil && have != nil && *have <= grace {
		return
	}
	next := pod.DeepCopy()
	now := metav1.Now().Rfc3339Copy()
	next.DeletionTimestamp, next.DeletionGracePeriodSeconds = &now, &grace
	next.Generation++
	m.store(pod, next)
}

// store writes a change and tells the watchers. The caller holds m.mu.
func (m *Memory) store(before, after client.Object) {
	m.revision++
	version := strconv.FormatInt(m.revision, 10)
	c := change{revision: m.revision, before: before, after: after}
	if after != nil {
		c.kind = kindOf(after)
		after.SetResourceVersion(version)
		if m.objects[c.kind] == nil {
			m.objects[c.kind] = map[types.NamespacedName]client.Object{}
		}
		m.objects[c.kind][client.Key(after)] = after
	} else {
		c.kind = kindOf(before)
		delete(m.objects[c.kind], client.Key(before))
		c.before = clone(before)
		c.before.SetResourceVersion(version)
	}
	m.log = append(m.log, c)
	for w := range m.watchers {
		w.send(c)
	}
}

// Watch implements client.Client.
func (m *Memory) Watch(ctx context.Context, list client.ObjectList, opts client.ListOptions) (watch.Interface, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return nil, m.down
	}
	w := &watcher{m: m, kind: itemKind(list), opts: opts, out: make(chan watch.Event), wake: make(chan struct{}, 1), done: make(chan struct{})}
	from := m.revision
	if v := opts.ResourceVersion; v != "" && v != "0" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("resourceVersion %q is not a number", v))
		}
		from = n
	}
	for _, c := range m.log {
		if c.revision > from {
			w.send(c)
		}
	}
	m.watchers[w] = true
	go w.run(ctx)
	return w, nil
}
