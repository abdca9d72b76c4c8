package controllers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

func indexedJob(completions, parallelism int32, more func(*batchv1.JobSpec)) func(*batchv1.JobSpec) {
	return func(s *batchv1.JobSpec) {
		s.CompletionMode, s.Completions, s.Parallelism = new(batchv1.IndexedCompletion), &completions, &parallelism
		if more != nil {
			more(s)
		}
	}
}

// indexes are those of the Pods that run or will.
func (w *world) indexes() string {
	var out []string
	for _, p := range w.active() {
		out = append(out, indexOf(p))
	}
	return strings.Join(out, " ")
}

// ofIndex is the Pod of an index that runs or will.
func (w *world) ofIndex(n int) *corev1.Pod {
	w.Helper()
	for _, p := range w.active() {
		if indexOf(p) == fmt.Sprint(n) {
			return p
		}
	}
	w.Fatalf("no pod has the index %d", n)
	return nil
}

func TestIndexedJob(t *testing.T) {
	w := newWorld(t)
	w.create(indexedJob(5, 3, func(s *batchv1.JobSpec) {
		s.Template.Spec.InitContainers = []corev1.Container{{Name: "i", Image: "i"}}
		s.Template.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", Value: "b"}}
	}))
	w.settle()
	w.expect("indexes", w.indexes(), "0 1 2")
	p := w.ofIndex(2)
	w.expect("host name", p.Spec.Hostname, "j-2")
	w.expect("name", strings.HasPrefix(p.Name, "j-2-"), true)
	w.expect("label", p.Labels["batch.kubernetes.io/job-completion-index"], "2")
	w.expect("annotation", p.Annotations["batch.kubernetes.io/job-completion-index"], "2")
	for _, c := range []corev1.Container{p.Spec.InitContainers[0], p.Spec.Containers[0]} {
		e := c.Env[len(c.Env)-1]
		w.expect("variable", e.Name+" "+e.ValueFrom.FieldRef.FieldPath, "JOB_COMPLETION_INDEX metadata.labels['batch.kubernetes.io/job-completion-index']")
	}
	w.exit(w.ofIndex(1), 0)
	w.settle()
	w.expect("indexes", w.indexes(), "0 2 3")
	w.exit(w.ofIndex(0), 1)
	w.after(10 * time.Second)
	w.expect("the failed one again, and no other", w.indexes(), "0 2 3")
	for _, n := range []int{3, 2, 0, 4} {
		w.exit(w.ofIndex(n), 0)
		w.settle()
	}
	w.expect("end", w.ended(), "Complete CompletionsReached")
	s := w.job().Status
	w.expect("numbers", fmt.Sprint(s.CompletedIndexes, " ", s.Succeeded, s.Failed), "0-4 5 1")
}

func TestElasticIndexedJob(t *testing.T) {
	w := newWorld(t)
	w.create(indexedJob(4, 4, nil))
	w.settle()
	w.exit(w.ofIndex(3), 0)
	w.settle()
	resize := func(n int32) {
		w.change(func(s *batchv1.JobSpec) { s.Completions, s.Parallelism = &n, &n })
	}
	resize(2)
	w.expect("indexes", w.indexes(), "0 1")
	w.expect("completed", w.job().Status.CompletedIndexes, "")
	resize(3)
	w.expect("indexes", w.indexes(), "0 1 2")
}

func TestBackoffLimitPerIndex(t *testing.T) {
	w := newWorld(t)
	w.create(indexedJob(3, 3, func(s *batchv1.JobSpec) { s.BackoffLimitPerIndex = new(int32(1)) }))
	w.settle()
	w.exit(w.ofIndex(0), 1)
	w.settle()
	w.expect("the failed pod is kept until it is replaced", fmt.Sprint(w.job().Status.Failed, " of ", w.indexes()), "0 of 1 2")
	w.restart()
	w.after(10 * time.Second)
	w.expect("its failure is handed on", w.ofIndex(0).Annotations[batchv1.JobIndexFailureCountAnnotation], "1")
	w.expect("and counted", w.job().Status.Failed, 1)
	w.exit(w.ofIndex(0), 1)
	w.settle()
	w.expect("the index has failed", *w.job().Status.FailedIndexes, "0")
	w.expect("the others go on", w.indexes(), "1 2")
	w.exit(w.ofIndex(1), 0)
	w.exit(w.ofIndex(2), 0)
	w.settle()
	w.expect("end", w.ended(), "Failed FailedIndexes")
	s := w.job().Status
	w.expect("numbers", fmt.Sprint(s.CompletedIndexes, " ", *s.FailedIndexes, " ", s.Succeeded, s.Failed), "1,2 0 2 2")
}

func TestAnIndexThatWaitsKeepsNoOtherWaiting(t *testing.T) {
	w := newWorld(t)
	w.create(indexedJob(3, 1, func(s *batchv1.JobSpec) { s.BackoffLimitPerIndex = new(int32(3)) }))
	w.settle()
	w.exit(w.ofIndex(0), 1)
	w.settle()
	w.expect("indexes", w.indexes(), "1")
}

func TestMaxFailedIndexes(t *testing.T) {
	w := newWorld(t)
	w.create(indexedJob(5, 5, func(s *batchv1.JobSpec) {
		s.BackoffLimitPerIndex, s.MaxFailedIndexes = new(int32(0)), new(int32(1))
	}))
	w.settle()
	w.exit(w.ofIndex(0), 1)
	w.settle()
	w.expect("one may fail", w.ended(), "")
	w.exit(w.ofIndex(3), 1)
	w.settle()
	w.expect("end", w.ended(), "Failed MaxFailedIndexesExceeded")
	w.expect("indexes", *w.job().Status.FailedIndexes, "0,3")
}

