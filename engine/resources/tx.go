package resources

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/store"
)

// Tx gathers changes to many objects that are carried out together or not at
// all. Each change is prepared, defaulted and validated when it is added. It is
// used by one goroutine, once.
type Tx struct {
	r       *Resources
	changes []*change
	byKey   map[string]*change
	// reserved are the addresses and ports taken by earlier changes, with the
	// Service that has them.
	reserved map[string]string
	// released are those that earlier changes give up.
	released map[string]bool
	// quotas and limits of the namespaces that were asked for, as the changes leave
	// them.
	quotas map[string][]*metered
	limits map[string][]corev1.LimitRangeItem
	// kept are operations on no object: what is kept of commits.
	kept []store.Op
	// reads are objects that must not change until the transaction is carried out, by
	// their keys.
	reads map[string]read
}

// change is one object's part of a transaction.
type change struct {
	row *Resource
	// main is the operation on the object itself, nil when nothing changes.
	main *store.Op
	// extra are the reservations that go with it.
	extra []store.Op
	// result is the object that the caller handed in, to be filled.
	result client.Object
	// version the object has if nothing changes.
	version string
}

// Begin starts a transaction.
func (r *Resources) Begin() *Tx {
	return &Tx{r: r, byKey: map[string]*change{}, reads: map[string]read{}, reserved: map[string]string{}, released: map[string]bool{},
		quotas: map[string][]*metered{}, limits: map[string][]corev1.LimitRangeItem{}}
}

// Create adds a new object and fills obj with what will be stored.
func (t *Tx) Create(ctx context.Context, obj client.Object) error {
	return t.create(ctx, obj, nil, store.Absent)
}

// Replace puts a new object in the place of an existing one: it has a UID of
// its own, so what the old one owned is collected.
func (t *Tx) Replace(ctx context.Context, obj client.Object) error {
	row, err := t.r.Of(obj)
	if err != nil {
		return err
	}
	old, kv, err := t.r.load(ctx, row, obj.GetNamespace(), obj.GetName())
	if err != nil {
		return err
	}
	obj.SetResourceVersion("")
	if s, ok := obj.(*corev1.Service); ok {
		keepClusterIP(s, old) // clients go on with the address that they know
	}
	return t.create(ctx, obj, old, kv.Revision)
}

func (t *Tx) create(ctx context.Context, obj, old client.Object, expect int64) error {
	row, err := t.r.Of(obj)
	if err != nil {
		return err
	}
	if obj.GetResourceVersion() != "" {
		return apierrors.NewBadRequest("resourceVersion must not be set on a new object")
	}
	t.name(row, obj)
	t.r.begin(row, obj)
	if err := t.checkNamespace(ctx, row, obj); err != nil {
		return err
	}
	if err := t.admit(ctx, obj); err != nil {
		return err
	}
	if err := t.recount(ctx, obj, nil); err != nil {
		return err
	}
	if err := invalid(row, obj, t.r.upstream.ValidateCreate(obj)); err != nil {
		return err
	}
	if err := t.meter(ctx, row, obj, old); err != nil {
		return err
	}
	c := &change{row: row, result: obj}
	if s, ok := obj.(*corev1.Service); ok {
		was, _ := old.(*corev1.Service)
		if c.extra, err = t.reserveForService(ctx, s, was); err != nil {
			return err
		}
	}
	value, err := c.row.encode(obj)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	c.main = &store.Op{Key: row.key(obj.GetNamespace(), obj.GetName()), Value: value, Expect: expect}
	return t.add(c)
}

// name makes a name out of generateName, one that the transaction does not have
// yet: of a batch of 1,000, two random names are equal now and then.
func (t *Tx) name(row *Resource, obj client.Object) {
	if obj.GetName() != "" || obj.GetGenerateName() == "" {
		return
	}
	for {
		obj.SetName(generateName(obj.GetGenerateName()))
		if t.byKey[row.key(obj.GetNamespace(), obj.GetName())] == nil {
			return
		}
	}
}

// begin gives a new object its UID and its defaults.
func (r *Resources) begin(row *Resource, obj client.Object) {
	if was := obj.GetUID(); was != "" && row.forget != nil {
		row.forget(obj, was)
	}
	obj.SetUID(uuid.NewUUID())
	obj.SetCreationTimestamp(metav1.NewTime(r.clock.Now()))
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
	obj.SetSelfLink("")
	if row.spec != nil {
		obj.SetGeneration(1)
	}
	if row.status != nil && row.status.clear != nil {
		row.status.clear(obj)
	}
	if row.prepareCreate != nil {
		row.prepareCreate(obj)
	}
	r.upstream.Default(obj)
}

