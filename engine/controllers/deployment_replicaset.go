package controllers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/utils/ptr"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/strategy"
)

func (d *deployments) createReplicaSet(ctx context.Context, r *rollout) error {
	dep := r.deployment
	hash := templateHash(&dep.Spec.Template, dep.Status.CollisionCount)
	template := *dep.Spec.Template.DeepCopy()
	template.Labels = with(template.Labels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	selector := dep.Spec.Selector.DeepCopy()
	selector.MatchLabels = with(selector.MatchLabels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	n := r.firstSize()
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: dep.Namespace, Name: dep.Name + "-" + hash, Labels: template.Labels,
			Annotations:     r.annotations(r.nextRevision()),
			OwnerReferences: []metav1.OwnerReference{ownerRef(deploymentKind(), dep)},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: &n, MinReadySeconds: dep.Spec.MinReadySeconds, Selector: selector, Template: template},
	}
	err := d.resources.Create(ctx, rs)
	if apierrors.IsAlreadyExists(err) {
		return d.collision(ctx, dep, rs)
	}
	if err != nil {
		return fmt.Errorf("create replica set: %w", err)
	}
	d.reach(dep.UID, newest(rs))
	r.current = rs
	if n > 0 {
		d.events.Normal(ctx, deploymentKind(), dep, "ScalingReplicaSet", "Scaled up replica set %s from 0 to %d", rs.Name, n)
	}
	return nil
}

// collision: the name is taken. When the view is merely behind, the event of
// the ReplicaSet brings the key back; when it is another template, the hash
// is made anew.
func (d *deployments) collision(ctx context.Context, dep *appsv1.Deployment, rs *appsv1.ReplicaSet) error {
	var have appsv1.ReplicaSet
	if err := d.resources.Get(ctx, client.Key(rs), &have); err != nil {
		return err
	}
	if adoptable(&have) && wouldAdopt(dep.Spec.Selector, &have) {
		return apierrors.NewConflict(appsv1.Resource("replicasets"), have.Name, errors.New("it is about to be adopted"))
	}
	if controls(dep, &have) && sameTemplate(&have.Spec.Template, &dep.Spec.Template) {
		return nil
	}
	next := dep.DeepCopy()
	next.Status.CollisionCount = new(ptr.Deref(dep.Status.CollisionCount, 0) + 1)
	return d.resources.UpdateStatus(ctx, next)
}

// firstSize is how many Pods a new ReplicaSet begins with.
func (r *rollout) firstSize() int32 {
	want := *r.deployment.Spec.Replicas
	if r.deployment.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return want
	}
	surge, _ := strategy.Limits(r.deployment)
	room := want + surge
	for _, rs := range r.old {
		room -= max(*rs.Spec.Replicas, rs.Status.Replicas)
	}
	return max(0, min(want, room))
}

// syncReplicaSet keeps on the current ReplicaSet what is not part of the template.
func (d *deployments) syncReplicaSet(ctx context.Context, r *rollout) error {
	rs := r.current
	revision := rs.Annotations[annotationRevision]
	if n := r.nextRevision(); revisionOf(rs) < n-1 || revision == "" {
		revision = strconv.FormatInt(n, 10)
	}
	next := rs.DeepCopy()
	next.Annotations = r.annotations(mustInt(revision))
	next.Spec.MinReadySeconds = r.deployment.Spec.MinReadySeconds
	if equality.Semantic.DeepEqual(next, rs) {
		return nil
	}
	if err := d.resources.Update(ctx, next); err != nil {
		return err
	}
	d.reach(r.deployment.UID, newest(next))
	r.current = next
	return nil
}

func mustInt(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64) // an unreadable number counts as none
	return n
}

func revisionOf(rs *appsv1.ReplicaSet) int64 { return mustInt(rs.Annotations[annotationRevision]) }

// nextRevision is one more than the largest of the old ReplicaSets.
func (r *rollout) nextRevision() int64 {
	largest := int64(0)
	for _, rs := range r.old {
		largest = max(largest, revisionOf(rs))
	}
	return largest + 1
}

// annotations that a ReplicaSet takes over from its Deployment.
func (r *rollout) annotations(revision int64) map[string]string {
	out := map[string]string{}
	for k, v := range r.deployment.Annotations {
		switch k {
		case corev1.LastAppliedConfigAnnotation, annotationRevision, v1alpha1.AnnotationOrigin, v1alpha1.AnnotationRevision, v1alpha1.AnnotationPrune:
		default:
			out[k] = v
		}
	}
	surge, _ := strategy.Limits(r.deployment)
	out[annotationRevision] = strconv.FormatInt(revision, 10)
	out[annotationDesired] = strconv.Itoa(int(*r.deployment.Spec.Replicas))
	out[annotationMax] = strconv.Itoa(int(*r.deployment.Spec.Replicas + surge))
	return out
}

func with(m map[string]string, k, v string) map[string]string {
	out := map[string]string{k: v}
	for key, value := range m {
		if key != k {
			out[key] = value
		}
	}
	return out
}

func templateHash(t *corev1.PodTemplateSpec, collisions *int32) string {
	b, _ := json.Marshal(t) // a decoded template always encodes
	h := fnv.New32a()
	h.Write(b)
	if collisions != nil {
		fmt.Fprintf(h, "/%d", *collisions)
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
}
