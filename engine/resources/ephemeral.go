package resources

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"berth.dev/berth/api/client"
)

// UpdateEphemeral replaces the ephemeral containers of a Pod, to which only new
// ones can be added, and nothing else of it.
func (r *Resources) UpdateEphemeral(ctx context.Context, obj client.Object) error {
	return r.once(ctx, obj, obj.GetResourceVersion() == "", func(t *Tx) error { return t.UpdateEphemeral(ctx, obj) })
}

// UpdateEphemeral is the same within a transaction.
func (t *Tx) UpdateEphemeral(ctx context.Context, obj client.Object) error {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return apierrors.NewBadRequest("only a Pod has ephemeral containers")
	}
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
	next := old.DeepCopyObject().(*corev1.Pod)
	next.Spec.EphemeralContainers = pod.Spec.EphemeralContainers
	next.ManagedFields = pod.ManagedFields
	t.r.upstream.Default(next)
	if err := invalid(row, next, t.r.upstream.ValidateEphemeral(next, old.(*corev1.Pod))); err != nil {
		return err
	}
	next.Generation++
	assign(obj, next)
	return t.put(&change{row: row, result: obj}, obj, kv)
}
