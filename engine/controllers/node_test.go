package controllers

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/enginetest"
)

// nodeWorld is a stage with nodes that report when the test says so.
type nodeWorld struct {
	*stage
	nodes *nodes
	names []string
}

func newNodeWorld(t *testing.T, n int) *nodeWorld {
	t.Helper()
	w := &nodeWorld{stage: newStage(t)}
	w.stage.step = func() { w.nodes.look(w.Context()) }
	for i := range n {
		name := fmt.Sprintf("n%d", i+1)
		if i > 0 {
			enginetest.AddNode(t, w.r, name, "4", "8Gi")
		}
		w.names = append(w.names, name)
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: name}}
		if err := w.r.Create(t.Context(), lease); err != nil {
			t.Fatal(err)
		}
	}
	w.restart()
	w.settle()
	return w
}

func (w *nodeWorld) restart() {
	w.nodes = newNodes(w.begin(), 0)
	w.see(nil)
}

// beat is an agent that reports: its lease, and what is wrong in the cluster's
// mind.
func (w *nodeWorld) beat(name string) {
	w.Helper()
	var lease coordinationv1.Lease
	if err := w.r.Get(w.Context(), types.NamespacedName{Namespace: corev1.NamespaceNodeLease, Name: name}, &lease); err != nil {
		w.Fatal(err)
	}
	// What is written is some time, for an agent's clock may be wrong.
	at := metav1.NewMicroTime(time.Unix(int64(w.clock.Now().Nanosecond())+w.clock.Now().UnixNano()%1000, w.clock.Now().UnixNano()%1_000_000_000))
	renews := int32(1)
	if lease.Spec.LeaseTransitions != nil {
		renews += *lease.Spec.LeaseTransitions
	}
	lease.Spec.RenewTime, lease.Spec.LeaseTransitions = &at, &renews
	if err := w.r.Update(w.Context(), &lease); err != nil {
		w.Fatal(err)
	}
	n := w.node(name)
	if n.Status.Conditions[0].Status != corev1.ConditionTrue {
		n.Status.Conditions[0].Status = corev1.ConditionTrue
		if err := w.r.UpdateStatus(w.Context(), n); err != nil {
			w.Fatal(err)
		}
	}
}

// pass lets time go by in steps in which the named nodes report.
func (w *nodeWorld) pass(d time.Duration, reporting ...string) {
	w.Helper()
	for ; d > 0; d -= 5 * time.Second {
		w.clock.Step(min(d, 5*time.Second))
		for _, name := range reporting {
			w.beat(name)
		}
		w.settle()
	}
}

func (w *nodeWorld) node(name string) *corev1.Node {
	w.Helper()
	var n corev1.Node
	if err := w.r.Get(w.Context(), types.NamespacedName{Name: name}, &n); err != nil {
		w.Fatal(err)
	}
	return &n
}

// state is a node's readiness with its taints.
func (w *nodeWorld) state(name string) string {
	w.Helper()
	n := w.node(name)
	out := []string{string(n.Status.Conditions[0].Status)}
	for _, t := range n.Spec.Taints {
		out = append(out, strings.TrimPrefix(t.Key, "node.kubernetes.io/")+":"+string(t.Effect))
	}
	slices.Sort(out[1:])
	return strings.Join(out, " ")
}

func (w *nodeWorld) expect(what, got, want string) {
	w.Helper()
	if got != want {
		w.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func (w *nodeWorld) pod(name, node string, tolerations ...corev1.Toleration) {
	w.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}}
	p.Spec.Tolerations = tolerations
	if err := w.r.Create(w.Context(), p); err != nil {
		w.Fatal(err)
	}
	if err := w.r.Bind(w.Context(), client.Key(p), p.UID, node); err != nil {
		w.Fatal(err)
	}
	if err := w.r.Get(w.Context(), client.Key(p), p); err != nil {
		w.Fatal(err)
	}
	w.run(p)
	w.settle()
}

// stands is a Pod as "ready", "unready", "going" or "gone".
func (w *nodeWorld) stands(name string) string {
	w.Helper()
	var p corev1.Pod
	err := w.r.Get(w.Context(), types.NamespacedName{Namespace: "default", Name: name}, &p)
	switch {
	case apierrors.IsNotFound(err):
		return "gone"
	case err != nil:
		w.Fatal(err)
	case p.DeletionTimestamp != nil:
		return "going"
	case podReady(&p):
		return "ready"
	}
	return "unready"
}

const unreachable = "Unknown unreachable:NoExecute unreachable:NoSchedule"

