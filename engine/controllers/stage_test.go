package controllers

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	testingclock "k8s.io/utils/clock/testing"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/resources"
)

// stage is a cluster in which controllers take their steps, and see what
// happens, only when the test says so. The store is a real one.
type stage struct {
	testing.TB
	r     *resources.Resources
	clock *testingclock.FakeClock
	views *live.Cluster
	// step takes one step of the controller that is looked at.
	step func()
}

func newStage(t testing.TB) *stage {
	s := &stage{TB: t, clock: testingclock.NewFakeClock(time.Now().Truncate(time.Second))}
	s.r = enginetest.Timed(t, s.clock)
	enginetest.AddNode(t, s.r, "n1", "64", "64Gi")
	return s
}

// begin is a new process: it remembers nothing.
func (w *stage) begin() *cluster {
	w.views = live.New()
	return newCluster(Options{Resources: w.r, Live: w.views, Clock: w.clock, Log: enginetest.Log(w)})
}

// pods are all of them, by name.
func (w *stage) pods() []*corev1.Pod {
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

// see brings the views up to the store: all of them, or those that skip leaves.
// As with a watch, what a view of a kind shows was so at one time.
func (w *stage) see(skip func() bool) {
	w.Helper()
	for _, look := range []func(){
		func() { look(w, w.views.Namespaces, &corev1.NamespaceList{}) },
		func() { look(w, w.views.Nodes, &corev1.NodeList{}) },
		func() { look(w, w.views.Deployments, &appsv1.DeploymentList{}) },
		func() { look(w, w.views.ReplicaSets, &appsv1.ReplicaSetList{}) },
		func() { look(w, w.views.Leases, &coordinationv1.LeaseList{}) },
		func() { look(w, w.views.Revisions, &appsv1.ControllerRevisionList{}) },
		func() { look(w, w.views.Claims, &corev1.PersistentVolumeClaimList{}) },
		func() { look(w, w.views.CronJobs, &batchv1.CronJobList{}) },
		func() { look(w, w.views.StatefulSets, &appsv1.StatefulSetList{}) },
		func() { look(w, w.views.DaemonSets, &appsv1.DaemonSetList{}) },
		func() { look(w, w.views.Jobs, &batchv1.JobList{}) },
		func() { look(w, w.views.Controllers, &corev1.ReplicationControllerList{}) },
		func() { look(w, w.views.Quotas, &corev1.ResourceQuotaList{}) },
		func() { look(w, w.views.Services, &corev1.ServiceList{}) },
		func() { look(w, w.views.EndpointSlices, &discoveryv1.EndpointSliceList{}) },
		func() { look(w, w.views.Budgets, &policyv1.PodDisruptionBudgetList{}) },
		func() { look(w, w.views.Volumes, &corev1.PersistentVolumeList{}) },
		func() { look(w, w.views.Classes, &storagev1.StorageClassList{}) },
		func() { look(w, w.views.Autoscalers, &autoscalingv2.HorizontalPodAutoscalerList{}) },
		func() { look(w, w.views.Pods, &corev1.PodList{}) },
	} {
		if skip == nil || !skip() {
			look()
		}
	}
}

func look[T client.Object](w *stage, v *live.View[T], list client.ObjectList) {
	w.Helper()
	if err := w.r.List(w.Context(), list, client.ListOptions{}); err != nil {
		w.Fatal(err)
	}
	v.Listing()
	defer func() { v.Listed(list.GetResourceVersion()) }()
	present := map[types.UID]bool{}
	items, err := meta.ExtractList(list)
	if err != nil {
		w.Fatal(err)
	}
	for _, item := range items {
		obj := item.(T)
		present[obj.GetUID()] = true
		if was, ok := v.Get(client.Key(obj)); ok && was.GetUID() != obj.GetUID() {
			v.Gone(was) // a watch tells of both
		} else if ok && was.GetResourceVersion() == obj.GetResourceVersion() {
			continue
		}
		v.Set(obj)
	}
	for _, obj := range v.All() {
		if !present[obj.GetUID()] {
			v.Gone(obj)
		}
	}
}

// take reconciles the next key of a queue, if there is one, as a worker does: a
// write that was beaten by another is tried again.
func (w *stage) take(l *loop) bool {
	w.Helper()
	if l.queue.Len() == 0 {
		return false
	}
	key, _ := l.queue.Get()
	err := l.reconcile(w.Context(), key)
	l.queue.Done(key)
	switch {
	case apierrors.IsConflict(err) || apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err):
		l.queue.Add(key)
	case err != nil:
		w.Fatal(err)
	}
	return true
}

