package controllers

import (
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// jobStep is what is done to a Job and its Pods in one transaction.
type jobStep struct {
	status batchv1.JobStatus
	// create are the Pods to make.
	create []*corev1.Pod
	// release are Pods that have ended: they are counted in the status, and lose
	// the finalizer that kept them until then.
	release []*corev1.Pod
	// remove are Pods that run and are to stop. They lose the finalizer too.
	remove []*corev1.Pod
	events []jobEvent
	// seen counts the Pods that are active, or have ended in a way that is counted
	// at the first sight of it.
	seen int
	// again is when the Job is to be looked at even if nothing happens; 0 for never.
	again time.Duration
}

type jobEvent struct{ kind, reason, message string }

// jobDecision is a Job with its Pods and what comes of them. It is pure; the
// rules are those of k8s.io/kubernetes/pkg/controller/job, but for the
// counting, which takes one transaction here and a ledger in the status there.
type jobDecision struct {
	job  *batchv1.Job
	pods []*corev1.Pod
	now  time.Time
	jobStep

	// active run or will; those that are being deleted are not among them.
	active []*corev1.Pod
	// stopping are being deleted and may still run.
	stopping []*corev1.Pod
	// succeeded and failed have ended and are not counted yet.
	succeeded, failed []*corev1.Pod
	// ended counts them, and those whose index is not wanted any more.
	ended int
	// succeededIndexes and failedIndexes include those of Pods not counted yet.
	succeededIndexes, failedIndexes indexSet
	// waits are, by index, the Pods that failed last and are not replaced yet:
	// until they are they are not counted, for their failures have to be handed
	// on to the next Pod of the index.
	waits map[int]*corev1.Pod
	// room is how many more Pods this step may change.
	room int
	// cut: there was more to do than there was room.
	cut bool
}

// decideJob says what to do to a Job that has not finished. All Pods that it
// controls are among pods.
func decideJob(job *batchv1.Job, pods []*corev1.Pod, now time.Time) jobStep {
	d := &jobDecision{job: job, now: now, room: podBatch}
	d.pods = slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool { return !controls(job, p) })
	d.status = *job.Status.DeepCopy()
	d.observe()
	d.seen = len(d.active) + d.ended - len(d.waits)
	if d.status.StartTime == nil && !jobSuspended(job) {
		d.status.StartTime = &metav1.Time{Time: now}
	}
	end := d.verdict()
	if end != nil {
		d.stop(d.active)
	} else if d.manage(); d.completed() {
		end = d.condition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods")
	} else {
		d.suspension()
	}
	d.count(end)
	d.conclude(end)
	return d.jobStep
}

// observe sorts the Pods by what has become of them.
func (d *jobDecision) observe() {
	slices.SortFunc(d.pods, byIndex(d.job))
	for _, p := range d.pods {
		switch {
		case podActive(p):
			d.active = append(d.active, p)
		case !podStopped(p):
			d.stopping = append(d.stopping, p)
		}
		succeeded, failed := p.Status.Phase == corev1.PodSucceeded, jobPodFailed(d.job, p)
		if !tracked(p) || !succeeded && !failed {
			continue
		}
		d.ended++
		switch {
		case indexed(d.job) && completionIndex(d.job, p) == noIndex:
		case succeeded:
			d.succeeded = append(d.succeeded, p)
		default:
			d.failed = append(d.failed, p)
		}
	}
	if !indexed(d.job) {
		return
	}
	d.succeededIndexes = d.completedBefore().with(d.indexesOf(d.succeeded)...)
	if d.job.Spec.BackoffLimitPerIndex == nil {
		return
	}
	if s := d.job.Status.FailedIndexes; s != nil {
		d.failedIndexes = parseIndexes(*s, int(*d.job.Spec.Completions))
	}
	gone := slices.DeleteFunc(slices.Clone(d.failed), func(p *corev1.Pod) bool {
		counted, _ := failuresOf(p)
		rule := ruleFor(d.job, p)
		return rule.action != batchv1.PodFailurePolicyActionFailIndex && (!rule.counts() || counted < int(*d.job.Spec.BackoffLimitPerIndex)) ||
			d.succeededIndexes.has(completionIndex(d.job, p))
	})
	d.failedIndexes = d.failedIndexes.with(d.indexesOf(gone)...)
	d.waits = d.awaitingReplacement()
}