// Update replaces everything but the status of an existing object.
func (t *Tx) Update(ctx context.Context, obj client.Object) error {
	row, err := t.r.Of(obj)
	if err != nil {
		return err
	}
	old, kv, err := t.r.load(ctx, row, obj.GetNamespace(), obj.GetName())
	if err != nil {
		return err
	}
	if err := sameObject(row, obj, old); err != nil {
		return err
	}
	carryOver(row, obj, old)
	t.r.upstream.Default(obj)
	t.r.noteSchedule(obj, old)
	if c, ok := obj.(*corev1.PersistentVolumeClaim); ok {
		if err := t.expandable(ctx, c, old.(*corev1.PersistentVolumeClaim)); err != nil {
			return err
		}
		if err := t.rangeClaim(ctx, c); err != nil {
			return err
		}
	}
	if err := t.recount(ctx, obj, old); err != nil {
		return err
	}
	if row.spec != nil && !equality.Semantic.DeepEqual(row.spec(obj), row.spec(old)) {
		obj.SetGeneration(old.GetGeneration() + 1)
	}
	if err := invalid(row, obj, t.r.upstream.ValidateUpdate(obj, old)); err != nil {
		return err
	}
	if growing(row) {
		if err := t.meter(ctx, row, obj, old); err != nil {
			return err
		}
	}
	c := &change{row: row, result: obj}
	if s, ok := obj.(*corev1.Service); ok {
		if c.extra, err = t.reserveForService(ctx, s, old.(*corev1.Service)); err != nil {
			return err
		}
	}
	return t.put(c, obj, kv)
}

// UpdateStatus replaces the status alone.
func (t *Tx) UpdateStatus(ctx context.Context, obj client.Object) error {
	row, err := t.r.Of(obj)
	if err != nil {
		return err
	}
	if row.status == nil {
		return apierrors.NewBadRequest(fmt.Sprintf("%s has no status", row.Plural))
	}
	next, kv, err := t.r.load(ctx, row, obj.GetNamespace(), obj.GetName())
	if err != nil {
		return err
	}
	if err := sameObject(row, obj, next); err != nil {
		return err
	}
	old := next.DeepCopyObject().(client.Object)
	row.status.copy(next, obj)
	if err := invalid(row, next, t.r.upstream.ValidateStatus(next, old)); err != nil {
		return err
	}
	assign(obj, next)
	return t.put(&change{row: row, result: obj}, obj, kv)
}

// updateEphemeral replaces the ephemeral containers of a Pod alone. Those that
// are there cannot be changed or taken away.
func (t *Tx) updateEphemeral(ctx context.Context, pod *corev1.Pod) error {
	row := t.r.byKind[corev1.SchemeGroupVersion.WithKind("Pod")]
	old, kv, err := t.r.load(ctx, row, pod.Namespace, pod.Name)
	if err != nil {
		return err
	}
	if err := sameObject(row, pod, old); err != nil {
		return err
	}
	was := old.(*corev1.Pod)
	next := was.DeepCopy()
	next.Spec.EphemeralContainers, next.ManagedFields = pod.Spec.EphemeralContainers, pod.ManagedFields
	t.r.upstream.Default(next)
	if !equality.Semantic.DeepEqual(next.Spec, was.Spec) {
		next.Generation++
	}
	if err := invalid(row, next, t.r.upstream.ValidateEphemeralContainers(next, was)); err != nil {
		return err
	}
	*pod = *next
	return t.put(&change{row: row, result: pod}, pod, kv)
}

// put adds the write of an object that exists, if anything differs.
func (t *Tx) put(c *change, obj client.Object, kv store.KV) error {
	if obj.GetDeletionTimestamp() != nil && len(obj.GetFinalizers()) == 0 && graceOver(obj) {
		return t.remove(c, obj, kv)
	}
	value, err := c.row.encode(obj)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if bytes.Equal(value, kv.Value) {
		c.version = strconv.FormatInt(kv.Revision, 10)
	} else {
		c.main = &store.Op{Key: kv.Key, Value: value, Expect: kv.Revision}
	}
	return t.add(c)
}

// Delete removes an object. A running Pod is given its grace period first, and
// an object with finalizers waits for them.
func (t *Tx) Delete(ctx context.Context, obj client.Object, opts client.DeleteOptions) error {
	return t.delete(ctx, obj, opts, func(client.Object) {})
}

// Discard deletes an object and takes a finalizer off it, as one change: nobody
// waits for that finalizer any more. It fails with a Conflict when the object is
// not the one that the caller has read.
func (t *Tx) Discard(ctx context.Context, obj client.Object, finalizer string) error {
	opts := client.DeleteOptions{UID: obj.GetUID(), ResourceVersion: obj.GetResourceVersion()}
	return t.delete(ctx, obj, opts, func(next client.Object) {
		next.SetFinalizers(slices.DeleteFunc(next.GetFinalizers(), func(f string) bool { return f == finalizer }))
	})
}

// delete deletes an object after an edit of it.
func (t *Tx) delete(ctx context.Context, obj client.Object, opts client.DeleteOptions, edit func(client.Object)) error {
	row, err := t.r.Of(obj)
	if err != nil {
		return err
	}
	old, kv, err := t.r.load(ctx, row, obj.GetNamespace(), obj.GetName())
	if err != nil {
		return err
	}
	if err := preconditions(row, old, opts); err != nil {
		return err
	}
	if row.Kind == "Namespace" && slices.Contains(lasting(), old.GetName()) {
		return apierrors.NewForbidden(row.GroupResource(), old.GetName(), errors.New("the cluster needs this namespace; delete what is in it instead"))
	}
	c := &change{row: row, result: obj}
	next := old.DeepCopyObject().(client.Object)
	edit(next)
	if !t.r.terminate(next, opts) {
		assign(obj, old)
		return t.remove(c, old, kv)
	}
	assign(obj, next)
	return t.put(c, obj, kv)
}

