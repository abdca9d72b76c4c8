package controllers

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// noIndex is the completion index of a Pod that has none.
	noIndex = -1
	// envCompletionIndex tells a container of an Indexed Job its index.
	envCompletionIndex = "JOB_COMPLETION_INDEX"
	// retryDelayFirst and retryDelayMax bound the wait before a failed Pod is
	// replaced (k8s.io/kubernetes/pkg/controller/job, DefaultJobPodFailureBackOff).
	retryDelayFirst = 10 * time.Second
	retryDelayMax   = 6 * time.Minute
)

func indexed(job *batchv1.Job) bool {
	return job.Spec.CompletionMode != nil && *job.Spec.CompletionMode == batchv1.IndexedCompletion
}

func jobSuspended(job *batchv1.Job) bool { return job.Spec.Suspend != nil && *job.Spec.Suspend }

// replacesFailedOnly: a Pod that is being deleted keeps its place until it has
// stopped (k8s.io/api/batch/v1, JobSpec.PodReplacementPolicy).
func replacesFailedOnly(job *batchv1.Job) bool {
	return job.Spec.PodReplacementPolicy != nil && *job.Spec.PodReplacementPolicy == batchv1.Failed
}

// tracked: the Pod is not counted yet. The finalizer keeps it until it is, and
// is taken off in the transaction that counts it.
func tracked(p *corev1.Pod) bool { return slices.Contains(p.Finalizers, batchv1.JobTrackingFinalizer) }

func untracked(p *corev1.Pod) *corev1.Pod {
	p = p.DeepCopy()
	p.Finalizers = slices.DeleteFunc(p.Finalizers, func(f string) bool { return f == batchv1.JobTrackingFinalizer })
	return p
}

// podStopped: nothing of the Pod runs any more, though it may not have said how
// it ended: its node has given it up, or it never had one.
func podStopped(p *corev1.Pod) bool {
	if podFinished(p) {
		return true
	}
	return p.DeletionTimestamp != nil && (p.DeletionGracePeriodSeconds == nil || *p.DeletionGracePeriodSeconds == 0)
}

// jobPodFailed: a Pod that is deleted before it succeeds has failed, at once or
// when it has stopped, as podReplacementPolicy says.
func jobPodFailed(job *batchv1.Job, p *corev1.Pod) bool {
	switch p.Status.Phase {
	case corev1.PodFailed:
		return true
	case corev1.PodSucceeded:
		return false
	}
	return p.DeletionTimestamp != nil && (!replacesFailedOnly(job) || podStopped(p))
}

// completionIndex is the index of a Pod of a Job, or noIndex when the Job has
// none for it (any more).
func completionIndex(job *batchv1.Job, p *corev1.Pod) int {
	n, err := strconv.Atoi(p.Annotations[batchv1.JobCompletionIndexAnnotation])
	if err != nil || n < 0 || !indexed(job) || n >= int(*job.Spec.Completions) {
		return noIndex
	}
	return n
}

// failuresOf is how often the Pods of an index failed before this one: those
// that count, and those that the podFailurePolicy ignores.
func failuresOf(p *corev1.Pod) (counted, ignored int) {
	number := func(key string) int {
		n, err := strconv.ParseInt(p.Annotations[key], 10, 32)
		if err != nil {
			return 0
		}
		return max(0, int(n))
	}
	return number(batchv1.JobIndexFailureCountAnnotation), number(batchv1.JobIndexIgnoredFailureCountAnnotation)
}

// endOf is when a Pod ended: its last container did, or it stopped being ready,
// or its deletion was asked for.
func endOf(p *corev1.Pod) time.Time {
	var end time.Time
	for _, s := range p.Status.ContainerStatuses {
		if t := s.State.Terminated; t != nil && t.FinishedAt.After(end) {
			end = t.FinishedAt.Time
		}
	}
	if c := podCondition(p, corev1.PodReady); end.IsZero() && c != nil && c.Status == corev1.ConditionFalse {
		end = c.LastTransitionTime.Time
	}
	if end.IsZero() && p.DeletionTimestamp != nil {
		end = p.DeletionTimestamp.Time
		if g := p.DeletionGracePeriodSeconds; g != nil {
			end = end.Add(-time.Duration(*g) * time.Second)
		}
	}
	if end.IsZero() {
		end = p.CreationTimestamp.Time
	}
	return end
}

