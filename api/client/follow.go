package client

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// Follower is told what happens to a set of objects. Its methods are called
// from one goroutine, in order. The objects are shared and must not be changed.
type Follower interface {
	// Set reports an object that is new or has changed.
	Set(obj Object)
	// Gone reports an object that was deleted or no longer matches.
	Gone(obj Object)
	// Synced is called once, when everything that existed at the start was reported.
	Synced()
}

// listing is what a Follower may implement to know how far it has come: between
// Listing and Listed, what it is told is in no order of time; after Listed, it
// shows everything up to a version.
type listing interface {
	Listing()
	Listed(version string)
}

// relistDelay is the wait between two attempts to list or watch; it grows to
// relistDelayMax while they fail.
const (
	relistDelay    = 100 * time.Millisecond
	relistDelayMax = 10 * time.Second
)

// Follow lists the objects that opts selects and watches them until the context
// ends; it lists again by itself when the watch has fallen behind. The type of
// list says which kind. It returns nil when the context ends, and an error only
// if the first list fails for a reason that waiting does not mend.
func Follow(ctx context.Context, c Client, list ObjectList, opts ListOptions, f Follower) error {
	known := map[types.NamespacedName]Object{}
	synced := false
	delay := relistDelay
	for ctx.Err() == nil {
		version, err := relist(ctx, c, list, opts, f, known)
		if !synced && (apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || runtime.IsNotRegisteredError(err)) {
			return fmt.Errorf("follow %T: %w", list, err)
		}
		if err != nil {
			pause(ctx, delay)
			delay = min(delay*2, relistDelayMax)
			continue
		}
		if !synced {
			synced = true
			f.Synced()
		}
		if followWatch(ctx, c, list, opts, version, f, known) {
			delay = relistDelay
		}
		pause(ctx, delay)
		delay = min(delay*2, relistDelayMax)
	}
	return nil
}

// relist reports the difference between known and what the server has now.
func relist(ctx context.Context, c Client, list ObjectList, opts ListOptions, f Follower, known map[types.NamespacedName]Object) (string, error) {
	into := list.DeepCopyObject().(ObjectList)
	if err := c.List(ctx, into, opts); err != nil {
		return "", err
	}
	if l, ok := f.(listing); ok {
		l.Listing()
		defer func() { l.Listed(into.GetResourceVersion()) }()
	}
	seen := map[types.NamespacedName]bool{}
	err := meta.EachListItem(into, func(item runtime.Object) error {
		obj := item.(Object)
		key := Key(obj)
		seen[key] = true
		old := known[key]
		if old != nil && old.GetUID() != obj.GetUID() {
			f.Gone(old)
			old = nil
		}
		if old == nil || old.GetResourceVersion() != obj.GetResourceVersion() {
			known[key] = obj
			f.Set(obj)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	for key, obj := range known {
		if !seen[key] {
			delete(known, key)
			f.Gone(obj)
		}
	}
	return into.GetResourceVersion(), nil
}

// followWatch hands on events until the watch ends, resuming where it can. It
// reports whether there were any, which ends a growing delay.
func followWatch(ctx context.Context, c Client, list ObjectList, opts ListOptions, version string, f Follower, known map[types.NamespacedName]Object) (moved bool) {
	for ctx.Err() == nil {
		opts.ResourceVersion = version
		w, err := c.Watch(ctx, list, opts)
		if err != nil {
			return moved
		}
		last, ok := drain(w, f, known)
		w.Stop()
		moved = moved || last != ""
		if !ok || last == "" {
			return moved
		}
		version = last
	}
	return moved
}

// drain reports events until the channel closes. It returns the last version
// seen and whether the watch can be resumed there.
func drain(w watch.Interface, f Follower, known map[types.NamespacedName]Object) (last string, ok bool) {
	for event := range w.ResultChan() {
		if event.Type == watch.Error {
			return last, false
		}
		obj, isObject := event.Object.(Object)
		if !isObject {
			if accessor, err := meta.CommonAccessor(event.Object); err == nil {
				last = accessor.GetResourceVersion()
			}
			continue
		}
		last = obj.GetResourceVersion()
		switch event.Type {
		case watch.Added, watch.Modified:
			if old := known[Key(obj)]; old != nil && old.GetUID() != obj.GetUID() {
				f.Gone(old)
			}
			known[Key(obj)] = obj
			f.Set(obj)
		case watch.Deleted:
			if known[Key(obj)] != nil {
				delete(known, Key(obj))
				f.Gone(obj)
			}
		}
	}
	return last, true
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
