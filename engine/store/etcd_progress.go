package store

import (
	"context"
	"sync"
)

// progress is how far the mirror is, and what writers wait for.
type progress struct {
	mu sync.Mutex
	// head is the revision of etcd of the last write that the mirror has.
	head int64
	// lock is who carries out a large transaction; nil for nobody.
	lock *lockRecord
	// sent are this writer's transactions that are under way, by their number.
	sent    map[uint64]*outcome
	changed chan struct{}
}

// outcome is what the feed has shown of a transaction.
type outcome struct {
	// revision of etcd at which it was carried out; 0 while that was not seen.
	revision int64
	// lost: the feed had a gap, so that not seeing it says nothing.
	lost bool
}

func (p *progress) init() {
	p.sent = map[uint64]*outcome{}
	p.changed = make(chan struct{})
}

// update changes what others wait for.
func (p *progress) update(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

// wait blocks until ok, which is called with mu held.
func (p *progress) wait(ctx context.Context, ok func(*progress) bool) error {
	for {
		p.mu.Lock()
		done, changed := ok(p), p.changed
		p.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// send notes a transaction before it is sent; the function it returns forgets it.
func (p *progress) send(sequence uint64) (*outcome, func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := &outcome{}
	p.sent[sequence] = o
	return o, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.sent, sequence)
	}
}