func (d *jobDecision) completedBefore() indexSet {
	return parseIndexes(d.job.Status.CompletedIndexes, int(*d.job.Spec.Completions))
}

func (d *jobDecision) indexesOf(pods []*corev1.Pod) []int {
	var out []int
	for _, p := range pods {
		if n := completionIndex(d.job, p); n != noIndex {
			out = append(out, n)
		}
	}
	return out
}

// successes and failures count what has ended, counted already or not.
func (d *jobDecision) successes() int {
	if indexed(d.job) {
		return d.succeededIndexes.total()
	}
	return int(d.job.Status.Succeeded) + len(d.succeeded)
}

func (d *jobDecision) failures() int {
	n := int(d.job.Status.Failed)
	for _, p := range d.failed {
		if ruleFor(d.job, p).counts() {
			n++
		}
	}
	return n
}

func (d *jobDecision) condition(t batchv1.JobConditionType, reason, message string) *batchv1.JobCondition {
	return &batchv1.JobCondition{
		Type: t, Status: corev1.ConditionTrue, Reason: reason, Message: message,
		LastProbeTime: metav1.NewTime(d.now), LastTransitionTime: metav1.NewTime(d.now),
	}
}

// verdict says whether the Job has come to its end, whatever its Pods do now:
// SuccessCriteriaMet or FailureTarget, or nil. What was said before stays so.
func (d *jobDecision) verdict() *batchv1.JobCondition {
	for _, t := range []batchv1.JobConditionType{batchv1.JobSuccessCriteriaMet, batchv1.JobFailureTarget} {
		if c := jobCondition(&d.status, t); c != nil && c.Status == corev1.ConditionTrue {
			return c.DeepCopy()
		}
	}
	if c := d.failure(); c != nil {
		return c
	}
	if message, ok := succeedsBy(d.job, d.succeededIndexes); ok {
		return d.condition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonSuccessPolicy, message)
	}
	return nil
}

