package resources

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/store"
)

// attempts is how often a write without a resourceVersion is tried again when
// another one came between.
const attempts = 20

// Create implements client.Client.
func (r *Resources) Create(ctx context.Context, obj client.Object) error {
	return r.once(ctx, obj, true, func(t *Tx) error {
		obj.SetResourceVersion("")
		return t.Create(ctx, obj)
	})
}

// Update implements client.Client.
func (r *Resources) Update(ctx context.Context, obj client.Object) error {
	return r.once(ctx, obj, obj.GetResourceVersion() == "", func(t *Tx) error { return t.Update(ctx, obj) })
}

// UpdateStatus implements client.Client.
func (r *Resources) UpdateStatus(ctx context.Context, obj client.Object) error {
	return r.once(ctx, obj, obj.GetResourceVersion() == "", func(t *Tx) error { return t.UpdateStatus(ctx, obj) })
}

// UpdateEphemeralContainers adds ephemeral containers to a Pod: it is given all
// that the Pod shall have. A dry run only checks.
func (r *Resources) UpdateEphemeralContainers(ctx context.Context, pod *corev1.Pod, dryRun bool) error {
	if dryRun {
		return r.Begin().updateEphemeral(ctx, pod)
	}
	return r.once(ctx, pod, pod.ResourceVersion == "", func(t *Tx) error { return t.updateEphemeral(ctx, pod) })
}

// Delete implements client.Client.
func (r *Resources) Delete(ctx context.Context, obj client.Object, opts client.DeleteOptions) error {
	return r.once(ctx, obj, opts.ResourceVersion == "", func(t *Tx) error { return t.Delete(ctx, obj, opts) })
}

// once carries out a transaction of one change; when retry is true, a conflict
// with another writer is tried again.
func (r *Resources) once(ctx context.Context, obj client.Object, retry bool, change func(*Tx) error) error {
	original := obj.DeepCopyObject().(client.Object)
	for attempt := 1; ; attempt++ {
		t := r.Begin()
		err := change(t)
		if err == nil {
			err = t.Commit(ctx)
		}
		if err == nil || !retry || !apierrors.IsConflict(err) || attempt == attempts {
			return err
		}
		// A copy, for the next attempt may write into its slices and maps.
		assign(obj, original.DeepCopyObject())
	}
}

// Bind gives a Pod its node. It fails with a Conflict when the Pod is another
// one by now, is going away or has a node, and when a claim that it mounts is going
// away: a claim that no Pod on a node mounts can be gone in the next moment.
func (r *Resources) Bind(ctx context.Context, key types.NamespacedName, uid types.UID, node string) error {
	row := r.byKind[corev1.SchemeGroupVersion.WithKind("Pod")]
	for attempt := 1; ; attempt++ {
		obj, kv, err := r.load(ctx, row, key.Namespace, key.Name)
		if err != nil {
			return err
		}
		pod := obj.(*corev1.Pod)
		if why := unbindable(pod, uid); why != "" {
			return apierrors.NewConflict(row.GroupResource(), key.Name, fmt.Errorf("bind to %s: %s", node, why))
		}
		pod.Spec.NodeName = node
		setCondition(pod, corev1.PodCondition{
			Type: corev1.PodScheduled, Status: corev1.ConditionTrue,
			LastTransitionTime: metav1.NewTime(r.clock.Now()), ObservedGeneration: pod.Generation,
		})
		value, err := encode(pod)
		if err != nil {
			return apierrors.NewInternalError(err)
		}
		t := r.Begin()
		if err := t.holdClaims(ctx, pod); err != nil {
			return err
		}
		if err := t.add(&change{row: row, result: pod, main: &store.Op{Key: kv.Key, Value: value, Expect: kv.Revision}}); err != nil {
			return err
		}
		if err := t.Commit(ctx); !apierrors.IsConflict(err) || attempt == attempts {
			return err
		}
	}
}

func unbindable(pod *corev1.Pod, uid types.UID) string {
	switch {
	case uid != "" && pod.UID != uid:
		return "the pod was created anew"
	case pod.DeletionTimestamp != nil:
		return "the pod is being deleted"
	case pod.Spec.NodeName != "":
		return "the pod is on node " + pod.Spec.NodeName + " already"
	}
	return ""
}

func setCondition(pod *corev1.Pod, c corev1.PodCondition) {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == c.Type {
			pod.Status.Conditions[i] = c
			return
		}
	}
	pod.Status.Conditions = append(pod.Status.Conditions, c)
}

// FinalizeNamespace removes Berth's own finalizer from a Namespace that is being
// deleted and is empty, which removes the Namespace. It fails with a Conflict when
// there is another one of the name by now.
func (r *Resources) FinalizeNamespace(ctx context.Context, ns *corev1.Namespace) error {
	row := r.byKind[corev1.SchemeGroupVersion.WithKind("Namespace")]
	obj, kv, err := r.load(ctx, row, "", ns.Name)
	if err != nil {
		return err
	}
	if obj.GetUID() != ns.UID || obj.GetDeletionTimestamp() == nil {
		return apierrors.NewConflict(row.GroupResource(), ns.Name, errUID)
	}
	obj.(*corev1.Namespace).Spec.Finalizers = nil
	t := r.Begin()
	if err := t.put(&change{row: row, result: obj}, obj, kv); err != nil {
		return err
	}
	return t.Commit(ctx)
}

// SetNamespaceFinalizers replaces the finalizers in a Namespace's spec; without
// any, one that is being deleted goes.
func (r *Resources) SetNamespaceFinalizers(ctx context.Context, ns *corev1.Namespace) error {
	return r.once(ctx, ns, ns.ResourceVersion == "", func(t *Tx) error {
		row := r.byKind[corev1.SchemeGroupVersion.WithKind("Namespace")]
		obj, kv, err := r.load(ctx, row, "", ns.Name)
		if err != nil {
			return err
		}
		if err := sameObject(row, ns, obj); err != nil {
			return err
		}
		next := obj.(*corev1.Namespace)
		next.Spec.Finalizers = ns.Spec.Finalizers
		*ns = *next
		return t.put(&change{row: row, result: ns}, ns, kv)
	})
}

// ValidateCreate says what is wrong with an object that is not in the cluster,
// after filling in its defaults. obj is changed.
func (r *Resources) ValidateCreate(obj client.Object) field.ErrorList {
	row, err := r.Of(obj)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	r.Begin().name(row, obj)
	r.begin(row, obj)
	return r.upstream.ValidateCreate(obj)
}

// ValidateUpdate says what is wrong with a change of old into obj, after
// filling in the defaults of obj and what it takes over from old. obj is changed.
func (r *Resources) ValidateUpdate(obj, old client.Object) field.ErrorList {
	row, err := r.Of(obj)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	carryOver(row, obj, old)
	r.upstream.Default(obj)
	return r.upstream.ValidateUpdate(obj, old)
}

func invalid(row *Resource, obj client.Object, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(row.GroupVersionKind.GroupKind(), obj.GetName(), errs)
}

// CreateAll creates objects in one transaction and fills them with what was stored.
func (r *Resources) CreateAll(ctx context.Context, objs []client.Object) error {
	t := r.Begin()
	for _, obj := range objs {
		if err := t.Create(ctx, obj); err != nil {
			return err
		}
	}
	return t.Commit(ctx)
}
