package clienttest

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/watch"

	"berth.dev/berth/api/client"
)

// watcher queues events without a limit, so that a slow reader holds nobody up.
type watcher struct {
	m    *Memory
	kind string
	opts client.ListOptions
	out  chan watch.Event
	wake chan struct{}
	done chan struct{}
	once sync.Once

	mu    sync.Mutex
	queue []watch.Event
}

// send queues what a change is to this watcher's selection.
func (w *watcher) send(c change) {
	if c.kind != w.kind {
		return
	}
	was, is := c.before != nil && selects(w.opts, c.before), c.after != nil && selects(w.opts, c.after)
	var event watch.Event
	switch {
	case is && was:
		event = watch.Event{Type: watch.Modified, Object: c.after}
	case is:
		event = watch.Event{Type: watch.Added, Object: c.after}
	case was && c.after != nil: // it no longer matches
		gone := clone(c.before)
		gone.SetResourceVersion(c.after.GetResourceVersion())
		event = watch.Event{Type: watch.Deleted, Object: gone}
	case was:
		event = watch.Event{Type: watch.Deleted, Object: c.before}
	default:
		return
	}
	w.mu.Lock()
	w.queue = append(w.queue, event)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watcher) run(ctx context.Context) {
	defer close(w.out)
	for {
		w.mu.Lock()
		queue := w.queue
		w.queue = nil
		w.mu.Unlock()
		for _, event := range queue {
			select {
			case w.out <- event:
			case <-w.done:
				return
			case <-ctx.Done():
				w.forget()
				return
			}
		}
		select {
		case <-w.wake:
		case <-w.done:
			return
		case <-ctx.Done():
			w.forget()
			return
		}
	}
}

func (w *watcher) forget() {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	delete(w.m.watchers, w)
}

func (w *watcher) end() { w.once.Do(func() { close(w.done) }) }

// Stop implements watch.Interface.
func (w *watcher) Stop() {
	w.end()
	w.forget()
}

// ResultChan implements watch.Interface.
func (w *watcher) ResultChan() <-chan watch.Event { return w.out }
