// Package health says how an object is doing, with a reason that a person
// understands. It is pure; its rules are those of Kubernetes' kstatus.
package health

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// State of an object, from best to worst.
type State int

// States. Progressing may become Healthy by itself; Degraded needs somebody.
const (
	Healthy State = iota
	Progressing
	Degraded
)

// String is the state as a word.
func (s State) String() string {
	return [...]string{"Healthy", "Progressing", "Degraded"}[s]
}

// Health is a state and, unless it is plain Healthy, the reason.
type Health struct {
	State  State
	Reason string
}

// Worse reports whether h is worse than other.
func (h Health) Worse(other Health) bool { return h.State > other.State }

// Pod is healthy when it is ready or has succeeded.
func Pod(p *corev1.Pod) Health {
	switch {
	case p.DeletionTimestamp != nil:
		return Health{Progressing, "is stopping"}
	case p.Status.Phase == corev1.PodSucceeded:
		return Health{Healthy, "completed"}
	case p.Status.Phase == corev1.PodFailed:
		return Health{Degraded, cmp.Or(p.Status.Message, failure(p), "failed")}
	}
	if c := condition(p, corev1.PodScheduled); c != nil && c.Status == corev1.ConditionFalse {
		if c.Reason == corev1.PodReasonSchedulingGated { // somebody holds it back on purpose
			return Health{Progressing, c.Message}
		}
		return Health{Degraded, c.Message}
	}
	if p.Spec.NodeName == "" {
		return Health{Progressing, "waits for a node"}
	}
	if h, found := waiting(p); found {
		return h
	}
	if c := condition(p, corev1.PodReady); c != nil && c.Status == corev1.ConditionTrue {
		return Health{State: Healthy}
	} else if c != nil && c.Message != "" && p.Status.Phase == corev1.PodRunning {
		return Health{Progressing, c.Message}
	}
	return Health{Progressing, "starts"}
}

// waiting finds the container that keeps a Pod from running.
func waiting(p *corev1.Pod) (Health, bool) {
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		w := s.State.Waiting
		if w == nil || w.Reason == "" {
			continue
		}
		state := Progressing
		switch w.Reason {
		case "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "CrashLoopBackOff",
			"CreateContainerConfigError", "CreateContainerError", "RunContainerError":
			state = Degraded
		case "ContainerCreating", "PodInitializing":
			if w.Message == "" {
				continue
			}
		}
		text := fmt.Sprintf("container %s: %s", s.Name, w.Reason)
		if w.Message != "" {
			text += ": " + w.Message
		}
		if last := s.LastTerminationState.Terminated; w.Reason == "CrashLoopBackOff" && last != nil {
			text = fmt.Sprintf("container %s: CrashLoopBackOff: its last run ended with exit code %d (%s)", s.Name, last.ExitCode, last.Reason)
			if last.Message != "" {
				text += ": " + strings.TrimSpace(last.Message)
			}
		}
		return Health{state, text}, true
	}
	return Health{}, false
}

func failure(p *corev1.Pod) string {
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if t := s.State.Terminated; t != nil && t.ExitCode != 0 {
			return fmt.Sprintf("container %s exited with code %d (%s)", s.Name, t.ExitCode, t.Reason)
		}
	}
	return ""
}

