package controllers

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/cron"
	"berth.dev/berth/api/v1alpha1"
)

// recheck bounds how long a CronJob sleeps: timers go by elapsed time, and the
// clock of the wall may be set meanwhile.
const recheck = time.Minute

// cronStep is what is done to a CronJob and its Jobs in one transaction.
type cronStep struct {
	status batchv1.CronJobStatus
	// create is the Job of the slot that is due, nil for none.
	create *batchv1.Job
	// remove are Jobs that give way to it, and those beyond the history limits.
	remove []*batchv1.Job
	events []jobEvent
	// again is when the CronJob is to be looked at even if nothing happens; 0 for never.
	again time.Duration
}

// cronDecision is a CronJob with its Jobs and what comes of them. It is pure.
type cronDecision struct {
	cron *batchv1.CronJob
	jobs []*batchv1.Job
	now  time.Time
	cronStep
}

// decideCronJob says what to do to a CronJob. All Jobs that it controls are
// among jobs.
func decideCronJob(c *batchv1.CronJob, jobs []*batchv1.Job, now time.Time) cronStep {
	d := &cronDecision{cron: c, now: now}
	d.status = *c.Status.DeepCopy()
	d.jobs = slices.DeleteFunc(slices.Clone(jobs), func(j *batchv1.Job) bool { return !controls(c, j) })
	slices.SortFunc(d.jobs, func(a, b *batchv1.Job) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	d.observe()
	d.cleanUp()
	if c.DeletionTimestamp == nil && (c.Spec.Suspend == nil || !*c.Spec.Suspend) {
		d.schedule()
	}
	return d.cronStep
}

// observe tells in the status which Jobs run, and when one last succeeded.
func (d *cronDecision) observe() {
	d.status.Active = nil
	for _, j := range d.jobs {
		end := jobEnd(&j.Status)
		if end != nil && slices.ContainsFunc(d.cron.Status.Active, func(ref corev1.ObjectReference) bool { return ref.UID == j.UID }) {
			d.event(corev1.EventTypeNormal, "SawCompletedJob", fmt.Sprintf("Saw completed job: %s, condition: %s", j.Name, end.Type))
		}
		switch {
		case end == nil && j.DeletionTimestamp == nil:
			d.status.Active = append(d.status.Active, corev1.ObjectReference{
				APIVersion: "batch/v1", Kind: "Job", Namespace: j.Namespace, Name: j.Name, UID: j.UID, ResourceVersion: "",
			})
		case end != nil && end.Type == batchv1.JobComplete && j.Status.CompletionTime != nil:
			if last := d.status.LastSuccessfulTime; last == nil || last.Before(j.Status.CompletionTime) {
				d.status.LastSuccessfulTime = j.Status.CompletionTime.DeepCopy()
			}
		}
	}
	if equality.Semantic.DeepEqual(d.status.Active, d.cron.Status.Active) {
		d.status.Active = d.cron.Status.Active
	}
}

// cleanUp removes the oldest Jobs that have ended, beyond the limits
// (CronJobSpec.SuccessfulJobsHistoryLimit, FailedJobsHistoryLimit).
func (d *cronDecision) cleanUp() {
	var succeeded, failed []*batchv1.Job
	for _, j := range d.jobs {
		switch end := jobEnd(&j.Status); {
		case end == nil || j.DeletionTimestamp != nil:
		case end.Type == batchv1.JobComplete:
			succeeded = append(succeeded, j)
		default:
			failed = append(failed, j)
		}
	}
	d.remove = append(d.remove, beyond(succeeded, d.cron.Spec.SuccessfulJobsHistoryLimit)...)
	d.remove = append(d.remove, beyond(failed, d.cron.Spec.FailedJobsHistoryLimit)...)
}

func beyond(jobs []*batchv1.Job, limit *int32) []*batchv1.Job {
	if limit == nil {
		return nil
	}
	return jobs[:max(0, len(jobs)-int(*limit))]
}

// zone is where the schedule's wall clock stands: UTC without one, whatever the
// zone of this machine.
func zone(c *batchv1.CronJob) (*time.Location, error) {
	if c.Spec.TimeZone == nil || *c.Spec.TimeZone == "" {
		return time.UTC, nil
	}
	return time.LoadLocation(*c.Spec.TimeZone)
}

// since is the time after which slots count: the last one that was used, or when
// the schedule was written as it is.
func since(c *batchv1.CronJob) time.Time {
	t := c.CreationTimestamp.Time
	if at, err := time.Parse(time.RFC3339, c.Annotations[v1alpha1.AnnotationScheduleChanged]); err == nil && at.After(t) {
		t = at
	}
	if last := c.Status.LastScheduleTime; last != nil && last.After(t) {
		t = last.Time
	}
	return t
}

// schedule starts the Job of the latest slot that is due.
func (d *cronDecision) schedule() {
	schedule, err := cron.Parse(d.cron.Spec.Schedule)
	if err != nil { // stored before the rules were as they are
		d.event(corev1.EventTypeWarning, "InvalidSchedule", err.Error())
		return
	}
	loc, err := zone(d.cron)
	if err != nil {
		d.event(corev1.EventTypeWarning, "UnknownTimeZone", err.Error())
		return
	}
	now := d.now.In(loc)
	if next, ok := schedule.Next(now); ok {
		d.again = min(next.Sub(now), recheck)
	}
	from := since(d.cron)
	slot, due := schedule.Last(from, now)
	if !due {
		d.lookAhead(from)
		return
	}
	job := jobOfSlot(d.cron, slot)
	if slices.ContainsFunc(d.jobs, func(j *batchv1.Job) bool { return j.Name == job.Name }) {
		// It ran; this CronJob is older than that, or its status was lost.
		d.status.LastScheduleTime = &metav1.Time{Time: slot}
		return
	}
	if d.tooLate(slot) || !d.admits(slot) {
		return
	}
	if first, ok := schedule.Next(from.In(loc)); ok && first.Before(slot) {
		d.event(corev1.EventTypeWarning, "MissSchedule", fmt.Sprintf(
			"Slots from %s on were missed; one Job catches up, for the latest of them at %s", first.Format(time.RFC3339), slot.Format(time.RFC3339)))
	}
	d.create = job
	d.status.LastScheduleTime = &metav1.Time{Time: slot}
}

// lookAhead says so when the last slot lies in the future: the clock was set
// back, and a slot runs at most once.
func (d *cronDecision) lookAhead(last time.Time) {
	if ahead := last.Sub(d.now); ahead > recheck {
		d.event(corev1.EventTypeWarning, "ClockBehind", fmt.Sprintf(
			"The last slot that was used, at %s, lies in the future: nothing starts before the clock has come past it", last.UTC().Format(time.RFC3339)))
	}
}

// tooLate: the slot is older than startingDeadlineSeconds.
func (d *cronDecision) tooLate(slot time.Time) bool {
	limit := d.cron.Spec.StartingDeadlineSeconds
	if limit == nil || d.now.Sub(slot) <= time.Duration(*limit)*time.Second {
		return false
	}
	d.event(corev1.EventTypeWarning, "MissSchedule", fmt.Sprintf(
		"Missed the slot at %s: no Job could start within startingDeadlineSeconds (%d)", slot.Format(time.RFC3339), *limit))
	return true
}

// admits looks at the Jobs that run (CronJobSpec.ConcurrencyPolicy).
func (d *cronDecision) admits(slot time.Time) bool {
	if len(d.status.Active) == 0 {
		return true
	}
	switch d.cron.Spec.ConcurrencyPolicy {
	case batchv1.ForbidConcurrent:
		d.event(corev1.EventTypeNormal, "JobAlreadyActive", fmt.Sprintf(
			"The slot at %s waits: job %s is still running, and concurrencyPolicy is Forbid", slot.Format(time.RFC3339), d.status.Active[0].Name))
		return false
	case batchv1.ReplaceConcurrent:
		for _, j := range d.jobs {
			if jobEnd(&j.Status) == nil && j.DeletionTimestamp == nil {
				d.remove = append(d.remove, j)
			}
		}
		d.status.Active = nil
	}
	return true
}

func (d *cronDecision) event(kind, reason, message string) {
	d.events = append(d.events, jobEvent{kind, reason, message})
}

// jobOfSlot makes the Job of a slot. Its name follows from the slot, as in
// Kubernetes: the minutes since 1970.
func jobOfSlot(c *batchv1.CronJob, slot time.Time) *batchv1.Job {
	t := c.Spec.JobTemplate.DeepCopy()
	annotations := maps.Clone(t.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[batchv1.CronJobScheduledTimestampAnnotation] = slot.Format(time.RFC3339)
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: c.Namespace, Name: fmt.Sprintf("%s-%d", c.Name, slot.Unix()/60),
			Labels: t.Labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{ownerRef(cronJobKind(), c)},
		},
		Spec: t.Spec,
	}
}
