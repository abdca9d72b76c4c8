package controllers

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/live"
)

// podBatch is how many Pods are created in one transaction.
const podBatch = 250

func replicaSetKind() metav1.GroupVersionKind {
	return metav1.GroupVersionKind{Group: "apps", Version: "v1", Kind: "ReplicaSet"}
}

// setForm is how a kind is seen as a ReplicaSet.
type setForm struct {
	kind schema.GroupVersionKind
	view setView
	// object is the one of the kind that a ReplicaSet stands for.
	object func(*appsv1.ReplicaSet) client.Object
	// put writes the status.
	put func(context.Context, *appsv1.ReplicaSet) error
}

// setView shows ReplicaSets, or what is seen as one.
type setView interface {
	Get(types.NamespacedName) (*appsv1.ReplicaSet, bool)
	InNamespace(string) []*appsv1.ReplicaSet
	Ready() <-chan struct{}
}

var _ setView = (*live.View[*appsv1.ReplicaSet])(nil)

// replicaSets keeps as many Pods as a ReplicaSet, or what is seen as one, wants.
type replicaSets struct {
	*cluster
	*horizons
	setForm
	loop *loop
}

func newReplicaSets(c *cluster) *replicaSets {
	r := newPodSets(c, "replicaset", setForm{
		kind: gvkOf(replicaSetKind()), view: c.ReplicaSets,
		object: func(rs *appsv1.ReplicaSet) client.Object { return rs },
		put:    func(ctx context.Context, rs *appsv1.ReplicaSet) error { return c.resources.UpdateStatus(ctx, rs) },
	})
	c.ReplicaSets.OnChange(func(old, now *appsv1.ReplicaSet) { r.changed(asObject(old), asObject(now)) })
	return r
}

// newPodSets makes the controller of a kind. The caller tells it of changes.
func newPodSets(c *cluster, name string, form setForm) *replicaSets {
	r := &replicaSets{cluster: c, horizons: newHorizons(), setForm: form}
	r.loop = newLoop(c, name, r.reconcile)
	c.Pods.OnChange(r.podChanged)
	c.Quotas.OnChange(func(old, now *corev1.ResourceQuota) {
		if !roomier(old, now) {
			return
		}
		for _, rs := range form.view.InNamespace(cmp.Or(now, old).Namespace) {
			if len(rs.Status.Conditions) > 0 { // its Pods were refused
				r.loop.add(rs)
			}
		}
	})
	c.orphanPods.onFound(func(p *corev1.Pod) {
		for _, rs := range form.view.InNamespace(p.Namespace) {
			if wouldAdopt(rs.Spec.Selector, p) {
				r.loop.add(rs)
			}
		}
	})
	return r
}

func (r *replicaSets) changed(old, now client.Object) {
	if now == nil {
		r.forget(old.GetUID())
		return
	}
	r.loop.add(now)
}

// Run works until the context ends.
func (r *replicaSets) Run(ctx context.Context) error {
	return r.loop.run(ctx, r.view, r.Pods, r.Namespaces)
}

func (r *replicaSets) podChanged(old, now *corev1.Pod) {
	pod := cmp.Or(now, old)
	ref := controllerOf(pod)
	if ref == nil || ref.Kind != r.kind.Kind {
		return
	}
	r.loop.queue.Add(types.NamespacedName{Namespace: pod.Namespace, Name: ref.Name})
}

func (r *replicaSets) reconcile(ctx context.Context, key types.NamespacedName) error {
	rs, ok := r.view.Get(key)
	if !ok {
		return nil
	}
	written, err := adopt(ctx, r.resources, family[*corev1.Pod]{
		owner: r.object(rs), ref: ownerRef(r.kind, rs), selector: rs.Spec.Selector, owned: r.Pods.OwnedBy(rs.UID),
		orphans: r.orphanPods.in(rs.Namespace), suits: podActive,
	})
	r.reach(rs.UID, newest(written...))
	if err != nil {
		return err
	}
	settled := r.settled(rs.UID, r.Pods)
	var active []*corev1.Pod
	for _, p := range r.Pods.OwnedBy(rs.UID) { // as they are once it is settled: with those that were just taken on
		if controls(rs, p) && podActive(p) {
			active = append(active, p)
		}
	}
	var failed error
	if !settled {
		r.loop.queue.AddAfter(key, unsettledAgain)
	} else if rs.DeletionTimestamp == nil && !r.going(rs.Namespace) {
		if failed = r.scale(ctx, rs, active); apierrors.IsConflict(failed) || ctx.Err() != nil {
			return failed
		}
	}
	if failed != nil {
		reason, doing := "FailedCreate", "creating"
		if len(active) > int(*rs.Spec.Replicas) {
			reason, doing = "FailedDelete", "deleting"
		}
		r.events.Warning(ctx, r.kind, rs, reason, "Error %s: %s", doing, failed.Error())
	}
	if err := r.updateStatus(ctx, rs, active, failed); err != nil {
		return err
	}
	return failed
}

func (r *replicaSets) scale(ctx context.Context, rs *appsv1.ReplicaSet, active []*corev1.Pod) error {
	switch want := int(*rs.Spec.Replicas); {
	case len(active) < want:
		return r.create(ctx, rs, want-len(active))
	case len(active) > want:
		slices.SortFunc(active, deletionOrder)
		return r.delete(ctx, rs, active[:len(active)-want])
	}
	return nil
}