// Pin makes the transaction write an object that it changes, even when nothing
// of it differs: the whole then fails if somebody else has written the object
// since it was read, and the object has a new version afterwards.
func (t *Tx) Pin(obj client.Object) error {
	row, err := t.r.Of(obj)
	if err != nil {
		return err
	}
	c := t.byKey[row.key(obj.GetNamespace(), obj.GetName())]
	if c == nil || c.main != nil {
		return nil
	}
	expect, err := strconv.ParseInt(c.version, 10, 64)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	value, err := row.encode(c.result)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	c.main = &store.Op{Key: row.key(obj.GetNamespace(), obj.GetName()), Value: value, Expect: expect}
	return nil
}

// lasting are the Namespaces that are never deleted, as in Kubernetes.
func lasting() []string { return []string{"default", "kube-system", "kube-public", "kube-node-lease"} }

// remove adds the deletion of an object.
func (t *Tx) remove(c *change, obj client.Object, kv store.KV) error {
	if s, ok := obj.(*corev1.Service); ok {
		c.extra = t.releaseService(s)
	}
	c.main = &store.Op{Key: kv.Key, Expect: kv.Revision}
	return t.add(c)
}

func (t *Tx) add(c *change) error {
	key := c.row.key(c.result.GetNamespace(), c.result.GetName())
	if t.byKey[key] != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("%s %s is changed twice in one transaction", c.row.Kind, c.result.GetName()))
	}
	switch o := c.result.(type) {
	case *corev1.ResourceQuota:
		t.requota(o, c.main != nil && c.main.Value == nil)
	case *corev1.LimitRange:
		delete(t.limits, o.Namespace) // asked for again, as they are now
	}
	t.byKey[key] = c
	t.changes = append(t.changes, c)
	return nil
}

// Commit carries the changes out. When one of the objects was changed by
// somebody else meanwhile, nothing happens and the error is a Conflict (or
// AlreadyExists for a creation).
func (t *Tx) Commit(ctx context.Context) error {
	charges, err := t.quotaOps()
	if err != nil {
		return err
	}
	var ops []store.Op
	for _, c := range t.changes {
		// What one change gives up and another one takes is written once.
		c.extra = slices.DeleteFunc(c.extra, func(op store.Op) bool { return op.Value == nil && t.reserved[op.Key] != "" })
		if c.main != nil {
			ops = append(ops, *c.main)
		}
		ops = append(ops, c.extra...)
	}
	ops = append(append(ops, t.kept...), charges...)
	if len(ops) > 0 {
		ops = append(ops, t.checks()...)
	}
	if len(ops) == 0 {
		t.fill(nil)
		return nil
	}
	revisions, err := t.r.store.Txn(ctx, ops)
	if err != nil {
		return t.explain(err)
	}
	t.fill(revisions)
	return nil
}

// fill gives the objects the versions they now have.
func (t *Tx) fill(revisions []int64) {
	for _, c := range t.changes {
		c.result.GetObjectKind().SetGroupVersionKind(c.row.GroupVersionKind)
		if c.main == nil {
			c.result.SetResourceVersion(c.version)
		} else {
			c.result.SetResourceVersion(strconv.FormatInt(revisions[0], 10))
			revisions = revisions[1:]
		}
		revisions = revisions[min(len(revisions), len(c.extra)):]
	}
}

// carryOver keeps what an update cannot change.
func carryOver(row *Resource, obj, old client.Object) {
	obj.SetUID(old.GetUID())
	obj.SetResourceVersion(old.GetResourceVersion())
	obj.SetCreationTimestamp(old.GetCreationTimestamp())
	obj.SetDeletionTimestamp(old.GetDeletionTimestamp())
	obj.SetDeletionGracePeriodSeconds(old.GetDeletionGracePeriodSeconds())
	obj.SetGeneration(old.GetGeneration())
	obj.SetGenerateName(old.GetGenerateName())
	obj.SetSelfLink("")
	if row.status != nil {
		row.status.copy(obj, old)
	}
	if row.prepareUpdate != nil {
		row.prepareUpdate(obj, old)
	}
}

// generateName appends five characters, as Kubernetes does.
func generateName(prefix string) string {
	const suffix, longest = 5, 63
	if len(prefix) > longest-suffix {
		prefix = prefix[:longest-suffix]
	}
	return prefix + rand.String(suffix)
}

// Managed reports the Source that owns an object.
func Managed(obj metav1.Object) (source string, ok bool) {
	source, ok = obj.GetLabels()[v1alpha1.LabelSource]
	return source, ok && obj.GetAnnotations()[v1alpha1.AnnotationOrigin] != ""
}
