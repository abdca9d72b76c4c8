package controllers_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/controllers"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/resources"
)

// startUnattended runs the controllers over nodes of 64Gi that no agent serves:
// a Pod that is bound stays as it is until the test changes it.
func startUnattended(t *testing.T, nodes ...string) *resources.Resources {
	t.Helper()
	r := enginetest.Resources(t)
	for _, n := range nodes {
		enginetest.AddNode(t, r, n, "64", "64Gi")
	}
	for name, value := range map[string]int32{"high": 1000, "low": 10} {
		create(t, r, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value})
	}
	attend(t, r)
	return r
}

// attend runs the controllers until the test ends.
func attend(t *testing.T, r *resources.Resources) {
	views := live.New()
	enginetest.Go(t, controllers.New(controllers.Options{Resources: r, Live: views, Clock: clock.RealClock{}, Log: enginetest.Log(t)}).Run)
	enginetest.Go(t, func(ctx context.Context) error { return views.Run(ctx, r) })
}

func sizedPod(name, memory, class string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{PriorityClassName: class, Containers: []corev1.Container{{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(memory)},
		}}}},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func bound(t *testing.T, r *resources.Resources, name, node string) {
	t.Helper()
	enginetest.Eventually(t, wait, func() string {
		if p := get(t, r, name, &corev1.Pod{}); p.Spec.NodeName != node {
			return fmt.Sprintf("%s is on %q, want %q: %+v", name, p.Spec.NodeName, node, p.Status)
		}
		return ""
	})
}

func waits(t *testing.T, r *resources.Resources, name, why string) {
	t.Helper()
	enginetest.Eventually(t, wait, func() string {
		p := get(t, r, name, &corev1.Pod{})
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable && strings.Contains(c.Message, why) {
				return ""
			}
		}
		return fmt.Sprintf("%s does not say %q: on %q, %+v", name, why, p.Spec.NodeName, p.Status.Conditions)
	})
}

// end removes a Pod as its node does.
func end(t *testing.T, r *resources.Resources, name string) {
	t.Helper()
	zero := int64(0)
	if err := r.Delete(t.Context(), sizedPod(name, "0", ""), client.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
}

func going(p *corev1.Pod) bool { return p.DeletionTimestamp != nil }

func TestAPodOfHigherPriorityPreempts(t *testing.T) {
	r := startUnattended(t, "n1")
	create(t, r, sizedPod("other", "30Gi", "high"), sizedPod("victim", "30Gi", "low"))
	bound(t, r, "other", "n1")
	bound(t, r, "victim", "n1")
	create(t, r, sizedPod("important", "32Gi", "high"))
	waits(t, r, "important", "0/1 nodes fit: 1 lacks memory (need 32Gi, free 4Gi); room is being made on n1, where 1 pod of lower priority ends")
	p := get(t, r, "important", &corev1.Pod{})
	if p.Status.NominatedNodeName != "n1" {
		t.Errorf("nominated for %q, want n1", p.Status.NominatedNodeName)
	}
	victim := get(t, r, "victim", &corev1.Pod{})
	if !going(victim) || *victim.DeletionGracePeriodSeconds != 30 {
		t.Errorf("the victim goes at %v with %v", victim.DeletionTimestamp, victim.DeletionGracePeriodSeconds)
	}
	said := false
	for _, c := range victim.Status.Conditions {
		said = said || c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == corev1.PodReasonPreemptionByScheduler
	}
	if !said {
		t.Errorf("the victim does not say why it goes: %+v", victim.Status.Conditions)
	}

	// Nobody of a lower priority takes the room that is held, nor that which is
	// there when the victim has gone.
	create(t, r, sizedPod("small", "4Gi", "low"))
	waits(t, r, "small", "0/1 nodes fit: 1 lacks memory (need 4Gi, free 0)")
	end(t, r, "victim")
	bound(t, r, "important", "n1")
	if p := get(t, r, "small", &corev1.Pod{}); p.Spec.NodeName != "" {
		t.Errorf("a small pod is on %s", p.Spec.NodeName)
	}
	end(t, r, "other")
	bound(t, r, "small", "n1")
}

func TestPreemptionSparesWhatABudgetProtects(t *testing.T) {
	r := startUnattended(t, "n1", "n2")
	on := func(node string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.NodeName = node } }
	one := intstr.FromInt32(1)
	create(t, r,
		&policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"}, Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "guarded"}}}},
		sizedPod("guarded", "40Gi", "", on("n1")), sizedPod("free", "40Gi", "low", on("n2")))
	create(t, r, sizedPod("important", "40Gi", "high"))
	waits(t, r, "important", "0/2 nodes fit: 2 lack memory (need 40Gi, free 24Gi); room is being made on n2")
	if going(get(t, r, "guarded", &corev1.Pod{})) || !going(get(t, r, "free", &corev1.Pod{})) {
		t.Error("the one that a budget protects has to go, though the other one would do")
	}
}

