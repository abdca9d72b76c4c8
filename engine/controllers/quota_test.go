package controllers

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
)

// quotaWorld is a stage with a quota "q" of Pods and a ReplicaSet "web".
type quotaWorld struct {
	*stage
	quotas *quotas
	sets   *replicaSets
}

func newQuotaWorld(t *testing.T, hard, replicas int32) *quotaWorld {
	t.Helper()
	w := &quotaWorld{stage: newStage(t)}
	w.stage.step = w.step
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "q"}}
	q.Spec.Hard = corev1.ResourceList{corev1.ResourcePods: *resource.NewQuantity(int64(hard), resource.DecimalSI)}
	labels := map[string]string{"app": "web"}
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}}
	rs.Spec = appsv1.ReplicaSetSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels}}
	rs.Spec.Template = corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "v1"}}}}
	for _, o := range []client.Object{q, rs} {
		if err := w.r.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	w.restart()
	t.Cleanup(w.stop)
	return w
}

func (w *quotaWorld) stop() {
	w.quotas.loop.queue.ShutDown()
	w.sets.loop.queue.ShutDown()
}

func (w *quotaWorld) restart() {
	if w.quotas != nil {
		w.stop()
	}
	c := w.begin()
	w.quotas, w.sets = newQuotas(c), newReplicaSets(c)
	w.see(nil)
}

func (w *quotaWorld) step() {
	w.Helper()
	key := types.NamespacedName{Namespace: "default"}
	for name, reconcile := range map[string]func() error{
		"q":   func() error { key.Name = "q"; return w.quotas.reconcile(w.Context(), key) },
		"web": func() error { key.Name = "web"; return w.sets.reconcile(w.Context(), key) },
	} {
		if err := reconcile(); err != nil && !isRefusal(err) && !apierrors.IsConflict(err) {
			w.Fatalf("%s: %v", name, err)
		}
	}
}

// rounds are what the watches and the clock of a second bring.
func (w *quotaWorld) rounds(n int) {
	w.Helper()
	for range n {
		w.clock.Step(time.Second)
		w.see(nil)
		w.step()
	}
}

func (w *quotaWorld) used() int64 {
	w.Helper()
	var q corev1.ResourceQuota
	if err := w.r.Get(w.Context(), types.NamespacedName{Namespace: "default", Name: "q"}, &q); err != nil {
		w.Fatal(err)
	}
	n := q.Status.Used[corev1.ResourcePods]
	return n.Value()
}

func (w *quotaWorld) set() *appsv1.ReplicaSet {
	w.Helper()
	var rs appsv1.ReplicaSet
	if err := w.r.Get(w.Context(), types.NamespacedName{Namespace: "default", Name: "web"}, &rs); err != nil {
		w.Fatal(err)
	}
	return &rs
}

func TestReplicaSetMakesWhatAQuotaLetsAndSaysTheRest(t *testing.T) {
	w := newQuotaWorld(t, 3, 5)
	w.rounds(3)
	if n := len(w.pods()); n != 3 || w.used() != 3 {
		t.Fatalf("%d pods, used %d, want 3", n, w.used())
	}
	rs := w.set()
	if len(rs.Status.Conditions) != 1 || !strings.Contains(rs.Status.Conditions[0].Message, "exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3") || rs.Status.Replicas != 3 {
		t.Errorf("status is %+v", rs.Status)
	}
	var events corev1.EventList
	if err := w.r.List(t.Context(), &events, client.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	failed := 0
	for _, e := range events.Items {
		failed += btoi(e.Reason == "FailedCreate" && strings.Contains(e.Message, "exceeded quota: q"))
	}
	if failed == 0 {
		t.Error("no event FailedCreate")
	}
	// Room comes: the ReplicaSet is looked at at once.
	for w.sets.loop.queue.Len() > 0 {
		key, _ := w.sets.loop.queue.Get()
		w.sets.loop.queue.Done(key)
	}
	var q corev1.ResourceQuota
	if err := w.r.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "q"}, &q); err != nil {
		t.Fatal(err)
	}
	q.Spec.Hard[corev1.ResourcePods] = resource.MustParse("9")
	if err := w.r.Update(t.Context(), &q); err != nil {
		t.Fatal(err)
	}
	look(w.stage, w.views.Quotas, &corev1.ResourceQuotaList{})
	if w.sets.loop.queue.Len() == 0 {
		t.Error("the ReplicaSet is not looked at when room comes")
	}
	w.rounds(3)
	if n := len(w.pods()); n != 5 || len(w.set().Status.Conditions) != 0 {
		t.Errorf("%d pods with room for 9, want 5: %+v", n, w.set().Status)
	}
}

