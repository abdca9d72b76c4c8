package controllers

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/resources"
)

// collector deletes what names an owner that is gone, and carries out
// foreground and orphaning deletions.
type collector struct {
	*cluster
	loop *loop
	// complete closes when every kind has been listed once.
	complete chan struct{}

	mu       sync.Mutex
	nodes    map[types.UID]*ownedObject
	byOwner  map[types.UID]map[types.UID]bool
	awaiting int
}

// ownedObject is what of an object matters for collection.
type ownedObject struct {
	row        *resources.Resource
	key        types.NamespacedName
	owners     []metav1.OwnerReference
	deleting   bool
	foreground bool
	orphan     bool
}

func newCollector(c *cluster) *collector {
	g := &collector{
		cluster: c, complete: make(chan struct{}),
		nodes: map[types.UID]*ownedObject{}, byOwner: map[types.UID]map[types.UID]bool{},
	}
	// The key is a UID, in the place of a name.
	g.loop = newLoop(c, "garbage-collector", g.reconcile)
	return g
}

func (g *collector) Ready() <-chan struct{} { return g.complete }

func collectable(row *resources.Resource) bool {
	return row.Kind != "Event" && row.Kind != "Lease" && !row.Form()
}

// Run follows every kind until the context ends.
func (g *collector) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, row := range g.resources.All() {
		if collectable(row) {
			g.awaiting++
		}
	}
	for _, row := range g.resources.All() {
		if collectable(row) {
			group.Go(func() error {
				return client.Follow(ctx, g.resources, row.NewList(), client.ListOptions{}, &collectorFollower{g, row})
			})
		}
	}
	group.Go(func() error { return g.loop.run(ctx, g) })
	return group.Wait()
}

type collectorFollower struct {
	*collector
	row *resources.Resource
}

// Synced implements client.Follower.
func (f *collectorFollower) Synced() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.awaiting--; f.awaiting == 0 {
		close(f.complete)
	}
}

// Set implements client.Follower.
func (f *collectorFollower) Set(obj client.Object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	uid := obj.GetUID()
	if old := f.nodes[uid]; old != nil {
		for _, owner := range old.owners {
			if !ownedBy(obj, owner.UID) {
				f.enqueue(owner.UID) // it may wait for the end of this one
			}
		}
	}
	f.unlink(uid)
	finalizers := obj.GetFinalizers()
	o := &ownedObject{
		row: f.row, key: client.Key(obj), owners: obj.GetOwnerReferences(),
		deleting:   obj.GetDeletionTimestamp() != nil,
		foreground: slices.Contains(finalizers, metav1.FinalizerDeleteDependents),
		orphan:     slices.Contains(finalizers, metav1.FinalizerOrphanDependents),
	}
	f.nodes[uid] = o
	for _, owner := range o.owners {
		if f.byOwner[owner.UID] == nil {
			f.byOwner[owner.UID] = map[types.UID]bool{}
		}
		f.byOwner[owner.UID][uid] = true
		f.enqueue(uid)
	}
	if o.deleting && (o.foreground || o.orphan) {
		f.enqueue(uid)
	}
}

// Gone implements client.Follower.
func (f *collectorFollower) Gone(obj client.Object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	uid := obj.GetUID()
	if o := f.nodes[uid]; o != nil {
		for _, owner := range o.owners {
			f.enqueue(owner.UID)
		}
	}
	f.unlink(uid)
	delete(f.nodes, uid)
	for child := range f.byOwner[uid] {
		f.enqueue(child)
	}
}

func (g *collector) unlink(uid types.UID) {
	if old := g.nodes[uid]; old != nil {
		for _, owner := range old.owners {
			delete(g.byOwner[owner.UID], uid)
			if len(g.byOwner[owner.UID]) == 0 {
				delete(g.byOwner, owner.UID)
			}
		}
	}
}

func (g *collector) enqueue(uid types.UID) {
	g.loop.queue.Add(types.NamespacedName{Name: string(uid)})
}

func (g *collector) find(uid types.UID) (o ownedObject, children []types.UID, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	found := g.nodes[uid]
	if found == nil {
		return ownedObject{}, nil, false
	}
	for child := range g.byOwner[uid] {
		children = append(children, child)
	}
	slices.Sort(children)
	return *found, children, true
}

func (g *collector) reconcile(ctx context.Context, key types.NamespacedName) error {
	uid := types.UID(key.Name)
	o, children, ok := g.find(uid)
	if !ok {
		return nil
	}
	if o.deleting {
		return g.finish(ctx, uid, o, children)
	}
	if len(o.owners) == 0 {
		return nil
	}
	if kept, err := g.kept(ctx, o.key, o.owners); kept || err != nil {
		return err
	}
	// The view of its own kind may be behind that of its owner's: it may have
	// been taken off its owner, or have another one by now.
	obj, err := g.stored(ctx, uid, o)
	if obj == nil || err != nil || len(obj.GetOwnerReferences()) == 0 {
		return err
	}
	if kept, err := g.kept(ctx, o.key, obj.GetOwnerReferences()); kept || err != nil {
		return err
	}
	return g.delete(ctx, obj, "")
}

// kept reports whether one of the owners keeps the object.
func (g *collector) kept(ctx context.Context, key types.NamespacedName, owners []metav1.OwnerReference) (bool, error) {
	for _, owner := range owners {
		if alive, err := g.alive(ctx, key, owner); alive || err != nil {
			return alive, err
		}
	}
	return false, nil
}

