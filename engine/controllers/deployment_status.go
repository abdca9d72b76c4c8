package controllers

import (
	"context"
	"fmt"
	"math"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/strategy"
)

// updateStatus writes what a rollout has come to.
func (d *deployments) updateStatus(ctx context.Context, r *rollout) error {
	dep := r.deployment
	now := d.clock.Now()
	status := counted(r)
	status.Conditions = conditionsOf(r, status, d.progressDeadline(dep), now)
	if left := d.untilDeadline(r, status, now); left > 0 {
		d.loop.queue.AddAfter(client.Key(dep), left)
	}
	next := dep.DeepCopy()
	next.Status = status
	if r.current != nil && dep.Annotations[annotationRevision] != r.current.Annotations[annotationRevision] {
		if err := d.noteRevision(ctx, dep, r.current.Annotations[annotationRevision]); err != nil {
			return err
		}
		next.ResourceVersion = ""
	}
	if equality.Semantic.DeepEqual(status, dep.Status) {
		return nil
	}
	return d.resources.UpdateStatus(ctx, next)
}

// noteRevision writes the number that kubectl rollout reads.
func (d *deployments) noteRevision(ctx context.Context, dep *appsv1.Deployment, revision string) error {
	next := dep.DeepCopy()
	next.Annotations = with(dep.Annotations, annotationRevision, revision)
	return d.resources.Update(ctx, next)
}

func counted(r *rollout) appsv1.DeploymentStatus {
	dep := r.deployment
	s := appsv1.DeploymentStatus{ObservedGeneration: dep.Generation, CollisionCount: dep.Status.CollisionCount}
	terminating := int32(0)
	var asked int32
	for _, rs := range r.all() {
		asked += *rs.Spec.Replicas
		s.Replicas += rs.Status.Replicas
		s.ReadyReplicas += rs.Status.ReadyReplicas
		s.AvailableReplicas += rs.Status.AvailableReplicas
		if rs.Status.TerminatingReplicas != nil {
			terminating += *rs.Status.TerminatingReplicas
		}
	}
	s.TerminatingReplicas = &terminating
	if r.current != nil {
		s.UpdatedReplicas = r.current.Status.Replicas
	}
	s.UnavailableReplicas = max(0, max(asked, *dep.Spec.Replicas)-s.AvailableReplicas)
	return s
}

// conditionsOf makes Available and Progressing, with Kubernetes' reasons.
func conditionsOf(r *rollout, s appsv1.DeploymentStatus, deadline time.Duration, now time.Time) []appsv1.DeploymentCondition {
	dep := r.deployment
	_, unavailable := strategy.Limits(dep)
	available := appsv1.DeploymentCondition{
		Type: appsv1.DeploymentAvailable, Status: corev1.ConditionFalse,
		Reason: "MinimumReplicasUnavailable", Message: "Deployment does not have minimum availability.",
	}
	if s.AvailableReplicas >= *dep.Spec.Replicas-unavailable {
		available.Status, available.Reason, available.Message = corev1.ConditionTrue, "MinimumReplicasAvailable", "Deployment has minimum availability."
	}
	out := []appsv1.DeploymentCondition{settle(dep, available, false, now)}
	if dep.Spec.ProgressDeadlineSeconds == nil || *dep.Spec.ProgressDeadlineSeconds == math.MaxInt32 {
		return append(out, failures(r, now)...)
	}
	progressing := appsv1.DeploymentCondition{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue, Reason: "ReplicaSetUpdated"}
	if r.current != nil {
		progressing.Message = fmt.Sprintf("ReplicaSet %q is progressing.", r.current.Name)
	}
	was := deploymentCondition(dep, appsv1.DeploymentProgressing)
	moved := advanced(dep.Status, s)
	switch {
	case dep.Spec.Paused:
		progressing.Status, progressing.Reason, progressing.Message = corev1.ConditionUnknown, "DeploymentPaused", "Deployment is paused"
	case complete(r):
		progressing.Reason = "NewReplicaSetAvailable"
		progressing.Message = fmt.Sprintf("ReplicaSet %q has successfully progressed.", r.current.Name)
	case was != nil && !moved && was.Reason != "NewReplicaSetAvailable" && was.Reason != "DeploymentPaused" &&
		(was.Reason == "ProgressDeadlineExceeded" || now.Sub(was.LastUpdateTime.Time) >= deadline): // until it moves again
		progressing.Status, progressing.Reason = corev1.ConditionFalse, "ProgressDeadlineExceeded"
		if r.current != nil {
			progressing.Message = fmt.Sprintf("ReplicaSet %q has timed out progressing.", r.current.Name)
		}
	}
	return append(append(out, settle(dep, progressing, moved, now)), failures(r, now)...)
}

func failures(r *rollout, now time.Time) []appsv1.DeploymentCondition {
	if r.current == nil {
		return nil
	}
	for _, c := range r.current.Status.Conditions {
		if c.Type == appsv1.ReplicaSetReplicaFailure && c.Status == corev1.ConditionTrue {
			return []appsv1.DeploymentCondition{settle(r.deployment, appsv1.DeploymentCondition{
				Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Reason: c.Reason, Message: c.Message,
			}, false, now)}
		}
	}
	return nil
}

// advanced: more Pods of the new template, or more that are available, or
// fewer old ones than a moment ago.
func advanced(was, now appsv1.DeploymentStatus) bool {
	return now.UpdatedReplicas > was.UpdatedReplicas || now.ReadyReplicas > was.ReadyReplicas || now.AvailableReplicas > was.AvailableReplicas ||
		now.Replicas-now.UpdatedReplicas < was.Replicas-was.UpdatedReplicas || now.ObservedGeneration > was.ObservedGeneration
}

// settle gives a condition its times: those it had, unless it changed.
func settle(dep *appsv1.Deployment, c appsv1.DeploymentCondition, touched bool, now time.Time) appsv1.DeploymentCondition {
	c.LastUpdateTime, c.LastTransitionTime = metav1.NewTime(now), metav1.NewTime(now)
	was := deploymentCondition(dep, c.Type)
	if was == nil {
		return c
	}
	if was.Status == c.Status {
		c.LastTransitionTime = was.LastTransitionTime
		if was.Reason == c.Reason && was.Message == c.Message && !touched {
			c.LastUpdateTime = was.LastUpdateTime
		}
	}
	return c
}

func deploymentCondition(dep *appsv1.Deployment, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range dep.Status.Conditions {
		if dep.Status.Conditions[i].Type == t {
			return &dep.Status.Conditions[i]
		}
	}
	return nil
}

// untilDeadline is how long from now the progress deadline is to be looked at.
func (d *deployments) untilDeadline(r *rollout, s appsv1.DeploymentStatus, now time.Time) time.Duration {
	deadline := d.progressDeadline(r.deployment)
	if deadline == 0 || complete(r) || r.deployment.Spec.Paused {
		return 0
	}
	for _, c := range s.Conditions {
		if c.Type == appsv1.DeploymentProgressing && c.Status == corev1.ConditionTrue {
			return c.LastUpdateTime.Add(deadline + time.Second).Sub(now)
		}
	}
	return 0
}
