package controllers

import (
	"context"
	"fmt"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/resources"
)

// orphans are the objects of a kind that no controller has, by namespace. They
// are few, so that who looks for one to adopt need not look at all objects.
type orphans[T client.Object] struct {
	mu    sync.Mutex
	byNS  map[string]map[types.NamespacedName]T
	found []func(T)
}

// followOrphans fills the index from a view, which must not be running yet.
func followOrphans[T client.Object](v *live.View[T]) *orphans[T] {
	o := &orphans[T]{byNS: map[string]map[types.NamespacedName]T{}}
	var none T
	v.OnChange(func(old, now T) {
		if client.Object(now) != client.Object(none) && adoptable(now) {
			o.set(now)
			for _, f := range o.found {
				f(now)
			}
			return
		}
		if client.Object(old) != client.Object(none) {
			o.drop(old)
		}
	})
	return o
}

// adoptable: nobody has the object. What a Source holds belongs to it.
func adoptable(o client.Object) bool {
	_, managed := resources.Managed(o)
	return controllerOf(o) == nil && o.GetDeletionTimestamp() == nil && !managed
}

// onFound is told of each orphan. It must be called before the view runs.
func (o *orphans[T]) onFound(f func(T)) { o.found = append(o.found, f) }

func (o *orphans[T]) set(obj T) {
	o.mu.Lock()
	defer o.mu.Unlock()
	ns := obj.GetNamespace()
	if o.byNS[ns] == nil {
		o.byNS[ns] = map[types.NamespacedName]T{}
	}
	o.byNS[ns][client.Key(obj)] = obj
}

func (o *orphans[T]) drop(obj T) {
	o.mu.Lock()
	defer o.mu.Unlock()
	ns := obj.GetNamespace()
	delete(o.byNS[ns], client.Key(obj))
	if len(o.byNS[ns]) == 0 {
		delete(o.byNS, ns)
	}
}

func (o *orphans[T]) in(namespace string) []T {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.byNS[namespace]) == 0 {
		return nil
	}
	out := make([]T, 0, len(o.byNS[namespace]))
	for _, obj := range o.byNS[namespace] {
		out = append(out, obj)
	}
	return out
}

// family is what an owner may take on, and what it has.
type family[T client.Object] struct {
	owner    client.Object
	ref      metav1.OwnerReference
	selector *metav1.LabelSelector
	// orphans of the owner's namespace; suits narrows them, nil for all.
	orphans []T
	suits   func(T) bool
	owned   []T
	// mark is what else is written on one that is taken on; nil for nothing.
	mark func(T)
}

// adopt gives the owner the orphans that its selector matches, and lets go of
// what it does not match any more (as k8s.io/kubernetes/pkg/controller,
// ControllerRefManager, does). It returns what was written.
func adopt[T client.Object](ctx context.Context, r *resources.Resources, f family[T]) ([]client.Object, error) {
	selects := matcher(f.selector)
	if selects == nil || f.owner.GetDeletionTimestamp() != nil {
		return nil, nil
	}
	var written []client.Object
	for _, o := range f.owned {
		if !controls(f.owner, o) || o.GetDeletionTimestamp() != nil || selects(o.GetLabels()) {
			continue
		}
		next := o.DeepCopyObject().(client.Object)
		next.SetOwnerReferences(slices.DeleteFunc(next.GetOwnerReferences(), func(ref metav1.OwnerReference) bool { return ref.UID == f.owner.GetUID() }))
		if err := ignoreNotFound(r.Update(ctx, next)); err != nil {
			return written, fmt.Errorf("release %s: %w", o.GetName(), err)
		}
		written = append(written, next)
	}
	checked := false
	for _, o := range f.orphans {
		if !selects(o.GetLabels()) || f.suits != nil && !f.suits(o) {
			continue
		}
		if !checked { // the store is asked: the owner may be going by now
			now := f.owner.DeepCopyObject().(client.Object)
			if err := r.Get(ctx, client.Key(f.owner), now); err != nil {
				return written, ignoreNotFound(err)
			}
			if now.GetUID() != f.owner.GetUID() || now.GetDeletionTimestamp() != nil {
				return written, nil
			}
			checked = true
		}
		next := o.DeepCopyObject().(T)
		next.SetOwnerReferences(append(next.GetOwnerReferences(), f.ref))
		if f.mark != nil {
			f.mark(next)
		}
		if err := ignoreNotFound(r.Update(ctx, next)); err != nil {
			return written, fmt.Errorf("adopt %s: %w", o.GetName(), err)
		}
		written = append(written, next)
	}
	return written, nil
}

// wouldAdopt reports whether an owner would adopt an object by its labels.
func wouldAdopt(s *metav1.LabelSelector, o client.Object) bool {
	selects := matcher(s)
	return selects != nil && selects(o.GetLabels())
}

// matcher is a selector as a function, nil for one that selects nothing or
// everything. The usual kind, of labels alone, is not parsed: each reconcile asks.
func matcher(s *metav1.LabelSelector) func(map[string]string) bool {
	if s == nil || len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		return nil
	}
	if len(s.MatchExpressions) == 0 {
		return func(have map[string]string) bool {
			for k, v := range s.MatchLabels {
				if got, ok := have[k]; !ok || got != v {
					return false
				}
			}
			return true
		}
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil
	}
	return func(have map[string]string) bool { return selector.Matches(labels.Set(have)) }
}
