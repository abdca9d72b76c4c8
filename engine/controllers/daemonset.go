package controllers

import (
	"cmp"
	"context"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/utils/ptr"
)

// Waits before the failed Pod of a node is replaced.
const (
	daemonRetryFirst = time.Second
	daemonRetryMax   = 15 * time.Minute
)

func daemonSetKind() schema.GroupVersionKind { return appsv1.SchemeGroupVersion.WithKind("DaemonSet") }

// daemonSets keeps one Pod on each node that is eligible. What it does is one
// transaction over the status, the history and the Pods.
type daemonSets struct {
	*cluster
	*horizons
	templates *templates
	loop      *loop
	backoff   *flowcontrol.Backoff
}

func newDaemonSets(c *cluster) *daemonSets {
	r := &daemonSets{cluster: c, horizons: newHorizons(), templates: &templates{known: map[types.UID]templateData{}}, backoff: flowcontrol.NewBackOff(daemonRetryFirst, daemonRetryMax)}
	r.backoff.Clock = c.clock
	r.loop = newLoop(c, "daemonset", r.reconcile)
	c.DaemonSets.OnChange(func(old, now *appsv1.DaemonSet) {
		if now == nil {
			r.forget(old.UID)
			r.backoff.GC() // drops what has been over for long, of all sets
			r.templates.forget(old.UID)
			return
		}
		r.loop.add(now)
	})
	c.Pods.OnChange(func(old, now *corev1.Pod) {
		pod := cmp.Or(now, old)
		if ref := controllerOf(pod); ref != nil && ref.Kind == "DaemonSet" {
			r.loop.queue.Add(types.NamespacedName{Namespace: pod.Namespace, Name: ref.Name})
		}
	})
	c.Nodes.OnChange(func(old, now *corev1.Node) {
		if old != nil && now != nil && equality.Semantic.DeepEqual(daemonView(old), daemonView(now)) {
			return
		}
		for _, set := range c.DaemonSets.All() {
			r.loop.add(set)
		}
	})
	c.orphanPods.onFound(func(p *corev1.Pod) {
		for _, set := range c.DaemonSets.InNamespace(p.Namespace) {
			if wouldAdopt(set.Spec.Selector, p) {
				r.loop.add(set)
			}
		}
	})
	c.Revisions.OnChange(func(old, now *appsv1.ControllerRevision) {
		rev := cmp.Or(now, old)
		if ref := controllerOf(rev); ref != nil && ref.Kind == "DaemonSet" {
			r.loop.queue.Add(types.NamespacedName{Namespace: rev.Namespace, Name: ref.Name})
		}
	})
	return r
}

// daemonView is what of a node decides whether it is to have a Pod.
func daemonView(n *corev1.Node) any { return []any{n.Labels, n.Spec.Taints} }

// Run works until the context ends.
func (r *daemonSets) Run(ctx context.Context) error {
	return r.loop.run(ctx, r.DaemonSets, r.Pods, r.Nodes, r.Revisions, r.Namespaces)
}

func (r *daemonSets) reconcile(ctx context.Context, key types.NamespacedName) error {
	set, ok := r.DaemonSets.Get(key)
	if !ok || set.DeletionTimestamp != nil {
		return nil
	}
	if !r.settled(set.UID, r.Pods) {
		r.loop.queue.AddAfter(key, unsettledAgain)
		return nil
	}
	pods := r.Pods.OwnedBy(set.UID)
	written, err := adopt(ctx, r.resources, family[*corev1.Pod]{
		owner: set, ref: ownerRef(daemonSetKind(), set), selector: set.Spec.Selector, owned: pods,
		orphans: r.orphanPods.in(set.Namespace), suits: podActive,
	})
	r.reach(set.UID, newest(written...))
	if err != nil || len(written) > 0 {
		return err // their events bring the key back
	}
	revisions, err := r.adoptRevisions(ctx, set, daemonSetKind(), set.Spec.Selector)
	if err != nil || revisions {
		return err
	}
	o := owner{Object: set, kind: daemonSetKind(), template: &set.Spec.Template, collisions: set.Status.CollisionCount, limit: set.Spec.RevisionHistoryLimit}
	h := historyOf(o, r.templates.of(o), r.Revisions.OwnedBy(set.UID))
	if h.collision {
		return r.collided(ctx, set)
	}
	hash := h.update.Labels[appsv1.ControllerRevisionHashLabelKey]
	step := decideDaemonSet(set, hash, r.Nodes.All(), pods, r.clock.Now(), r.retry)
	if step.again > 0 {
		r.loop.queue.AddAfter(key, step.again)
	}
	if r.going(set.Namespace) {
		step.create = nil
	}
	used := map[string]bool{}
	for _, p := range pods {
		used[set.Name+"-"+p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]] = true
	}
	err = r.carryOut(ctx, set, &h, &step, h.surplus(o.limit, used))
	if len(step.create) > 0 && isRefusal(err) {
		r.events.Warning(ctx, daemonSetKind(), set, "FailedCreate", "Error creating: %s", err.Error())
	}
	return err
}

// retry is how long a Pod that has failed is left before another one takes its place.
func (r *daemonSets) retry(p *corev1.Pod) time.Duration {
	ref := controllerOf(p)
	id := string(ref.UID) + "/" + daemonTarget(p)
	now := r.clock.Now()
	if r.backoff.IsInBackOffSinceUpdate(id, now) {
		return max(r.backoff.Get(id), daemonRetryFirst)
	}
	r.backoff.Next(id, now)
	return 0
}

// collided: the name of the new revision belongs to another template.
func (r *daemonSets) collided(ctx context.Context, set *appsv1.DaemonSet) error {
	next := set.DeepCopy()
	next.Status.CollisionCount = new(ptr.Deref(set.Status.CollisionCount, 0) + 1)
	return r.resources.UpdateStatus(ctx, next)
}

func (r *daemonSets) carryOut(ctx context.Context, set *appsv1.DaemonSet, h *history, step *daemonStep, surplus []*appsv1.ControllerRevision) error {
	create := step.create[:min(len(step.create), podBatch)]
	if len(create)+len(step.remove) == 0 && !h.changes(surplus) && equality.Semantic.DeepEqual(step.status, set.Status) {
		return nil
	}
	tx := r.resources.Begin()
	if err := h.write(ctx, tx, surplus); err != nil {
		return err
	}
	create, refused, err := createPods(ctx, tx, create)
	if err != nil {
		return err
	}
	if refused != nil && len(create)+len(step.remove) == 0 && !h.changes(surplus) && equality.Semantic.DeepEqual(step.status, set.Status) {
		return refused
	}
	gone, err := deletePods(ctx, tx, step.remove)
	if err != nil {
		return err
	}
	next := set.DeepCopy()
	next.Status = step.status
	if err := updatePinned(ctx, tx, next); err != nil {
		return err
	}
	err = tx.Commit(ctx)
	if h.taken(ctx, r.resources, set, set.Spec.Selector, err) {
		return r.collided(ctx, set)
	}
	if err != nil {
		return err
	}
	r.reach(set.UID, max(newest(create...), newest(gone...)))
	for _, p := range create {
		r.events.Normal(ctx, daemonSetKind(), set, "SuccessfulCreate", "Created pod: %s", p.Name)
	}
	for _, p := range step.remove {
		r.events.Normal(ctx, daemonSetKind(), set, "SuccessfulDelete", "Deleted pod: %s", p.Name)
	}
	return refused
}
