package resources

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/watch"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/store"
)

// bookmarkInterval is the time between two bookmarks.
const bookmarkInterval = 30 * time.Second

// WatchRequest selects the changes to report.
type WatchRequest struct {
	Namespace string
	Labels    labels.Selector
	Fields    fields.Selector
	// After is the revision to begin after.
	After int64
	// Initial reports what exists first, then a bookmark that says so
	// (annotation k8s.io/initial-events-end); After is ignored.
	Initial bool
	// Existing reports what exists first, without such a bookmark; After is ignored.
	Existing bool
	// Bookmarks asks for the current revision from time to time.
	Bookmarks bool
}

// Watch implements client.Client.
func (r *Resources) Watch(ctx context.Context, list client.ObjectList, opts client.ListOptions) (watch.Interface, error) {
	row, err := r.Of(list)
	if err != nil {
		return nil, err
	}
	q := WatchRequest{Namespace: opts.Namespace, Labels: opts.Labels, Fields: opts.Fields, After: r.store.Revision()}
	if opts.ResourceVersion != "" && opts.ResourceVersion != "0" {
		q.After, err = strconv.ParseInt(opts.ResourceVersion, 10, 64)
		if err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("resourceVersion %q is not a number", opts.ResourceVersion))
		}
	}
	return r.Changes(ctx, row, q)
}

// Changes watches objects of a kind. The objects in its events are shared and
// must not be changed. It ends with the context.
func (r *Resources) Changes(ctx context.Context, row *Resource, q WatchRequest) (watch.Interface, error) {
	var initial ListResult
	if q.Initial || q.Existing {
		var err error
		initial, err = r.Objects(ctx, row, ListRequest{Namespace: q.Namespace, Labels: q.Labels, Fields: q.Fields})
		if err != nil {
			return nil, err
		}
		q.After = initial.Revision
	}
	source, err := r.store.Watch(ctx, row.prefix(q.Namespace), q.After)
	if err != nil {
		return nil, fault(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &watcher{
		resources: r, row: row, request: q, source: source,
		want:   newSelector(row, q.Labels, q.Fields),
		out:    make(chan watch.Event, 16),
		cancel: cancel,
	}
	go w.run(ctx, initial)
	return w, nil
}

// watcher turns the store's events into those of a kind.
type watcher struct {
	resources *Resources
	row       *Resource
	request   WatchRequest
	source    store.Watcher
	want      *selector
	out       chan watch.Event
	cancel    context.CancelFunc
}

var _ watch.Interface = (*watcher)(nil)

// Stop implements watch.Interface.
func (w *watcher) Stop() { w.cancel() }

// ResultChan implements watch.Interface.
func (w *watcher) ResultChan() <-chan watch.Event { return w.out }

func (w *watcher) run(ctx context.Context, initial ListResult) {
	defer w.cancel()
	defer close(w.out)
	for _, obj := range initial.Objects {
		if !w.send(ctx, watch.Event{Type: watch.Added, Object: obj}) {
			return
		}
	}
	if w.request.Initial && !w.bookmark(ctx, initial.Revision, true) {
		return
	}
	due := time.Now().Add(bookmarkInterval)
	for {
		wait, stop := context.WithDeadline(ctx, due)
		events, progress, err := w.source.Next(wait)
		stop()
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			err = nil
		}
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, store.ErrClosed) {
				status := fault(err).Status()
				w.send(ctx, watch.Event{Type: watch.Error, Object: &status})
			}
			return
		}
		for _, e := range events {
			if !w.report(ctx, e) {
				return
			}
		}
		// By the clock, not in silence: a watcher of little among many changes
		// needs the newest revision most.
		if now := time.Now(); !now.Before(due) {
			if !w.bookmark(ctx, progress, false) {
				return
			}
			due = now.Add(bookmarkInterval)
		}
	}
}

// report sends an event as the selectors see it: an object that begins to match
// is added, one that ceases to match is deleted.
func (w *watcher) report(ctx context.Context, e store.Event) bool {
	var obj, old client.Object
	var err error
	if !e.Deleted() && w.want.may(e.KV) {
		if obj, err = w.resources.decoded.get(w.row, e.KV); err != nil {
			return w.fail(ctx, err)
		}
	}
	if e.Previous.Revision > 0 && w.want.may(e.Previous) {
		if old, err = w.resources.decoded.get(w.row, e.Previous); err != nil {
			return w.fail(ctx, err)
		}
	}
	now := obj != nil && w.want.matches(obj)
	before := old != nil && w.want.matches(old)
	replaced := obj != nil && old != nil && obj.GetUID() != old.GetUID()
	switch {
	case now && before && replaced:
		// One write, two events. The first has the version before the write:
		// who resumes between the two sees both again, rather than neither.
		gone := old.DeepCopyObject().(client.Object)
		gone.SetResourceVersion(strconv.FormatInt(e.Revision-1, 10))
		return w.send(ctx, watch.Event{Type: watch.Deleted, Object: gone}) &&
			w.send(ctx, watch.Event{Type: watch.Added, Object: obj})
	case now && before:
		return w.send(ctx, watch.Event{Type: watch.Modified, Object: obj})
	case now:
		return w.send(ctx, watch.Event{Type: watch.Added, Object: obj})
	case before:
		gone := old.DeepCopyObject().(client.Object)
		gone.SetResourceVersion(strconv.FormatInt(e.Revision, 10))
		return w.send(ctx, watch.Event{Type: watch.Deleted, Object: gone})
	}
	return true
}

func (w *watcher) fail(ctx context.Context, err error) bool {
	status := apierrors.NewInternalError(err).Status()
	w.send(ctx, watch.Event{Type: watch.Error, Object: &status})
	return false
}

func (w *watcher) bookmark(ctx context.Context, revision int64, initial bool) bool {
	if !w.request.Bookmarks && !initial {
		return true
	}
	obj := w.row.newObject()
	obj.GetObjectKind().SetGroupVersionKind(w.row.GroupVersionKind)
	obj.SetResourceVersion(strconv.FormatInt(revision, 10))
	if initial {
		obj.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return w.send(ctx, watch.Event{Type: watch.Bookmark, Object: obj})
}

func (w *watcher) send(ctx context.Context, e watch.Event) bool {
	select {
	case w.out <- e:
		return true
	case <-ctx.Done():
		return false
	}
}
