package controllers

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/client"
)

func TestJobRunsToCompletion(t *testing.T) {
	w := newWorld(t)
	w.create(func(s *batchv1.JobSpec) { s.Completions, s.Parallelism = new(int32(3)), new(int32(2)) })
	w.settle()
	w.expect("active", len(w.active()), 2)
	p := w.active()[0]
	w.expect("labels", fmt.Sprint(p.Labels[batchv1.JobNameLabel], p.Labels["job-name"], p.Labels[batchv1.ControllerUidLabel] == p.Labels["controller-uid"]), "jjtrue")
	w.expect("selector", w.job().Spec.Selector.MatchLabels[batchv1.ControllerUidLabel], w.job().UID)
	w.run(p)
	w.settle()
	w.expect("ready", *w.job().Status.Ready, 1)
	w.expect("active", w.job().Status.Active, 2)
	w.exit(p, 0)
	w.settle()
	w.expect("one succeeded, one more was made", fmt.Sprint(w.job().Status.Succeeded, w.job().Status.Active), "1 2")
	for _, p := range w.active() {
		w.exit(p, 0)
	}
	w.settle()
	s := w.job().Status
	w.expect("end", w.ended(), "Complete CompletionsReached")
	w.expect("numbers", fmt.Sprint(s.Succeeded, s.Failed, s.Active, *s.Ready, *s.Terminating), "3 0 0 0 0")
	if s.StartTime == nil || s.CompletionTime == nil || jobCondition(&s, batchv1.JobSuccessCriteriaMet) == nil {
		t.Errorf("status %+v", s)
	}
	for _, p := range w.pods() {
		if tracked(p) {
			t.Errorf("pod %s is not released", p.Name)
		}
	}
	if e := w.events(); e["SuccessfulCreate"] != 3 || e["Completed"] != 1 {
		t.Errorf("events %v", e)
	}
}

func TestWorkQueueEndsWithTheFirstSuccess(t *testing.T) {
	w := newWorld(t)
	w.create(func(s *batchv1.JobSpec) { s.Parallelism = new(int32(3)) })
	w.settle()
	w.expect("active", len(w.active()), 3)
	w.exit(w.active()[0], 0)
	w.settle()
	w.expect("nobody is replaced", len(w.active()), 2)
	w.expect("it goes on", w.ended(), "")
	w.exit(w.active()[0], 1)
	w.settle()
	w.exit(w.active()[0], 0)
	w.settle()
	w.expect("end", w.ended(), "Complete CompletionsReached")
	w.expect("counts", fmt.Sprint(w.job().Status.Succeeded, w.job().Status.Failed), "2 1")
}

func TestParallelismCanBeChanged(t *testing.T) {
	w := newWorld(t)
	w.create(func(s *batchv1.JobSpec) { s.Completions, s.Parallelism = new(int32(5)), new(int32(0)) })
	w.settle()
	w.expect("none", len(w.active()), 0)
	w.change(func(s *batchv1.JobSpec) { s.Parallelism = new(int32(9)) })
	w.expect("no more than completions", len(w.active()), 5)
	w.run(w.active()[3])
	keep := w.active()[3].Name
	w.change(func(s *batchv1.JobSpec) { s.Parallelism = new(int32(1)) })
	w.expect("one is left", len(w.active()), 1)
	w.expect("the one that runs", w.active()[0].Name, keep)
	w.expect("those that were stopped have not failed", w.job().Status.Failed, 0)
	w.expect("and are gone", len(w.pods()), 1)
}

func TestNoCompletionsAreReachedAtOnce(t *testing.T) {
	w := newWorld(t)
	w.create(func(s *batchv1.JobSpec) { s.Completions = new(int32(0)) })
	w.settle()
	w.expect("end", w.ended(), "Complete CompletionsReached")
}

// failing runs until no Pod is left to fail, and tells after how many and after
// which waits.
func failing(w *world) (pods int, waits []time.Duration) { return failingWith(w, 1) }

func failingWith(w *world, code int32) (pods int, waits []time.Duration) {
	for range 20 {
		for _, p := range w.active() {
			w.exit(p, code)
			pods++
		}
		w.settle()
		if w.ended() != "" {
			return pods, waits
		}
		from := w.clock.Now()
		for len(w.active()) == 0 {
			w.after(time.Second)
		}
		waits = append(waits, w.clock.Since(from))
	}
	w.Fatal("it goes on for ever")
	return 0, nil
}