func exitRule(action batchv1.PodFailurePolicyAction, codes ...int32) batchv1.PodFailurePolicyRule {
	return batchv1.PodFailurePolicyRule{Action: action, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
		Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: codes,
	}}
}

func TestPodFailurePolicy(t *testing.T) {
	policy := func(s *batchv1.JobSpec) {
		s.BackoffLimit = new(int32(1))
		s.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
			exitRule(batchv1.PodFailurePolicyActionFailJob, 42),
			exitRule(batchv1.PodFailurePolicyActionCount, 3),
			{Action: batchv1.PodFailurePolicyActionIgnore, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{
				{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue},
			}},
		}}
	}
	t.Run("a disruption is ignored", func(t *testing.T) {
		w := newWorld(t)
		w.create(policy)
		w.settle()
		for range 3 {
			p := w.active()[0]
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue})
			if err := w.r.UpdateStatus(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			w.exit(p, 9)
			w.settle()
			w.after(10 * time.Minute)
		}
		w.expect("failed", w.job().Status.Failed, 0)
		w.expect("it goes on", len(w.active()), 1)
	})
	t.Run("a code fails the Job", func(t *testing.T) {
		w := newWorld(t)
		w.create(policy)
		w.settle()
		w.exit(w.active()[0], 42)
		w.settle()
		w.expect("end", w.ended(), "Failed PodFailurePolicy")
		if m := jobEnd(&w.job().Status).Message; !strings.HasSuffix(m, "failed with exit code 42 matching FailJob rule at index 0") {
			t.Errorf("message %q", m)
		}
	})
	t.Run("other codes count", func(t *testing.T) {
		for _, code := range []int32{3, 4} {
			w := newWorld(t)
			w.create(policy)
			w.settle()
			pods, _ := failingWith(w, code)
			w.expect("pods", pods, 2)
			w.expect("end", w.ended(), "Failed BackoffLimitExceeded")
		}
	})
	t.Run("a code fails an index", func(t *testing.T) {
		w := newWorld(t)
		w.create(indexedJob(2, 2, func(s *batchv1.JobSpec) {
			s.BackoffLimitPerIndex = new(int32(5))
			s.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{exitRule(batchv1.PodFailurePolicyActionFailIndex, 42)}}
		}))
		w.settle()
		w.exit(w.ofIndex(1), 42)
		w.settle()
		w.expect("indexes", *w.job().Status.FailedIndexes, "1")
		w.expect("the other goes on", w.indexes(), "0")
	})
}

func TestSuccessPolicy(t *testing.T) {
	for name, c := range map[string]struct {
		rules []batchv1.SuccessPolicyRule
		exit  []int
		want  string
	}{
		"a leader":          {[]batchv1.SuccessPolicyRule{{SucceededIndexes: new("0")}}, []int{1, 0}, "Matched rules at index 0"},
		"some of a few":     {[]batchv1.SuccessPolicyRule{{SucceededIndexes: new("1-3"), SucceededCount: new(int32(2))}}, []int{0, 2, 3}, "Matched rules at index 0"},
		"any, second rule":  {[]batchv1.SuccessPolicyRule{{SucceededIndexes: new("4")}, {SucceededCount: new(int32(2))}}, []int{0, 1}, "Matched rules at index 1"},
		"all of the listed": {[]batchv1.SuccessPolicyRule{{SucceededIndexes: new("0,2")}}, []int{0, 1, 2}, "Matched rules at index 0"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.create(indexedJob(5, 5, func(s *batchv1.JobSpec) { s.SuccessPolicy = &batchv1.SuccessPolicy{Rules: c.rules} }))
			w.settle()
			w.run(w.ofIndex(4))
			for _, n := range c.exit {
				w.expect("before", jobCondition(new(w.job().Status), batchv1.JobSuccessCriteriaMet) == nil, true)
				w.exit(w.ofIndex(n), 0)
				w.settle()
			}
			w.expect("it waits for the rest to stop", w.ended(), "")
			w.stopAll()
			w.expect("end", w.ended(), "Complete SuccessPolicy")
			w.expect("message", jobEnd(new(w.job().Status)).Message, c.want)
			w.expect("failed", w.job().Status.Failed, 0)
		})
	}
}

func TestIndexSet(t *testing.T) {
	s := parseIndexes("1,3-5,7", 100)
	for _, c := range []struct{ got, want any }{
		{s.String(), "1,3-5,7"},
		{s.total(), 5},
		{s.with(2).String(), "1-5,7"},
		{s.with(0, 8, 1).String(), "0,1,3-5,7,8"},
		{parseIndexes("1,3-5,7", 5).String(), "1,3,4"},
		{parseIndexes("", 5).total(), 0},
		{parseIndexes("x,2-y,-3", 5).total(), 0},
		{s.has(4), true},
		{s.has(6), false},
		{s.free(4, 10), []int{0, 2, 6, 8}},
		{s.free(9, 8), []int{0, 2, 6}},
		{indexSet(nil).free(2, 10), []int{0, 1}},
		{s.common(parseIndexes("4-7", 100)), 3},
	} {
		if fmt.Sprint(c.got) != fmt.Sprint(c.want) {
			t.Errorf("got %v, want %v", c.got, c.want)
		}
	}
}

func TestALongNameKeepsItsIndex(t *testing.T) {
	if got := indexedName(strings.Repeat("x", 60), "12"); len(got) != 58 || !strings.HasSuffix(got, "x-12-") {
		t.Errorf("got %q", got)
	}
}