func TestASilentNodeIsNotReadyAndItsPodsGoAfterTheirTime(t *testing.T) {
	w := newNodeWorld(t, 3)
	seconds := int64(60)
	w.pod("plain", "n1")
	w.pod("brief", "n1", corev1.Toleration{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds})
	w.pod("stays", "n1", corev1.Toleration{Operator: corev1.TolerationOpExists})
	w.pass(40*time.Second, "n2", "n3")
	w.expect("after 40 s", w.state("n1"), "True")
	w.pass(5*time.Second, "n2", "n3")
	w.expect("after 45 s", w.state("n1"), unreachable)
	w.expect("the others", w.state("n2"), "True")
	w.expect("its pods do not serve", w.stands("plain")+w.stands("stays"), "unreadyunready")
	w.pass(60*time.Second, "n2", "n3")
	w.expect("after a minute", w.stands("brief")+" "+w.stands("plain"), "going unready")
	w.pass(235*time.Second, "n2", "n3")
	w.expect("before five minutes", w.stands("plain"), "unready")
	w.pass(10*time.Second, "n2", "n3")
	w.expect("after five minutes", w.stands("plain")+" "+w.stands("stays"), "going unready")
}

func TestANodeThatComesBackKeepsItsPods(t *testing.T) {
	w := newNodeWorld(t, 3)
	w.pod("plain", "n1")
	w.pass(4*time.Minute, "n2", "n3")
	w.expect("silent", w.state("n1"), unreachable)
	w.pass(5*time.Second, "n1", "n2", "n3")
	w.expect("back", w.state("n1"), "True")
	w.pass(10*time.Minute, "n1", "n2", "n3")
	w.expect("its pod", w.stands("plain"), "unready") // until its agent says otherwise
	// The time begins anew.
	w.pass(4*time.Minute, "n2", "n3")
	w.expect("silent again", w.stands("plain"), "unready")
}

func TestNobodyIsDrivenAwayWhenMostNodesAreSilent(t *testing.T) {
	w := newNodeWorld(t, 3)
	w.pod("one", "n1")
	w.pod("two", "n2")
	w.pass(20*time.Minute, "n3")
	w.expect("n1", w.state("n1"), "Unknown unreachable:NoSchedule")
	w.expect("pods", w.stands("one")+w.stands("two"), "unreadyunready")
	// One of them comes back: its neighbour is the exception now.
	w.pass(6*time.Minute, "n2", "n3")
	w.expect("pods", w.stands("one")+" "+w.stands("two"), "going unready")
}

// TestMostFallSilentWhenAPodIsToGo: at the same look, it stays.
func TestMostFallSilentWhenAPodIsToGo(t *testing.T) {
	w := newNodeWorld(t, 3)
	w.pod("one", "n1")
	w.pass(300*time.Second, "n2", "n3")
	w.expect("n1", w.state("n1"), unreachable)
	w.pass(40*time.Second, "n3")
	w.expect("n2", w.state("n2"), "True")
	w.pass(5*time.Second, "n3")
	w.expect("n1 and n2", w.state("n1")+" "+w.state("n2"), "Unknown unreachable:NoSchedule Unknown unreachable:NoSchedule")
	w.expect("the pod", w.stands("one"), "unready")
}

func TestASingleSilentNodeKeepsItsPods(t *testing.T) {
	w := newNodeWorld(t, 1)
	w.pod("one", "n1")
	w.pass(time.Hour)
	w.expect("the pod", w.stands("one"), "unready")
}

func TestAClockThatJumpsDrivesNobodyAway(t *testing.T) {
	w := newNodeWorld(t, 3)
	w.pod("plain", "n1")
	w.clock.SetTime(w.clock.Now().Add(24 * time.Hour))
	w.settle()
	w.expect("forwards", w.state("n1"), "True")
	w.pass(30*time.Second, "n2", "n3")
	w.clock.SetTime(w.clock.Now().Add(-48 * time.Hour))
	w.settle()
	w.pass(30*time.Second, "n2", "n3")
	w.expect("backwards", w.state("n1"), "True")
	w.pass(4*time.Minute, "n2", "n3")
	w.clock.SetTime(w.clock.Now().Add(24 * time.Hour))
	w.settle()
	w.expect("while it is silent", w.stands("plain"), "unready")
}