func TestQuotaIsFreedByPodsThatEndOrAreDeleted(t *testing.T) {
	w := newQuotaWorld(t, 3, 0)
	for _, name := range []string{"a", "b", "c"} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
		p.Spec.Containers = []corev1.Container{{Name: "c", Image: "v1"}}
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		if err := w.r.Create(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	all := w.pods()
	w.run(all[0])
	w.exit(all[0], 0)
	w.rounds(1)
	if n := w.used(); n != 2 {
		t.Errorf("used %d after one of 3 pods has succeeded", n)
	}
	w.run(all[1])
	w.delete(all[1])
	w.rounds(1)
	if n := w.used(); n != 2 {
		t.Errorf("used %d while a pod stops", n)
	}
	w.stopped(all[1])
	w.rounds(1)
	if n := w.used(); n != 1 {
		t.Errorf("used %d after it has stopped", n)
	}
	w.run(all[2])
	w.delete(all[2])
	w.rounds(40) // its node says nothing for longer than its grace period
	if n := w.used(); n != 0 {
		t.Errorf("used %d by a pod that had to be gone", n)
	}
}

// Whatever is created, ends or is deleted, with kills and stale views: never more
// Pods than the quota lets, and in the end the count is right.
func TestQuotaHoldsWithStaleViewsAndKills(t *testing.T) {
	for seed := range uint64(8) {
		d := dice{rand.New(rand.NewPCG(seed, 3))}
		w := newQuotaWorld(t, 6, 9)
		for range 60 {
			switch all := w.pods(); {
			case d.oneIn(10):
				w.restart()
			case len(all) > 0 && d.oneIn(3):
				p := all[d.IntN(len(all))]
				if p.DeletionTimestamp != nil {
					w.stopped(p)
				} else if p.Status.Phase == corev1.PodPending && d.oneIn(2) {
					w.run(p)
				} else {
					w.delete(p)
				}
			}
			w.see(func() bool { return d.oneIn(3) })
			w.step()
			live := 0
			for _, p := range w.pods() {
				live += btoi(!podFinished(p))
			}
			if live > 6 || int64(live) > w.used() {
				t.Fatalf("seed %d: %d pods, used %d of 6", seed, live, w.used())
			}
		}
		for _, p := range w.pods() {
			if p.DeletionTimestamp != nil {
				w.stopped(p)
			}
		}
		w.rounds(6)
		if n := len(w.pods()); n != 6 || w.used() != 6 {
			t.Errorf("seed %d: %d pods, used %d, want 6", seed, n, w.used())
		}
	}
}

// limit makes a quota of Pods.
func (w *stage) limit(pods int64) {
	w.Helper()
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "q"}}
	q.Spec.Hard = corev1.ResourceList{corev1.ResourcePods: *resource.NewQuantity(pods, resource.DecimalSI)}
	if err := w.r.Create(w.Context(), q); err != nil {
		w.Fatal(err)
	}
}

// raise lets more Pods in.
func (w *stage) raise(pods int64) {
	w.Helper()
	var q corev1.ResourceQuota
	if err := w.r.Get(w.Context(), types.NamespacedName{Namespace: "default", Name: "q"}, &q); err != nil {
		w.Fatal(err)
	}
	q.Spec.Hard[corev1.ResourcePods] = *resource.NewQuantity(pods, resource.DecimalSI)
	if err := w.r.Update(w.Context(), &q); err != nil {
		w.Fatal(err)
	}
}

