package controllers

import (
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// count counts the Pods that have ended, and those that the end of the Job
// stops: when it fails, they have failed too.
func (d *jobDecision) count(end *batchv1.JobCondition) {
	lost := end != nil && end.Type == batchv1.JobFailureTarget
	var done []int
	tally := func(p *corev1.Pod) {
		index := completionIndex(d.job, p)
		switch {
		case indexed(d.job) && index == noIndex:
		case p.Status.Phase == corev1.PodSucceeded:
			done = append(done, index)
		case (lost || jobPodFailed(d.job, p)) && ruleFor(d.job, p).counts():
			d.status.Failed++
		}
	}
	for _, p := range d.remove {
		if lost && tracked(p) {
			tally(p)
		}
	}
	for _, p := range d.pods {
		over := p.Status.Phase == corev1.PodSucceeded || jobPodFailed(d.job, p)
		if !tracked(p) || podActive(p) || end == nil && (!over || d.waits[completionIndex(d.job, p)] == p) {
			continue
		}
		if d.room == 0 {
			d.cut = true
			break
		}
		d.room--
		d.release = append(d.release, p)
		tally(p)
	}
	if !indexed(d.job) {
		d.status.Succeeded += int32(len(done))
		return
	}
	counted := d.completedBefore().with(done...)
	d.status.Succeeded, d.status.CompletedIndexes = int32(counted.total()), counted.String()
	if d.job.Spec.BackoffLimitPerIndex != nil {
		text := d.failedIndexes.String()
		d.status.FailedIndexes = &text
	}
}

// conclude writes the numbers and, when nothing of the Job runs any more, how
// it ended.
func (d *jobDecision) conclude(end *batchv1.JobCondition) {
	stopping := int32(len(d.stopping))
	ready := int32(0)
	for _, p := range d.active {
		if podReady(p) {
			ready++
		}
	}
	for _, p := range d.remove {
		if podReady(p) {
			ready--
		}
		if p.Spec.NodeName != "" { // any other is gone at once
			stopping++
		}
	}
	d.status.Active, d.status.Ready, d.status.Terminating = int32(d.running()), &ready, &stopping
	// Always empty: Pods are counted in the transaction that releases them. It is
	// there because clients read its absence as a Job that counts without finalizers.
	d.status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	if end == nil {
		return
	}
	if jobCondition(&d.status, end.Type) == nil {
		d.status.Conditions = append(d.status.Conditions, *end)
	}
	if stopping > 0 || d.status.Active > 0 || d.cut {
		return
	}
	if d.status.StartTime == nil { // it ended while it was suspended
		d.status.StartTime = &metav1.Time{Time: d.now}
	}
	if end.Type == batchv1.JobFailureTarget {
		d.status.Conditions = append(d.status.Conditions, *d.condition(batchv1.JobFailed, end.Reason, end.Message))
		d.event(corev1.EventTypeWarning, end.Reason, end.Message)
		return
	}
	complete := d.condition(batchv1.JobComplete, end.Reason, end.Message)
	d.status.Conditions = append(d.status.Conditions, *complete)
	d.status.CompletionTime = &complete.LastTransitionTime
	if c := d.job.Spec.Completions; c != nil && d.status.Succeeded > *c {
		d.event(corev1.EventTypeWarning, "TooManySucceededPods", "Too many succeeded pods running after completion count reached")
	}
	d.event(corev1.EventTypeNormal, "Completed", "Job completed")
}

// suspension notes that the Job was suspended or goes on.
func (d *jobDecision) suspension() {
	if jobSuspended(d.job) {
		if d.set(batchv1.JobSuspended, corev1.ConditionTrue, "JobSuspended", "Job suspended") {
			d.event(corev1.EventTypeNormal, "Suspended", "Job suspended")
			d.status.StartTime = nil
		}
		return
	}
	if d.set(batchv1.JobSuspended, corev1.ConditionFalse, "JobResumed", "Job resumed") {
		d.event(corev1.EventTypeNormal, "Resumed", "Job resumed")
		// The deadline is for the time that the Job is active without a break.
		d.status.StartTime = &metav1.Time{Time: d.now}
	}
}

// set writes a condition and reports whether that changed anything; one that is
// not there need not be written to be false.
func (d *jobDecision) set(t batchv1.JobConditionType, status corev1.ConditionStatus, reason, message string) bool {
	c := jobCondition(&d.status, t)
	if c == nil && status == corev1.ConditionFalse || c != nil && c.Status == status {
		return false
	}
	next := d.condition(t, reason, message)
	next.Status = status
	if c != nil {
		*c = *next
	} else {
		d.status.Conditions = append(d.status.Conditions, *next)
	}
	return true
}

func (d *jobDecision) event(kind, reason, message string) {
	d.events = append(d.events, jobEvent{kind, reason, message})
}

func jobCondition(s *batchv1.JobStatus, t batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t {
			return &s.Conditions[i]
		}
	}
	return nil
}

// jobEnd is the condition that says how a Job ended, nil while it has not.
func jobEnd(s *batchv1.JobStatus) *batchv1.JobCondition {
	for _, t := range []batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobFailed} {
		if c := jobCondition(s, t); c != nil && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}
