package controllers

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/enginetest"
)

// daemonWorld is a stage with one DaemonSet "d" and the nodes n1 to n4.
type daemonWorld struct {
	*stage
	sets *daemonSets
}

func newDaemonWorld(t *testing.T, edit func(*appsv1.DaemonSetSpec)) *daemonWorld {
	t.Helper()
	w := &daemonWorld{stage: newStage(t)}
	w.stage.step = w.step
	for _, name := range []string{"n2", "n3", "n4"} {
		enginetest.AddNode(t, w.r, name, "4", "8Gi")
	}
	labels := map[string]string{"app": "d"}
	set := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "d"}}
	set.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	set.Spec.Template = corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "v1"}}}}
	edit(&set.Spec)
	if err := w.r.Create(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	w.restart()
	t.Cleanup(func() { w.sets.loop.queue.ShutDown() })
	w.settle()
	return w
}

func (w *daemonWorld) restart() {
	if w.sets != nil {
		w.sets.loop.queue.ShutDown()
	}
	w.sets = newDaemonSets(w.begin())
	w.see(nil)
}

func (w *daemonWorld) step() {
	w.Helper()
	w.allowed(w.sets.reconcile(w.Context(), types.NamespacedName{Namespace: "default", Name: "d"}))
}

func (w *daemonWorld) get() *appsv1.DaemonSet {
	w.Helper()
	var s appsv1.DaemonSet
	if err := w.r.Get(w.Context(), types.NamespacedName{Namespace: "default", Name: "d"}, &s); err != nil {
		w.Fatal(err)
	}
	return &s
}

func (w *daemonWorld) change(edit func(*appsv1.DaemonSetSpec)) {
	w.Helper()
	s := w.get()
	edit(&s.Spec)
	if err := w.r.Update(w.Context(), s); err != nil {
		w.Fatal(err)
	}
	w.settle()
}

func (w *daemonWorld) image(image string) {
	w.Helper()
	w.change(func(s *appsv1.DaemonSetSpec) { s.Template.Spec.Containers[0].Image = image })
}

// node edits a node.
func (w *daemonWorld) node(name string, edit func(*corev1.Node)) {
	w.Helper()
	var n corev1.Node
	if err := w.r.Get(w.Context(), types.NamespacedName{Name: name}, &n); err != nil {
		w.Fatal(err)
	}
	edit(&n)
	if err := w.r.Update(w.Context(), &n); err != nil {
		w.Fatal(err)
	}
	w.settle()
}

