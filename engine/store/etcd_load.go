package store

import (
	"context"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// loadPage is how many keys are read at a time.
const loadPage = 500

// image is what etcd holds at one revision.
type image struct {
	at      int64
	tree    *tree
	later   map[string]int64
	staged  map[string]map[int][]byte
	headAt  int64
	head    headRecord
	lock    *lockRecord
	commit  *mvccpb.KeyValue
	decided *largeState
}

// load reads everything anew. Watches of before go on if nothing has changed
// and the feed was not wrong: what happened in between, and in which order,
// etcd does not say.
func (e *Etcd) load(ctx context.Context, wrong bool) error {
	m, err := e.readImage(ctx)
	if err != nil {
		return err
	}
	if m.commit != nil {
		if m.decided, err = e.decided(m.commit, m.staged); err != nil {
			return err
		}
		m.complete()
	}
	revision := int64(0)
	if m.headAt > 0 {
		revision = revisionOf(m.headAt, m.head.ops)
	}
	e.mu.Lock()
	e.current, e.later, e.large = m.tree, m.later, m.decided
	if wrong || e.log.last() != revision {
		e.log.reset(revision)
	}
	e.mu.Unlock()
	e.from, e.staged = m.at, m.staged
	e.progress.update(func() {
		e.progress.head, e.progress.lock = m.headAt, m.lock
		for _, o := range e.progress.sent {
			o.lost = true
		}
	})
	return nil
}

func (e *Etcd) readImage(ctx context.Context) (*image, error) {
	m := &image{tree: new(tree), later: map[string]int64{}, staged: map[string]map[int][]byte{}}
	end := clientv3.GetPrefixRangeEnd(e.keys.prefix)
	for from := e.keys.prefix; ; {
		call, cancel := context.WithTimeout(ctx, largeTimeout)
		resp, err := e.client.Get(call, from, clientv3.WithRange(end), clientv3.WithLimit(loadPage), clientv3.WithRev(m.at))
		cancel()
		if err != nil {
			return nil, err
		}
		if m.at == 0 {
			m.at = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			if err := e.keep(m, kv); err != nil {
				return nil, err
			}
		}
		if !resp.More {
			return m, nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// keep puts one key of etcd where it belongs.
func (e *Etcd) keep(m *image, kv *mvccpb.KeyValue) error {
	key := string(kv.Key)
	if name, ok := e.keys.isData(key); ok {
		pair, later, err := parseValue(name, kv.Value, kv.ModRevision)
		if err != nil {
			return err
		}
		if later {
			m.later[name] = kv.ModRevision
		}
		m.tree.Set(name, pair)
		return nil
	}
	if id, n, ok := e.keys.isChunk(key); ok {
		if m.staged[id] == nil {
			m.staged[id] = map[int][]byte{}
		}
		m.staged[id][n] = kv.Value
		return nil
	}
	switch key {
	case e.keys.head():
		h, err := parseHead(kv.Value)
		m.head, m.headAt = h, kv.ModRevision
		return err
	case e.keys.lock():
		l := parseLock(kv.Value)
		m.lock = &l
	case e.keys.commit():
		m.commit = kv
	}
	return nil
}

// complete carries out what of a large transaction is not in its place yet.
func (m *image) complete() {
	l := m.decided
	last := map[string]int{}
	for i, op := range l.ops {
		last[op.Key] = i
	}
	for i, op := range l.ops {
		have, exists := m.tree.Get(op.Key)
		inPlace := exists && have.Revision == revisionOf(l.revision, last[op.Key])
		if inPlace || (!exists && op.Value == nil) {
			continue
		}
		apply(m.tree, op, revisionOf(l.revision, i))
	}
}