func (d *jobDecision) failure() *batchv1.JobCondition {
	fail := func(reason, message string) *batchv1.JobCondition {
		return d.condition(batchv1.JobFailureTarget, reason, message)
	}
	for _, p := range d.pods {
		if jobPodFailed(d.job, p) {
			if r := ruleFor(d.job, p); r.action == batchv1.PodFailurePolicyActionFailJob {
				return fail(batchv1.JobReasonPodFailurePolicy, r.message)
			}
		}
	}
	spec := &d.job.Spec
	if d.failures() > int(*spec.BackoffLimit) || retriesExceeded(d.job, d.pods) {
		return fail(batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit")
	}
	if s := spec.ActiveDeadlineSeconds; s != nil && !jobSuspended(d.job) {
		left := d.status.StartTime.Add(time.Duration(*s) * time.Second).Sub(d.now)
		if left <= 0 {
			return fail(batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline")
		}
		d.lookAgain(left)
	}
	if lost := d.failedIndexes.total(); lost > 0 {
		if spec.MaxFailedIndexes != nil && lost > int(*spec.MaxFailedIndexes) {
			return fail(batchv1.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes")
		}
		if lost+d.succeededIndexes.total() >= int(*spec.Completions) {
			return fail(batchv1.JobReasonFailedIndexes, "Job has failed indexes")
		}
	}
	return nil
}

func (d *jobDecision) lookAgain(in time.Duration) {
	if d.again == 0 || in < d.again {
		d.again = in
	}
}

// manage starts and stops Pods while the Job goes on.
func (d *jobDecision) manage() {
	if jobSuspended(d.job) {
		d.stop(d.active)
		return
	}
	want := int(*d.job.Spec.Parallelism)
	if c := d.job.Spec.Completions; c != nil {
		want = max(0, min(want, int(*c)-d.successes()))
	} else if d.successes() > 0 {
		want = len(d.active) // the queue is empty: who still works may finish
	}
	// Stop some or start some, never both in one step.
	if excess := d.excess(len(d.active) - want); len(excess) > 0 {
		d.stop(excess)
		return
	}
	missing := want - len(d.active)
	if replacesFailedOnly(d.job) {
		missing -= len(d.stopping)
	}
	if missing > 0 {
		d.start(missing)
	}
}

// excess are the Pods to stop: those whose index is not wanted or taken twice,
// and then as many as there are too many, those first that are missed least.
func (d *jobDecision) excess(n int) []*corev1.Pod {
	rest := slices.Clone(d.active)
	slices.SortFunc(rest, deletionOrder)
	var out []*corev1.Pod
	if indexed(d.job) {
		taken := map[int]bool{}
		for i := len(rest) - 1; i >= 0; i-- { // the best of each index stays
			index := completionIndex(d.job, rest[i])
			if index == noIndex || taken[index] {
				out = append(out, rest[i])
				rest = slices.Delete(rest, i, i+1)
			}
			taken[index] = true
		}
	}
	return append(out, rest[:max(0, min(n-len(out), len(rest)))]...)
}

// stop deletes Pods that run.
func (d *jobDecision) stop(pods []*corev1.Pod) {
	n := min(len(pods), d.room)
	d.cut = d.cut || n < len(pods)
	d.remove = append(d.remove, pods[:n]...)
	d.room -= n
	for _, p := range d.remove {
		d.event(corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: "+p.Name)
	}
}

// start makes Pods, unless those that failed are to be waited for.
func (d *jobDecision) start(n int) {
	if d.job.Spec.BackoffLimitPerIndex == nil {
		count, last := failuresInARow(d.pods)
		if left := retryAt(last, count).Sub(d.now); count > 0 && left > 0 {
			d.lookAgain(left)
			return
		}
	}
	// Room is left to count all that has ended: the check of the view relies on it.
	n = min(n, d.room-d.ended)
	if n <= 0 {
		return
	}
	if !indexed(d.job) {
		for range n {
			d.create = append(d.create, podOfJob(d.job, noIndex, nil))
		}
	} else {
		d.startIndexes(n)
	}
	d.room -= len(d.create)
}

func (d *jobDecision) startIndexes(n int) {
	taken := d.succeededIndexes.union(d.failedIndexes).with(d.indexesOf(d.active)...)
	if replacesFailedOnly(d.job) {
		taken = taken.with(d.indexesOf(d.stopping)...)
	}
	for _, index := range taken.free(n+len(d.waits), int(*d.job.Spec.Completions)) {
		if len(d.create) == n {
			return
		}
		was := d.waits[index]
		if was != nil {
			counted, ignored := failuresOf(was)
			if left := retryAt(endOf(was), counted+ignored+1).Sub(d.now); left > 0 {
				d.lookAgain(left)
				continue
			}
		}
		d.create = append(d.create, podOfJob(d.job, index, was))
		delete(d.waits, index)
	}
}

func (d *jobDecision) awaitingReplacement() map[int]*corev1.Pod {
	out := map[int]*corev1.Pod{}
	settled := d.succeededIndexes.union(d.failedIndexes).with(d.indexesOf(d.active)...)
	for _, p := range d.failed {
		index := completionIndex(d.job, p)
		if settled.has(index) {
			continue
		}
		if was := out[index]; was == nil || failuresSum(p) > failuresSum(was) || failuresSum(p) == failuresSum(was) && endOf(p).After(endOf(was)) {
			out[index] = p
		}
	}
	return out
}

func failuresSum(p *corev1.Pod) int {
	counted, ignored := failuresOf(p)
	return counted + ignored
}

func (d *jobDecision) running() int { return len(d.active) - len(d.remove) + len(d.create) }

// completed: enough Pods have succeeded, and none is left to wait for.
func (d *jobDecision) completed() bool {
	want := 1 // a work queue is done when one has found it empty
	if c := d.job.Spec.Completions; c != nil {
		want = int(*c)
	}
	return d.successes() >= want && d.running() == 0 && !d.cut
}