// line is the Pods by node, as "1:v1 2:v2! 3:v1-": ! is not ready, - is being deleted.
func (w *daemonWorld) line() string {
	w.Helper()
	var out []string
	for _, p := range w.pods() {
		mark := ""
		if !podReady(p) {
			mark = "!"
		}
		if p.DeletionTimestamp != nil {
			mark = "-"
		}
		out = append(out, strings.TrimPrefix(daemonTarget(p), "n")+":"+p.Spec.Containers[0].Image+mark)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (w *daemonWorld) expect(want string) {
	w.Helper()
	if got := w.line(); got != want {
		w.Errorf("got  %q\nwant %q\nstatus %+v", got, want, w.get().Status)
	}
}

// start makes the Pods of a node ready.
func (w *daemonWorld) start(p *corev1.Pod) {
	w.Helper()
	if p.Spec.NodeName == "" {
		if err := w.r.Bind(w.Context(), client.Key(p), p.UID, daemonTarget(p)); err != nil {
			w.Fatal(err)
		}
		p.Spec.NodeName = daemonTarget(p)
	}
	w.run(p)
}

// converge lets nodes do their work, images that begin with "bad" apart.
func (w *daemonWorld) converge() {
	w.Helper()
	for range 60 {
		before := w.picture()
		for _, p := range w.pods() {
			switch {
			case p.DeletionTimestamp != nil:
				w.stopped(p)
			case !podReady(p) && !podFinished(p) && !strings.HasPrefix(p.Spec.Containers[0].Image, "bad"):
				w.start(p)
			}
		}
		w.settle()
		if w.picture() == before {
			return
		}
	}
	w.Fatalf("it does not converge: %s", w.line())
}

func plainDaemon(*appsv1.DaemonSetSpec) {}

func rolling(unavailable, surge intstr.IntOrString) func(*appsv1.DaemonSetSpec) {
	return func(s *appsv1.DaemonSetSpec) {
		s.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &unavailable, MaxSurge: &surge}
	}
}

func TestOnePodOnEachNode(t *testing.T) {
	w := newDaemonWorld(t, plainDaemon)
	w.expect("1:v1! 2:v1! 3:v1! 4:v1!")
	w.converge()
	if s := w.get().Status; s.DesiredNumberScheduled != 4 || s.NumberReady != 4 || s.NumberAvailable != 4 || s.UpdatedNumberScheduled != 4 || s.CurrentNumberScheduled != 4 || s.NumberUnavailable != 0 {
		t.Errorf("status %+v", s)
	}
	enginetest.AddNode(t, w.r, "n5", "4", "8Gi")
	w.settle()
	w.expect("1:v1 2:v1 3:v1 4:v1 5:v1!")
	w.node("n2", func(n *corev1.Node) { n.Spec.Unschedulable = true })
	w.delete(w.pods()[slices.IndexFunc(w.pods(), func(p *corev1.Pod) bool { return daemonTarget(p) == "n2" })])
	w.converge()
	w.expect("1:v1 2:v1 3:v1 4:v1 5:v1") // a cordoned node has one, too
	if err := w.r.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n5"}}, client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.converge()
	w.expect("1:v1 2:v1 3:v1 4:v1")
}

func TestNodesThatAreEligible(t *testing.T) {
	w := newDaemonWorld(t, func(s *appsv1.DaemonSetSpec) { s.Template.Spec.NodeSelector = map[string]string{"disk": "ssd"} })
	w.expect("")
	w.node("n3", func(n *corev1.Node) { n.Labels = map[string]string{"disk": "ssd"} })
	w.converge()
	w.expect("3:v1")
	w.node("n3", func(n *corev1.Node) { n.Labels = nil })
	w.converge()
	w.expect("")
	w.node("n1", func(n *corev1.Node) { n.Labels = map[string]string{"disk": "ssd"} })
	w.node("n2", func(n *corev1.Node) { n.Labels = map[string]string{"disk": "ssd"} })
	w.converge()
	w.expect("1:v1 2:v1")
	w.node("n1", func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}} })
	w.node("n2", func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoExecute}} })
	w.converge()
	w.expect("1:v1")
	if s := w.get().Status; s.DesiredNumberScheduled != 0 || s.NumberMisscheduled != 1 {
		t.Errorf("status %+v", s)
	}
	w.change(func(s *appsv1.DaemonSetSpec) {
		s.Template.Spec.Tolerations = []corev1.Toleration{{Key: "k", Operator: corev1.TolerationOpExists}}
	})
	w.converge()
	w.expect("1:v1 2:v1")
}

func TestDaemonUpdateKeepsWithinMaxUnavailable(t *testing.T) {
	w := newDaemonWorld(t, rolling(intstr.FromString("50%"), intstr.FromInt32(0)))
	w.converge()
	w.image("v2")
	w.expect("1:v1- 2:v1- 3:v1 4:v1")
	w.converge()
	w.expect("1:v2 2:v2 3:v2 4:v2")
}

func TestABrokenDaemonUpdateStops(t *testing.T) {
	w := newDaemonWorld(t, plainDaemon)
	w.converge()
	w.image("bad")
	w.converge()
	w.expect("1:bad! 2:v1 3:v1 4:v1")
	w.image("v3")
	w.converge()
	w.expect("1:v3 2:v3 3:v3 4:v3")
}

func TestDaemonUpdateWithSurge(t *testing.T) {
	w := newDaemonWorld(t, rolling(intstr.FromInt32(0), intstr.FromInt32(2)))
	w.converge()
	w.image("v2")
	w.expect("1:v1 1:v2! 2:v1 2:v2! 3:v1 4:v1")
	for _, p := range w.pods() {
		if p.Spec.Containers[0].Image == "v2" {
			w.start(p)
		}
	}
	w.settle()
	w.expect("1:v1- 1:v2 2:v1- 2:v2 3:v1 3:v2! 4:v1 4:v2!")
	w.converge()
	w.expect("1:v2 2:v2 3:v2 4:v2")
}

func TestDaemonUpdateOnDelete(t *testing.T) {
	w := newDaemonWorld(t, func(s *appsv1.DaemonSetSpec) { s.UpdateStrategy.Type = appsv1.OnDeleteDaemonSetStrategyType })
	w.converge()
	w.image("v2")
	w.converge()
	w.expect("1:v1 2:v1 3:v1 4:v1")
	w.delete(w.pods()[slices.IndexFunc(w.pods(), func(p *corev1.Pod) bool { return daemonTarget(p) == "n3" })])
	w.converge()
	w.expect("1:v1 2:v1 3:v2 4:v1")
}

