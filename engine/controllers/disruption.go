package controllers

import (
	"cmp"
	"context"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/live"
)

// disruptedFor is how long an eviction that was allowed counts as on its way
// when the Pod does not go (PodDisruptionBudgetStatus.DisruptedPods).
const disruptedFor = 2 * time.Minute

// disruption keeps the status of PodDisruptionBudgets: how many of their Pods
// may be evicted at the moment.
type disruption struct {
	*cluster
	loop *loop
}

func newDisruption(c *cluster) *disruption {
	d := &disruption{cluster: c}
	d.loop = newLoop(c, "disruption", d.reconcile)
	c.Budgets.OnChange(func(_, now *policyv1.PodDisruptionBudget) {
		if now != nil {
			d.loop.add(now)
		}
	})
	c.Pods.OnChange(func(old, now *corev1.Pod) {
		for _, pod := range []*corev1.Pod{old, now} {
			if pod == nil {
				continue
			}
			for _, b := range d.Budgets.InNamespace(pod.Namespace) {
				if budgetSelector(b).Matches(labels.Set(pod.Labels)) {
					d.loop.add(b)
				}
			}
		}
	})
	onWish(d, c.Deployments, func(o *appsv1.Deployment) *int32 { return o.Spec.Replicas })
	onWish(d, c.ReplicaSets, func(o *appsv1.ReplicaSet) *int32 { return o.Spec.Replicas })
	onWish(d, c.StatefulSets, func(o *appsv1.StatefulSet) *int32 { return o.Spec.Replicas })
	onWish(d, c.Controllers, func(o *corev1.ReplicationController) *int32 { return o.Spec.Replicas })
	return d
}

// onWish counts anew when an owner of Pods comes, goes or wants another number of
// them: a share of them is another number then.
func onWish[T interface {
	client.Object
	comparable
}](d *disruption, view *live.View[T], wish func(T) *int32) {
	view.OnChange(func(old, now T) {
		var none T
		if old != none && now != none && ptr.Equal(wish(old), wish(now)) {
			return
		}
		for _, b := range d.Budgets.InNamespace(cmp.Or(now, old).GetNamespace()) {
			d.loop.add(b)
		}
	})
}

// Run works until the context ends.
func (d *disruption) Run(ctx context.Context) error {
	return d.loop.run(ctx, d.Budgets, d.Pods, d.Deployments, d.ReplicaSets, d.StatefulSets, d.Controllers)
}

// budgetSelector: an empty selector selects everything (policy/v1).
func budgetSelector(b *policyv1.PodDisruptionBudget) labels.Selector {
	s, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil {
		return labels.Nothing() // refused by validation
	}
	return s
}

func (d *disruption) reconcile(ctx context.Context, key types.NamespacedName) error {
	b, ok := d.Budgets.Get(key)
	if !ok || b.DeletionTimestamp != nil {
		return nil
	}
	selector := budgetSelector(b)
	pods := slices.DeleteFunc(d.Pods.InNamespace(b.Namespace), func(p *corev1.Pod) bool { return !selector.Matches(labels.Set(p.Labels)) })
	next := b.DeepCopy()
	wait := d.count(&next.Status, b, pods)
	if wait > 0 {
		d.loop.queue.AddAfter(key, wait)
	}
	if equality.Semantic.DeepEqual(next.Status, b.Status) {
		return nil
	}
	return ignoreNotFound(d.resources.UpdateStatus(ctx, next))
}

