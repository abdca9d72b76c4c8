package controllers

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	testingclock "k8s.io/utils/clock/testing"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/resources"
)

// world is a cluster with one Job "j" whose controller takes its steps, and sees
// what happens, only when the test says so. The store is a real one.
type world struct {
	*testing.T
	r     *resources.Resources
	clock *testingclock.FakeClock
	views *live.Cluster
	jobs  *jobs
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, r: enginetest.Resources(t), clock: testingclock.NewFakeClock(time.Now().Truncate(time.Second))}
	enginetest.AddNode(t, w.r, "n1", "64", "64Gi")
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
	w.views = live.New()
	w.jobs = newJobs(newCluster(Options{Resources: w.r, Live: w.views, Clock: w.clock, Log: enginetest.Log(w)}))
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

// pods are all of them, by name.
func (w *world) pods() []*corev1.Pod {
	w.Helper()
	var list corev1.PodList
	if err := w.r.List(w.Context(), &list, client.ListOptions{Namespace: "default"}); err != nil {
		w.Fatal(err)
	}
	var out []*corev1.Pod
	for i := range list.Items {
		out = append(out, &list.Items[i])
	}
	return out
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

// see brings the views up to the store: all of them, or those that skip leaves.
// As with a watch, what a view of a kind shows was so at one time.
func (w *world) see(skip func() bool) {
	w.Helper()
	for _, look := range []func(){
		func() { look(w, w.views.Namespaces, &corev1.NamespaceList{}) },
		func() { look(w, w.views.Jobs, &batchv1.JobList{}) },
		func() { look(w, w.views.Pods, &corev1.PodList{}) },
	} {
		if skip == nil || !skip() {
			look()
		}
	}
}

func look[T client.Object](w *world, v *live.View[T], list client.ObjectList) {
	w.Helper()
	if err := w.r.List(w.Context(), list, client.ListOptions{}); err != nil {
		w.Fatal(err)
	}
	present := map[types.UID]bool{}
	for _, obj := range itemsOf(list) {
		present[obj.GetUID()] = true
		v.Set(obj)
	}
	for _, obj := range v.All() {
		if !present[obj.GetUID()] {
			v.Gone(obj)
		}
	}
}

func itemsOf(list client.ObjectList) []client.Object {
	var out []client.Object
	switch l := list.(type) {
	case *corev1.NamespaceList:
		for i := range l.Items {
			out = append(out, &l.Items[i])
		}
	case *batchv1.JobList:
		for i := range l.Items {
			out = append(out, &l.Items[i])
		}
	case *corev1.PodList:
		for i := range l.Items {
			out = append(out, &l.Items[i])
		}
	}
	return out
}

// step reconciles once, with what the views show.
func (w *world) step() {
	w.Helper()
	err := w.jobs.reconcile(w.Context(), w.key())
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) && !apierrors.IsAlreadyExists(err) {
		w.Fatal(err)
	}
	for w.jobs.orphans.queue.Len() > 0 {
		w.jobs.orphans.next(w.Context())
	}
}

// settle sees and reconciles until nothing changes.
func (w *world) settle() {
	w.Helper()
	for range 20 {
		before := w.picture()
		w.see(nil)
		w.step()
		if w.picture() == before {
			return
		}
	}
	w.Fatalf("the Job does not settle: %+v", w.job().Status)
}

func (w *world) picture() string {
	var b strings.Builder
	var job batchv1.Job
	if err := w.r.Get(w.Context(), w.key(), &job); err == nil {
		fmt.Fprintln(&b, job.ResourceVersion)
	}
	for _, p := range w.pods() {
		fmt.Fprintln(&b, p.Name, p.ResourceVersion)
	}
	return b.String()
}

func (w *world) after(d time.Duration) {
	w.Helper()
	w.clock.Step(d)
	w.settle()
}

// run gives a Pod a node and starts it.
func (w *world) run(p *corev1.Pod) {
	w.Helper()
	if p.Spec.NodeName == "" {
		if err := w.r.Bind(w.Context(), client.Key(p), p.UID, "n1"); err != nil {
			w.Fatal(err)
		}
	}
	w.report(p, corev1.PodRunning, corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, 0)
}

// exit ends a Pod with an exit code.
func (w *world) exit(p *corev1.Pod, code int32) {
	w.Helper()
	phase := corev1.PodSucceeded
	if code != 0 {
		phase = corev1.PodFailed
	}
	w.report(p, phase, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: metav1.NewTime(w.clock.Now())}}, 0)
}

func (w *world) report(p *corev1.Pod, phase corev1.PodPhase, state corev1.ContainerState, restarts int32) {
	w.Helper()
	var now corev1.Pod
	if err := w.r.Get(w.Context(), client.Key(p), &now); err != nil {
		w.Fatal(err)
	}
	now.Status.Phase = phase
	now.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: state, RestartCount: restarts}}
	ready := corev1.ConditionFalse
	if phase == corev1.PodRunning {
		ready = corev1.ConditionTrue
	}
	now.Status.Conditions = slices.DeleteFunc(now.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady })
	now.Status.Conditions = append(now.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: ready, LastTransitionTime: metav1.NewTime(w.clock.Now())})
	if err := w.r.UpdateStatus(w.Context(), &now); err != nil {
		w.Fatal(err)
	}
}

// delete is kubectl delete pod.
func (w *world) delete(p *corev1.Pod) {
	w.Helper()
	if err := ignoreNotFound(w.r.Delete(w.Context(), p.DeepCopy(), client.DeleteOptions{})); err != nil {
		w.Fatal(err)
	}
}

// stopped is a node that has stopped a Pod that was deleted.
func (w *world) stopped(p *corev1.Pod) {
	w.Helper()
	now := int64(0)
	if err := ignoreNotFound(w.r.Delete(w.Context(), p.DeepCopy(), client.DeleteOptions{GracePeriodSeconds: &now})); err != nil {
		w.Fatal(err)
	}
}

// stopAll is a node that stops whatever was deleted.
func (w *world) stopAll() {
	w.Helper()
	for _, p := range w.pods() {
		if p.DeletionTimestamp != nil {
			w.stopped(p)
		}
	}
	w.settle()
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

// dice makes decisions of a test that can be repeated.
type dice struct{ *rand.Rand }

func (d dice) oneIn(n int) bool { return d.IntN(n) == 0 }
