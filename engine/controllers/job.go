package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/live"
)

// patience is how often a Job whose Pods the view does not show yet is looked at
// again before the store itself is asked.
const patience = 6

func jobKind() schema.GroupVersionKind { return batchv1.SchemeGroupVersion.WithKind("Job") }

// jobs runs Pods until enough of them have succeeded.
//
// What it does to a Job is one transaction over the Job's status and its Pods:
// they are made, counted and stopped together with the numbers that say so, and
// only if the Job is still the one that was looked at. So nothing is counted
// twice and no Pod is made twice, whenever the engine is killed, and however old
// its view is. Kubernetes needs a ledger in the status for that
// (JobStatus.UncountedTerminatedPods); here it stays empty.
type jobs struct {
	*cluster
	loop *loop
	// orphans is keyed by Pods that may have lost their Job.
	orphans *loop
}

func newJobs(c *cluster) *jobs {
	j := &jobs{cluster: c}
	j.loop = newLoop(c, "job", j.reconcile)
	j.orphans = newLoop(c, "job-orphans", j.reconcileOrphan)
	c.Jobs.OnChange(func(old, now *batchv1.Job) {
		if now != nil {
			j.loop.add(now)
		}
		if old != nil && (now == nil || now.UID != old.UID) {
			for _, p := range c.Pods.OwnedBy(old.UID) {
				j.orphans.add(p)
			}
		}
	})
	c.Pods.OnChange(func(_, now *corev1.Pod) {
		if now != nil && tracked(now) && !j.runs(now) {
			j.orphans.add(now)
		}
	})
	c.Pods.OnChange(func(old, now *corev1.Pod) {
		for _, p := range []*corev1.Pod{old, now} {
			if p == nil {
				continue
			}
			if ref := controllerOf(p); ref != nil && ref.Kind == "Job" {
				j.loop.queue.Add(types.NamespacedName{Namespace: p.Namespace, Name: ref.Name})
			}
		}
	})
	c.orphanPods.onFound(func(p *corev1.Pod) {
		for _, job := range j.Jobs.InNamespace(p.Namespace) {
			// A selector that nobody has chosen is by the Job's UID, and finds none.
			if ptr.Deref(job.Spec.ManualSelector, false) && wouldAdopt(job.Spec.Selector, p) {
				j.loop.add(job)
			}
		}
	})
	return j
}

// adopt takes on Pods that the selector of a Job matches and lets go of those that
// it matches no longer. It reports whether there were any: their events bring the
// Job back.
func (j *jobs) adopt(ctx context.Context, job *batchv1.Job) (bool, error) {
	written, err := adopt(ctx, j.resources, family[*corev1.Pod]{
		owner: job, ref: ownerRef(jobKind(), job), selector: job.Spec.Selector, owned: j.Pods.OwnedBy(job.UID),
		orphans: j.orphanPods.in(job.Namespace), suits: func(p *corev1.Pod) bool {
			_, hasIndex := p.Annotations[batchv1.JobCompletionIndexAnnotation]
			return p.DeletionTimestamp == nil && (hasIndex || !indexed(job))
		},
		mark: func(p *corev1.Pod) {
			if !tracked(p) {
				p.Finalizers = append(p.Finalizers, batchv1.JobTrackingFinalizer)
			}
		},
	})
	return len(written) > 0, err
}

// Run works until the context ends.
func (j *jobs) Run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- j.orphans.run(ctx, j.Jobs, j.Pods) }()
	return errors.Join(j.loop.run(ctx, j.Jobs, j.Pods, j.Namespaces), <-done)
}

// elsewhere: another controller runs the Job (JobSpec.ManagedBy).
func elsewhere(job *batchv1.Job) bool {
	return job.Spec.ManagedBy != nil && *job.Spec.ManagedBy != batchv1.JobControllerName
}