func TestMinReadySecondsOfADaemonSet(t *testing.T) {
	w := newDaemonWorld(t, func(s *appsv1.DaemonSetSpec) { s.MinReadySeconds = 10 })
	w.converge()
	w.after(10 * time.Second)
	w.image("v2")
	w.converge()
	w.expect("1:v2 2:v1 3:v1 4:v1")
	w.after(9 * time.Second)
	w.expect("1:v2 2:v1 3:v1 4:v1")
	w.after(time.Second)
	w.expect("1:v2 2:v1- 3:v1 4:v1")
}

func TestAFailedDaemonPodIsReplacedAfterAWait(t *testing.T) {
	w := newDaemonWorld(t, plainDaemon)
	w.converge()
	fail := func() {
		w.exit(w.pods()[slices.IndexFunc(w.pods(), func(p *corev1.Pod) bool { return daemonTarget(p) == "n1" })], 1)
	}
	fail()
	w.settle()
	w.expect("1:v1! 2:v1 3:v1 4:v1")
	w.converge()
	w.expect("1:v1 2:v1 3:v1 4:v1")
	fail()
	w.step()
	w.see(nil)
	w.step()
	failed := slices.ContainsFunc(w.pods(), podFinished)
	if !failed {
		t.Error("the second failure was not left for a while")
	}
	w.after(2 * time.Second)
	w.converge()
	w.expect("1:v1 2:v1 3:v1 4:v1")
}

// TestRandomDaemonSets: whatever happens to Pods and nodes, whenever the engine
// is killed and however old its views are, a node never has two Pods but with
// surge, a step takes no more than one of those that serve, and in the end each
// node has one of the present template.
func TestRandomDaemonSets(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	for seed := range uint64(rounds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			d := dice{rand.New(rand.NewPCG(seed, 4))}
			surge := d.oneIn(3)
			strategy := plainDaemon
			if surge {
				strategy = rolling(intstr.FromInt32(0), intstr.FromInt32(1))
			}
			w := newDaemonWorld(t, strategy)
			w.converge()
			version := 1
			for range 200 {
				switch d.IntN(9) {
				case 0:
					if d.oneIn(4) {
						version++
						s := w.get()
						s.Spec.Template.Spec.Containers[0].Image = fmt.Sprintf([]string{"v%d", "bad%d"}[d.IntN(2)], version)
						if err := w.r.Update(t.Context(), s); err != nil {
							t.Fatal(err)
						}
					}
				case 1, 2, 3, 4:
					w.happen(d)
				case 5, 6:
					w.see(func() bool { return d.oneIn(2) })
				case 7:
					if d.oneIn(6) {
						w.restart()
					}
				case 8:
					w.clock.Step(time.Duration(d.IntN(5)) * time.Second)
				}
				w.judge(surge)
			}
			version++
			w.image(fmt.Sprintf("v%d", version))
			for range 20 {
				w.clock.Step(20 * time.Minute)
				w.converge()
			}
			w.expect(strings.ReplaceAll("1:V 2:V 3:V 4:V", "V", fmt.Sprintf("v%d", version)))
		})
	}
}

// happen lets something happen to a Pod.
func (w *daemonWorld) happen(d dice) {
	pods := w.pods()
	if len(pods) == 0 {
		return
	}
	switch p := pods[d.IntN(len(pods))]; {
	case p.DeletionTimestamp != nil:
		w.stopped(p)
	case podFinished(p):
	case d.oneIn(12):
		w.delete(p)
	case d.oneIn(12):
		w.exit(p, 1)
	case !strings.HasPrefix(p.Spec.Containers[0].Image, "bad"):
		w.start(p)
	}
}

// judge takes a step and looks at what it did.
func (w *daemonWorld) judge(surge bool) {
	w.Helper()
	served := map[string]bool{}
	for _, p := range w.views.Pods.All() {
		if podReady(p) && podActive(p) {
			served[daemonTarget(p)] = true
		}
	}
	state := func() (taken int) {
		serves := map[string]bool{}
		for _, p := range w.pods() {
			if podActive(p) {
				serves[daemonTarget(p)] = true
			}
		}
		for node := range served {
			taken += btoi(!serves[node])
		}
		return taken
	}
	before := state()
	w.step()
	if taken := state() - before; taken > 1 {
		w.Fatalf("a step took the pods of %d nodes that served: %s", taken, w.line())
	}
	perNode := map[string]int{}
	for _, p := range w.pods() {
		if podActive(p) {
			perNode[daemonTarget(p)]++
		}
	}
	for node, n := range perNode {
		if n > 1 && !surge || n > 2 {
			w.Fatalf("node %s has %d pods: %s", node, n, w.line())
		}
	}
}
