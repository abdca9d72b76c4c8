package controllers

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/resources"
)

// spaceWorld is a stage with Namespaces that come and go with what is in them, and
// the ServiceAccount that each has.
type spaceWorld struct {
	*stage
	dice       dice
	namespaces *namespaces
	accounts   *standing
	// shown are the accounts that the controller has been told of, by Namespace.
	shown   map[string]*corev1.ServiceAccount
	created int
}

func newSpaceWorld(t testing.TB, seed uint64) *spaceWorld {
	w := &spaceWorld{stage: newStage(t), dice: dice{rand.New(rand.NewPCG(seed, 13))}}
	w.restart()
	t.Cleanup(w.kill)
	return w
}

func (w *spaceWorld) kill() {
	w.namespaces.loop.queue.ShutDown()
	w.accounts.loop.queue.ShutDown()
}

func (w *spaceWorld) restart() {
	w.Helper()
	if w.namespaces != nil {
		w.kill()
	}
	c := w.begin()
	w.namespaces, w.accounts, w.shown = newNamespaces(c), newAccounts(c), map[string]*corev1.ServiceAccount{}
	w.see()
	w.hear()
}

// see brings the view of Namespaces up to the store.
func (w *spaceWorld) see() {
	w.Helper()
	look(w.stage, w.views.Namespaces, &corev1.NamespaceList{})
}

// hear tells of accounts that have come and gone.
func (w *spaceWorld) hear() {
	w.Helper()
	now := map[string]*corev1.ServiceAccount{}
	for _, obj := range w.everything(&corev1.ServiceAccountList{}) {
		a := obj.(*corev1.ServiceAccount)
		now[a.Namespace] = a
		w.accounts.Set(a)
	}
	for ns, a := range w.shown {
		if now[ns] == nil || now[ns].UID != a.UID {
			w.accounts.Gone(a)
		}
	}
	w.shown = now
}

// everything of a kind, in all Namespaces.
func (w *spaceWorld) everything(list client.ObjectList) []client.Object {
	w.Helper()
	row, err := w.r.Of(list)
	if err != nil {
		w.Fatal(err)
	}
	found, err := w.r.Objects(w.Context(), row, resources.ListRequest{})
	if err != nil {
		w.Fatal(err)
	}
	return found.Objects
}

// content is what can be lost: ConfigMaps and Pods.
func (w *spaceWorld) content() []client.Object {
	w.Helper()
	return append(w.everything(&corev1.ConfigMapList{}), w.everything(&corev1.PodList{})...)
}

// space is a Namespace as the store has it, or nil.
func (w *spaceWorld) space(name string) *corev1.Namespace {
	w.Helper()
	var ns corev1.Namespace
	err := w.r.Get(w.Context(), types.NamespacedName{Name: name}, &ns)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		w.Fatal(err)
	}
	return &ns
}

// try passes over what a Namespace that is going, or gone, refuses.
func (w *spaceWorld) try(err error) {
	w.Helper()
	if !apierrors.IsForbidden(err) {
		w.allowed(err)
	}
}

func (w *spaceWorld) act() {
	w.Helper()
	d := w.dice
	w.created++
	name := one(d, []string{"a", "b", "default"})
	obj := one(d, w.content())
	switch n := d.IntN(10); {
	case n == 0 && name != "default":
		w.try(w.r.Create(w.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	case n == 1 && name != "default":
		w.try(w.r.Delete(w.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, client.DeleteOptions{}))
	case n <= 4:
		c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: fmt.Sprintf("c%d", w.created)}}
		if d.oneIn(3) {
			c.Finalizers = []string{"example.org/wait"}
		}
		w.try(w.r.Create(w.Context(), c))
	case n == 5:
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: fmt.Sprintf("p%d", w.created)}}
		p.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}}
		p.Spec.NodeName = "n1"
		w.try(w.r.Create(w.Context(), p))
	case n == 6:
		w.hear() // one that came and went between two looks is nothing that a watch would leave out
		w.try(w.r.Delete(w.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: resources.DefaultAccount}}, client.DeleteOptions{}))
	case n == 7 && obj != nil && d.oneIn(2):
		w.try(w.r.Delete(w.Context(), obj, client.DeleteOptions{}))
	case n == 8 && obj != nil:
		w.finish(obj)
	}
}

// finish is whoever a deletion waits for.
func (w *spaceWorld) finish(obj client.Object) {
	w.Helper()
	if obj.GetDeletionTimestamp() == nil {
		return
	}
	if p, ok := obj.(*corev1.Pod); ok {
		w.stopped(p)
		return
	}
	obj.SetFinalizers(nil)
	w.try(w.r.Update(w.Context(), obj))
}

