package controllers

import (
	"cmp"
	"context"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/strategy"
)

// annotationRevision numbers the ReplicaSets of a Deployment, as Kubernetes does.
const annotationRevision = "deployment.kubernetes.io/revision"

func gvkOf(k metav1.GroupVersionKind) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: k.Group, Version: k.Version, Kind: k.Kind}
}

func deploymentKind() schema.GroupVersionKind {
	return appsv1.SchemeGroupVersion.WithKind("Deployment")
}

// deployments rolls the Pods of a Deployment from one template to the next.
type deployments struct {
	*cluster
	*horizons
	loop *loop
}

func newDeployments(c *cluster) *deployments {
	d := &deployments{cluster: c, horizons: newHorizons()}
	d.loop = newLoop(c, "deployment", d.reconcile)
	c.Deployments.OnChange(func(old, now *appsv1.Deployment) {
		if now == nil {
			d.forget(old.UID)
			return
		}
		d.loop.add(now)
	})
	c.ReplicaSets.OnChange(func(old, now *appsv1.ReplicaSet) {
		rs := cmp.Or(now, old)
		if ref := controllerOf(rs); ref != nil && ref.Kind == "Deployment" {
			d.loop.queue.Add(types.NamespacedName{Namespace: rs.Namespace, Name: ref.Name})
		}
	})
	c.orphanSets.onFound(func(rs *appsv1.ReplicaSet) {
		for _, dep := range c.Deployments.InNamespace(rs.Namespace) {
			if wouldAdopt(dep.Spec.Selector, rs) {
				d.loop.add(dep)
			}
		}
	})
	// Recreate waits for the last Pod to be gone.
	c.Pods.OnChange(func(old, now *corev1.Pod) {
		if now != nil {
			return
		}
		if ref := controllerOf(old); ref != nil && ref.Kind == "ReplicaSet" {
			if rs, ok := c.ReplicaSets.Get(types.NamespacedName{Namespace: old.Namespace, Name: ref.Name}); ok {
				if owner := controllerOf(rs); owner != nil {
					d.loop.queue.Add(types.NamespacedName{Namespace: rs.Namespace, Name: owner.Name})
				}
			}
		}
	})
	return d
}

// Run works until the context ends.
func (d *deployments) Run(ctx context.Context) error {
	return d.loop.run(ctx, d.Deployments, d.ReplicaSets, d.Pods)
}

// rollout is one Deployment with its ReplicaSets, as reconcile sees it.
type rollout struct {
	deployment *appsv1.Deployment
	// current has the Deployment's template; nil before it is created.
	current *appsv1.ReplicaSet
	// old are all others, the oldest first.
	old []*appsv1.ReplicaSet
}

func (d *deployments) reconcile(ctx context.Context, key types.NamespacedName) error {
	dep, ok := d.Deployments.Get(key)
	if !ok || dep.DeletionTimestamp != nil {
		return nil
	}
	if !d.settled(dep.UID, d.ReplicaSets) { // what was just made would be made again, or not counted
		d.loop.queue.AddAfter(key, unsettledAgain)
		return nil
	}
	written, err := adopt(ctx, d.resources, family[*appsv1.ReplicaSet]{
		owner: dep, ref: ownerRef(deploymentKind(), dep), selector: dep.Spec.Selector,
		orphans: d.orphanSets.in(dep.Namespace), owned: d.ReplicaSets.OwnedBy(dep.UID),
	})
	if err != nil || len(written) > 0 {
		return err // their events bring the key back
	}
	r := d.observe(dep)
	if err := d.step(ctx, &r); err != nil {
		return err
	}
	if err := d.cleanUp(ctx, &r); err != nil {
		return err
	}
	return d.updateStatus(ctx, &r)
}

