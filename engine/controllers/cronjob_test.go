package controllers

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
)

// cronWorld is a stage with one CronJob "c". Its Jobs end when the test says so.
type cronWorld struct {
	*stage
	crons *cronJobs
}

func newCronWorld(t *testing.T, start string, edit func(*batchv1.CronJobSpec)) *cronWorld {
	t.Helper()
	w := &cronWorld{stage: newStage(t)}
	at, err := time.Parse(time.RFC3339, start)
	if err != nil {
		t.Fatal(err)
	}
	w.clock.SetTime(at)
	w.stage.step = w.step
	c := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}, Spec: batchv1.CronJobSpec{Schedule: "* * * * *"}}
	c.Spec.JobTemplate.Spec.Template.Spec = corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}
	edit(&c.Spec)
	if err := w.r.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	w.restart()
	t.Cleanup(func() { w.crons.loop.queue.ShutDown() })
	w.settle()
	return w
}

func (w *cronWorld) restart() {
	if w.crons != nil {
		w.crons.loop.queue.ShutDown()
	}
	w.crons = newCronJobs(w.begin())
	w.see(nil)
}

func (w *cronWorld) key() types.NamespacedName {
	return types.NamespacedName{Namespace: "default", Name: "c"}
}

func (w *cronWorld) get() *batchv1.CronJob {
	w.Helper()
	var c batchv1.CronJob
	if err := w.r.Get(w.Context(), w.key(), &c); err != nil {
		w.Fatal(err)
	}
	return &c
}

func (w *cronWorld) change(edit func(*batchv1.CronJobSpec)) {
	w.Helper()
	c := w.get()
	edit(&c.Spec)
	if err := w.r.Update(w.Context(), c); err != nil {
		w.Fatal(err)
	}
	w.settle()
}

func (w *cronWorld) step() {
	w.Helper()
	w.allowed(w.crons.reconcile(w.Context(), w.key()))
}

// slots are the times of the Jobs that are there, as "15:04".
func (w *cronWorld) slots() string {
	w.Helper()
	var out []string
	for _, j := range w.jobs() {
		at, err := time.Parse(time.RFC3339, j.Annotations[batchv1.CronJobScheduledTimestampAnnotation])
		if err != nil {
			w.Fatal(err)
		}
		if want := fmt.Sprintf("c-%d", at.Unix()/60); j.Name != want {
			w.Errorf("the job of %v is named %s, want %s", at, j.Name, want)
		}
		out = append(out, at.Format("15:04"))
	}
	return strings.Join(out, " ")
}