func (r *replicaSets) create(ctx context.Context, rs *appsv1.ReplicaSet, n int) error {
	for n > 0 {
		batch := min(n, podBatch)
		n -= batch
		pods := make([]*corev1.Pod, batch)
		for i := range pods {
			pods[i] = r.podOf(rs)
		}
		tx := r.resources.Begin()
		pods, refused, err := createPods(ctx, tx, pods)
		if err == nil {
			err = tx.Commit(ctx)
		}
		if err != nil {
			return fmt.Errorf("create pods: %w", err)
		}
		r.reach(rs.UID, newest(pods...))
		for _, p := range pods {
			r.events.Normal(ctx, r.kind, rs, "SuccessfulCreate", "Created pod: %s", p.GetName())
		}
		if refused != nil {
			return refused
		}
	}
	return nil
}

func (r *replicaSets) delete(ctx context.Context, rs *appsv1.ReplicaSet, pods []*corev1.Pod) error {
	for _, p := range pods {
		gone := p.DeepCopy()
		err := r.resources.Delete(ctx, gone, client.DeleteOptions{UID: p.UID})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("delete pod %s: %w", p.Name, err)
		}
		r.reach(rs.UID, newest(gone))
		r.events.Normal(ctx, r.kind, rs, "SuccessfulDelete", "Deleted pod: %s", p.Name)
	}
	return nil
}

func (r *replicaSets) podOf(rs *appsv1.ReplicaSet) *corev1.Pod {
	t := rs.Spec.Template.DeepCopy()
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       rs.Namespace,
			GenerateName:    rs.Name + "-",
			Labels:          t.Labels,
			Annotations:     t.Annotations,
			Finalizers:      t.Finalizers,
			OwnerReferences: []metav1.OwnerReference{ownerRef(r.kind, rs)},
		},
		Spec: t.Spec,
	}
}

// deletionOrder puts first what is missed least: Pods without a node, not
// running, not ready, cheap by annotation, ready for a shorter time, restarted
// more often, newer (Kubernetes' ActivePodsWithRanks).
func deletionOrder(a, b *corev1.Pod) int {
	rank := map[corev1.PodPhase]int{corev1.PodPending: 0, corev1.PodUnknown: 1, corev1.PodRunning: 2}
	return cmp.Or(
		cmp.Compare(btoi(a.Spec.NodeName != ""), btoi(b.Spec.NodeName != "")),
		cmp.Compare(rank[a.Status.Phase], rank[b.Status.Phase]),
		cmp.Compare(btoi(podReady(a)), btoi(podReady(b))),
		cmp.Compare(deletionCost(a), deletionCost(b)),
		later(readySince(a), readySince(b)),
		cmp.Compare(podRestarts(b), podRestarts(a)),
		later(a.CreationTimestamp.Time, b.CreationTimestamp.Time),
		cmp.Compare(a.Name, b.Name),
	)
}

func later(a, b time.Time) int { return b.Compare(a) }

func readySince(p *corev1.Pod) time.Time {
	if c := podCondition(p, corev1.PodReady); c != nil && c.Status == corev1.ConditionTrue {
		return c.LastTransitionTime.Time
	}
	return time.Time{}
}

func deletionCost(p *corev1.Pod) int {
	n, err := strconv.Atoi(p.Annotations[corev1.PodDeletionCost])
	if err != nil {
		return 0
	}
	return n
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// updateStatus writes what is there, and comes back when a Pod will have been
// ready for long enough.
func (r *replicaSets) updateStatus(ctx context.Context, rs *appsv1.ReplicaSet, active []*corev1.Pod, failed error) error {
	status := appsv1.ReplicaSetStatus{ObservedGeneration: rs.Generation, Replicas: int32(len(active)), Conditions: failure(rs, failed, r.clock.Now())}
	template := labels.SelectorFromSet(rs.Spec.Template.Labels)
	minReady := time.Duration(rs.Spec.MinReadySeconds) * time.Second
	var again time.Duration
	for _, p := range active {
		if template.Matches(labels.Set(p.Labels)) {
			status.FullyLabeledReplicas++
		}
		if podReady(p) {
			status.ReadyReplicas++
		}
		available, wait := podAvailable(p, minReady, r.clock.Now())
		if available {
			status.AvailableReplicas++
		}
		if wait > 0 && (again == 0 || wait < again) {
			again = wait
		}
	}
	if again > 0 {
		r.loop.queue.AddAfter(client.Key(rs), again)
	}
	terminating := int32(0)
	for _, p := range r.Pods.OwnedBy(rs.UID) {
		if controls(rs, p) && p.DeletionTimestamp != nil && !podFinished(p) {
			terminating++
		}
	}
	status.TerminatingReplicas = &terminating
	if equality.Semantic.DeepEqual(status, rs.Status) {
		return nil
	}
	next := rs.DeepCopy()
	next.Status = status
	return r.put(ctx, next)
}

// failure is the condition that a failure to scale makes, none without one.
func failure(rs *appsv1.ReplicaSet, failed error, now time.Time) []appsv1.ReplicaSetCondition {
	if failed == nil {
		return nil
	}
	since := metav1.NewTime(now)
	for _, c := range rs.Status.Conditions {
		if c.Type == appsv1.ReplicaSetReplicaFailure && c.Status == corev1.ConditionTrue {
			since = c.LastTransitionTime
		}
	}
	return []appsv1.ReplicaSetCondition{{
		Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate",
		Message: failed.Error(), LastTransitionTime: since,
	}}
}
