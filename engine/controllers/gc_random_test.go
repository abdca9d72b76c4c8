package controllers

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
)

// gcWorld is a collector that sees owners (Secrets) and what they own
// (ConfigMaps) each when the test says so.
type gcWorld struct {
	*stage
	dice    dice
	gc      *collector
	shown   map[string]map[types.UID]client.Object
	created int
}

func newGCWorld(t testing.TB, seed uint64) *gcWorld {
	w := &gcWorld{stage: newStage(t), dice: dice{rand.New(rand.NewPCG(seed, 8))}}
	w.restart()
	t.Cleanup(func() { w.gc.loop.queue.ShutDown() })
	return w
}

// restart is a new process, which sees everything once before it acts.
func (w *gcWorld) restart() {
	if w.gc != nil {
		w.gc.loop.queue.ShutDown()
	}
	w.gc, w.shown = newCollector(w.begin()), map[string]map[types.UID]client.Object{}
	w.show("Secret")
	w.show("ConfigMap")
}

// stored are the objects of a kind.
func (w *gcWorld) stored(kind string) []client.Object {
	w.Helper()
	row, _ := w.r.ByKind(corev1.SchemeGroupVersion.WithKind(kind))
	list := row.NewList()
	if err := w.r.List(w.Context(), list, client.ListOptions{Namespace: "default"}); err != nil {
		w.Fatal(err)
	}
	items, err := meta.ExtractList(list)
	if err != nil {
		w.Fatal(err)
	}
	var out []client.Object
	for _, item := range items {
		out = append(out, item.(client.Object))
	}
	return out
}

// show brings the collector's view of one kind up to the store.
func (w *gcWorld) show(kind string) {
	w.Helper()
	row, _ := w.r.ByKind(corev1.SchemeGroupVersion.WithKind(kind))
	f, now := &collectorFollower{w.gc, row}, map[types.UID]client.Object{}
	for _, obj := range w.stored(kind) {
		now[obj.GetUID()] = obj
		if was := w.shown[kind][obj.GetUID()]; was == nil || was.GetResourceVersion() != obj.GetResourceVersion() {
			f.Set(obj)
		}
	}
	for uid, obj := range w.shown[kind] {
		if now[uid] == nil {
			f.Gone(obj)
		}
	}
	w.shown[kind] = now
}

// keeps reports whether an owner that is stored keeps what names it.
func (w *gcWorld) keeps(ref metav1.OwnerReference) bool {
	return slices.ContainsFunc(w.stored("Secret"), func(o client.Object) bool {
		waits := o.GetDeletionTimestamp() != nil && slices.Contains(o.GetFinalizers(), metav1.FinalizerDeleteDependents)
		return o.GetUID() == ref.UID && !waits
	})
}

// step takes the next key of the queue, and checks what the collector deletes.
func (w *gcWorld) step() {
	w.Helper()
	before, owners := w.stored("ConfigMap"), w.stored("Secret")
	if !w.take(w.gc.loop) {
		return
	}
	for _, owner := range owners {
		if slices.Contains(owner.GetFinalizers(), metav1.FinalizerDeleteDependents) && !slices.Contains(names(w.stored("Secret")), owner.GetName()) {
			w.released(owner)
		}
	}
	after := w.stored("ConfigMap")
	for _, obj := range before {
		lives := func(o client.Object) bool { return o.GetUID() == obj.GetUID() && o.GetDeletionTimestamp() == nil }
		if obj.GetDeletionTimestamp() != nil || slices.ContainsFunc(after, lives) {
			continue
		}
		if refs := obj.GetOwnerReferences(); len(refs) == 0 || slices.ContainsFunc(refs, w.keeps) {
			w.Fatalf("%s was deleted with owners %v", obj.GetName(), refs)
		}
	}
}

// released checks that nothing has held an owner, as far as the collector has seen.
func (w *gcWorld) released(owner client.Object) {
	w.Helper()
	for _, c := range w.stored("ConfigMap") {
		for _, ref := range c.GetOwnerReferences() {
			if seen := w.shown["ConfigMap"][c.GetUID()]; ref.UID == owner.GetUID() && *ref.BlockOwnerDeletion && seen != nil {
				w.Fatalf("%s went before %s, which blocks it", owner.GetName(), c.GetName())
			}
		}
	}
}

// act is something that a user or a controller does.
func (w *gcWorld) act() {
	w.Helper()
	owners, owned := w.stored("Secret"), w.stored("ConfigMap")
	w.created++
	switch d := w.dice; d.IntN(7) {
	case 0:
		w.allowed(w.r.Create(w.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("s%d", w.created)}}))
	case 1, 2:
		c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("c%d", w.created)}}
		for range d.IntN(3) {
			if len(owners) > 0 {
				o := owners[d.IntN(len(owners))]
				if !ownedBy(c, o.GetUID()) {
					c.OwnerReferences = append(c.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "Secret", Name: o.GetName(), UID: o.GetUID(), BlockOwnerDeletion: new(d.IntN(3) > 0)})
				}
			}
		}
		if d.oneIn(3) {
			c.Finalizers = []string{"example.org/wait"}
		}
		w.allowed(w.r.Create(w.Context(), c))
	case 6:
		w.release(one(d, owned))
	case 3: // an owner is taken off
		if len(owned) > 0 {
			c := owned[d.IntN(len(owned))]
			if refs := c.GetOwnerReferences(); len(refs) > 0 {
				c.SetOwnerReferences(refs[1:])
				w.allowed(w.r.Update(w.Context(), c))
			}
		}
	default:
		how := []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground, metav1.DeletePropagationOrphan}[d.IntN(3)]
		if len(owners) > 0 {
			w.allowed(w.r.Delete(w.Context(), owners[d.IntN(len(owners))], client.DeleteOptions{Propagation: how}))
		}
	}
}

