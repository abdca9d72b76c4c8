package controllers

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
)

// scaleWorld is a stage with a Deployment "web", whose pods ask for 100m each,
// and an autoscaler "web" with 50% for its target.
type scaleWorld struct {
	*stage
	deployments *deployments
	sets        *replicaSets
	scalers     *autoscalers
	// load is shared by the running pods of the Deployment, in thousandths of a core.
	load int64
	// others is what each of all other pods uses.
	others int64
}

var _ Usage = (*scaleWorld)(nil)

func newScaleWorld(t *testing.T, replicas, least, most int32) *scaleWorld {
	t.Helper()
	w := &scaleWorld{stage: newStage(t)}
	w.stage.step = w.step
	labels := map[string]string{"app": "web"}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: "web",
		Labels: map[string]string{v1alpha1.LabelSource: "shop"}, Annotations: map[string]string{v1alpha1.AnnotationOrigin: "web.yaml:1"},
	}}
	d.Spec = appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels}}
	d.Spec.Template = corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Name: "c", Image: "v1", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}},
	}}}}
	if err := w.r.Create(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	a := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}}
	a.Spec = autoscalingv2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
		MinReplicas:    &least, MaxReplicas: most, Metrics: []autoscalingv2.MetricSpec{utilization(corev1.ResourceCPU, 50)},
	}
	if err := w.r.Create(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	w.restart()
	t.Cleanup(w.stop)
	return w
}

func (w *scaleWorld) stop() {
	w.deployments.loop.queue.ShutDown()
	w.sets.loop.queue.ShutDown()
	w.scalers.loop.queue.ShutDown()
}

func (w *scaleWorld) restart() {
	if w.scalers != nil {
		w.stop()
	}
	c := w.begin()
	w.deployments, w.sets, w.scalers = newDeployments(c), newReplicaSets(c), newAutoscalers(c, w)
	w.see(nil)
}

// Usage implements Usage.
func (w *scaleWorld) Usage() ([]metricsv1beta1.NodeMetrics, []metricsv1beta1.PodMetrics) {
	var out []metricsv1beta1.PodMetrics
	var web int64
	for _, p := range w.pods() {
		if strings.HasPrefix(p.Name, "web-") && p.Status.Phase == corev1.PodRunning {
			web++
		}
	}
	for _, p := range w.pods() {
		if p.Status.Phase != corev1.PodRunning {
			continue
		}
		use := w.others
		if strings.HasPrefix(p.Name, "web-") {
			use = w.load / web
		}
		out = append(out, metricsv1beta1.PodMetrics{
			ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID},
			Timestamp:  metav1.NewTime(w.clock.Now()), Window: metav1.Duration{Duration: 15 * time.Second},
			Containers: []metricsv1beta1.ContainerMetrics{{Name: "c", Usage: corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(use, resource.DecimalSI)}}},
		})
	}
	return nil, out
}

// step lets the Deployment and its ReplicaSets work.
func (w *scaleWorld) step() {
	w.Helper()
	w.take(w.deployments.reconcile(w.Context(), types.NamespacedName{Namespace: "default", Name: "web"}))
	for _, rs := range w.views.ReplicaSets.All() {
		w.take(w.sets.reconcile(w.Context(), client.Key(rs)))
	}
}

func (w *scaleWorld) take(err error) {
	w.Helper()
	w.allowed(err)
}

// autoscale is one pass of the autoscaler, 15 s after the one before, with a
// cluster that follows it at once.
func (w *scaleWorld) autoscale() {
	w.Helper()
	w.follow()
	w.clock.Step(autoscaleEvery)
	w.see(nil)
	w.take(w.scalers.reconcile(w.Context(), types.NamespacedName{Namespace: "default", Name: "web"}))
	w.follow()
}

// follow starts and stops the pods that there are to be.
func (w *scaleWorld) follow() {
	w.Helper()
	for range 4 {
		w.see(nil)
		w.step()
		for _, p := range w.pods() {
			switch {
			case p.DeletionTimestamp != nil:
				w.stopped(p)
			case p.Status.Phase == corev1.PodPending:
				w.run(p)
				var now corev1.Pod
				w.take(w.r.Get(w.Context(), client.Key(p), &now))
				start := metav1.NewTime(w.clock.Now().Add(-cpuInitialization)) // it has no start that would count
				now.Status.StartTime = &start
				w.take(w.r.UpdateStatus(w.Context(), &now))
			}
		}
	}
}

