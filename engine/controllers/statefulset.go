package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"berth.dev/berth/api/client"
)

func statefulSetKind() schema.GroupVersionKind {
	return appsv1.SchemeGroupVersion.WithKind("StatefulSet")
}

// statefulSets keeps Pods with lasting names. What it does is one transaction
// over the status, the history, the Pods and the claims. An ordinal has one Pod,
// for a Pod's name is taken until its node has said that it has stopped.
type statefulSets struct {
	*cluster
	*horizons
	templates *templates
	loop      *loop
}

func newStatefulSets(c *cluster) *statefulSets {
	r := &statefulSets{cluster: c, horizons: newHorizons(), templates: &templates{known: map[types.UID]templateData{}}}
	r.loop = newLoop(c, "statefulset", r.reconcile)
	c.StatefulSets.OnChange(func(old, now *appsv1.StatefulSet) {
		if now == nil {
			r.forget(old.UID)
			r.templates.forget(old.UID)
			return
		}
		r.loop.add(now)
	})
	c.Pods.OnChange(func(old, now *corev1.Pod) {
		pod := cmp.Or(now, old)
		if ref := controllerOf(pod); ref != nil && ref.Kind == "StatefulSet" {
			r.loop.queue.Add(types.NamespacedName{Namespace: pod.Namespace, Name: ref.Name})
		}
	})
	c.orphanPods.onFound(func(p *corev1.Pod) {
		for _, set := range c.StatefulSets.InNamespace(p.Namespace) {
			if wouldAdopt(set.Spec.Selector, p) {
				r.loop.add(set)
			}
		}
	})
	c.Revisions.OnChange(func(old, now *appsv1.ControllerRevision) {
		rev := cmp.Or(now, old)
		if ref := controllerOf(rev); ref != nil && ref.Kind == "StatefulSet" {
			r.loop.queue.Add(types.NamespacedName{Namespace: rev.Namespace, Name: ref.Name})
		}
	})
	c.Claims.OnChange(func(old, now *corev1.PersistentVolumeClaim) {
		claim := cmp.Or(now, old)
		for _, set := range c.StatefulSets.InNamespace(claim.Namespace) {
			if len(set.Spec.VolumeClaimTemplates) > 0 {
				r.loop.add(set)
			}
		}
	})
	return r
}

// Run works until the context ends.
func (r *statefulSets) Run(ctx context.Context) error {
	return r.loop.run(ctx, r.StatefulSets, r.Pods, r.Claims, r.Revisions, r.Namespaces)
}

func (r *statefulSets) reconcile(ctx context.Context, key types.NamespacedName) error {
	set, ok := r.StatefulSets.Get(key)
	if !ok || set.DeletionTimestamp != nil {
		return nil
	}
	if !r.settled(set.UID, r.Pods) {
		r.loop.queue.AddAfter(key, unsettledAgain)
		return nil
	}
	pods := r.Pods.OwnedBy(set.UID)
	written, err := adopt(ctx, r.resources, family[*corev1.Pod]{
		owner: set, ref: ownerRef(statefulSetKind(), set), selector: set.Spec.Selector, owned: pods,
		orphans: r.orphanPods.in(set.Namespace), suits: func(p *corev1.Pod) bool { return podActive(p) && ordinalOf(set, p.Name) != noOrdinal },
	})
	r.reach(set.UID, newest(written...))
	if err != nil || len(written) > 0 {
		return err // their events bring the key back
	}
	revisions, err := r.adoptRevisions(ctx, set, statefulSetKind(), set.Spec.Selector)
	if err != nil || revisions {
		return err
	}
	o := owner{Object: set, kind: statefulSetKind(), template: &set.Spec.Template, collisions: set.Status.CollisionCount, limit: set.Spec.RevisionHistoryLimit}
	h := historyOf(o, r.templates.of(o), r.Revisions.OwnedBy(set.UID))
	if h.collision {
		return r.collided(ctx, set)
	}
	in := statefulInput{set: set, update: h.update.Name, current: h.update.Name, pods: pods, now: r.clock.Now(), claim: func(name string) *corev1.PersistentVolumeClaim {
		c, _ := r.Claims.Get(types.NamespacedName{Namespace: set.Namespace, Name: name})
		return c
	}}
	if before := h.named(set.Status.CurrentRevision); before != nil && before != h.update {
		template, err := templateOf(before)
		if err != nil {
			return err
		}
		in.current, in.before = before.Name, template
	}
	step := decideStatefulSet(in)
	if step.again > 0 {
		r.loop.queue.AddAfter(key, step.again)
	}
	if r.going(set.Namespace) {
		step.create, step.claims = nil, nil
	}
	used := map[string]bool{step.status.CurrentRevision: true}
	for _, p := range pods {
		used[revisionOfPod(p)] = true
	}
	taken := r.leaveTaken(ctx, set, &step)
	return errors.Join(r.carryOut(ctx, set, &h, &step, h.surplus(o.limit, used)), taken)
}