// allowed passes over what may be said to a user whose view is old.
func (w *stage) allowed(err error) {
	w.Helper()
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
		w.Fatal(err)
	}
}

// settle sees and steps until nothing changes.
func (w *stage) settle() {
	w.Helper()
	for range 40 {
		before := w.picture()
		w.see(nil)
		w.step()
		if w.picture() == before {
			return
		}
	}
	w.Fatalf("it does not settle: %s", w.picture())
}

// picture is the versions of everything that a controller could have written.
func (w *stage) picture() string {
	var b strings.Builder
	for _, list := range []client.ObjectList{
		&corev1.PodList{}, &batchv1.JobList{}, &batchv1.CronJobList{}, &appsv1.StatefulSetList{}, &appsv1.DaemonSetList{},
		&appsv1.ControllerRevisionList{}, &appsv1.DeploymentList{}, &appsv1.ReplicaSetList{}, &corev1.PersistentVolumeClaimList{}, &corev1.PersistentVolumeList{}, &corev1.NodeList{},
	} {
		if err := w.r.List(w.Context(), list, client.ListOptions{}); err != nil {
			w.Fatal(err)
		}
		items, err := meta.ExtractList(list)
		if err != nil {
			w.Fatal(err)
		}
		for _, item := range items {
			obj := item.(client.Object)
			fmt.Fprintln(&b, obj.GetName(), obj.GetResourceVersion())
		}
	}
	return b.String()
}

func (w *stage) after(d time.Duration) {
	w.Helper()
	w.clock.Step(d)
	w.settle()
}

// run gives a Pod a node and starts it.
func (w *stage) run(p *corev1.Pod) {
	w.Helper()
	if p.Spec.NodeName == "" {
		if err := w.r.Bind(w.Context(), client.Key(p), p.UID, "n1"); err != nil {
			w.Fatal(err)
		}
	}
	w.report(p, corev1.PodRunning, corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, 0)
}

// exit ends a Pod with an exit code.
func (w *stage) exit(p *corev1.Pod, code int32) {
	w.Helper()
	phase := corev1.PodSucceeded
	if code != 0 {
		phase = corev1.PodFailed
	}
	w.report(p, phase, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: metav1.NewTime(w.clock.Now())}}, 0)
}

func (w *stage) report(p *corev1.Pod, phase corev1.PodPhase, state corev1.ContainerState, restarts int32) {
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
func (w *stage) delete(p *corev1.Pod) {
	w.Helper()
	if err := ignoreNotFound(w.r.Delete(w.Context(), p.DeepCopy(), client.DeleteOptions{})); err != nil {
		w.Fatal(err)
	}
}

// stopped is a node that has stopped a Pod that was deleted.
func (w *stage) stopped(p *corev1.Pod) {
	w.Helper()
	now := int64(0)
	if err := ignoreNotFound(w.r.Delete(w.Context(), p.DeepCopy(), client.DeleteOptions{GracePeriodSeconds: &now})); err != nil {
		w.Fatal(err)
	}
}

// stopAll is a node that stops whatever was deleted.
func (w *stage) stopAll() {
	w.Helper()
	for _, p := range w.pods() {
		if p.DeletionTimestamp != nil {
			w.stopped(p)
		}
	}
	w.settle()
}

// dice makes decisions of a test that can be repeated.
type dice struct{ *rand.Rand }

func (d dice) oneIn(n int) bool { return d.IntN(n) == 0 }
