package controllers

import (
	"cmp"
	"context"
	"fmt"
	"sync"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/live"
)

func cronJobKind() schema.GroupVersionKind { return batchv1.SchemeGroupVersion.WithKind("CronJob") }

// cronJobs starts a Job for each slot of a schedule.
//
// The Job of a slot is made in one transaction with the status that says that
// the slot is used, and only if the CronJob is still the one that was looked at:
// a slot runs at most once, whenever the engine is killed, however old its view
// is, and even if the Job is deleted.
type cronJobs struct {
	*cluster
	loop *loop

	mu sync.Mutex
	// told is what was last said of a CronJob for which nothing was done, so that
	// it is not said again each minute.
	told map[types.UID]string
}

func newCronJobs(c *cluster) *cronJobs {
	r := &cronJobs{cluster: c, told: map[types.UID]string{}}
	r.loop = newLoop(c, "cronjob", r.reconcile)
	c.CronJobs.OnChange(func(old, now *batchv1.CronJob) {
		if now == nil {
			r.mu.Lock()
			delete(r.told, old.UID)
			r.mu.Unlock()
			return
		}
		r.loop.add(now)
	})
	c.Jobs.OnChange(func(old, now *batchv1.Job) {
		job := cmp.Or(now, old)
		if ref := controllerOf(job); ref != nil && ref.Kind == "CronJob" {
			r.loop.queue.Add(types.NamespacedName{Namespace: job.Namespace, Name: ref.Name})
		}
	})
	return r
}

// Run works until the context ends.
func (r *cronJobs) Run(ctx context.Context) error {
	return r.loop.run(ctx, r.CronJobs, r.Jobs, r.Namespaces)
}

func (r *cronJobs) reconcile(ctx context.Context, key types.NamespacedName) error {
	c, ok := r.CronJobs.Get(key)
	if !ok {
		return nil
	}
	jobs, err := r.jobsOf(ctx, c)
	if err != nil {
		return err
	}
	step := decideCronJob(c, jobs, r.clock.Now())
	if step.again > 0 {
		r.loop.queue.AddAfter(key, step.again)
	}
	if r.going(c.Namespace) {
		step.spare(c)
	}
	failed, err := r.carryOut(ctx, c, &step)
	if err != nil || failed == nil {
		return err
	}
	r.say(ctx, c, []jobEvent{{corev1.EventTypeWarning, "FailedCreate", "Error creating job: " + failed.Error()}})
	step.spare(c)
	if _, err := r.carryOut(ctx, c, &step); err != nil {
		return err
	}
	return fmt.Errorf("create job: %w", failed)
}

// jobsOf are the Jobs of a CronJob, from the view if it is as new as the
// CronJob: one that lacks the Job that was made last would not know that it runs.
func (r *cronJobs) jobsOf(ctx context.Context, c *batchv1.CronJob) ([]*batchv1.Job, error) {
	seen := r.Jobs.OwnedBy(c.UID)
	if r.Jobs.Version() >= live.Version(c) || shows(seen, c.Status.Active) {
		return seen, nil
	}
	var list batchv1.JobList
	if err := r.resources.List(ctx, &list, client.ListOptions{Namespace: c.Namespace}); err != nil {
		return nil, fmt.Errorf("list jobs: %w", err)
	}
	jobs := make([]*batchv1.Job, len(list.Items))
	for i := range list.Items {
		jobs[i] = &list.Items[i]
	}
	return jobs, nil
}

// shows: every Job that the status calls active is among those seen.
func shows(seen []*batchv1.Job, active []corev1.ObjectReference) bool {
	have := map[types.UID]bool{}
	for _, j := range seen {
		have[j.UID] = true
	}
	for _, ref := range active {
		if !have[ref.UID] {
			return false
		}
	}
	return true
}

// spare leaves the new Job out of a step, and what was to give way to it.
func (s *cronStep) spare(c *batchv1.CronJob) {
	if s.create == nil {
		return
	}
	s.create, s.remove, s.events = nil, nil, nil
	s.status.LastScheduleTime, s.status.Active = c.Status.LastScheduleTime, c.Status.Active
}

// carryOut writes a step. When the Job cannot be made, nothing is written and
// failed says why.
func (r *cronJobs) carryOut(ctx context.Context, c *batchv1.CronJob, step *cronStep) (failed, err error) {
	tx := r.resources.Begin()
	for _, j := range step.remove {
		opts := client.DeleteOptions{UID: j.UID, Propagation: metav1.DeletePropagationBackground}
		if err := tx.Delete(ctx, j.DeepCopy(), opts); ignoreNotFound(err) != nil {
			return nil, fmt.Errorf("delete job %s: %w", j.Name, err)
		}
	}
	if step.create != nil {
		if err := tx.Create(ctx, step.create); err != nil {
			return err, nil
		}
		step.status.Active = append(step.status.Active, corev1.ObjectReference{
			APIVersion: "batch/v1", Kind: "Job", Namespace: c.Namespace, Name: step.create.Name, UID: step.create.UID,
		})
	}
	if len(step.remove) == 0 && step.create == nil && equality.Semantic.DeepEqual(step.status, c.Status) {
		r.say(ctx, c, step.events)
		return nil, nil
	}
	next := c.DeepCopy()
	next.Status = step.status
	if err := tx.UpdateStatus(ctx, next); err != nil {
		return nil, err
	}
	if err := tx.Pin(next); err != nil {
		return nil, err
	}
	err = tx.Commit(ctx)
	if apierrors.IsAlreadyExists(err) && step.create != nil && !r.ours(ctx, c, step.create) {
		return err, nil
	}
	if err != nil {
		return nil, err
	}
	r.say(ctx, c, step.events)
	if step.create != nil {
		r.events.Normal(ctx, cronJobKind(), c, "SuccessfulCreate", "Created job %s", step.create.Name)
	}
	return nil, nil
}

// ours: the Job that has the name of the slot was made for it.
func (r *cronJobs) ours(ctx context.Context, c *batchv1.CronJob, job *batchv1.Job) bool {
	var have batchv1.Job
	return r.resources.Get(ctx, client.Key(job), &have) == nil && controls(c, &have)
}

// say records events, those of a CronJob for which nothing is done once only.
func (r *cronJobs) say(ctx context.Context, c *batchv1.CronJob, events []jobEvent) {
	for _, e := range events {
		text := e.reason + e.message
		r.mu.Lock()
		again := r.told[c.UID] == text
		r.told[c.UID] = text
		r.mu.Unlock()
		if again {
			continue
		}
		if e.kind == corev1.EventTypeWarning {
			r.events.Warning(ctx, cronJobKind(), c, e.reason, "%s", e.message)
		} else {
			r.events.Normal(ctx, cronJobKind(), c, e.reason, "%s", e.message)
		}
	}
}