func TestAnEngineThatStoodStillDrivesNobodyAway(t *testing.T) {
	w := newNodeWorld(t, 3)
	w.pod("plain", "n1")
	w.pass(4*time.Minute, "n2", "n3")
	w.clock.Step(time.Hour) // nobody could report
	w.settle()
	w.expect("at once", w.stands("plain")+" "+w.state("n2"), "unready True")
	w.restart()
	w.pass(4*time.Minute, "n2", "n3")
	w.expect("a new engine waits anew", w.stands("plain"), "unready")
	w.pass(2*time.Minute, "n2", "n3")
	w.expect("and then not", w.stands("plain"), "going")
}

func TestNodesAreDrivenEmptyOneByOne(t *testing.T) {
	w := newNodeWorld(t, 8)
	reporting := []string{"n4", "n5", "n6", "n7", "n8"}
	w.pass(45*time.Second, reporting...)
	driven := func() (n int) {
		for _, name := range w.names {
			n += btoi(evicting(w.node(name)))
		}
		return n
	}
	var counts []int
	for range 5 {
		counts = append(counts, driven())
		w.pass(5*time.Second, reporting...)
	}
	if fmt.Sprint(counts) != "[1 1 2 2 3]" {
		t.Errorf("nodes driven empty, each 5 s: %v, want one in 10 s", counts)
	}
}

func TestTaintsFollowFromTheStateOfANode(t *testing.T) {
	w := newNodeWorld(t, 2)
	n := w.node("n1")
	n.Spec.Unschedulable = true
	n.Spec.Taints = []corev1.Taint{{Key: "mine", Effect: corev1.TaintEffectNoSchedule}}
	if err := w.r.Update(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeDiskPressure, Status: corev1.ConditionTrue})
	if err := w.r.UpdateStatus(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	w.settle()
	w.expect("cordoned and full", w.state("n1"), "True disk-pressure:NoSchedule mine:NoSchedule unschedulable:NoSchedule")
	n = w.node("n1")
	n.Spec.Unschedulable = false
	if err := w.r.Update(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	w.settle()
	w.expect("uncordoned", w.state("n1"), "True disk-pressure:NoSchedule mine:NoSchedule")
}

func TestATaintOfNoExecuteDrivesPodsAway(t *testing.T) {
	w := newNodeWorld(t, 1)
	seconds := int64(30)
	w.pod("plain", "n1")
	w.pod("while", "n1", corev1.Toleration{Key: "mine", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds})
	w.pod("always", "n1", corev1.Toleration{Key: "mine", Operator: corev1.TolerationOpExists})
	n := w.node("n1")
	n.Spec.Taints = []corev1.Taint{{Key: "mine", Value: "v", Effect: corev1.TaintEffectNoExecute}}
	if err := w.r.Update(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	w.settle()
	w.expect("at once", w.stands("plain")+" "+w.stands("while")+" "+w.stands("always"), "going ready ready")
	w.pass(30*time.Second, "n1")
	w.expect("in time", w.stands("while")+" "+w.stands("always"), "going ready")
}

// TestAFurtherTaintPutsOffNothing: what the first one asks for comes in its time.
func TestAFurtherTaintPutsOffNothing(t *testing.T) {
	w := newNodeWorld(t, 1)
	seconds := int64(30)
	w.pod("while", "n1",
		corev1.Toleration{Key: "first", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds},
		corev1.Toleration{Key: "second", Operator: corev1.TolerationOpExists})
	taint := func(key string) {
		n := w.node("n1")
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoExecute})
		if err := w.r.Update(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		w.settle()
	}
	taint("first")
	w.pass(25*time.Second, "n1")
	taint("second")
	w.expect("before its time", w.stands("while"), "ready")
	w.pass(5*time.Second, "n1")
	w.expect("in time", w.stands("while"), "going")
}

// TestANodeWhoseLeaseIsDeletedIsSilent: that says no more than an old one.
func TestANodeWhoseLeaseIsDeletedIsSilent(t *testing.T) {
	w := newNodeWorld(t, 3)
	w.pass(10*time.Second, w.names...)
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: "n1"}}
	if err := w.r.Delete(t.Context(), lease, client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.pass(50*time.Second, "n2", "n3")
	w.expect("after the grace", w.state("n1"), unreachable)
}

func TestThePodsOfADeletedNodeAreRemoved(t *testing.T) {
	w := newNodeWorld(t, 2)
	w.pod("plain", "n2")
	if err := w.r.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}}, client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.settle()
	w.pass(35*time.Second, "n1")
	w.expect("it may come back", w.stands("plain"), "ready")
	w.pass(15*time.Second, "n1")
	w.expect("it does not", w.stands("plain"), "gone")
}