func TestBackoffLimitOfNeverCountsPods(t *testing.T) {
	w := newWorld(t)
	w.create(func(s *batchv1.JobSpec) { s.BackoffLimit = new(int32(3)) })
	w.settle()
	pods, waits := failing(w)
	w.expect("pods", pods, 4)
	w.expect("waits", waits, "[10s 20s 40s]")
	w.expect("end", w.ended(), "Failed BackoffLimitExceeded")
	w.expect("failed", w.job().Status.Failed, 4)
	w.expect("the message", jobEnd(&w.job().Status).Message, "Job has reached the specified backoff limit")
	if e := w.events(); e["BackoffLimitExceeded"] != 1 {
		t.Errorf("events %v", e)
	}
}

func TestTheRetryDelayEndsAtSixMinutesAndSurvivesARestart(t *testing.T) {
	w := newWorld(t)
	w.create(func(s *batchv1.JobSpec) { s.BackoffLimit = new(int32(7)) })
	w.settle()
	for _, want := range []time.Duration{10, 20, 40, 80, 160, 320, 360} {
		w.exit(w.active()[0], 1)
		w.settle()
		w.restart()
		w.after(want*time.Second - time.Second)
		w.expect(fmt.Sprintf("pods before %ds", want), len(w.active()), 0)
		w.after(time.Second)
		w.expect(fmt.Sprintf("pods after %ds", want), len(w.active()), 1)
	}
}

func TestASuccessForgetsTheFailuresBefore(t *testing.T) {
	w := newWorld(t)
	w.create(func(s *batchv1.JobSpec) { s.Completions, s.BackoffLimit = new(int32(2)), new(int32(6)) })
	w.settle()
	w.exit(w.active()[0], 1)
	w.after(10 * time.Second)
	w.exit(w.active()[0], 1)
	w.after(20 * time.Second)
	w.exit(w.active()[0], 0)
	w.settle()
	w.expect("the next is there at once", len(w.active()), 1)
	w.clock.Step(time.Second)
	w.exit(w.active()[0], 1)
	w.after(10 * time.Second)
	w.expect("the delay begins anew", len(w.active()), 1)
}

func TestParallelFailuresBeyondTheLimit(t *testing.T) {
	w := newWorld(t)
	w.create(func(s *batchv1.JobSpec) {
		s.BackoffLimit, s.Parallelism, s.Completions = new(int32(10)), new(int32(10)), new(int32(10))
	})
	w.settle()
	failing(w)
	if n := w.job().Status.Failed; n < 11 || n > 20 {
		t.Errorf("%d pods have failed, want 11 to 20", n)
	}
	w.expect("end", w.ended(), "Failed BackoffLimitExceeded")
}

func TestOnFailureCountsRestarts(t *testing.T) {
	for limit, restarts := range map[int32]int32{0: 1, 3: 3} {
		w := newWorld(t)
		w.create(func(s *batchv1.JobSpec) {
			s.BackoffLimit, s.Template.Spec.RestartPolicy = new(limit), corev1.RestartPolicyOnFailure
		})
		w.settle()
		p := w.active()[0]
		w.run(p)
		w.report(p, corev1.PodRunning, corev1.ContainerState{}, restarts-1)
		w.settle()
		w.expect("below the limit", w.ended(), "")
		w.report(p, corev1.PodRunning, corev1.ContainerState{}, restarts)
		w.settle()
		w.expect("it waits for its pod to stop", w.ended(), "")
		w.expect("it says that it fails", jobCondition(new(w.job().Status), batchv1.JobFailureTarget).Reason, "BackoffLimitExceeded")
		w.expect("terminating", *w.job().Status.Terminating, 1)
		w.stopAll()
		w.expect("end", w.ended(), "Failed BackoffLimitExceeded")
		w.expect("failed", w.job().Status.Failed, 1)
	}
}

func TestActiveDeadline(t *testing.T) {
	w := newWorld(t)
	w.create(func(s *batchv1.JobSpec) { s.ActiveDeadlineSeconds = new(int64(30)) })
	w.settle()
	w.run(w.active()[0])
	w.after(29 * time.Second)
	w.expect("in time", len(w.active()), 1)
	w.after(time.Second)
	w.expect("stopped", len(w.active()), 0)
	w.stopAll()
	w.expect("end", w.ended(), "Failed DeadlineExceeded")
	if e := w.events(); e["DeadlineExceeded"] != 1 {
		t.Errorf("events %v", e)
	}
}

