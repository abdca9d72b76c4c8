package controllers

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"berth.dev/berth/api/client"
)

// budgetWorld is a stage with Pods of a ReplicaSet and by hand, budgets over them,
// and somebody who evicts.
type budgetWorld struct {
	*stage
	dice    dice
	budgets *disruption
	created int
	// calm: Pods go by eviction alone, so budgets can be kept to.
	calm bool
}

func newBudgetWorld(t testing.TB, seed uint64, calm bool) *budgetWorld {
	w := &budgetWorld{stage: newStage(t), dice: dice{rand.New(rand.NewPCG(seed, 10))}, calm: calm}
	w.restart()
	t.Cleanup(func() { w.budgets.loop.queue.ShutDown() })
	labels := map[string]string{"app": "a"}
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "set"}}
	rs.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	rs.Spec.Replicas = new(int32(4))
	rs.Spec.Template = corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	w.allowed(w.r.Create(t.Context(), rs))
	w.budget("one")
	return w
}

// budget makes a budget or changes it. In a calm world it is a number, and of the
// Pods of the ReplicaSet.
func (w *budgetWorld) budget(name string) {
	w.Helper()
	b := &policyv1.PodDisruptionBudget{}
	err := w.r.Get(w.Context(), types.NamespacedName{Namespace: "default", Name: name}, b)
	spec := policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}}
	amount := intstr.FromInt32(int32(w.dice.IntN(4)))
	if !w.calm && w.dice.oneIn(2) {
		amount = intstr.FromString(fmt.Sprintf("%d%%", 25*w.dice.IntN(5)))
	}
	if !w.calm && w.dice.oneIn(2) {
		spec.MaxUnavailable = &amount
	} else {
		spec.MinAvailable = &amount
	}
	if !w.calm && w.dice.oneIn(3) {
		spec.Selector.MatchLabels["app"] = "b"
	}
	b.Namespace, b.Name, b.Spec = "default", name, spec
	if apierrors.IsNotFound(err) {
		w.allowed(w.r.Create(w.Context(), b))
		return
	}
	w.allowed(w.r.Update(w.Context(), b))
}

func (w *budgetWorld) restart() {
	w.Helper()
	if w.budgets != nil {
		w.budgets.loop.queue.ShutDown()
	}
	w.budgets = newDisruption(w.begin())
	w.see(nil)
}

func (w *budgetWorld) set() *appsv1.ReplicaSet {
	w.Helper()
	var rs appsv1.ReplicaSet
	if err := w.r.Get(w.Context(), types.NamespacedName{Namespace: "default", Name: "set"}, &rs); err != nil {
		w.Fatal(err)
	}
	return &rs
}

// act is something that a user, a node or a ReplicaSet does.
func (w *budgetWorld) act() {
	w.Helper()
	d := w.dice
	w.created++
	pod := one(d, w.pods())
	switch n := d.IntN(14); {
	case n <= 1: // the ReplicaSet makes what is missing
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("p%d", w.created), Labels: map[string]string{"app": "a"}}}
		p.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}}
		rs := w.set()
		p.OwnerReferences = []metav1.OwnerReference{ownerRef(appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), rs)}
		if !w.calm && d.oneIn(3) {
			p.OwnerReferences, p.Labels["app"] = nil, []string{"a", "b"}[d.IntN(2)]
		} else if w.active() >= int(*rs.Spec.Replicas) {
			return
		}
		w.allowed(w.r.Create(w.Context(), p))
	case n == 2 && d.oneIn(3):
		w.budget("one")
	case n == 3 && !w.calm:
		w.budget("two")
	case n == 4 && !w.calm:
		rs := w.set()
		rs.Spec.Replicas = new(int32(1 + d.IntN(6)))
		w.allowed(w.r.Update(w.Context(), rs))
	case n == 5:
		w.clock.Step(time.Duration(1+d.IntN(90)) * time.Second)
	case pod == nil:
	case n <= 8:
		w.evict(pod)
	case n == 9 && !w.calm:
		w.delete(pod)
	case n == 10 && !w.calm && pod.Spec.NodeName != "":
		w.exit(pod, int32(d.IntN(2)))
	case pod.DeletionTimestamp != nil && d.oneIn(2):
		w.stopped(pod)
	case pod.DeletionTimestamp == nil && !podFinished(pod):
		w.run(pod)
	}
}