func (j *jobs) reconcile(ctx context.Context, key types.NamespacedName) error {
	job, ok := j.Jobs.Get(key)
	if !ok {
		return nil
	}
	if !ongoing(job) {
		j.letGo(job)
		return j.expire(ctx, job)
	}
	if elsewhere(job) {
		return nil
	}
	if again, err := j.adopt(ctx, job); again || err != nil {
		return err
	}
	step, err := j.decide(ctx, job)
	if err != nil {
		return err
	}
	if step.again > 0 {
		j.loop.queue.AddAfter(key, step.again)
	}
	if j.going(job.Namespace) {
		step.spare()
	} else if before := j.before(job); before != nil && len(step.create) > 0 {
		j.events.Normal(ctx, jobKind(), job, "Waiting", "Waits until pod %s of an earlier job of this name has stopped", before.Name)
		step.spare()
	}
	failed, err := j.carryOut(ctx, job, &step)
	if err != nil || failed == nil {
		return err
	}
	// No Pod can be made; what has ended is counted all the same.
	j.events.Warning(ctx, jobKind(), job, "FailedCreate", "Error creating: %s", failed.Error())
	step.spare()
	if _, err := j.carryOut(ctx, job, &step); err != nil {
		return err
	}
	return fmt.Errorf("create pods: %w", failed)
}

// decide decides with the Pods as the view shows them, if it is as new as the
// Job: one that lacks the Pods that were made last would have them made again. A
// view that has come past the version of the Job is new enough. So is one that
// shows as many Pods as the status tells of, active ones and those that have ended
// and are not counted: a step that makes Pods counts all that have ended by then,
// but for those that wait for their replacement. So they have ended since; or this
// step counts them again, and fails because they were written.
func (j *jobs) decide(ctx context.Context, job *batchv1.Job) (jobStep, error) {
	fresh := j.Pods.Version() >= live.Version(job)
	step := decideJob(job, j.Pods.OwnedBy(job.UID), j.clock.Now())
	if fresh || step.seen >= int(job.Status.Active) {
		return step, nil
	}
	// Nearly always the view comes round in a moment, and its event brings the
	// key back. Not if somebody has deleted a Pod past its finalizer.
	if j.loop.queue.NumRequeues(client.Key(job)) < patience {
		return step, apierrors.NewConflict(schema.GroupResource{Group: "batch", Resource: "jobs"}, job.Name, errors.New("its pods are not in the view yet"))
	}
	var list corev1.PodList
	if err := j.resources.List(ctx, &list, client.ListOptions{Namespace: job.Namespace}); err != nil {
		return step, fmt.Errorf("list pods: %w", err)
	}
	pods := make([]*corev1.Pod, len(list.Items))
	for i := range list.Items {
		pods[i] = &list.Items[i]
	}
	return decideJob(job, pods, j.clock.Now()), nil
}

// before is a Pod of an earlier Job of the same name that may still run. The new
// one waits for its end, for it may not bear company; that brings the key back.
func (j *jobs) before(job *batchv1.Job) *corev1.Pod {
	if job.Status.Active+job.Status.Succeeded+job.Status.Failed > 0 {
		return nil // it has begun
	}
	for _, p := range j.Pods.InNamespace(job.Namespace) {
		ref := controllerOf(p)
		if ref != nil && ref.Kind == "Job" && ref.Name == job.Name && ref.UID != job.UID && !podStopped(p) {
			return p
		}
	}
	return nil
}

// spare leaves the new Pods out of a step.
func (s *jobStep) spare() {
	s.status.Active -= int32(len(s.create))
	s.create = nil
}