func condition(p *corev1.Pod, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == t {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

// Deployment is healthy when all Pods are of its template and available. pods
// are those of its current ReplicaSet: what is wrong with them is the reason.
func Deployment(d *appsv1.Deployment, pods []*corev1.Pod) Health {
	want := int32(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	s := d.Status
	if s.ObservedGeneration >= d.Generation && s.UpdatedReplicas == want && s.AvailableReplicas == want && s.Replicas == want {
		return Health{State: Healthy}
	}
	for _, c := range s.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			return Health{Degraded, c.Message}
		}
	}
	if h := worst(pods); h.State == Degraded {
		return h
	}
	for _, c := range s.Conditions {
		if c.Type == appsv1.DeploymentProgressing && c.Reason == "ProgressDeadlineExceeded" {
			return Health{Degraded, cmp.Or(worst(pods).Reason, c.Message)}
		}
	}
	if d.Spec.Paused {
		return Health{Progressing, "the rollout is paused"}
	}
	text := fmt.Sprintf("%d of %d replicas are updated and available", min(s.UpdatedReplicas, s.AvailableReplicas), want)
	if extra := s.Replicas - s.UpdatedReplicas; extra > 0 {
		text += fmt.Sprintf(", %d old to go", extra)
	}
	return Health{Progressing, text}
}

// ReplicaSet is healthy when all its Pods are available.
func ReplicaSet(r *appsv1.ReplicaSet, pods []*corev1.Pod) Health {
	want := int32(1)
	if r.Spec.Replicas != nil {
		want = *r.Spec.Replicas
	}
	if r.Status.ObservedGeneration >= r.Generation && r.Status.AvailableReplicas == want && r.Status.Replicas == want {
		return Health{State: Healthy}
	}
	if h := worst(pods); h.State == Degraded {
		return h
	}
	return Health{Progressing, fmt.Sprintf("%d of %d pods are available", r.Status.AvailableReplicas, want)}
}

// StatefulSet is healthy when all its Pods are available, and those that its
// update is to reach have the present revision: all of them, those above the
// partition, or none with OnDelete (cli-utils, pkg/kstatus/status, stsConditions).
func StatefulSet(s *appsv1.StatefulSet, pods []*corev1.Pod) Health {
	want := int32(1)
	if s.Spec.Replicas != nil {
		want = *s.Spec.Replicas
	}
	updated := want
	if u := s.Spec.UpdateStrategy.RollingUpdate; u != nil && u.Partition != nil {
		updated = max(0, want-*u.Partition)
	}
	if s.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType {
		updated = 0
	}
	st := s.Status
	if st.ObservedGeneration >= s.Generation && st.Replicas == want && st.AvailableReplicas == want &&
		(st.CurrentRevision == st.UpdateRevision || st.UpdatedReplicas >= updated) {
		return Health{State: Healthy}
	}
	if h := worst(pods); h.State == Degraded {
		return h
	}
	text := fmt.Sprintf("%d of %d replicas are available", min(st.AvailableReplicas, want), want)
	if st.CurrentRevision != st.UpdateRevision && updated > 0 {
		text += fmt.Sprintf(", %d of %d updated", min(st.UpdatedReplicas, updated), updated)
	}
	if extra := st.Replicas - want; extra > 0 {
		text += fmt.Sprintf(", %d to go", extra)
	}
	return Health{Progressing, text}
}

// DaemonSet is healthy when each node that is to have a Pod has one that is
// available and of the present template; with OnDelete, of any.
func DaemonSet(d *appsv1.DaemonSet, pods []*corev1.Pod) Health {
	st := d.Status
	updated := st.UpdatedNumberScheduled
	if d.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType {
		updated = st.CurrentNumberScheduled
	}
	want := st.DesiredNumberScheduled
	if st.ObservedGeneration >= d.Generation && st.CurrentNumberScheduled == want && updated == want && st.NumberAvailable == want {
		return Health{State: Healthy}
	}
	if h := worst(pods); h.State == Degraded {
		return h
	}
	return Health{Progressing, fmt.Sprintf("on %d of %d nodes a pod is updated and available", min(updated, st.NumberAvailable), want)}
}

// CronJob is healthy: its Jobs are what can fail.
func CronJob(c *batchv1.CronJob) Health {
	if c.Spec.Suspend != nil && *c.Spec.Suspend {
		return Health{Healthy, "is suspended"}
	}
	return Health{State: Healthy}
}

// Claim is healthy when it is bound, or waits for its first Pod as its class
// has it; no Pod may be meant to mount it yet.
func Claim(c *corev1.PersistentVolumeClaim, waitsForPod bool) Health {
	switch {
	case c.Status.Phase == corev1.ClaimBound:
		return Health{State: Healthy}
	case c.Status.Phase == corev1.ClaimLost:
		return Health{Degraded, fmt.Sprintf("its volume %s is not there any more", c.Spec.VolumeName)}
	case waitsForPod:
		return Health{Healthy, "waits for its first pod"}
	}
	return Health{Progressing, "waits for a volume"}
}

// Job is healthy once it runs and until it fails, as kstatus has it (cli-utils,
// pkg/kstatus/status, jobConditions): a Job may run for hours, and what waits for
// its end waits for the condition Complete. A suspended one is as it should be.
// Unlike kstatus, a Job is not healthy while a Pod of it cannot start: pods, which
// are those of the Job, say why.
func Job(j *batchv1.Job, pods []*corev1.Pod) Health {
	for _, c := range j.Status.Conditions {
		if c.Status != corev1.ConditionTrue {
			continue
		}
		switch c.Type {
		case batchv1.JobComplete:
			return Health{Healthy, "completed"}
		case batchv1.JobFailed, batchv1.JobFailureTarget:
			return Health{Degraded, fmt.Sprintf("%s: %s%s", c.Reason, c.Message, lastFailure(pods))}
		case batchv1.JobSuspended:
			return Health{Healthy, "is suspended"}
		}
	}
	if j.Status.StartTime == nil {
		return Health{Progressing, "waits for its controller"}
	}
	pending := slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool {
		return p.DeletionTimestamp != nil || p.Status.Phase != corev1.PodPending && p.Status.Phase != ""
	})
	if h := worst(pending); h.State == Degraded {
		return h
	}
	return Health{State: Healthy}
}

// lastFailure is what the newest Pod that failed says.
func lastFailure(pods []*corev1.Pod) string {
	var last *corev1.Pod
	for _, p := range pods {
		if p.Status.Phase == corev1.PodFailed && (last == nil || last.CreationTimestamp.Before(&p.CreationTimestamp)) {
			last = p
		}
	}
	if last == nil {
		return ""
	}
	return fmt.Sprintf(" (pod %s: %s)", last.Name, Pod(last).Reason)
}

// worst is the worst health of some Pods, with the number of Pods it holds for.
func worst(pods []*corev1.Pod) Health {
	var out Health
	count := map[string]int{}
	for _, p := range pods {
		h := Pod(p)
		count[h.Reason]++
		if h.Worse(out) {
			out = h
		}
	}
	if n := count[out.Reason]; n > 1 && out.State != Healthy {
		out.Reason = fmt.Sprintf("%d pods: %s", n, strings.TrimSpace(out.Reason))
	}
	return out
}