func (w *cronWorld) jobs() []*batchv1.Job {
	w.Helper()
	var list batchv1.JobList
	if err := w.r.List(w.Context(), &list, client.ListOptions{Namespace: "default"}); err != nil {
		w.Fatal(err)
	}
	var out []*batchv1.Job
	for i := range list.Items {
		out = append(out, &list.Items[i])
	}
	slices.SortFunc(out, func(a, b *batchv1.Job) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// finish ends a Job.
func (w *cronWorld) finish(j *batchv1.Job, how batchv1.JobConditionType) {
	w.Helper()
	now := metav1.NewTime(w.clock.Now())
	j.Status.StartTime = &now
	j.Status.Conditions = []batchv1.JobCondition{{Type: how, Status: corev1.ConditionTrue, LastTransitionTime: now}}
	if how == batchv1.JobComplete {
		j.Status.CompletionTime, j.Status.Succeeded = &now, 1
		j.Status.Conditions = append(j.Status.Conditions, batchv1.JobCondition{Type: batchv1.JobSuccessCriteriaMet, Status: corev1.ConditionTrue, LastTransitionTime: now})
	} else {
		j.Status.Conditions = append(j.Status.Conditions, batchv1.JobCondition{Type: batchv1.JobFailureTarget, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	if err := w.r.UpdateStatus(w.Context(), j); err != nil {
		w.Fatal(err)
	}
}

func (w *cronWorld) finishAll() {
	w.Helper()
	for _, j := range w.jobs() {
		if jobEnd(&j.Status) == nil {
			w.finish(j, batchv1.JobComplete)
		}
	}
	w.settle()
}

func (w *cronWorld) expect(what string, got, want any) {
	w.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.Errorf("%s: got %v, want %v; status %+v", what, got, want, w.get().Status)
	}
}

// said are the reasons of the events of the CronJob, with how often.
func (w *cronWorld) said(reason string) int32 {
	w.Helper()
	var list corev1.EventList
	if err := w.r.List(w.Context(), &list, client.ListOptions{Namespace: "default"}); err != nil {
		w.Fatal(err)
	}
	n := int32(0)
	for _, e := range list.Items {
		if e.InvolvedObject.Kind == "CronJob" && e.Reason == reason {
			n += max(1, e.Count)
		}
	}
	return n
}

func each(s *batchv1.CronJobSpec)    {}
func forbid(s *batchv1.CronJobSpec)  { s.ConcurrencyPolicy = batchv1.ForbidConcurrent }
func replace(s *batchv1.CronJobSpec) { s.ConcurrencyPolicy = batchv1.ReplaceConcurrent }

func TestACronJobRunsEachSlotOnce(t *testing.T) {
	w := newCronWorld(t, "2026-03-01T10:00:30Z", each)
	w.expect("before the first slot", w.slots(), "")
	w.after(29 * time.Second)
	w.expect("a second before it", w.slots(), "")
	w.after(time.Second)
	w.expect("on it", w.slots(), "10:01")
	w.after(59 * time.Second)
	w.restart()
	w.settle()
	w.expect("after a restart", w.slots(), "10:01")
	w.after(time.Second)
	w.expect("the next", w.slots(), "10:01 10:02")
	w.expect("active", len(w.get().Status.Active), 2)
	w.finishAll()
	w.expect("active when they have ended", len(w.get().Status.Active), 0)
	w.expect("last success", w.get().Status.LastSuccessfulTime.UTC().Format("15:04:05"), "10:02:00")
}

func TestASlotWhoseJobWasDeletedDoesNotRunAgain(t *testing.T) {
	w := newCronWorld(t, "2026-03-01T10:00:30Z", each)
	w.after(time.Minute)
	for _, j := range w.jobs() {
		if err := w.r.Delete(t.Context(), j, client.DeleteOptions{Propagation: metav1.DeletePropagationOrphan}); err != nil {
			t.Fatal(err)
		}
		if err := ignoreNotFound(w.r.Get(t.Context(), client.Key(j), j)); err == nil && len(j.Finalizers) > 0 {
			j.Finalizers = nil
			if err := ignoreNotFound(w.r.Update(t.Context(), j)); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.restart()
	w.after(10 * time.Second)
	w.expect("the same slot", w.slots(), "")
	w.after(time.Minute)
	w.expect("the next one", w.slots(), "10:02")
}

func TestMissedSlotsGiveOneJobForTheLatest(t *testing.T) {
	w := newCronWorld(t, "2026-03-01T10:00:30Z", each)
	w.clock.Step(3 * time.Hour) // the engine was down
	w.restart()
	w.settle()
	w.expect("after three hours", w.slots(), "13:00")
	w.expect("events", w.said("MissSchedule"), 1)
	w.after(time.Minute)
	w.expect("then each minute", w.slots(), "13:00 13:01")
	w.expect("events", w.said("MissSchedule"), 1)
}

func TestASuspendedCronJobGoesOnWithTheLatestSlot(t *testing.T) {
	w := newCronWorld(t, "2026-03-01T10:00:30Z", func(s *batchv1.CronJobSpec) { s.Suspend = new(true) })
	w.after(72 * time.Hour)
	w.expect("suspended for three days", w.slots(), "")
	w.change(func(s *batchv1.CronJobSpec) { s.Suspend = new(false) })
	w.expect("resumed", w.slots(), "10:00")
	w.after(time.Minute)
	w.expect("then each minute", w.slots(), "10:00 10:01")
}

func TestAChangedScheduleDoesNotFireForThePast(t *testing.T) {
	w := newCronWorld(t, "2026-03-01T10:00:30Z", func(s *batchv1.CronJobSpec) { s.Schedule = "0 0 1 1 *" })
	w.after(5 * time.Hour)
	w.change(func(s *batchv1.CronJobSpec) { s.Schedule = "0 12 * * *" })
	w.expect("12:00 is over", w.slots(), "")
	w.change(func(s *batchv1.CronJobSpec) { s.TimeZone = new("America/New_York") }) // 10:00 there
	w.expect("12:00 is not yet", w.slots(), "")
	w.after(2 * time.Hour)
	w.expect("12:00 in New York", w.slots(), "12:00")
	w.change(func(s *batchv1.CronJobSpec) { s.FailedJobsHistoryLimit = new(int32(7)) })
	w.expect("another change", w.slots(), "12:00")
}

func TestASlotThatIsTooLateIsMissed(t *testing.T) {
	w := newCronWorld(t, "2026-03-01T10:00:30Z", func(s *batchv1.CronJobSpec) {
		s.Schedule, s.StartingDeadlineSeconds = "0 * * * *", new(int64(10))
	})
	w.clock.Step(time.Hour)
	w.restart()
	w.settle() // 11:00:30
	w.expect("30 s late", w.slots(), "")
	w.expect("events", w.said("MissSchedule"), 1)
	w.after(5 * time.Second)
	w.expect("events of the same slot", w.said("MissSchedule"), 1)
	w.after(59*time.Minute + 35*time.Second) // 12:00:10
	w.expect("10 s late", w.slots(), "12:00")
}

func TestConcurrencyPolicies(t *testing.T) {
	t.Run("Forbid", func(t *testing.T) {
		w := newCronWorld(t, "2026-03-01T10:00:30Z", forbid)
		w.after(time.Minute)
		w.after(3 * time.Minute)
		w.expect("while one runs", w.slots(), "10:01")
		w.expect("events", w.said("JobAlreadyActive"), 1)
		w.after(20 * time.Second)
		w.finishAll()
		w.expect("when it has ended", w.slots(), "10:01 10:04")
	})
	t.Run("Replace", func(t *testing.T) {
		w := newCronWorld(t, "2026-03-01T10:00:30Z", replace)
		w.after(time.Minute)
		w.after(time.Minute)
		var left []string
		for _, j := range w.jobs() {
			if j.DeletionTimestamp == nil {
				left = append(left, j.Name)
			}
		}
		w.expect("jobs", len(left), 1)
		w.expect("active", w.get().Status.Active[0].Name, left[0])
	})
	t.Run("Forbid with an old view", func(t *testing.T) {
		w := newCronWorld(t, "2026-03-01T10:00:30Z", forbid)
		w.clock.Step(time.Minute)
		w.step()
		look(w.stage, w.views.CronJobs, &batchv1.CronJobList{}) // and not the Jobs
		w.clock.Step(time.Minute)
		w.step()
		w.expect("while one runs", w.slots(), "10:01")
	})
}

func TestHistoryLimits(t *testing.T) {
	w := newCronWorld(t, "2026-03-01T10:00:30Z", func(s *batchv1.CronJobSpec) {
		s.SuccessfulJobsHistoryLimit, s.FailedJobsHistoryLimit = new(int32(2)), new(int32(1))
	})
	for i := range 6 {
		w.after(time.Minute)
		for _, j := range w.jobs() {
			if jobEnd(&j.Status) == nil {
				w.finish(j, []batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobFailed}[i%2])
			}
		}
		w.settle()
	}
	w.expect("two that succeeded, one that failed", w.slots(), "10:03 10:05 10:06")
}

func TestAClockThatGoesBackRunsNoSlotTwice(t *testing.T) {
	w := newCronWorld(t, "2026-03-01T10:00:30Z", each)
	w.after(time.Hour)
	w.finishAll()
	w.clock.SetTime(w.clock.Now().Add(-50 * time.Minute))
	w.settle()
	w.after(time.Minute)
	w.expect("slots", w.slots(), "11:00")
	w.expect("it is said", w.said("ClockBehind"), 1)
	w.after(50 * time.Minute)
	w.expect("past it", w.slots(), "11:00 11:01")
}

func TestTheNameOfASlotTakenByAnother(t *testing.T) {
	w := newCronWorld(t, "2026-03-01T10:00:30Z", each)
	slot, _ := time.Parse(time.RFC3339, "2026-03-01T10:01:00Z")
	other := jobOfSlot(w.get(), slot)
	other.OwnerReferences = nil
	if err := w.r.Create(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	w.clock.Step(time.Minute)
	w.see(nil)
	w.step()
	w.expect("it is said", w.said("FailedCreate"), 1)
	w.after(time.Minute)
	w.expect("the next slot", w.slots(), "10:01 10:02")
}

func TestDaylightSavingOfACronJob(t *testing.T) {
	// In Berlin the clock goes from 02:00 to 03:00 on 2026-03-29, and from 03:00
	// back to 02:00 on 2026-10-25.
	w := newCronWorld(t, "2026-03-28T12:00:00Z", func(s *batchv1.CronJobSpec) {
		s.Schedule, s.TimeZone, s.SuccessfulJobsHistoryLimit = "30 2 * * *", new("Europe/Berlin"), new(int32(99))
	})
	for range 48 * 4 {
		w.clock.Step(15 * time.Minute)
		w.see(nil)
		w.step()
	}
	w.expect("spring", w.slots(), "03:00 02:30")
	w = newCronWorld(t, "2026-10-24T12:00:00Z", func(s *batchv1.CronJobSpec) {
		s.Schedule, s.TimeZone, s.SuccessfulJobsHistoryLimit = "30 2 * * *", new("Europe/Berlin"), new(int32(99))
	})
	for range 48 * 4 {
		w.clock.Step(15 * time.Minute)
		w.see(nil)
		w.step()
	}
	w.expect("autumn", w.slots(), "02:30 02:30") // of the 25th and the 26th
}

// TestRandomCronJobs: whatever happens to the engine, its views and the clock, no
// slot runs twice, and with Forbid never two Jobs at a time.
func TestRandomCronJobs(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 8
	}
	for seed := range uint64(rounds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			d := dice{rand.New(rand.NewPCG(seed, 2))}
			policy := []batchv1.ConcurrencyPolicy{batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent}[d.IntN(3)]
			w := newCronWorld(t, "2026-03-01T10:00:30Z", func(s *batchv1.CronJobSpec) {
				s.ConcurrencyPolicy, s.Schedule = policy, []string{"* * * * *", "*/3 * * * *", "@hourly"}[d.IntN(3)]
			})
			ran := map[string]types.UID{}
			check := func() {
				active := 0
				for _, j := range w.jobs() {
					if uid, known := ran[j.Name]; known && uid != j.UID {
						t.Fatalf("slot %s ran twice", j.Name)
					}
					ran[j.Name] = j.UID
					if jobEnd(&j.Status) == nil && j.DeletionTimestamp == nil {
						active++
					}
				}
				if policy != batchv1.AllowConcurrent && active > 1 {
					t.Fatalf("%d jobs run at a time with %s", active, policy)
				}
			}
			for range 150 {
				switch d.IntN(7) {
				case 0, 1:
					w.clock.Step(time.Duration(d.IntN(100)) * time.Second)
				case 2:
					w.see(func() bool { return d.oneIn(2) })
				case 3:
					if d.oneIn(5) {
						w.restart()
					}
				case 4:
					if jobs := w.jobs(); len(jobs) > 0 {
						j := jobs[d.IntN(len(jobs))]
						if jobEnd(&j.Status) == nil && j.DeletionTimestamp == nil {
							w.finish(j, batchv1.JobComplete)
						}
					}
				case 5:
					if d.oneIn(8) {
						w.clock.SetTime(w.clock.Now().Add(-time.Duration(d.IntN(600)) * time.Second))
					}
				}
				w.step()
				check()
			}
			w.clock.SetTime(w.clock.Now().Add(2 * time.Hour))
			before := len(ran)
			w.settle()
			w.finishAll()
			check()
			if len(ran) == before {
				t.Errorf("no slot ran at the end: %+v", w.get().Status)
			}
		})
	}
}