// stored is the object as the store has it, nil when it is gone.
func (g *collector) stored(ctx context.Context, uid types.UID, o ownedObject) (client.Object, error) {
	obj := o.row.New()
	if err := g.resources.Get(ctx, o.key, obj); err != nil || obj.GetUID() != uid {
		return nil, ignoreNotFound(err)
	}
	return obj, nil
}

// alive asks the store itself, for the view may be a moment behind.
func (g *collector) alive(ctx context.Context, key types.NamespacedName, owner metav1.OwnerReference) (bool, error) {
	gvk := schema.FromAPIVersionAndKind(owner.APIVersion, owner.Kind)
	row, known := g.resources.ByKind(gvk)
	if !known {
		return true, nil // a kind that is not kept here: nothing can be said of it
	}
	at := types.NamespacedName{Namespace: key.Namespace, Name: owner.Name}
	switch {
	case !row.Namespaced:
		at.Namespace = ""
	case key.Namespace == "":
		return true, nil // what is in no namespace cannot have an owner in one: it says nothing
	}
	obj := row.New()
	err := g.resources.Get(ctx, at, obj)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up owner %s %s: %w", owner.Kind, owner.Name, err)
	}
	waits := obj.GetDeletionTimestamp() != nil && slices.Contains(obj.GetFinalizers(), metav1.FinalizerDeleteDependents)
	return obj.GetUID() == owner.UID && !waits, nil
}

// delete deletes an object if it is still as it was read.
func (g *collector) delete(ctx context.Context, obj client.Object, p metav1.DeletionPropagation) error {
	opts := client.DeleteOptions{UID: obj.GetUID(), ResourceVersion: obj.GetResourceVersion(), Propagation: p}
	return ignoreNotFound(g.resources.Delete(ctx, obj, opts))
}

// finish takes the next step of an owner's own deletion.
func (g *collector) finish(ctx context.Context, uid types.UID, o ownedObject, children []types.UID) error {
	switch {
	case o.orphan:
		return g.finishOrphan(ctx, uid, o)
	case o.foreground:
		for _, child := range children {
			if err := g.deleteChild(ctx, uid, child); err != nil {
				return err
			}
		}
		if slices.ContainsFunc(children, func(child types.UID) bool { return g.blocks(child, uid) }) {
			return nil // the last child's end brings the owner back
		}
		return g.removeFinalizer(ctx, uid, o, metav1.FinalizerDeleteDependents)
	}
	return nil
}

// blocks: an owner that is deleted in the foreground waits for the end of a child
// (metav1.OwnerReference.BlockOwnerDeletion).
func (g *collector) blocks(child, owner types.UID) bool {
	c, _, ok := g.find(child)
	return ok && slices.ContainsFunc(c.owners, func(ref metav1.OwnerReference) bool {
		return ref.UID == owner && ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion
	})
}

// deleteChild deletes what goes with an owner, or takes the owner off it when
// another one keeps it.
func (g *collector) deleteChild(ctx context.Context, owner, child types.UID) error {
	c, _, ok := g.find(child)
	if !ok || c.deleting {
		return nil
	}
	obj, err := g.stored(ctx, child, c)
	if obj == nil || err != nil || !ownedBy(obj, owner) {
		return err // its event brings the owner back
	}
	kept, err := g.kept(ctx, c.key, obj.GetOwnerReferences())
	if err != nil {
		return err
	}
	if kept {
		return g.orphan(ctx, owner, c.row, c.key)
	}
	return g.delete(ctx, obj, metav1.DeletePropagationForeground)
}

// finishOrphan takes an owner off everything that names it, and lets it go. The
// store is asked: what the view does not show yet would be deleted afterwards.
func (g *collector) finishOrphan(ctx context.Context, uid types.UID, o ownedObject) error {
	for _, row := range g.resources.All() {
		if !collectable(row) || o.key.Namespace != "" && !row.Namespaced {
			continue
		}
		page, err := g.resources.Objects(ctx, row, resources.ListRequest{Namespace: o.key.Namespace})
		if err != nil {
			return fmt.Errorf("look for what names it as its owner: %w", err)
		}
		for _, obj := range page.Objects {
			if !ownedBy(obj, uid) {
				continue
			}
			if err := g.orphan(ctx, uid, row, client.Key(obj)); err != nil {
				return err
			}
		}
	}
	return g.removeFinalizer(ctx, uid, o, metav1.FinalizerOrphanDependents)
}

func ownedBy(obj client.Object, owner types.UID) bool {
	return slices.ContainsFunc(obj.GetOwnerReferences(), func(ref metav1.OwnerReference) bool { return ref.UID == owner })
}

func (g *collector) orphan(ctx context.Context, owner types.UID, row *resources.Resource, key types.NamespacedName) error {
	obj := row.New()
	if err := g.resources.Get(ctx, key, obj); err != nil {
		return ignoreNotFound(err)
	}
	refs := slices.DeleteFunc(slices.Clone(obj.GetOwnerReferences()), func(r metav1.OwnerReference) bool { return r.UID == owner })
	obj.SetOwnerReferences(refs)
	return ignoreNotFound(g.resources.Update(ctx, obj))
}

func (g *collector) removeFinalizer(ctx context.Context, uid types.UID, o ownedObject, name string) error {
	obj, err := g.stored(ctx, uid, o)
	if obj == nil || err != nil {
		return err
	}
	obj.SetFinalizers(slices.DeleteFunc(slices.Clone(obj.GetFinalizers()), func(f string) bool { return f == name }))
	return ignoreNotFound(g.resources.Update(ctx, obj))
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
