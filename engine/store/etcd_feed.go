package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// largeState is a large transaction that is decided but not yet in its place.
type largeState struct {
	commitRecord
	// revision of etcd at which it was decided.
	revision int64
	ops      []Op
}

// follow keeps the mirror up to date until the context ends.
func (e *Etcd) follow(ctx context.Context) error {
	for ctx.Err() == nil {
		err := e.watchOnce(ctx)
		if errors.Is(err, rpctypes.ErrCompacted) || errors.Is(err, errGap) {
			e.options.Log.Info("read the store again", "why", err.Error())
			err = e.load(ctx, errors.Is(err, errGap))
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil { // an end without an error says nothing of etcd
			e.report(err)
			pauseFor(ctx, retryEvery)
		}
	}
	return nil
}

func pauseFor(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// errGap says that the feed does not fit what was read before.
var errGap = errors.New("a part of the changes is missing")

// watchOnce follows one watch of etcd to its end.
func (e *Etcd) watchOnce(ctx context.Context) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	changes := e.client.Watch(ctx, e.keys.prefix, clientv3.WithPrefix(), clientv3.WithRev(e.from+1), clientv3.WithFragment())
	for {
		select {
		case <-e.restart:
			return nil
		case resp, more := <-changes:
			if !more {
				return nil
			}
			if err := resp.Err(); err != nil {
				return err
			}
			// All events of one transaction are in one answer, in their order.
			for events := resp.Events; len(events) > 0; {
				n := 1
				for n < len(events) && events[n].Kv.ModRevision == events[0].Kv.ModRevision {
					n++
				}
				if err := e.take(events[:n]); err != nil {
					return err
				}
				events = events[n:]
			}
			e.report(nil)
		}
	}
}

// batch is what one transaction of etcd changes.
type batch struct {
	at   int64
	head *headRecord
	// data are the changes of pairs, in order.
	data []*clientv3.Event
	lock *clientv3.Event
	// commit is the record of a large transaction that begins or ends.
	commit *clientv3.Event
}

// take applies one transaction of etcd.
func (e *Etcd) take(events []*clientv3.Event) error {
	b := batch{at: events[0].Kv.ModRevision}
	for _, ev := range events {
		if err := e.sort(&b, ev); err != nil {
			return err
		}
	}
	if err := e.publish(b); err != nil {
		return err
	}
	e.from = b.at
	e.progress.update(func() {
		if b.lock != nil {
			e.progress.lock = nil
			if b.lock.Type == mvccpb.PUT {
				l := parseLock(b.lock.Kv.Value)
				e.progress.lock = &l
			}
		}
		if b.head == nil {
			return
		}
		e.progress.head = b.at
		if o := e.progress.sent[b.head.sequence]; o != nil && b.head.writer == e.writer {
			o.revision = b.at
		}
	})
	return nil
}

// sort puts one change where it belongs.
func (e *Etcd) sort(b *batch, ev *clientv3.Event) error {
	key := string(ev.Kv.Key)
	if _, ok := e.keys.isData(key); ok {
		b.data = append(b.data, ev)
		return nil
	}
	if id, n, ok := e.keys.isChunk(key); ok {
		if ev.Type == mvccpb.PUT {
			e.keepChunk(id, n, ev.Kv.Value)
		} else {
			delete(e.staged, id)
		}
		return nil
	}
	switch key {
	case e.keys.head():
		h, err := parseHead(ev.Kv.Value)
		b.head = &h
		return err
	case e.keys.lock():
		b.lock = ev
	case e.keys.commit():
		b.commit = ev
	}
	return nil
}

func (e *Etcd) keepChunk(id string, n int, value []byte) {
	if e.staged[id] == nil {
		e.staged[id] = map[int][]byte{}
	}
	e.staged[id][n] = value
}

// publish shows readers and watchers what a transaction changed.
func (e *Etcd) publish(b batch) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	next := e.current.Copy()
	var changes []Event
	var err error
	switch {
	case b.commit != nil && b.commit.Type == mvccpb.PUT:
		if e.large, err = e.decided(b.commit.Kv, e.staged); err == nil {
			changes = e.large.apply(next)
		}
	case e.large != nil:
		err = e.placed(b.data)
	default:
		changes, err = e.changed(next, b)
	}
	if err != nil {
		return err
	}
	if b.commit != nil && b.commit.Type == mvccpb.DELETE {
		e.large = nil
	}
	e.current = next
	if b.head != nil {
		e.log.advance(changes, revisionOf(b.at, b.head.ops))
	}
	return nil
}

// changed applies an ordinary transaction.
func (e *Etcd) changed(t *tree, b batch) ([]Event, error) {
	var changes []Event
	for i, ev := range b.data {
		key, _ := e.keys.isData(string(ev.Kv.Key))
		op := Op{Key: key}
		foreign := b.head == nil
		if ev.Type == mvccpb.PUT {
			kv, _, err := parseValue(key, ev.Kv.Value, b.at)
			foreign = foreign || err != nil || kv.Revision != revisionOf(b.at, i)
			op.Value = kv.Value
		}
		if foreign {
			return nil, fmt.Errorf("%w: %q was changed by something else", errGap, key)
		}
		delete(e.later, key)
		changes = append(changes, apply(t, op, revisionOf(b.at, i)))
	}
	return changes, nil
}

// placed notes which pairs of a large transaction have reached their place.
func (e *Etcd) placed(data []*clientv3.Event) error {
	for _, ev := range data {
		key, _ := e.keys.isData(string(ev.Kv.Key))
		delete(e.later, key)
		if ev.Type == mvccpb.PUT {
			e.later[key] = ev.Kv.ModRevision
		}
	}
	return nil
}

// decided reads a large transaction from its parts.
func (e *Etcd) decided(kv *mvccpb.KeyValue, staged map[string]map[int][]byte) (*largeState, error) {
	record, err := parseCommit(kv.Value)
	if err != nil {
		return nil, err
	}
	l := &largeState{commitRecord: record, revision: kv.ModRevision}
	for n := range record.chunks {
		chunk, ok := staged[record.id][n]
		if !ok {
			return nil, fmt.Errorf("%w: part %d of the large transaction %s", errGap, n, record.id)
		}
		ops, err := decodeOps(chunk)
		if err != nil {
			return nil, err
		}
		l.ops = append(l.ops, ops...)
	}
	return l, nil
}

// apply carries the operations out on a tree.
func (l *largeState) apply(t *tree) []Event {
	var changes []Event
	for i, op := range l.ops {
		if _, exists := t.Get(op.Key); !exists && op.Value == nil {
			continue
		}
		changes = append(changes, apply(t, op, revisionOf(l.revision, i)))
	}
	return changes
}
