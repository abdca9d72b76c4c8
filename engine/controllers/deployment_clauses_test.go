package controllers

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/strategy"
)

func rollingSpec(surge, unavailable string) appsv1.DeploymentSpec {
	n := int32(4)
	s, u := intstr.Parse(surge), intstr.Parse(unavailable)
	return appsv1.DeploymentSpec{Replicas: &n, Strategy: appsv1.DeploymentStrategy{
		Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &s, MaxUnavailable: &u},
	}}
}

// images counts the Pods that are to run, by image.
func (w *rolloutWorld) images() string {
	w.Helper()
	count := map[string]int{}
	for _, p := range w.pods() {
		if podActive(p) {
			count[p.Spec.Containers[0].Image]++
		}
	}
	var out []string
	for image, n := range count {
		out = append(out, fmt.Sprintf("%s:%d", image, n))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (w *rolloutWorld) image(image string) {
	w.Helper()
	w.edit(func(s *appsv1.DeploymentSpec) { s.Template.Spec.Containers[0].Image = image })
	w.settle()
}

func (w *rolloutWorld) expect(what, got, want string) {
	w.Helper()
	if got != want {
		w.Errorf("%s: got %q, want %q; %+v", what, got, want, w.get().Status)
	}
}

// condition is the status and the reason of a condition.
func (w *rolloutWorld) condition(t appsv1.DeploymentConditionType) string {
	w.Helper()
	for _, c := range w.get().Status.Conditions {
		if c.Type == t {
			return string(c.Status) + " " + c.Reason
		}
	}
	return ""
}

func TestSurgeRoundsUpAndUnavailableDown(t *testing.T) {
	for _, c := range []struct {
		replicas             int32
		surge, unavailable   string
		wantSurge, wantUnava int32
	}{
		{10, "25%", "25%", 3, 2}, {1, "25%", "25%", 1, 0}, {4, "25%", "25%", 1, 1}, {3, "0", "50%", 0, 1}, {5, "2", "1", 2, 1},
		{3, "0%", "1%", 0, 1}, // both come to nothing: one may be missing, or nothing would ever move
	} {
		spec := rollingSpec(c.surge, c.unavailable)
		spec.Replicas = &c.replicas
		s, u := strategy.Limits(&appsv1.Deployment{Spec: spec})
		if s != c.wantSurge || u != c.wantUnava {
			t.Errorf("%d replicas, %s and %s: %d more and %d fewer, want %d and %d", c.replicas, c.surge, c.unavailable, s, u, c.wantSurge, c.wantUnava)
		}
	}
}

func TestMinReadySecondsOfADeployment(t *testing.T) {
	spec := rollingSpec("1", "0")
	spec.MinReadySeconds = 30
	w := newRolloutWorld(t, spec)
	w.after(30 * time.Second)
	w.image("v2")
	w.converge()
	w.expect("the first new one is ready, and not for long enough", w.images(), "v1:4 v2:1")
	w.after(29 * time.Second)
	w.expect("a second before", w.images(), "v1:4 v2:1")
	w.after(time.Second)
	w.converge()
	w.expect("it counts now", w.images(), "v1:3 v2:2")
}

func TestAThirdTemplateInMidRollout(t *testing.T) {
	w := newRolloutWorld(t, rollingSpec("2", "1"))
	w.image("bad2")
	w.converge()
	w.expect("the second is stuck", w.images(), "bad2:3 v1:3")
	w.image("v3")
	w.expect("the stuck ones make room first", w.images(), "v1:3 v3:3")
	w.converge()
	w.expect("the third", w.images(), "v3:4")
	w.image("v1")
	w.converge()
	w.expect("back to the first", w.images(), "v1:4")
	var sets appsv1.ReplicaSetList
	if err := w.r.List(t.Context(), &sets, client.ListOptions{Namespace: "default"}); err != nil || len(sets.Items) != 3 {
		t.Errorf("%d replica sets, %v: a template that comes back has the one that it had", len(sets.Items), err)
	}
}

func TestTheProgressDeadlineIsACondition(t *testing.T) {
	spec := rollingSpec("1", "0")
	deadline := int32(60)
	spec.ProgressDeadlineSeconds = &deadline
	w := newRolloutWorld(t, spec)
	w.expect("complete", w.condition(appsv1.DeploymentProgressing), "True NewReplicaSetAvailable")
	w.image("bad")
	w.after(59 * time.Second)
	w.expect("a second before", strings.Fields(w.condition(appsv1.DeploymentProgressing))[0], "True")
	w.after(2 * time.Second)
	w.expect("over", w.condition(appsv1.DeploymentProgressing), "False ProgressDeadlineExceeded")
	w.after(10 * time.Second)
	w.expect("and it stays so", w.condition(appsv1.DeploymentProgressing), "False ProgressDeadlineExceeded")
	w.expect("the old ones go on", w.images(), "bad:1 v1:4")
	w.image("v3")
	w.converge()
	w.expect("the next one", w.condition(appsv1.DeploymentProgressing), "True NewReplicaSetAvailable")
}

func TestTheHistoryOfADeploymentIsLimited(t *testing.T) {
	spec := rollingSpec("1", "0")
	limit := int32(2)
	spec.RevisionHistoryLimit = &limit
	w := newRolloutWorld(t, spec)
	for i := range 5 {
		w.image(fmt.Sprint("w", i))
		w.converge()
	}
	var sets appsv1.ReplicaSetList
	if err := w.r.List(t.Context(), &sets, client.ListOptions{Namespace: "default"}); err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, rs := range sets.Items {
		left = append(left, rs.Spec.Template.Spec.Containers[0].Image)
	}
	slices.Sort(left)
	w.expect("replica sets", strings.Join(left, " "), "w2 w3 w4")
}

func TestAPausedDeploymentRollsNothing(t *testing.T) {
	w := newRolloutWorld(t, rollingSpec("1", "0"))
	w.edit(func(s *appsv1.DeploymentSpec) { s.Paused = true })
	w.image("v2")
	w.converge()
	w.expect("paused", w.images(), "v1:4")
	w.edit(func(s *appsv1.DeploymentSpec) { s.Paused = false })
	w.settle()
	w.converge()
	w.expect("resumed", w.images(), "v2:4")
}

// TestWhichPodsGoFirst goes through the order in which Pods are deleted.
func TestWhichPodsGoFirst(t *testing.T) {
	now := time.Now()
	pod := func(name string, edit func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))}}
		p.Spec.NodeName, p.Status.Phase = "n", corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-time.Hour))}}
		edit(p)
		return p
	}
	// From the one that goes first to the one that goes last.
	want := []*corev1.Pod{
		pod("without a node", func(p *corev1.Pod) { p.Spec.NodeName, p.Status.Phase, p.Status.Conditions = "", corev1.PodPending, nil }),
		pod("starts", func(p *corev1.Pod) { p.Status.Phase, p.Status.Conditions = corev1.PodPending, nil }),
		pod("not ready", func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }),
		pod("cheap", func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.PodDeletionCost: "-5"} }),
		pod("ready for a short time", func(p *corev1.Pod) { p.Status.Conditions[0].LastTransitionTime = metav1.NewTime(now) }),
		pod("restarted", func(p *corev1.Pod) { p.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: 3}} }),
		pod("newer", func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(now) }),
		pod("plain", func(*corev1.Pod) {}),
		pod("dear", func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.PodDeletionCost: "100"} }),
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, deletionOrder)
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("place %d: %q, want %q", i, got[i].Name, want[i].Name)
		}
	}
}