func TestSuspendAndResume(t *testing.T) {
	w := newWorld(t)
	w.create(func(s *batchv1.JobSpec) {
		s.Suspend, s.ActiveDeadlineSeconds, s.BackoffLimit = new(true), new(int64(30)), new(int32(0))
	})
	w.settle()
	w.expect("nothing runs", len(w.pods()), 0)
	w.expect("not started", w.job().Status.StartTime == nil, true)
	w.expect("suspended", jobCondition(new(w.job().Status), batchv1.JobSuspended).Status, "True")
	w.after(time.Minute) // no deadline while it is suspended
	w.change(func(s *batchv1.JobSpec) { s.Suspend = new(false) })
	w.expect("it runs", len(w.active()), 1)
	w.expect("from now", w.job().Status.StartTime.Time.Equal(w.clock.Now()), true)
	w.run(w.active()[0])
	w.after(20 * time.Second)
	w.change(func(s *batchv1.JobSpec) { s.Suspend = new(true) })
	w.expect("stopped", len(w.active()), 0)
	w.stopAll()
	w.expect("no pod is left, and none has failed", fmt.Sprint(len(w.pods()), w.job().Status.Failed), "0 0")
	w.change(func(s *batchv1.JobSpec) { s.Suspend = new(false) })
	w.after(20 * time.Second)
	w.expect("the deadline began anew", len(w.active()), 1)
	w.exit(w.active()[0], 0)
	w.settle()
	w.expect("end", w.ended(), "Complete CompletionsReached")
	if e := w.events(); e["Suspended"] != 2 || e["Resumed"] != 2 {
		t.Errorf("events %v", e)
	}
}

func TestPodReplacementPolicy(t *testing.T) {
	for policy, want := range map[batchv1.PodReplacementPolicy]int{batchv1.TerminatingOrFailed: 1, batchv1.Failed: 0} {
		w := newWorld(t)
		w.create(func(s *batchv1.JobSpec) { s.PodReplacementPolicy = new(policy) })
		w.settle()
		p := w.active()[0]
		w.run(p)
		w.delete(p)
		w.after(11 * time.Second)
		w.expect(string(policy)+": pods while the first stops", len(w.active()), want)
		w.expect(string(policy)+": failed meanwhile", w.job().Status.Failed, want)
		w.expect(string(policy)+": terminating", *w.job().Status.Terminating, 1)
		w.stopped(p)
		w.after(11 * time.Second)
		w.expect(string(policy)+": pods", len(w.active()), 1)
		w.expect(string(policy)+": failed", w.job().Status.Failed, 1)
	}
}

func TestJobIsRemovedAfterItsTTL(t *testing.T) {
	w := newWorld(t)
	w.create(func(s *batchv1.JobSpec) { s.TTLSecondsAfterFinished = new(int32(60)) })
	w.settle()
	w.exit(w.active()[0], 0)
	w.settle()
	w.after(59 * time.Second)
	w.expect("in time", w.job().DeletionTimestamp == nil, true)
	w.clock.Step(2 * time.Second)
	w.see(nil)
	w.step()
	// Its Pods go first; the garbage collector sees to that.
	w.expect("it is being deleted", slices.Contains(w.job().Finalizers, metav1.FinalizerDeleteDependents), true)
}

func TestManagedByAnother(t *testing.T) {
	w := newWorld(t)
	w.create(func(s *batchv1.JobSpec) { s.ManagedBy = new("example.org/queue") })
	w.settle()
	w.expect("pods", len(w.pods()), 0)
	w.expect("start", w.job().Status.StartTime == nil, true)
}

// TestAJobTakesOnWhatItSelects: Pods of nobody count as its own, and one that it
// selects no longer is let go of and replaced.
func TestAJobTakesOnWhatItSelects(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"found", "going"} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"my": "own"}}}
		p.Spec = corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}
		if err := w.r.Create(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		w.run(p)
		if name == "going" {
			w.delete(p)
		}
	}
	w.create(func(s *batchv1.JobSpec) {
		s.ManualSelector, s.Selector = new(true), &metav1.LabelSelector{MatchLabels: map[string]string{"my": "own"}}
		s.Template.Labels = map[string]string{"my": "own"}
		s.Completions, s.Parallelism = new(int32(2)), new(int32(2))
	})
	w.settle()
	active := w.active()
	w.expect("pods", len(active), 2)
	w.expect("active", w.job().Status.Active, 2)
	for _, p := range active {
		if !controls(w.job(), p) || !tracked(p) {
			t.Errorf("%s: owners %v, finalizers %v", p.Name, p.OwnerReferences, p.Finalizers)
		}
	}
	released := active[0]
	released.Labels = nil
	if err := w.r.Update(t.Context(), released); err != nil {
		t.Fatal(err)
	}
	w.settle()
	w.expect("active, once one was released", w.job().Status.Active, 2)
	var now corev1.Pod
	if err := w.r.Get(t.Context(), client.Key(released), &now); err != nil || len(now.OwnerReferences)+len(now.Finalizers) > 0 {
		t.Errorf("the released one: owners %v, finalizers %v, %v", now.OwnerReferences, now.Finalizers, err)
	}
	for _, p := range w.active() {
		if controls(w.job(), p) {
			w.run(p)
			w.exit(p, 0)
		}
	}
	w.settle()
	w.expect("ended", w.ended(), "Complete CompletionsReached")
}