func TestAPodThatMayNotPreemptSaysSo(t *testing.T) {
	r := startUnattended(t, "n1")
	never := corev1.PreemptNever
	create(t, r,
		&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "polite"}, Value: 5000, PreemptionPolicy: &never},
		sizedPod("p", "60Gi", "low"))
	bound(t, r, "p", "n1")
	create(t, r, sizedPod("polite", "10Gi", "polite"))
	waits(t, r, "polite", "0/1 nodes fit: 1 lacks memory (need 10Gi, free 4Gi); preemption is off for the pod (preemptionPolicy Never)")
	if p := get(t, r, "p", &corev1.Pod{}); going(p) {
		t.Error("it has preempted")
	}
}

// TestPodsThatWaitAreTriedWhenSomethingEnds: by priority, and no more than fit.
func TestPodsThatWaitAreTriedWhenSomethingEnds(t *testing.T) {
	r := startUnattended(t, "n1")
	create(t, r, sizedPod("full", "60Gi", "high"))
	bound(t, r, "full", "n1")
	for i := range 3 {
		create(t, r, sizedPod(fmt.Sprint("w", i), "30Gi", ""))
		waits(t, r, fmt.Sprint("w", i), "0/1 nodes fit: 1 lacks memory (need 30Gi, free 4Gi)")
	}
	create(t, r, sizedPod("first", "30Gi", "low"))
	waits(t, r, "first", "1 lacks memory (need 30Gi, free 4Gi)")
	end(t, r, "full")
	bound(t, r, "first", "n1")
	bound(t, r, "w0", "n1")
	end(t, r, "w0")
	bound(t, r, "w1", "n1")
}

func TestAPodWaitsForAnotherToBeNear(t *testing.T) {
	r := startUnattended(t, "n1", "n2")
	near := func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
			{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}},
		}}}
	}
	for _, name := range []string{"n1", "n2"} {
		n := node(t, r, name)
		n.Labels = map[string]string{corev1.LabelHostname: name}
		if err := r.Update(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	create(t, r, sizedPod("web", "1Gi", "", near))
	waits(t, r, "web", "2 have no pod in the same kubernetes.io/hostname that the pod's affinity asks for")
	create(t, r, sizedPod("db", "1Gi", "", func(p *corev1.Pod) { p.Spec.NodeName = "n2" }))
	bound(t, r, "web", "n2")
}

// TestRoomIsHeldAcrossAStartOfTheEngine: what the status says is held again.
func TestRoomIsHeldAcrossAStartOfTheEngine(t *testing.T) {
	r := enginetest.Resources(t)
	enginetest.AddNode(t, r, "n1", "64", "64Gi")
	create(t, r, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "high"}, Value: 1000},
		sizedPod("victim", "60Gi", "", func(p *corev1.Pod) { p.Spec.NodeName = "n1" }), sizedPod("important", "60Gi", "high"), sizedPod("small", "3Gi", ""))
	p := get(t, r, "important", &corev1.Pod{})
	p.Status.NominatedNodeName = "n1"
	if err := r.UpdateStatus(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(t.Context(), sizedPod("victim", "0", ""), client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	attend(t, r)
	waits(t, r, "small", "0/1 nodes fit: 1 lacks memory (need 3Gi, free 0)")
	end(t, r, "victim")
	bound(t, r, "important", "n1")
	bound(t, r, "small", "n1")
}

// TestAGatedPodSaysSo: from when it is made, until it is decided on.
func TestAGatedPodSaysSo(t *testing.T) {
	r := startUnattended(t, "n1")
	gated := func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.org/quota"}} }
	create(t, r, sizedPod("fits", "1Gi", "", gated), sizedPod("huge", "100Gi", "", gated))
	for _, name := range []string{"fits", "huge"} {
		p := get(t, r, name, &corev1.Pod{})
		if len(p.Status.Conditions) != 1 {
			t.Fatalf("conditions %+v", p.Status.Conditions)
		}
		c := p.Status.Conditions[0]
		if c.Type != corev1.PodScheduled || c.Status != corev1.ConditionFalse || c.Reason != corev1.PodReasonSchedulingGated ||
			c.Message != "Scheduling is blocked due to non-empty scheduling gates" || !c.LastTransitionTime.Equal(&p.CreationTimestamp) {
			t.Errorf("%+v", c)
		}
		p.Spec.SchedulingGates = nil
		if err := r.Update(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	bound(t, r, "fits", "n1")
	waits(t, r, "huge", "memory")
	for name, want := range map[string]corev1.ConditionStatus{"fits": corev1.ConditionTrue, "huge": corev1.ConditionFalse} {
		if c := get(t, r, name, &corev1.Pod{}).Status.Conditions; len(c) != 1 || c[0].Status != want || c[0].Reason == corev1.PodReasonSchedulingGated {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

func node(t *testing.T, r *resources.Resources, name string) *corev1.Node {
	t.Helper()
	n := &corev1.Node{}
	if err := r.Get(t.Context(), types.NamespacedName{Name: name}, n); err != nil {
		t.Fatal(err)
	}
	return n
}
