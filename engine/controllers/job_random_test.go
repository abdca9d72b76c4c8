package controllers

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// witness remembers every Pod that there ever was, and checks after each step
// what must hold at any time.
type witness struct {
	*world
	created   map[types.UID]string
	succeeded map[types.UID]bool
	failed    map[types.UID]bool
	last      batchv1.JobStatus
}

// check looks at the store, not at the views.
func (w *witness) check() {
	w.Helper()
	job := w.job()
	s := job.Status
	var running, stopping int
	indexes, present := map[string]bool{}, map[types.UID]bool{}
	for _, p := range w.pods() {
		present[p.UID] = true
		if _, known := w.created[p.UID]; !known {
			w.created[p.UID] = indexOf(p)
			if before := parseIndexes(w.last.CompletedIndexes, 1000); indexed(job) && before.has(completionIndex(job, p)) {
				w.Fatalf("index %s ran again after it had succeeded", indexOf(p))
			}
		}
		switch {
		case podActive(p):
			running++
			if indexed(job) && indexes[indexOf(p)] {
				w.Fatalf("two pods have the index %s", indexOf(p))
			}
			indexes[indexOf(p)] = true
		case !podStopped(p):
			stopping++
		}
		w.succeeded[p.UID] = w.succeeded[p.UID] || p.Status.Phase == corev1.PodSucceeded
		w.failed[p.UID] = w.failed[p.UID] || p.Status.Phase != corev1.PodSucceeded && !podActive(p)
	}
	for uid := range w.created {
		w.failed[uid] = w.failed[uid] || !present[uid] && !w.succeeded[uid]
	}
	if replacesFailedOnly(job) {
		running += stopping
	}
	if running > int(*job.Spec.Parallelism) {
		w.Fatalf("%d pods run, parallelism is %d", running, *job.Spec.Parallelism)
	}
	if int(s.Succeeded) > count(w.succeeded) || int(s.Failed) > count(w.failed) {
		w.Fatalf("counted %d and %d, but %d have succeeded and %d failed", s.Succeeded, s.Failed, count(w.succeeded), count(w.failed))
	}
	if s.Succeeded < w.last.Succeeded || s.Failed < w.last.Failed || jobEnd(&w.last) != nil && jobEnd(&s) == nil {
		w.Fatalf("the status went back from %+v to %+v", w.last, s)
	}
	if c := job.Spec.Completions; c != nil && s.Succeeded > *c {
		w.Fatalf("%d of %d have succeeded", s.Succeeded, *c)
	}
	w.last = s
}

func count(m map[types.UID]bool) int {
	n := 0
	for _, yes := range m {
		if yes {
			n++
		}
	}
	return n
}

// randomJob makes a Job of any shape.
func randomJob(d dice) func(*batchv1.JobSpec) {
	return func(s *batchv1.JobSpec) {
		s.Parallelism, s.BackoffLimit = new(int32(1+d.IntN(4))), new(int32(d.IntN(6)))
		if !d.oneIn(5) {
			s.Completions = new(int32(1 + d.IntN(6)))
		}
		if s.Completions != nil && d.oneIn(2) {
			s.CompletionMode = new(batchv1.IndexedCompletion)
			if d.oneIn(2) {
				s.BackoffLimitPerIndex, s.BackoffLimit = new(int32(d.IntN(3))), nil
			}
		}
		if d.oneIn(2) {
			s.PodReplacementPolicy = new(batchv1.Failed)
		}
		if d.oneIn(4) {
			s.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{exitRule(batchv1.PodFailurePolicyActionIgnore, 7)}}
			s.PodReplacementPolicy = nil
		}
	}
}

// happen lets something happen to a Pod.
func (w *witness) happen(d dice) {
	pods := w.pods()
	if len(pods) == 0 {
		return
	}
	p := pods[d.IntN(len(pods))]
	switch {
	case p.DeletionTimestamp != nil:
		w.stopped(p)
	case podFinished(p):
		if d.oneIn(4) && tracked(p) {
			w.delete(p) // somebody deletes what has ended before it is counted
		}
	case p.Spec.NodeName == "":
		w.run(p)
	case d.oneIn(8):
		w.delete(p)
	default:
		w.exit(p, []int32{0, 0, 0, 1, 7}[d.IntN(5)])
	}
}

// TestRandomJobs: whatever happens to the Pods, whenever the engine is killed
// and however old its views are, a Job comes to its end, no Pod counts twice, no
// index runs twice, and there are never more Pods than there may be.
func TestRandomJobs(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	for seed := range uint64(rounds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			d := dice{rand.New(rand.NewPCG(seed, 1))}
			w := &witness{world: newWorld(t), created: map[types.UID]string{}, succeeded: map[types.UID]bool{}, failed: map[types.UID]bool{}}
			w.create(randomJob(d))
			for range 400 {
				switch d.IntN(8) {
				case 0, 1, 2:
					w.happen(d)
				case 3, 4:
					w.see(func() bool { return d.oneIn(2) })
				case 5:
					if d.oneIn(6) {
						w.restart()
					}
				case 6:
					w.clock.Step(time.Duration(d.IntN(120)) * time.Second)
				}
				w.check() // and before the step, for it is who the witness is about
				w.step()
				w.check()
			}
			w.end()
		})
	}
}

// end lets all Pods succeed, and the Job come to its end.
func (w *witness) end() {
	w.Helper()
	for range 100 {
		if w.ended() != "" {
			break
		}
		for _, p := range w.pods() {
			switch {
			case p.DeletionTimestamp != nil:
				w.stopped(p)
			case !podFinished(p):
				w.exit(p, 0)
			}
		}
		w.after(10 * time.Minute)
		w.check()
	}
	job := w.job()
	switch {
	case strings.HasPrefix(w.ended(), "Complete"):
		if c := job.Spec.Completions; c != nil && job.Status.Succeeded != *c || job.Status.Succeeded == 0 {
			w.Errorf("complete with %+v", job.Status)
		}
	case w.ended() == "Failed BackoffLimitExceeded":
		if job.Status.Failed <= *job.Spec.BackoffLimit {
			w.Errorf("failed with %+v, the limit is %d", job.Status, *job.Spec.BackoffLimit)
		}
	case w.ended() == "Failed FailedIndexes" && job.Spec.BackoffLimitPerIndex != nil:
	default:
		w.Fatalf("it has not come to its end: %q %+v", w.ended(), job.Status)
	}
	if job.Status.Active != 0 || *job.Status.Terminating != 0 {
		w.Errorf("it has ended with %+v", job.Status)
	}
	for _, p := range w.pods() {
		if tracked(p) {
			w.Errorf("pod %s is not released: %+v", p.Name, p.Status)
		}
	}
}
