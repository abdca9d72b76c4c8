package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
)

// world is a stage with one Job "j".
type world struct {
	*stage
	jobs *jobs
}

func newWorld(t *testing.T) *world {
	w := &world{stage: newStage(t)}
	w.stage.step = w.step
	w.restart()
	t.Cleanup(func() { w.kill() })
	return w
}

func (w *world) kill() {
	if w.jobs != nil {
		w.jobs.loop.queue.ShutDown()
		w.jobs.orphans.queue.ShutDown()
	}
}

// restart is a new process: it remembers nothing.
func (w *world) restart() {
	w.kill()
	w.jobs = newJobs(w.begin())
	w.see(nil)
}

func (w *world) key() types.NamespacedName {
	return types.NamespacedName{Namespace: "default", Name: "j"}
}

// create makes the Job, as edit wants it.
func (w *world) create(edit func(*batchv1.JobSpec)) {
	w.Helper()
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "j"}}
	job.Spec.Template.Spec = corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}
	edit(&job.Spec)
	if err := w.r.Create(w.Context(), job); err != nil {
		w.Fatal(err)
	}
}

func (w *world) job() *batchv1.Job {
	w.Helper()
	var job batchv1.Job
	if err := w.r.Get(w.Context(), w.key(), &job); err != nil {
		w.Fatal(err)
	}
	return &job
}

// change edits the Job as a user does.
func (w *world) change(edit func(*batchv1.JobSpec)) {
	w.Helper()
	job := w.job()
	edit(&job.Spec)
	if err := w.r.Update(w.Context(), job); err != nil {
		w.Fatal(err)
	}
	w.settle()
}

// active are the Pods that run or will, by index, then by name.
func (w *world) active() []*corev1.Pod {
	out := slices.DeleteFunc(w.pods(), func(p *corev1.Pod) bool { return !podActive(p) })
	slices.SortFunc(out, func(a, b *corev1.Pod) int {
		return strings.Compare(indexOf(a)+a.Name, indexOf(b)+b.Name)
	})
	return out
}

func indexOf(p *corev1.Pod) string { return p.Annotations[batchv1.JobCompletionIndexAnnotation] }

// step reconciles once, with what the views show.
func (w *world) step() {
	w.Helper()
	w.allowed(w.jobs.reconcile(w.Context(), w.key()))
	for w.jobs.orphans.queue.Len() > 0 {
		w.jobs.orphans.next(w.Context())
	}
}

// ended is the type and the reason of the condition that ended the Job.
func (w *world) ended() string {
	w.Helper()
	if c := jobEnd(&w.job().Status); c != nil {
		return string(c.Type) + " " + c.Reason
	}
	return ""
}

func (w *world) expect(what string, got, want any) {
	w.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.Errorf("%s: got %v, want %v; status %+v", what, got, want, w.job().Status)
	}
}

// events are the reasons of what was said of the Job.
func (w *world) events() map[string]int32 {
	w.Helper()
	var list corev1.EventList
	if err := w.r.List(context.Background(), &list, client.ListOptions{Namespace: "default"}); err != nil {
		w.Fatal(err)
	}
	out := map[string]int32{}
	for _, e := range list.Items {
		if e.InvolvedObject.Kind == "Job" {
			out[e.Reason] += max(1, e.Count)
		}
	}
	return out
}