// count fills in the status, and says when it will change by itself.
func (d *disruption) count(s *policyv1.PodDisruptionBudgetStatus, b *policyv1.PodDisruptionBudget, pods []*corev1.Pod) time.Duration {
	now := d.clock.Now()
	disrupted, wait := disruptedPods(b, pods, now)
	s.ObservedGeneration = b.Generation
	s.DisruptedPods = disrupted
	s.CurrentHealthy, s.ExpectedPods = 0, d.expected(pods)
	for _, p := range pods {
		_, going := disrupted[p.Name]
		if podActive(p) && podReady(p) && !going {
			s.CurrentHealthy++
		}
	}
	s.DesiredHealthy = desiredHealthy(&b.Spec, s.ExpectedPods)
	s.DisruptionsAllowed = max(0, s.CurrentHealthy-s.DesiredHealthy)
	if s.ExpectedPods == 0 {
		s.DisruptionsAllowed = 0
	}
	c := metav1.Condition{Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.InsufficientPodsReason, ObservedGeneration: b.Generation}
	if s.DisruptionsAllowed > 0 {
		c.Status, c.Reason = metav1.ConditionTrue, policyv1.SufficientPodsReason
	}
	c.LastTransitionTime = metav1.NewTime(now)
	meta.SetStatusCondition(&s.Conditions, c)
	return wait
}

// disruptedPods are the evictions that are on their way: allowed a moment ago,
// and the Pod is still there and not yet marked.
func disruptedPods(b *policyv1.PodDisruptionBudget, pods []*corev1.Pod, now time.Time) (map[string]metav1.Time, time.Duration) {
	var left map[string]metav1.Time
	var wait time.Duration
	for _, p := range pods {
		at, ok := b.Status.DisruptedPods[p.Name]
		until := at.Add(disruptedFor)
		if !ok || p.DeletionTimestamp != nil || !now.Before(until) {
			continue
		}
		if left == nil {
			left = map[string]metav1.Time{}
		}
		left[p.Name] = at
		if d := until.Sub(now); wait == 0 || d < wait {
			wait = d
		}
	}
	return left, wait
}

func desiredHealthy(spec *policyv1.PodDisruptionBudgetSpec, expected int32) int32 {
	if spec.MinAvailable != nil {
		return share(spec.MinAvailable, expected)
	}
	if spec.MaxUnavailable != nil {
		return max(0, expected-share(spec.MaxUnavailable, expected))
	}
	return expected
}

// share is a number, or a percentage of n rounded up.
func share(v *intstr.IntOrString, n int32) int32 {
	out, err := intstr.GetScaledValueFromIntOrPercent(v, int(n), true)
	if err != nil {
		return n // refused by validation
	}
	return int32(out)
}

// expected is how many Pods their controllers want in all; a Pod without one
// counts for itself.
func (d *disruption) expected(pods []*corev1.Pod) int32 {
	var n int32
	seen := map[types.UID]bool{}
	for _, p := range pods {
		ref := controllerOf(p)
		if ref == nil {
			n++
			continue
		}
		uid, wanted := d.controller(p.Namespace, ref)
		if wanted == nil {
			n++ // of a kind whose wish is not known: it counts for itself too
			continue
		}
		if !seen[uid] {
			seen[uid] = true
			n += *wanted
		}
	}
	return n
}

// controller is who decides how many Pods there are, and what it wants: the
// StatefulSet, or the Deployment of a ReplicaSet, whichever of its ReplicaSets a
// Pod is of.
func (d *disruption) controller(ns string, ref *metav1.OwnerReference) (types.UID, *int32) {
	if rc, ok := d.Controllers.Get(types.NamespacedName{Namespace: ns, Name: ref.Name}); ok && ref.Kind == "ReplicationController" && rc.UID == ref.UID {
		return rc.UID, rc.Spec.Replicas
	}
	if ref.Kind == "StatefulSet" {
		set, ok := d.StatefulSets.Get(types.NamespacedName{Namespace: ns, Name: ref.Name})
		if !ok || set.UID != ref.UID {
			return ref.UID, nil
		}
		return set.UID, set.Spec.Replicas
	}
	rs, ok := d.ReplicaSets.Get(types.NamespacedName{Namespace: ns, Name: ref.Name})
	if ref.Kind != "ReplicaSet" || !ok || rs.UID != ref.UID {
		return ref.UID, nil
	}
	if above := controllerOf(rs); above != nil {
		dep, ok := d.Deployments.Get(types.NamespacedName{Namespace: ns, Name: above.Name})
		if ok && dep.UID == above.UID {
			return dep.UID, dep.Spec.Replicas
		}
	}
	return rs.UID, rs.Spec.Replicas
}
