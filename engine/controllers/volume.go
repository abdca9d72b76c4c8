package controllers

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
)

// volumes keeps the phase of volumes and carries out their reclaim policy when
// their claim is gone.
type volumes struct {
	*cluster
	loop *loop
}

func newVolumes(c *cluster) *volumes {
	r := &volumes{cluster: c}
	r.loop = newLoop(c, "volume", r.reconcile)
	c.Volumes.OnChange(func(_, now *corev1.PersistentVolume) {
		if now != nil {
			r.loop.add(now)
		}
	})
	c.Claims.OnChange(func(old, now *corev1.PersistentVolumeClaim) {
		for _, claim := range []*corev1.PersistentVolumeClaim{old, now} {
			if claim != nil && claim.Spec.VolumeName != "" {
				r.loop.queue.Add(types.NamespacedName{Name: claim.Spec.VolumeName})
			}
		}
	})
	return r
}

// Run works until the context ends.
func (r *volumes) Run(ctx context.Context) error {
	return r.loop.run(ctx, r.Volumes, r.Claims)
}

func (r *volumes) reconcile(ctx context.Context, key types.NamespacedName) error {
	pv, ok := r.Volumes.Get(key)
	if !ok {
		return nil
	}
	claimed, err := r.claimed(ctx, pv)
	if err != nil {
		return err
	}
	ref := pv.Spec.ClaimRef
	switch {
	case pv.DeletionTimestamp != nil && !claimed:
		return r.letGo(ctx, pv)
	case claimed:
		return r.phase(ctx, pv, corev1.VolumeBound, "")
	case ref == nil || ref.UID == "":
		return r.phase(ctx, pv, corev1.VolumeAvailable, "")
	case pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete:
		return r.phase(ctx, pv, corev1.VolumeReleased, "")
	case v1alpha1.NodeOfVolume(pv) == "":
		return r.phase(ctx, pv, corev1.VolumeFailed, "its data is not removed by Berth, which did not make it: remove it by hand, and then the volume")
	}
	if err := r.phase(ctx, pv, corev1.VolumeReleased, ""); err != nil {
		return err
	}
	return ignoreNotFound(r.resources.Delete(ctx, pv.DeepCopy(), client.DeleteOptions{UID: pv.UID}))
}

// claimed: the claim of the volume is there. The store is asked when the view
// does not show it, for much hangs on it.
func (r *volumes) claimed(ctx context.Context, pv *corev1.PersistentVolume) (bool, error) {
	ref := pv.Spec.ClaimRef
	if ref == nil || ref.UID == "" {
		return false, nil
	}
	key := types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
	if c, ok := r.Claims.Get(key); ok && c.UID == ref.UID {
		return true, nil
	}
	var c corev1.PersistentVolumeClaim
	err := r.resources.Get(ctx, key, &c)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up claim %s: %w", key, err)
	}
	return c.UID == ref.UID, nil
}

func (r *volumes) letGo(ctx context.Context, pv *corev1.PersistentVolume) error {
	if !slices.Contains(pv.Finalizers, v1alpha1.ProtectVolume) {
		return nil
	}
	next := pv.DeepCopy()
	next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == v1alpha1.ProtectVolume })
	return ignoreNotFound(r.resources.Update(ctx, next))
}

func (r *volumes) phase(ctx context.Context, pv *corev1.PersistentVolume, phase corev1.PersistentVolumePhase, message string) error {
	status := pv.Status.DeepCopy()
	status.Phase, status.Message = phase, message
	if phase != pv.Status.Phase {
		now := metav1.NewTime(r.clock.Now())
		status.LastPhaseTransitionTime = &now
	}
	if equality.Semantic.DeepEqual(*status, pv.Status) {
		return nil
	}
	next := pv.DeepCopy()
	next.Status = *status
	return ignoreNotFound(r.resources.UpdateStatus(ctx, next))
}