func (w *scaleWorld) replicas() int32 {
	w.Helper()
	var d appsv1.Deployment
	if err := w.r.Get(w.Context(), types.NamespacedName{Namespace: "default", Name: "web"}, &d); err != nil {
		w.Fatal(err)
	}
	return *d.Spec.Replicas
}

func (w *scaleWorld) get() *autoscalingv2.HorizontalPodAutoscaler {
	w.Helper()
	var a autoscalingv2.HorizontalPodAutoscaler
	if err := w.r.Get(w.Context(), types.NamespacedName{Namespace: "default", Name: "web"}, &a); err != nil {
		w.Fatal(err)
	}
	return &a
}

// said reports whether an event of the autoscaler has a reason and a message.
func (w *scaleWorld) said(reason, message string) bool {
	w.Helper()
	var list corev1.EventList
	if err := w.r.List(w.Context(), &list, client.ListOptions{}); err != nil {
		w.Fatal(err)
	}
	for _, e := range list.Items {
		if e.InvolvedObject.Kind == "HorizontalPodAutoscaler" && e.Reason == reason && strings.Contains(e.Message, message) {
			return true
		}
	}
	return false
}

func TestAutoscalerFollowsTheLoad(t *testing.T) {
	w := newScaleWorld(t, 2, 1, 10)
	w.load = 300 // 150m for each of 2: three times the target
	w.autoscale()
	if n := w.replicas(); n != 6 {
		t.Fatalf("%d replicas, want 6: %v", n, w.get().Status.Conditions)
	}
	if !w.said("SuccessfulRescale", "New size: 6; reason: cpu resource utilization (percentage of request) above target") {
		t.Error("no event says that it was scaled")
	}
	w.autoscale()
	s := w.get().Status
	if s.CurrentReplicas != 6 || s.DesiredReplicas != 6 || s.LastScaleTime == nil || *s.ObservedGeneration != 1 {
		t.Errorf("status %+v", s)
	}
	if len(s.CurrentMetrics) != 1 || *s.CurrentMetrics[0].Resource.Current.AverageUtilization != 50 {
		t.Errorf("metrics %+v", s.CurrentMetrics)
	}
	w.load = 0
	for range 25 {
		w.autoscale()
	}
	if n := w.replicas(); n != 1 {
		t.Errorf("%d replicas without load, want 1", n)
	}
}

func TestPodsOfAnotherOwnerWithTheSameLabelsDoNotCount(t *testing.T) {
	w := newScaleWorld(t, 2, 1, 10)
	w.load, w.others = 100, 1000
	w.follow()
	set := w.views.ReplicaSets.All()[0] // it is named by the Pods, but does not control them
	for _, name := range []string{"batch-1", "batch-2"} {
		yes := true
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": "web"}}}
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "batch", UID: "1", Controller: &yes}, {APIVersion: "apps/v1", Kind: "ReplicaSet", Name: set.Name, UID: set.UID}}
		p.Spec.Containers = []corev1.Container{{Name: "c", Image: "v1"}} // and without a request
		if err := w.r.Create(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	w.autoscale()
	if n := w.replicas(); n != 2 || !strings.HasPrefix(said(w.get().Status, autoscalingv2.ScalingActive), "True") {
		t.Errorf("%d replicas, want 2: %v", n, w.get().Status.Conditions)
	}
}

func TestAutoscalerWithoutItsTargetSaysSo(t *testing.T) {
	w := newScaleWorld(t, 2, 1, 10)
	a := w.get()
	a.Spec.ScaleTargetRef.Name = "gone"
	w.take(w.r.Update(t.Context(), a))
	w.autoscale()
	want := `False FailedGetScale: the HPA controller was unable to get the target's current scale: deployments.apps "gone" not found`
	if got := said(w.get().Status, autoscalingv2.AbleToScale); got != want || !w.said("FailedGetScale", "gone") {
		t.Errorf("AbleToScale is %s", got)
	}
	a = w.get()
	a.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "web"}
	w.take(w.r.Update(t.Context(), a))
	w.autoscale()
	if got := said(w.get().Status, autoscalingv2.AbleToScale); !strings.Contains(got, "DaemonSet (apps/v1) has no replicas that can be set") {
		t.Errorf("AbleToScale is %s", got)
	}
}

