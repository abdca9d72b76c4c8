package store

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/tidwall/btree"
)

type tree = btree.Map[string, KV]

// mirror is all pairs and the last changes in memory: what both engines read
// from. A tree that was published is never changed.
type mirror struct {
	mu      sync.RWMutex
	current *tree
	log     *eventLog
}

// Get implements Store.
func (m *mirror) Get(_ context.Context, key string) (KV, bool, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	kv, ok := m.current.Get(key)
	return kv, ok, nil
}

// Revision implements Store.
func (m *mirror) Revision() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.log.last()
}

// snapshot returns the tree and, for a read in the past, what the keys changed
// since were then.
func (m *mirror) snapshot(at int64) (*tree, map[string]KV, int64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	last := m.log.last()
	if at == 0 || at == last {
		return m.current, nil, last, nil
	}
	if at > last {
		return nil, nil, 0, fmt.Errorf("read at revision %d, but the newest is %d: %w", at, last, ErrExpired)
	}
	past, err := m.log.undo(at)
	return m.current, past, at, err
}

// List implements Store.
func (m *mirror) List(_ context.Context, r ListRequest) (Page, error) {
	current, past, revision, err := m.snapshot(r.At)
	if err != nil {
		return Page{}, err
	}
	page := Page{Revision: revision}
	from := max(r.From, r.Prefix)
	emit := func(kv KV) bool {
		if r.Limit > 0 && len(page.KVs) == r.Limit {
			page.Next = kv.Key
			return false
		}
		page.KVs = append(page.KVs, kv)
		return true
	}
	scan(current, past, r.Prefix, from, emit)
	return page, nil
}

// scan walks a prefix in order, with the pairs of past in place of the present ones.
// A tree that was published is never changed, so no lock is held.
func scan(current *tree, past map[string]KV, prefix, from string, emit func(KV) bool) {
	gone := new(tree)
	for key, kv := range past {
		if _, exists := current.Get(key); !exists && kv.Revision > 0 && strings.HasPrefix(key, prefix) && key >= from {
			gone.Set(key, kv)
		}
	}
	lost := gone.Iter()
	more := lost.First()
	stopped := false
	current.Ascend(from, func(key string, kv KV) bool {
		if !strings.HasPrefix(key, prefix) {
			return false
		}
		for more && lost.Key() < key {
			if !emit(lost.Value()) {
				stopped = true
				return false
			}
			more = lost.Next()
		}
		if then, changed := past[key]; changed {
			if then.Revision == 0 {
				return true
			}
			kv = then
		}
		stopped = !emit(kv)
		return !stopped
	})
	for ; more && !stopped; more = lost.Next() {
		stopped = !emit(lost.Value())
	}
}

// Watch implements Store.
func (m *mirror) Watch(_ context.Context, prefix string, after int64) (Watcher, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.log.watch(prefix, after)
}
