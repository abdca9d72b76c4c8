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
	c.Nodes.OnChange(func(_, now *corev1.Node) {
		if now != nil {
			return
		}
		for _, pv := range r.Volumes.All() {
			if pv.DeletionTimestamp != nil {
				r.loop.add(pv) // its node may be gone
			}
		}
	})
	return r
}

// Run works until the context ends.
func (r *volumes) Run(ctx context.Context) error {
	return r.loop.run(ctx, r.Volumes, r.Claims, r.Nodes)
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

// letGo ends the protection of a volume that is being deleted. Its data is removed
// by the agent of its node; with a node that was deleted the data is gone, too.
func (r *volumes) letGo(ctx context.Context, pv *corev1.PersistentVolume) error {
	gone := []string{v1alpha1.ProtectVolume}
	if slices.Contains(pv.Finalizers, v1alpha1.FinalizerVolume) {
		node := v1alpha1.NodeOfVolume(pv)
		switch err := r.resources.Get(ctx, types.NamespacedName{Name: node}, &corev1.Node{}); {
		case err == nil:
			if err := r.phase(ctx, pv, corev1.VolumeReleased, "waits for the agent of node "+node+" to remove its data; delete the node if it does not come back"); err != nil {
				return err
			}
		case !apierrors.IsNotFound(err):
			return fmt.Errorf("look up node %s: %w", node, err)
		default:
			gone = append(gone, v1alpha1.FinalizerVolume)
		}
	}
	// Its finalizers as they are now: the agent removes one, too.
	next := &corev1.PersistentVolume{}
	if err := r.resources.Get(ctx, client.Key(pv), next); err != nil || next.UID != pv.UID {
		return ignoreNotFound(err)
	}
	before := len(next.Finalizers)
	next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return slices.Contains(gone, f) })
	if len(next.Finalizers) == before {
		return nil
	}
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
