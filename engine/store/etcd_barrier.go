package store

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// barrier finds out what the newest write is, one question for all who wait:
// who comes while a question is under way takes the answer to the next one,
// because the one under way may have been answered before.
type barrier struct {
	ask func() (int64, error)

	mu   sync.Mutex
	busy bool
	next *answer
}

type answer struct {
	done chan struct{}
	head int64
	err  error
}

func (b *barrier) newest(ctx context.Context) (int64, error) {
	b.mu.Lock()
	if b.next == nil {
		b.next = &answer{done: make(chan struct{})}
	}
	a := b.next
	if !b.busy {
		b.busy = true
		go b.answer()
	}
	b.mu.Unlock()
	select {
	case <-a.done:
		return a.head, a.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// answer asks until nobody waits. Each question has a time limit.
func (b *barrier) answer() {
	for {
		b.mu.Lock()
		a := b.next
		b.next = nil
		if a == nil {
			b.busy = false
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		a.head, a.err = b.ask()
		close(a.done)
	}
}

// askHead asks etcd for the revision of the last write of anyone.
func (e *Etcd) askHead() (int64, error) {
	for end := time.Now().Add(askTimeout); ; {
		ctx, cancel := context.WithTimeout(e.client.Ctx(), callTimeout)
		resp, err := e.client.Get(ctx, e.keys.head())
		cancel()
		if err == nil {
			if len(resp.Kvs) == 0 {
				return 0, nil
			}
			return resp.Kvs[0].ModRevision, nil
		}
		if pauseFor(e.client.Ctx(), retryEvery); refused(err) || e.client.Ctx().Err() != nil || time.Now().After(end) || e.away() {
			return 0, err
		}
		e.report(err)
	}
}

// sync waits until this server has everything that was acknowledged by any
// server before the call.
func (e *Etcd) sync(ctx context.Context) error {
	if ctx.Value(anyAgeKey{}) != nil {
		return nil
	}
	o, _ := ctx.Value(onceKey{}).(*atomic.Bool)
	if o != nil && o.Load() || !e.running.Load() {
		return nil
	}
	err := e.syncNow(ctx)
	if err == nil && o != nil {
		o.Store(true)
	}
	return err
}

func (e *Etcd) syncNow(ctx context.Context) error {
	if err := e.open(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	head, err := e.barrier.newest(ctx)
	if err == nil {
		err = e.await(ctx, head)
	}
	if err != nil {
		if closed := e.open(); closed != nil {
			return closed
		}
		e.report(err)
		return e.explain(err)
	}
	return nil
}

// await waits until the mirror has what was written up to a revision of etcd.
func (e *Etcd) await(ctx context.Context, head int64) error {
	if err := e.progress.wait(ctx, func(p *progress) bool { return p.head >= head }); err != nil {
		// A feed that stands still may hang on a member that is cut off.
		e.poke(e.restart)
		return fmt.Errorf("its changes come late: %w", err)
	}
	return nil
}

type anyAgeKey struct{}

// AnyAge lets the reads under the context it returns see what this server has in
// memory, which may be behind what others wrote, and is there without etcd too.
func AnyAge(ctx context.Context) context.Context {
	return context.WithValue(ctx, anyAgeKey{}, true)
}

type onceKey struct{}

// FreshOnce lets the reads under the context it returns ask only once what the
// newest write is: all of them see at least what was there at the first of them.
// It is for work that reads much before it writes with expectations.
func FreshOnce(ctx context.Context) context.Context {
	if ctx.Value(onceKey{}) != nil {
		return ctx
	}
	return context.WithValue(ctx, onceKey{}, new(atomic.Bool))
}