func TestManualSelector(t *testing.T) {
	w := newWorld(t)
	w.create(func(s *batchv1.JobSpec) {
		s.ManualSelector, s.Selector = new(true), &metav1.LabelSelector{MatchLabels: map[string]string{"my": "own"}}
		s.Template.Labels = map[string]string{"my": "own"}
	})
	w.settle()
	p := w.active()[0]
	w.expect("labels", len(p.Labels), 1)
	w.exit(p, 0)
	w.settle()
	w.expect("end", w.ended(), "Complete CompletionsReached")
}

func TestPodsOfAJobThatIsGoneAreLetGo(t *testing.T) {
	w := newWorld(t)
	w.create(func(s *batchv1.JobSpec) { s.Completions, s.Parallelism = new(int32(3)), new(int32(3)) })
	w.settle()
	p := w.active()
	w.run(p[0])
	w.exit(p[1], 0)
	if err := w.r.Delete(t.Context(), w.job(), client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, p := range w.pods() { // as the garbage collector does
		w.delete(p)
	}
	w.see(nil)
	w.step()
	w.stopped(p[0])
	if left := w.pods(); len(left) > 0 {
		t.Errorf("%d pods are left, the first with %v", len(left), left[0].Finalizers)
	}
}

func TestAPodDeletedBeforeItWasCountedIsCounted(t *testing.T) {
	w := newWorld(t)
	w.create(func(s *batchv1.JobSpec) { s.Completions = new(int32(2)) })
	w.settle()
	p := w.active()[0]
	w.exit(p, 0)
	w.delete(p)
	w.restart()
	w.settle()
	w.expect("succeeded", w.job().Status.Succeeded, 1)
	w.expect("pods", len(w.pods()), 1)
}

func TestWhatCannotBeMadeIsSaid(t *testing.T) {
	w := newWorld(t)
	w.create(func(s *batchv1.JobSpec) {
		s.Template.Spec.ServiceAccountName = "nobody"
		s.ActiveDeadlineSeconds = new(int64(5))
	})
	w.see(nil)
	err := w.jobs.reconcile(t.Context(), w.key())
	if err == nil || !strings.Contains(err.Error(), "nobody") || apierrors.IsConflict(err) {
		t.Fatalf("error %v", err)
	}
	if e := w.events(); e["FailedCreate"] != 1 {
		t.Errorf("events %v", e)
	}
	w.expect("it has started", w.job().Status.StartTime != nil, true)
	w.expect("active", w.job().Status.Active, 0)
	w.clock.Step(6 * time.Second)
	w.settle()
	w.expect("end", w.ended(), "Failed DeadlineExceeded")
}

func TestAJobWaitsForThePodsOfTheOneBefore(t *testing.T) {
	w := newWorld(t)
	one := func(*batchv1.JobSpec) {}
	w.create(one)
	w.settle()
	old := w.active()[0]
	w.run(old)
	if err := w.r.Delete(t.Context(), w.job(), client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.create(one)
	w.delete(old) // as the garbage collector does
	w.settle()
	w.expect("none yet", len(w.active()), 0)
	w.stopAll()
	w.expect("the old one is gone", len(w.active()), 1)
	if e := w.events(); e["Waiting"] == 0 {
		t.Errorf("events %v", e)
	}
}

func TestAnEvictionIsADisruption(t *testing.T) {
	w := newWorld(t)
	w.create(func(s *batchv1.JobSpec) {
		s.BackoffLimit = new(int32(0))
		s.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
			Action: batchv1.PodFailurePolicyActionIgnore,
			OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{
				{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue},
			},
		}}}
	})
	w.settle()
	p := w.active()[0]
	w.run(p)
	if err := w.r.Evict(t.Context(), client.Key(p), client.DeleteOptions{}, false); err != nil {
		t.Fatal(err)
	}
	w.settle()
	w.expect("it keeps its place until it has stopped", len(w.active()), 0)
	w.stopAll()
	w.after(10 * time.Second)
	w.expect("another one", len(w.active()), 1)
	w.expect("failed", w.job().Status.Failed, 0)
}