// leaveTaken leaves the Pods out of a step whose names Pods have that are not the
// set's: the others are made all the same. The error has the key tried again.
func (r *statefulSets) leaveTaken(ctx context.Context, set *appsv1.StatefulSet, step *statefulStep) error {
	var taken []error
	step.create = slices.DeleteFunc(step.create, func(p *corev1.Pod) bool {
		have, ok := r.Pods.Get(client.Key(p))
		if !ok || controls(set, have) {
			return false
		}
		err := errors.New("a pod of that name exists and is not of the set; delete or rename it")
		r.createFailed(ctx, set, p, err)
		taken = append(taken, fmt.Errorf("create pod %s: %w", p.Name, err))
		return true
	})
	return errors.Join(taken...)
}

func (r *statefulSets) createFailed(ctx context.Context, set *appsv1.StatefulSet, p *corev1.Pod, err error) {
	r.events.Warning(ctx, statefulSetKind(), set, "FailedCreate", "create Pod %s in StatefulSet %s failed: %s", p.Name, set.Name, err.Error())
}

// collided: the name of the new revision belongs to another template.
func (r *statefulSets) collided(ctx context.Context, set *appsv1.StatefulSet) error {
	next := set.DeepCopy()
	next.Status.CollisionCount = new(ptr.Deref(set.Status.CollisionCount, 0) + 1)
	return r.resources.UpdateStatus(ctx, next)
}

func (r *statefulSets) carryOut(ctx context.Context, set *appsv1.StatefulSet, h *history, step *statefulStep, surplus []*appsv1.ControllerRevision) error {
	changes := len(step.create) + len(step.remove) + len(step.claims) + len(step.owned)
	if changes == 0 && !h.changes(surplus) && equality.Semantic.DeepEqual(step.status, set.Status) {
		return nil
	}
	step.create = step.create[:min(len(step.create), podBatch)]
	tx := r.resources.Begin()
	if err := h.write(ctx, tx, surplus); err != nil {
		return err
	}
	for _, c := range step.claims {
		if err := tx.Create(ctx, c); err != nil {
			return err
		}
	}
	for _, c := range step.owned {
		if err := tx.Update(ctx, c); err != nil {
			return fmt.Errorf("give claim %s its owner: %w", c.Name, err)
		}
	}
	made, refused, err := createPods(ctx, tx, step.create)
	if err != nil {
		return err
	}
	if refused != nil {
		r.createFailed(ctx, set, step.create[len(made)], refused)
	}
	if refused != nil && len(made)+len(step.remove)+len(step.claims)+len(step.owned) == 0 && !h.changes(surplus) && equality.Semantic.DeepEqual(step.status, set.Status) {
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
	r.reach(set.UID, max(newest(made...), newest(gone...)))
	r.tell(ctx, set, step, made)
	return refused
}

// tell records what was done.
func (r *statefulSets) tell(ctx context.Context, set *appsv1.StatefulSet, step *statefulStep, made []*corev1.Pod) {
	for _, c := range step.claims {
		r.events.Normal(ctx, statefulSetKind(), set, "SuccessfulCreate", "create Claim %s in StatefulSet %s successful", c.Name, set.Name)
	}
	for _, p := range made {
		r.events.Normal(ctx, statefulSetKind(), set, "SuccessfulCreate", "create Pod %s in StatefulSet %s successful", p.Name, set.Name)
	}
	for _, p := range step.remove {
		r.events.Normal(ctx, statefulSetKind(), set, "SuccessfulDelete", "delete Pod %s in StatefulSet %s successful", p.Name, set.Name)
	}
}