func TestTwoAutoscalersOfOneTargetBothStop(t *testing.T) {
	w := newScaleWorld(t, 2, 1, 10)
	second := w.get()
	second.Name, second.ResourceVersion, second.UID = "web2", "", ""
	w.take(w.r.Create(t.Context(), second))
	w.load = 1000
	w.autoscale()
	if n := w.replicas(); n != 2 || !strings.Contains(said(w.get().Status, autoscalingv2.ScalingActive), "AmbiguousSelector") {
		t.Errorf("%d replicas, want 2: %v", n, w.get().Status.Conditions)
	}
}

func TestAutoscalerWakesForItselfOnlyEvery15Seconds(t *testing.T) {
	w := newScaleWorld(t, 2, 1, 10)
	w.autoscale()
	for w.scalers.loop.queue.Len() > 0 {
		key, _ := w.scalers.loop.queue.Get()
		w.scalers.loop.queue.Done(key)
	}
	w.see(nil) // its own status
	if w.scalers.loop.queue.Len() > 0 {
		t.Error("its own status wakes it")
	}
	w.clock.Step(autoscaleEvery)
	deadline := time.Now().Add(5 * time.Second)
	for w.scalers.loop.queue.Len() == 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond) // the queue's own goroutine follows the clock
	}
	if w.scalers.loop.queue.Len() == 0 {
		t.Error("15 s later it is not looked at")
	}
}

// With kills and stale views: never out of bounds, never smaller within the
// window after it grew, and at the target in the end.
func TestAutoscalerConvergesWithStaleViewsAndKills(t *testing.T) {
	for seed := range uint64(6) {
		d := dice{rand.New(rand.NewPCG(seed, 11))}
		w := newScaleWorld(t, 3, 2, 12)
		w.follow()
		var grew time.Time
		for range 40 {
			if d.oneIn(8) {
				w.load = int64(d.IntN(800))
			}
			if d.oneIn(12) {
				w.restart()
			}
			before := w.replicas()
			w.clock.Step(autoscaleEvery)
			w.see(func() bool { return d.oneIn(3) })
			w.take(w.scalers.reconcile(w.Context(), types.NamespacedName{Namespace: "default", Name: "web"}))
			if d.oneIn(2) {
				w.follow()
			}
			now := w.replicas()
			if now < 2 || now > 12 {
				t.Fatalf("seed %d: %d replicas", seed, now)
			}
			if now > before {
				grew = w.clock.Now()
			}
			if now < before && w.clock.Now().Sub(grew) < stabilizeDown*time.Second {
				t.Fatalf("seed %d: from %d to %d within the window", seed, before, now)
			}
		}
		w.load = 400
		for range 30 {
			w.autoscale()
		}
		if n := w.replicas(); n < 7 || n > 9 {
			t.Errorf("seed %d: %d replicas for 8", seed, n)
		}
	}
}

func TestAutoscalerWakesWhenItsTargetIsSwitchedOn(t *testing.T) {
	w := newScaleWorld(t, 0, 1, 10)
	w.autoscale()
	drain := func() {
		for w.scalers.loop.queue.Len() > 0 {
			key, _ := w.scalers.loop.queue.Get()
			w.scalers.loop.queue.Done(key)
		}
	}
	for _, c := range []struct {
		replicas int32
		wakes    bool
	}{{3, true}, {4, false}, {0, true}} {
		w.see(nil)
		drain()
		var d appsv1.Deployment
		w.take(w.r.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "web"}, &d))
		d.Spec.Replicas = &c.replicas
		w.take(w.r.Update(t.Context(), &d))
		w.see(nil)
		if woke := w.scalers.loop.queue.Len() > 0; woke != c.wakes {
			t.Errorf("%d replicas: looked at at once: %v", c.replicas, woke)
		}
	}
}