// step takes a step of a controller, and checks that nothing was deleted
// but in a Namespace that is going.
func (w *spaceWorld) step(l *loop) bool {
	w.Helper()
	before, going := w.content(), map[string]bool{}
	for _, name := range []string{"a", "b"} {
		ns := w.space(name)
		going[name] = ns != nil && ns.DeletionTimestamp != nil
	}
	took := w.take(l)
	after := map[types.UID]client.Object{}
	for _, obj := range w.content() {
		after[obj.GetUID()] = obj
		if ns := obj.GetNamespace(); w.space(ns) == nil {
			w.Fatalf("%s is in namespace %s, which is gone", obj.GetName(), ns)
		}
	}
	for _, obj := range before {
		is := after[obj.GetUID()]
		if !going[obj.GetNamespace()] && (is == nil || is.GetDeletionTimestamp() != nil && obj.GetDeletionTimestamp() == nil) {
			w.Fatalf("%s was deleted, and its namespace %s was not", obj.GetName(), obj.GetNamespace())
		}
	}
	return took
}

// settle lets everybody do what they can.
func (w *spaceWorld) settle() {
	w.Helper()
	for range 200 {
		w.see()
		w.hear()
		for _, obj := range w.content() {
			w.finish(obj)
		}
		for _, name := range []string{"a", "b"} { // what is looked at again after a while
			if ns := w.space(name); ns != nil && ns.DeletionTimestamp != nil {
				w.namespaces.loop.add(ns)
			}
		}
		took := w.step(w.namespaces.loop)
		if took = w.step(w.accounts.loop) || took; !took {
			return
		}
	}
	w.Fatal("it does not come to rest")
}

// TestRandomNamespaces: whatever comes and goes, and however late it is seen, a
// Namespace that is being deleted takes with it what is in it and nothing else, and
// each other one has its account.
func TestRandomNamespaces(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newSpaceWorld(t, seed)
			for range 150 {
				switch w.dice.IntN(8) {
				case 0, 1, 2:
					w.act()
				case 3:
					w.see()
				case 4:
					w.hear()
				case 5:
					w.namespaces.loop.queue.Add(types.NamespacedName{Name: one(w.dice, []string{"a", "b"})}) // a timer that was set before
					if w.dice.oneIn(10) {
						w.restart()
					}
				default:
					w.step(one(w.dice, []*loop{w.namespaces.loop, w.accounts.loop}))
				}
				if w.dice.oneIn(30) {
					w.settle()
					w.right()
				}
			}
			w.settle()
			w.right()
		})
	}
}

func (w *spaceWorld) right() {
	w.Helper()
	var accounts []string
	for _, a := range w.everything(&corev1.ServiceAccountList{}) {
		accounts = append(accounts, a.GetNamespace()+"/"+a.GetName())
	}
	for _, ns := range w.views.Namespaces.All() {
		if ns.DeletionTimestamp != nil {
			w.Errorf("namespace %s does not go", ns.Name)
		}
		if !slices.Contains(accounts, ns.Name+"/default") {
			w.Errorf("namespace %s has no account", ns.Name)
		}
	}
}

// TestANamespaceMadeAnewKeepsWhatIsInIt: a look that comes late, and that sees the
// one that went, deletes nothing.
func TestANamespaceMadeAnewKeepsWhatIsInIt(t *testing.T) {
	w := newSpaceWorld(t, 0)
	ns := func() *corev1.Namespace { return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}} }
	w.allowed(w.r.Create(t.Context(), ns()))
	w.allowed(w.r.Delete(t.Context(), ns(), client.DeleteOptions{}))
	w.see()
	w.take(w.namespaces.loop)
	if w.space("a") != nil {
		t.Fatal("it is there")
	}
	w.allowed(w.r.Create(t.Context(), ns()))
	w.allowed(w.r.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "new"}}))
	w.namespaces.loop.add(ns())
	if !w.take(w.namespaces.loop) || len(w.content()) == 0 {
		t.Errorf("what is in it now: %v", names(w.content()))
	}
	if len(w.space("a").Spec.Finalizers) == 0 {
		t.Error("nothing will keep it when it is deleted")
	}
}

// TestANamespaceSaysWhatItWaitsFor: what is in it, and which finalizers it has.
func TestANamespaceSaysWhatItWaitsFor(t *testing.T) {
	w := newSpaceWorld(t, 0)
	w.allowed(w.r.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}}))
	c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "held", Finalizers: []string{"example.org/wait"}}}
	w.allowed(w.r.Create(t.Context(), c))
	w.allowed(w.r.Delete(t.Context(), w.space("a"), client.DeleteOptions{}))
	for range 2 { // at the first look it is only told to go
		w.see()
		w.namespaces.loop.add(w.space("a"))
		w.take(w.namespaces.loop)
	}
	var got []string
	for _, c := range w.space("a").Status.Conditions {
		got = append(got, fmt.Sprintf("%s %s: %s", c.Type, c.Status, c.Message))
	}
	want := []string{
		"NamespaceContentRemaining True: Some resources are remaining: configmaps has 1 resource instances",
		"NamespaceFinalizersRemaining True: Some content in the namespace has finalizers remaining: example.org/wait in 1 resource instances",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	err := w.r.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "late"}})
	if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		t.Errorf("what is made in it: %v", err)
	}
}