func (d *deployments) observe(dep *appsv1.Deployment) rollout {
	r := rollout{deployment: dep}
	for _, rs := range d.ReplicaSets.OwnedBy(dep.UID) {
		if controls(dep, rs) && rs.DeletionTimestamp == nil {
			r.old = append(r.old, rs.DeepCopy())
		}
	}
	slices.SortFunc(r.old, func(a, b *appsv1.ReplicaSet) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	for i, rs := range r.old {
		if sameTemplate(&rs.Spec.Template, &dep.Spec.Template) {
			r.current = rs
			r.old = slices.Delete(r.old, i, i+1)
			break
		}
	}
	return r
}

// sameTemplate compares without the label that the controller adds.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	a, b = a.DeepCopy(), b.DeepCopy()
	delete(a.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	delete(b.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	return equality.Semantic.DeepEqual(a, b)
}

// step moves a rollout by what may be done now.
func (d *deployments) step(ctx context.Context, r *rollout) error {
	dep := r.deployment
	recreate := dep.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType
	if !recreate {
		if resized, err := d.scaleInMid(ctx, r); resized || err != nil {
			return err
		}
	}
	if dep.Spec.Paused {
		return d.scaleActive(ctx, r)
	}
	if recreate {
		waiting, err := d.stopOld(ctx, r)
		if waiting || err != nil {
			return err
		}
	}
	if r.current == nil {
		return d.createReplicaSet(ctx, r)
	}
	if err := d.syncReplicaSet(ctx, r); err != nil {
		return err
	}
	if recreate {
		return d.scale(ctx, r, r.current, *dep.Spec.Replicas)
	}
	return d.roll(ctx, r)
}

// scaleActive follows a change of replicas while the rollout is paused.
func (d *deployments) scaleActive(ctx context.Context, r *rollout) error {
	var active *appsv1.ReplicaSet
	for _, rs := range r.all() {
		if *rs.Spec.Replicas > 0 {
			if active != nil {
				return nil // in the middle of a rollout: scaleInMid keeps the balance
			}
			active = rs
		}
	}
	if active == nil {
		active = r.current
	}
	if active == nil {
		return nil
	}
	return d.scale(ctx, r, active, *r.deployment.Spec.Replicas)
}

func (r *rollout) all() []*appsv1.ReplicaSet {
	if r.current == nil {
		return r.old
	}
	return append(slices.Clone(r.old), r.current)
}

// stopOld scales the old ReplicaSets to nothing and reports whether any of
// their Pods is still there.
func (d *deployments) stopOld(ctx context.Context, r *rollout) (waiting bool, err error) {
	for _, rs := range r.old {
		if err := d.scale(ctx, r, rs, 0); err != nil {
			return false, err
		}
		for _, p := range d.Pods.OwnedBy(rs.UID) {
			waiting = waiting || !podFinished(p)
		}
	}
	return waiting, nil
}

// roll is one step of a rolling update: grow the current ReplicaSet as far as
// maxSurge allows, then shrink the old ones as far as maxUnavailable allows.
func (d *deployments) roll(ctx context.Context, r *rollout) error {
	want := *r.deployment.Spec.Replicas
	surge, unavailable := strategy.Limits(r.deployment)
	var total, available int32
	for _, rs := range r.all() {
		// What a shrinking ReplicaSet still has counts until it is gone.
		total += max(*rs.Spec.Replicas, rs.Status.Replicas)
		available += min(rs.Status.AvailableReplicas, *rs.Spec.Replicas)
	}
	current := *r.current.Spec.Replicas
	if current > want {
		if err := d.scale(ctx, r, r.current, want); err != nil {
			return err
		}
	} else if room := want + surge - total; current < want && room > 0 {
		grow := min(room, want-current)
		if err := d.scale(ctx, r, r.current, current+grow); err != nil {
			return err
		}
		total += grow
	}
	// Pods that are not available are missed by nobody: they go first, and cost nothing.
	unready := *r.current.Spec.Replicas - min(r.current.Status.AvailableReplicas, *r.current.Spec.Replicas)
	spare := total - (want - unavailable) - unready
	for _, rs := range r.old {
		broken := *rs.Spec.Replicas - min(rs.Status.AvailableReplicas, *rs.Spec.Replicas)
		if cut := min(broken, spare); cut > 0 && settledStatus(rs) {
			if err := d.scale(ctx, r, rs, *rs.Spec.Replicas-cut); err != nil {
				return err
			}
			spare -= cut
		}
	}
	spare = min(spare, available-(want-unavailable))
	for _, rs := range r.old {
		if cut := min(*rs.Spec.Replicas, spare); cut > 0 {
			if err := d.scale(ctx, r, rs, *rs.Spec.Replicas-cut); err != nil {
				return err
			}
			spare -= cut
		}
	}
	return nil
}

// settledStatus: the ReplicaSet's own controller has seen its present size.
func settledStatus(rs *appsv1.ReplicaSet) bool {
	return rs.Status.ObservedGeneration >= rs.Generation && rs.Status.Replicas == *rs.Spec.Replicas
}

func (d *deployments) scale(ctx context.Context, r *rollout, rs *appsv1.ReplicaSet, n int32) error {
	was := *rs.Spec.Replicas
	if was == n {
		return nil
	}
	next := rs.DeepCopy()
	next.Spec.Replicas = &n
	if err := d.resources.Update(ctx, next); err != nil {
		return err
	}
	d.reach(r.deployment.UID, newest(next))
	*rs = *next
	verb := "up"
	if n < was {
		verb = "down"
	}
	d.events.Normal(ctx, deploymentKind(), r.deployment, "ScalingReplicaSet", "Scaled %s replica set %s from %d to %d", verb, rs.Name, was, n)
	return nil
}

// cleanUp removes the oldest ReplicaSets beyond the history limit.
func (d *deployments) cleanUp(ctx context.Context, r *rollout) error {
	limit := r.deployment.Spec.RevisionHistoryLimit
	if limit == nil || !complete(r) {
		return nil
	}
	var idle []*appsv1.ReplicaSet
	for _, rs := range r.old {
		if *rs.Spec.Replicas == 0 && rs.Status.Replicas == 0 {
			idle = append(idle, rs)
		}
	}
	slices.SortStableFunc(idle, func(a, b *appsv1.ReplicaSet) int { return cmp.Compare(revisionOf(a), revisionOf(b)) })
	for _, rs := range idle[:max(0, len(idle)-int(*limit))] {
		err := d.resources.Delete(ctx, rs.DeepCopy(), client.DeleteOptions{UID: rs.UID, ResourceVersion: rs.ResourceVersion})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// complete: all Pods are of the current template, available, and no old one is left.
func complete(r *rollout) bool {
	if r.current == nil {
		return false
	}
	want := *r.deployment.Spec.Replicas
	for _, rs := range r.old {
		if rs.Status.Replicas > 0 || *rs.Spec.Replicas > 0 {
			return false
		}
	}
	return r.current.Status.Replicas == want && r.current.Status.AvailableReplicas == want && r.current.Status.ObservedGeneration >= r.current.Generation
}

func (d *deployments) progressDeadline(dep *appsv1.Deployment) time.Duration {
	if dep.Spec.ProgressDeadlineSeconds == nil {
		return 0
	}
	return time.Duration(*dep.Spec.ProgressDeadlineSeconds) * time.Second
}