// fails reports whether the controller says with an event that a quota keeps it
// from making Pods.
func (w *stage) fails(kind string) bool {
	w.Helper()
	var events corev1.EventList
	if err := w.r.List(w.Context(), &events, client.ListOptions{}); err != nil {
		w.Fatal(err)
	}
	for _, e := range events.Items {
		if e.InvolvedObject.Kind == kind && e.Reason == "FailedCreate" && strings.Contains(e.Message, "exceeded quota: q") {
			return true
		}
	}
	return false
}

// Each controller makes what a quota lets, says that it cannot make the rest,
// comes to rest, and makes it when there is room.
func TestEveryControllerMakesWhatAQuotaLets(t *testing.T) {
	for _, c := range []struct {
		kind  string
		start func(t *testing.T) (w *stage, reconcile func() error)
	}{
		{"StatefulSet", func(t *testing.T) (*stage, func() error) {
			w := newSetWorld(t, 0, func(s *appsv1.StatefulSetSpec) { s.PodManagementPolicy = appsv1.ParallelPodManagement })
			w.scale(4)
			for _, p := range w.pods() {
				w.stopped(p)
			}
			return w.stage, func() error { return w.sets.reconcile(w.Context(), w.key()) }
		}},
		{"DaemonSet", func(t *testing.T) (*stage, func() error) {
			w := newDaemonWorld(t, func(*appsv1.DaemonSetSpec) {})
			for _, p := range w.pods() {
				w.stopped(p)
			}
			return w.stage, func() error {
				return w.sets.reconcile(w.Context(), types.NamespacedName{Namespace: "default", Name: "d"})
			}
		}},
		{"Job", func(t *testing.T) (*stage, func() error) {
			w := newWorld(t)
			w.create(func(s *batchv1.JobSpec) { s.Completions, s.Parallelism = new(int32(4)), new(int32(4)) })
			return w.stage, func() error { return w.jobs.reconcile(w.Context(), w.key()) }
		}},
	} {
		t.Run(c.kind, func(t *testing.T) {
			w, reconcile := c.start(t)
			w.limit(3)
			w.step = func() {
				if err := reconcile(); err != nil && !isRefusal(err) && !apierrors.IsConflict(err) {
					t.Fatal(err)
				}
			}
			w.settle()
			if n := len(w.pods()); n != 3 || !w.fails(c.kind) {
				t.Errorf("%d pods, want 3; said: %v", n, w.fails(c.kind))
			}
			if err := reconcile(); !isRefusal(err) {
				t.Errorf("it is not tried again: %v", err)
			}
			w.raise(9)
			w.settle()
			if n := len(w.pods()); n != 4 {
				t.Errorf("%d pods with room for 9, want 4", n)
			}
		})
	}
}

func TestQuotaIsCountedWhenSomethingIsGivenUp(t *testing.T) {
	w := newQuotaWorld(t, 5, 0)
	pod := func(name string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
		p.Spec.Containers, p.Spec.RestartPolicy = []corev1.Container{{Name: "c", Image: "v1"}}, corev1.RestartPolicyNever
		return p
	}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	a, b := pod("a"), pod("b")
	for _, o := range []client.Object{a, b, service} {
		if err := w.r.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	w.run(a)
	seen := func() {
		w.see(nil)
		look(w.stage, w.views.Services, &corev1.ServiceList{})
	}
	for name, give := range map[string]func(){
		"a pod that ends":      func() { w.exit(a, 0) },
		"a pod that is gone":   func() { w.stopped(b) },
		"a service is deleted": func() { _ = w.r.Delete(t.Context(), service, client.DeleteOptions{}) },
	} {
		seen()
		w.clock.Step(quotaSettles)
		time.Sleep(10 * time.Millisecond) // the queue's own goroutine follows the clock
		for w.quotas.loop.queue.Len() > 0 {
			key, _ := w.quotas.loop.queue.Get()
			w.quotas.loop.queue.Done(key)
		}
		give()
		seen()
		w.clock.Step(quotaSettles)
		deadline := time.Now().Add(2 * time.Second)
		for w.quotas.loop.queue.Len() == 0 && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		if w.quotas.loop.queue.Len() == 0 {
			t.Errorf("%s: the quota is not counted", name)
		}
	}
}