// carryOut writes a step. When a Pod cannot be made, nothing is written and
// failed says why.
func (j *jobs) carryOut(ctx context.Context, job *batchv1.Job, step *jobStep) (failed, err error) {
	tx := j.resources.Begin()
	made, refused, err := createPods(ctx, tx, step.create)
	switch {
	case err != nil:
		return err, nil
	case refused != nil && len(made) == 0:
		return refused, nil
	case refused != nil: // the next step tries the others
		step.status.Active -= int32(len(step.create) - len(made))
		step.create = made
		step.events = append(step.events, jobEvent{corev1.EventTypeWarning, "FailedCreate", "Error creating: " + refused.Error()})
	}
	for _, p := range step.release {
		if err := tx.Update(ctx, untracked(p)); err != nil {
			return nil, fmt.Errorf("release pod %s: %w", p.Name, err)
		}
	}
	for _, p := range step.remove {
		if err := tx.Discard(ctx, p.DeepCopy(), batchv1.JobTrackingFinalizer); err != nil {
			return nil, fmt.Errorf("delete pod %s: %w", p.Name, err)
		}
	}
	if len(step.create)+len(step.release)+len(step.remove) == 0 && equality.Semantic.DeepEqual(step.status, job.Status) {
		return nil, nil
	}
	next := job.DeepCopy()
	next.Status = step.status
	if err := updatePinned(ctx, tx, next); err != nil {
		return nil, err
	}
	if err := tx.Commit(ctx); err != nil {
		return nil, err
	}
	for _, p := range step.create {
		j.events.Normal(ctx, jobKind(), job, "SuccessfulCreate", "Created pod: %s", p.Name)
	}
	for _, e := range step.events {
		if e.kind == corev1.EventTypeWarning {
			j.events.Warning(ctx, jobKind(), job, e.reason, "%s", e.message)
		} else {
			j.events.Normal(ctx, jobKind(), job, e.reason, "%s", e.message)
		}
	}
	return nil, nil
}

// runs: the Pod has a Job that is going on, as far as the view shows.
func (j *jobs) runs(p *corev1.Pod) bool {
	ref := controllerOf(p)
	if ref == nil || ref.Kind != "Job" {
		return false
	}
	job, ok := j.Jobs.Get(types.NamespacedName{Namespace: p.Namespace, Name: ref.Name})
	return ok && job.UID == ref.UID && ongoing(job)
}

func ongoing(job *batchv1.Job) bool {
	return job.DeletionTimestamp == nil && jobEnd(&job.Status) == nil
}

// letGo looks at the Pods of a Job that counts no more.
func (j *jobs) letGo(job *batchv1.Job) {
	for _, p := range j.Pods.OwnedBy(job.UID) {
		if tracked(p) {
			j.orphans.add(p)
		}
	}
}

// reconcileOrphan lets go of a Pod that no Job is going to count. The store is
// asked, for the Pod may be newer than the view of its Job.
func (j *jobs) reconcileOrphan(ctx context.Context, key types.NamespacedName) error {
	p, ok := j.Pods.Get(key)
	if !ok || !tracked(p) || j.runs(p) {
		return nil
	}
	if ref := controllerOf(p); ref != nil {
		if ref.Kind != "Job" {
			return nil
		}
		var job batchv1.Job
		err := j.resources.Get(ctx, types.NamespacedName{Namespace: p.Namespace, Name: ref.Name}, &job)
		if ignoreNotFound(err) != nil {
			return fmt.Errorf("look up job %s: %w", ref.Name, err)
		}
		if err == nil && job.UID == ref.UID && (ongoing(&job) || elsewhere(&job)) {
			return nil
		}
	}
	return ignoreNotFound(j.resources.Update(ctx, untracked(p)))
}

// expire deletes a Job that has ended when its time is over
// (JobSpec.TTLSecondsAfterFinished, counted from the condition that ended it).
func (j *jobs) expire(ctx context.Context, job *batchv1.Job) error {
	ttl, end := job.Spec.TTLSecondsAfterFinished, jobEnd(&job.Status)
	if ttl == nil || end == nil || job.DeletionTimestamp != nil {
		return nil
	}
	if left := end.LastTransitionTime.Add(time.Duration(*ttl) * time.Second).Sub(j.clock.Now()); left > 0 {
		j.loop.queue.AddAfter(client.Key(job), left)
		return nil
	}
	return ignoreNotFound(j.resources.DeleteFinished(ctx, job.DeepCopy()))
}