// release lets an object go that is being deleted.
func (w *gcWorld) release(obj client.Object) {
	w.Helper()
	if obj != nil && obj.GetDeletionTimestamp() != nil && slices.Contains(obj.GetFinalizers(), "example.org/wait") {
		obj.SetFinalizers(slices.DeleteFunc(obj.GetFinalizers(), func(f string) bool { return f == "example.org/wait" }))
		w.allowed(w.r.Update(w.Context(), obj))
	}
}

// settle lets the collector see and do everything.
func (w *gcWorld) settle() {
	w.Helper()
	for range 200 {
		for _, obj := range w.stored("ConfigMap") {
			w.release(obj)
		}
		w.show("Secret")
		w.show("ConfigMap")
		if w.gc.loop.queue.Len() == 0 {
			return
		}
		for n := w.gc.loop.queue.Len(); n > 0; n-- {
			w.step()
		}
		if w.quiet() {
			return
		}
	}
	w.Fatal("the collector does not come to rest")
}

// quiet: no owner waits, and nothing is left that nobody keeps.
func (w *gcWorld) quiet() bool {
	for _, o := range w.stored("Secret") {
		if o.GetDeletionTimestamp() != nil {
			return false
		}
	}
	for _, o := range w.stored("ConfigMap") {
		if refs := o.GetOwnerReferences(); len(refs) > 0 && !slices.ContainsFunc(refs, w.keeps) {
			return false
		}
	}
	return true
}

// TestRandomOwners: whatever is created, taken off and deleted, and however late
// the collector sees it, it deletes only what no owner keeps, and all of that.
func TestRandomOwners(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newGCWorld(t, seed)
			for range 60 {
				switch w.dice.IntN(8) {
				case 0, 1, 2:
					w.act()
				case 3:
					w.show("Secret")
				case 4:
					w.show("ConfigMap")
				case 5:
					if w.dice.IntN(6) == 0 {
						w.restart()
					}
				default:
					w.step()
				}
			}
			w.settle()
			if !w.quiet() {
				t.Errorf("owners %v, owned %v", names(w.stored("Secret")), names(w.stored("ConfigMap")))
			}
		})
	}
}

func names(objs []client.Object) []string {
	var out []string
	for _, o := range objs {
		out = append(out, o.GetName())
	}
	return out
}

// TestForegroundWaitsForWhatBlocks: and for nothing else.
func TestForegroundWaitsForWhatBlocks(t *testing.T) {
	w := newGCWorld(t, 0)
	owner := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "owner"}}
	w.allowed(w.r.Create(t.Context(), owner))
	for name, blocks := range map[string]bool{"blocks": true, "does-not": false} {
		w.allowed(w.r.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, Finalizers: []string{"example.org/wait"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Secret", Name: "owner", UID: owner.UID, BlockOwnerDeletion: &blocks}},
		}}))
	}
	w.allowed(w.r.Delete(t.Context(), owner, client.DeleteOptions{Propagation: metav1.DeletePropagationForeground}))
	drain := func() {
		for range 20 {
			w.show("Secret")
			w.show("ConfigMap")
			w.step()
		}
	}
	drain()
	if len(w.stored("Secret")) != 1 {
		t.Fatal("the owner is gone before what blocks it")
	}
	for _, c := range w.stored("ConfigMap") {
		if c.GetDeletionTimestamp() == nil {
			t.Errorf("%s is not being deleted", c.GetName())
		}
		if c.GetName() == "blocks" {
			w.release(c)
		}
	}
	drain()
	if owners, left := names(w.stored("Secret")), names(w.stored("ConfigMap")); len(owners) != 0 || !slices.Equal(left, []string{"does-not"}) {
		t.Errorf("owners %v, children %v", owners, left)
	}
}

// TestOwnersOfAnotherScope: a Node can own a ConfigMap. The other way round nothing
// is said, and nothing is deleted.
func TestOwnersOfAnotherScope(t *testing.T) {
	w := newGCWorld(t, 0)
	config := func(name string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	}
	owner, owned := config("owner"), config("owned")
	w.allowed(w.r.Create(t.Context(), owner))
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node", OwnerReferences: []metav1.OwnerReference{
		{APIVersion: "v1", Kind: "ConfigMap", Name: "owner", UID: owner.UID},
	}}}
	w.allowed(w.r.Create(t.Context(), node))
	owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "node", UID: node.UID}}
	w.allowed(w.r.Create(t.Context(), owned))
	look := func() {
		row, _ := w.r.ByKind(corev1.SchemeGroupVersion.WithKind("Node"))
		(&collectorFollower{w.gc, row}).Set(node)
		w.show("ConfigMap")
		w.step()
		w.step()
	}
	look()
	if err := w.r.Get(t.Context(), client.Key(node), &corev1.Node{}); err != nil {
		t.Error(err)
	}
	if left := names(w.stored("ConfigMap")); !slices.Equal(left, []string{"owned", "owner"}) {
		t.Errorf("while the node is there: %v", left)
	}
	w.allowed(w.r.Delete(t.Context(), node, client.DeleteOptions{}))
	w.gc.enqueue(owned.UID)
	w.step()
	if left := names(w.stored("ConfigMap")); !slices.Equal(left, []string{"owner"}) {
		t.Errorf("once the node is gone: %v", left)
	}
}