// retryAt is when the Pod that failed last, for the nth time in a row, may be
// replaced.
func retryAt(last time.Time, n int) time.Time {
	if n == 0 {
		return last
	}
	delay := retryDelayFirst
	for ; n > 1 && delay < retryDelayMax; n-- {
		delay *= 2
	}
	return last.Add(min(delay, retryDelayMax))
}

// failuresInARow counts the Pods that failed after the last one that succeeded,
// and says when the last of them did. It reads the Pods that are there, so that
// a restart of the engine forgets nothing. Those that were deleted, by somebody
// or by the controller itself, are replaced without a wait.
func failuresInARow(pods []*corev1.Pod) (n int, last time.Time) {
	var success time.Time
	for _, p := range pods {
		if at := endOf(p); p.Status.Phase == corev1.PodSucceeded && at.After(success) {
			success = at
		}
	}
	for _, p := range pods {
		if at := endOf(p); p.Status.Phase == corev1.PodFailed && p.DeletionTimestamp == nil && at.After(success) {
			n++
			if at.After(last) {
				last = at
			}
		}
	}
	return n, last
}

// retriesExceeded: the containers of Pods that restart in place count too, as
// k8s.io/api/batch/v1, JobSpec.BackoffLimit has it with restartPolicy OnFailure.
func retriesExceeded(job *batchv1.Job, pods []*corev1.Pod) bool {
	if job.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	var restarts int32
	for _, p := range pods {
		if podFinished(p) {
			continue
		}
		for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			restarts += s.RestartCount
		}
	}
	return restarts > 0 && restarts >= *job.Spec.BackoffLimit
}

// byIndex orders Pods by index, then by age and name.
func byIndex(job *batchv1.Job) func(a, b *corev1.Pod) int {
	return func(a, b *corev1.Pod) int {
		return cmp.Or(
			cmp.Compare(completionIndex(job, a), completionIndex(job, b)),
			a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
			cmp.Compare(a.Name, b.Name),
		)
	}
}

// podOfJob makes a Pod for an index, or for none. replaced is the Pod of the
// same index that failed before it, nil for none.
func podOfJob(job *batchv1.Job, index int, replaced *corev1.Pod) *corev1.Pod {
	t := job.Spec.Template.DeepCopy()
	yes := true
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:    job.Namespace,
			GenerateName: job.Name + "-",
			Labels:       t.Labels,
			Annotations:  t.Annotations,
			Finalizers:   append(slices.Clone(t.Finalizers), batchv1.JobTrackingFinalizer),
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "batch/v1", Kind: "Job", Name: job.Name, UID: job.UID, Controller: &yes, BlockOwnerDeletion: &yes,
			}},
		},
		Spec: t.Spec,
	}
	if index == noIndex {
		return pod
	}
	number := strconv.Itoa(index)
	pod.GenerateName = indexedName(job.Name, number)
	pod.Labels = with(pod.Labels, batchv1.JobCompletionIndexAnnotation, number)
	pod.Annotations = with(pod.Annotations, batchv1.JobCompletionIndexAnnotation, number)
	pod.Spec.Hostname = job.Name + "-" + number
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			tellIndex(&list[i])
		}
	}
	if job.Spec.BackoffLimitPerIndex != nil {
		noteFailures(job, pod, replaced)
	}
	return pod
}

// indexedName keeps the index when the name of the Job is too long for both
// (k8s.io/kubernetes/pkg/controller/job, podGenerateNameWithIndex).
func indexedName(job, number string) string {
	const longest = 58 // five characters follow
	suffix := "-" + number + "-"
	return job[:min(len(job), longest-len(suffix))] + suffix
}

func tellIndex(c *corev1.Container) {
	if slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == envCompletionIndex }) {
		return
	}
	c.Env = append(c.Env, corev1.EnvVar{Name: envCompletionIndex, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{FieldPath: fmt.Sprintf("metadata.labels['%s']", batchv1.JobCompletionIndexAnnotation)},
	}})
}

// noteFailures hands the count of an index on to the next Pod of it.
func noteFailures(job *batchv1.Job, pod, replaced *corev1.Pod) {
	counted, ignored := 0, 0
	if replaced != nil {
		counted, ignored = failuresOf(replaced)
		if ruleFor(job, replaced).counts() {
			counted++
		} else {
			ignored++
		}
	}
	pod.Annotations[batchv1.JobIndexFailureCountAnnotation] = strconv.Itoa(counted)
	if ignored > 0 {
		pod.Annotations[batchv1.JobIndexIgnoredFailureCountAnnotation] = strconv.Itoa(ignored)
	}
}
