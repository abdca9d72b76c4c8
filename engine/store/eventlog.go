package store

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
)

// The window of changes that can be watched from the past: at most this many
// events and bytes, but always the last batch.
const (
	windowEvents = 20_000
	windowBytes  = 16 << 20
)

// eventLog is the window of the last changes, shared by all watchers, each of
// which holds only its position. The revisions of its events grow.
type eventLog struct {
	mu     sync.Mutex
	events []Event
	bytes  int
	// latest is the newest revision. floor is the one before events[0]: nothing
	// is known of what changed up to it.
	latest, floor int64
	// changed is closed and replaced whenever events are added.
	changed chan struct{}
	closed  bool
}

func newEventLog(revision int64) *eventLog {
	return &eventLog{latest: revision, floor: revision, changed: make(chan struct{})}
}

func (l *eventLog) last() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.latest
}

// add appends what one or more transactions changed.
func (l *eventLog) add(events []Event) {
	if len(events) > 0 {
		l.advance(events, events[len(events)-1].Revision)
	}
}

// advance appends events, of which there may be none, and makes latest the
// newest revision.
func (l *eventLog) advance(events []Event, latest int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, events...)
	for _, e := range events {
		l.bytes += size(e)
	}
	drop := 0
	for len(events) > 0 && drop < len(l.events)-len(events) && (len(l.events)-drop > windowEvents || l.bytes > windowBytes) {
		l.bytes -= size(l.events[drop])
		drop++
	}
	if drop > 0 {
		l.floor = l.events[drop-1].Revision
		// Cleared so that the array behind the slice does not keep the values.
		clear(l.events[:drop])
		l.events = l.events[drop:]
	}
	l.latest = latest
	l.wake()
}

// reset forgets all events: who watches from before revision has to list again.
func (l *eventLog) reset(revision int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events, l.bytes = nil, 0
	l.latest, l.floor = revision, revision
	l.wake()
}

// wake is called with mu held.
func (l *eventLog) wake() {
	if l.closed {
		return
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

func size(e Event) int { return 2*len(e.Key) + len(e.Value) + len(e.Previous.Value) + 128 }

func (l *eventLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		close(l.changed)
	}
}

// undo returns, for each key changed after revision at, what it was then.
func (l *eventLog) undo(at int64) (map[string]KV, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at < l.floor {
		return nil, fmt.Errorf("read at revision %d: %w", at, ErrExpired)
	}
	past := map[string]KV{}
	for i := len(l.events) - 1; i >= 0 && l.events[i].Revision > at; i-- {
		past[l.events[i].Key] = l.events[i].Previous
	}
	return past, nil
}

func (l *eventLog) watch(prefix string, after int64) (*logWatcher, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if after < l.floor {
		return nil, fmt.Errorf("watch from revision %d: %w", after, ErrExpired)
	}
	if after > l.latest {
		return nil, fmt.Errorf("watch from revision %d, but the newest is %d: %w", after, l.latest, ErrExpired)
	}
	return &logWatcher{log: l, prefix: prefix, after: after}, nil
}

// logWatcher is a position in the log.
type logWatcher struct {
	log    *eventLog
	prefix string
	after  int64
}

var _ Watcher = (*logWatcher)(nil)

// Next implements Watcher.
func (w *logWatcher) Next(ctx context.Context) ([]Event, int64, error) {
	for {
		events, changed, err := w.take()
		if err != nil || len(events) > 0 {
			return events, w.after, err
		}
		select {
		case <-ctx.Done():
			return nil, w.after, ctx.Err()
		case <-changed:
		}
	}
}

// take returns what is there now, and the channel that closes when there is more.
func (w *logWatcher) take() ([]Event, <-chan struct{}, error) {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	if w.after < w.log.floor {
		return nil, nil, fmt.Errorf("watch from revision %d: %w", w.after, ErrExpired)
	}
	all := w.log.events
	first := sort.Search(len(all), func(i int) bool { return all[i].Revision > w.after })
	var events []Event
	for _, e := range all[first:] {
		if strings.HasPrefix(e.Key, w.prefix) {
			events = append(events, e)
		}
	}
	if w.log.latest > w.after {
		w.after = w.log.latest
	}
	if w.log.closed && len(events) == 0 {
		return nil, nil, ErrClosed
	}
	return events, w.log.changed, nil
}
