package controllers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/resources"
)

// What controllers ask of a Pod.

func podFinished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// podActive: not finished and not going away.
func podActive(p *corev1.Pod) bool { return p.DeletionTimestamp == nil && !podFinished(p) }

func podCondition(p *corev1.Pod, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == t {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

func podReady(p *corev1.Pod) bool {
	c := podCondition(p, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// podAvailable: ready for minReady. When it is not yet, wait is how long it
// will take, or 0 when it isn't ready.
func podAvailable(p *corev1.Pod, minReady time.Duration, now time.Time) (available bool, wait time.Duration) {
	if !podReady(p) {
		return false, 0
	}
	if minReady == 0 {
		return true, 0
	}
	since := podCondition(p, corev1.PodReady).LastTransitionTime
	left := since.Add(minReady).Sub(now)
	return left <= 0, max(left, 0)
}

func podRestarts(p *corev1.Pod) int32 {
	var n int32
	for _, s := range p.Status.ContainerStatuses {
		n = max(n, s.RestartCount)
	}
	return n
}

// isRefusal: the object itself cannot be written as it is, however often it is
// tried.
func isRefusal(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsBadRequest(err)
}

// unnamed is a refusal without the random end of a name that nobody will see again:
// it is the same however often it is tried, so a condition stays as it is, and an
// event is counted.
func unnamed(err error, p *corev1.Pod) error {
	var status *apierrors.StatusError
	if p.GenerateName == "" || p.Name == "" || !errors.As(err, &status) {
		return err
	}
	out := &apierrors.StatusError{ErrStatus: status.ErrStatus}
	out.ErrStatus.Message = strings.ReplaceAll(out.ErrStatus.Message, p.Name, p.GenerateName+"*")
	return out
}

// createPods adds Pods to a transaction: all of them, or those before the first
// that is refused, such as by a quota.
func createPods(ctx context.Context, tx *resources.Tx, pods []*corev1.Pod) (made []*corev1.Pod, refused, err error) {
	for i, p := range pods {
		switch err := tx.Create(ctx, p); {
		case isRefusal(err):
			return pods[:i], unnamed(err, p), nil
		case err != nil:
			return nil, nil, err
		}
	}
	return pods, nil, nil
}

// deletePods adds the deletion of Pods to a transaction. The Pods it returns are
// as the transaction leaves them.
func deletePods(ctx context.Context, tx *resources.Tx, pods []*corev1.Pod) ([]*corev1.Pod, error) {
	var gone []*corev1.Pod
	for _, p := range pods {
		p = p.DeepCopy()
		if err := tx.Delete(ctx, p, client.DeleteOptions{UID: p.UID}); ignoreNotFound(err) != nil {
			return nil, fmt.Errorf("delete pod %s: %w", p.Name, err)
		}
		gone = append(gone, p)
	}
	return gone, nil
}

// updatePinned adds the new status of an owner of Pods to a transaction, which
// then fails when the owner is no longer as it was read: who looked at the same
// one must not do the same again.
func updatePinned(ctx context.Context, tx *resources.Tx, owner client.Object) error {
	if err := tx.UpdateStatus(ctx, owner); err != nil {
		return err
	}
	return tx.Pin(owner)
}