// active counts the Pods of the ReplicaSet as it does.
func (w *budgetWorld) active() (n int) {
	w.Helper()
	for _, p := range w.pods() {
		if controllerOf(p) != nil && podActive(p) {
			n++
		}
	}
	return n
}

// healthy counts the Pods of a budget that serve, as the store has them.
func (w *budgetWorld) healthy(b *policyv1.PodDisruptionBudget) (n int) {
	w.Helper()
	for _, p := range w.selected(b) {
		if p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning && podReady(p) {
			n++
		}
	}
	return n
}

func (w *budgetWorld) selected(b *policyv1.PodDisruptionBudget) []*corev1.Pod {
	w.Helper()
	s := labels.SelectorFromSet(b.Spec.Selector.MatchLabels)
	return slices.DeleteFunc(w.pods(), func(p *corev1.Pod) bool { return !s.Matches(labels.Set(p.Labels)) })
}

// evict evicts a Pod that serves, if it is allowed. In a calm world as many stay
// as the budget asks for, however late the controller sees what happens.
func (w *budgetWorld) evict(p *corev1.Pod) {
	w.Helper()
	serves := p.DeletionTimestamp == nil && podReady(p)
	err := w.r.Evict(w.Context(), client.Key(p), client.DeleteOptions{}, false)
	if err != nil {
		if !apierrors.IsTooManyRequests(err) && !apierrors.IsInternalError(err) { // two budgets select it
			w.allowed(err)
		}
		return
	}
	if !w.calm || !serves {
		return
	}
	for _, b := range all[*policyv1.PodDisruptionBudget](w.stage, &policyv1.PodDisruptionBudgetList{}) {
		if left, least := w.healthy(b), b.Spec.MinAvailable.IntValue(); left < least {
			w.Fatalf("%s was evicted, and of budget %s %d serve; it asks for %d", p.Name, b.Name, left, least)
		}
	}
}

// settle shows the controller everything until it has nothing to do.
func (w *budgetWorld) settle() {
	w.Helper()
	for range 100 {
		w.see(nil)
		if !w.take(w.budgets.loop) {
			return
		}
	}
	w.Fatal("it does not come to rest")
}

// right compares what budgets say with the words of the API.
func (w *budgetWorld) right() {
	w.Helper()
	rs := w.set()
	for _, b := range all[*policyv1.PodDisruptionBudget](w.stage, &policyv1.PodDisruptionBudgetList{}) {
		expected, owned := 0, false
		for _, p := range w.selected(b) {
			if controllerOf(p) == nil {
				expected++
			} else if !owned {
				owned = true
				expected += int(*rs.Spec.Replicas)
			}
		}
		amount := b.Spec.MinAvailable
		if amount == nil {
			amount = b.Spec.MaxUnavailable
		}
		n := amount.IntValue()
		if amount.Type == intstr.String {
			var percent int
			fmt.Sscanf(amount.StrVal, "%d%%", &percent)
			n = (expected*percent + 99) / 100
		}
		desired, healthy := n, w.healthy(b)
		if b.Spec.MaxUnavailable != nil {
			desired = max(0, expected-n)
		}
		allowed := max(0, healthy-desired)
		if expected == 0 {
			allowed = 0
		}
		got := fmt.Sprint(b.Status.ExpectedPods, b.Status.DesiredHealthy, b.Status.CurrentHealthy, b.Status.DisruptionsAllowed, b.Status.ObservedGeneration, b.Status.DisruptedPods)
		if want := fmt.Sprint(expected, desired, healthy, allowed, b.Generation, map[string]metav1.Time{}); got != want {
			w.Fatalf("budget %s %+v: expected, desired, healthy, allowed, generation and disrupted are %s, want %s", b.Name, b.Spec, got, want)
		}
	}
}

// TestRandomBudgets: however late the controller sees what happens, evictions leave
// as many Pods as a budget asks for, and in the end a budget says how things are.
func TestRandomBudgets(t *testing.T) {
	for seed := range uint64(100) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newBudgetWorld(t, seed, seed%2 == 0)
			for range 120 {
				switch w.dice.IntN(8) {
				case 0, 1, 2, 3:
					w.act()
				case 4:
					w.see(func() bool { return !w.dice.oneIn(3) })
				case 5:
					if w.dice.oneIn(10) {
						w.restart()
					}
				default:
					w.take(w.budgets.loop)
				}
				if w.dice.oneIn(8) {
					w.settle()
					w.right()
				}
			}
			w.settle()
			w.right()
		})
	}
}
