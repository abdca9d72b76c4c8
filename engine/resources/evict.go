package resources

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
)

// Evict deletes a Pod unless its PodDisruptionBudget forbids it, as
// policy/v1 Eviction says: the error is TooManyRequests then, and trying again
// later is right. The deletion and the budget's share of it are one write. A
// dry run only decides.
func (r *Resources) Evict(ctx context.Context, key types.NamespacedName, opts client.DeleteOptions, dryRun bool) error {
	for attempt := 1; ; attempt++ {
		t := r.Begin()
		if err := t.evict(ctx, key, opts); err != nil {
			return err
		}
		if dryRun {
			return nil
		}
		err := t.Commit(ctx)
		if !apierrors.IsConflict(err) || opts.ResourceVersion != "" || attempt == attempts {
			return err
		}
	}
}

func (t *Tx) evict(ctx context.Context, key types.NamespacedName, opts client.DeleteOptions) error {
	var pod corev1.Pod
	if err := t.r.Get(ctx, key, &pod); err != nil {
		return err
	}
	if pod.Status.Phase != corev1.PodPending && !finished(&pod) && pod.DeletionTimestamp == nil {
		budget, err := t.budgetOf(ctx, &pod)
		if err != nil {
			return err
		}
		if err := t.charge(ctx, budget, &pod); err != nil {
			return err
		}
	}
	return t.disrupt(ctx, &pod, opts, "EvictionByEvictionAPI", "Eviction API: evicting")
}

// disrupt deletes a Pod and says on it why. A Job's podFailurePolicy reads that.
func (t *Tx) disrupt(ctx context.Context, pod *corev1.Pod, opts client.DeleteOptions, reason, message string) error {
	return t.delete(ctx, pod, opts, func(next client.Object) {
		setCondition(next.(*corev1.Pod), corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason, Message: message,
			LastTransitionTime: metav1.NewTime(t.r.clock.Now()), ObservedGeneration: next.GetGeneration(),
		})
	})
}

// Preempt deletes a Pod with its grace period to make room for one of a higher
// priority. Budgets have been weighed by whoever chose it. A Pod that is going
// already, or was created anew, is left alone.
func (r *Resources) Preempt(ctx context.Context, key types.NamespacedName, uid types.UID) error {
	return r.Disrupt(ctx, key, uid, corev1.PodReasonPreemptionByScheduler, "preempted to make room for a pod of a higher priority")
}

// Disrupt deletes a Pod with its grace period and says why in its condition
// DisruptionTarget. A Pod that is going already, or was created anew, is left alone.
func (r *Resources) Disrupt(ctx context.Context, key types.NamespacedName, uid types.UID, reason, message string) error {
	for attempt := 1; ; attempt++ {
		var pod corev1.Pod
		if err := r.Get(ctx, key, &pod); err != nil {
			return err
		}
		if pod.UID != uid || pod.DeletionTimestamp != nil {
			return nil
		}
		t := r.Begin()
		err := t.disrupt(ctx, &pod, client.DeleteOptions{UID: uid}, reason, message)
		if err != nil {
			return err
		}
		if err := t.Commit(ctx); !apierrors.IsConflict(err) || attempt == attempts {
			return err
		}
	}
}

// budgetOf finds the one budget that selects a Pod, or nil.
func (t *Tx) budgetOf(ctx context.Context, pod *corev1.Pod) (*policyv1.PodDisruptionBudget, error) {
	var all policyv1.PodDisruptionBudgetList
	if err := t.r.List(ctx, &all, client.ListOptions{Namespace: pod.Namespace}); err != nil {
		return nil, err
	}
	var found []*policyv1.PodDisruptionBudget
	for i := range all.Items {
		selector, err := metav1.LabelSelectorAsSelector(all.Items[i].Spec.Selector)
		if err == nil && selector.Matches(labels.Set(pod.Labels)) {
			found = append(found, &all.Items[i])
		}
	}
	if len(found) > 1 {
		return nil, apierrors.NewInternalError(fmt.Errorf("pod %s is selected by the PodDisruptionBudgets %s and %s; an eviction can obey only one", pod.Name, found[0].Name, found[1].Name))
	}
	if len(found) == 0 {
		return nil, nil
	}
	return found[0], nil
}

// charge takes a disruption from a budget.
func (t *Tx) charge(ctx context.Context, b *policyv1.PodDisruptionBudget, pod *corev1.Pod) error {
	if b == nil {
		return nil
	}
	if !ready(pod) {
		policy := policyv1.IfHealthyBudget
		if b.Spec.UnhealthyPodEvictionPolicy != nil {
			policy = *b.Spec.UnhealthyPodEvictionPolicy
		}
		// A Pod that does not serve takes nothing away from those that do.
		if policy == policyv1.AlwaysAllow || (b.Status.CurrentHealthy >= b.Status.DesiredHealthy && b.Status.DesiredHealthy > 0) {
			return nil
		}
	}
	if b.Status.ObservedGeneration < b.Generation {
		return refused(b, fmt.Sprintf("The disruption budget %s is still being processed by the server.", b.Name))
	}
	if b.Status.DisruptionsAllowed <= 0 {
		return refused(b, fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", b.Name, b.Status.DesiredHealthy, b.Status.CurrentHealthy))
	}
	b.Status.DisruptionsAllowed--
	if b.Status.DisruptedPods == nil {
		b.Status.DisruptedPods = map[string]metav1.Time{}
	}
	b.Status.DisruptedPods[pod.Name] = metav1.NewTime(t.r.clock.Now())
	return t.UpdateStatus(ctx, b)
}

func refused(b *policyv1.PodDisruptionBudget, why string) error {
	err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
	err.ErrStatus.Code = http.StatusTooManyRequests
	err.ErrStatus.Details.Kind, err.ErrStatus.Details.Name = "poddisruptionbudgets", b.Name
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: why})
	return err
}

func ready(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
