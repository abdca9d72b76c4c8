package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	// maxBatch is how many transactions share one fsync.
	maxBatch = 512
	// lockTimeout is how long to wait for the file of another process.
	lockTimeout = 2 * time.Second
	// headerSize is the created and changed revisions before each value.
	headerSize = 16
)

// Bolt is the Store in one bbolt file. All pairs are held in memory, so no read
// touches the file; one goroutine writes, many transactions to an fsync.
type Bolt struct {
	db      *bolt.DB
	path    string
	submit  chan *txn
	closing chan struct{}

	mirror
}

type txn struct {
	ops       []Op
	revisions []int64
	err       error
	done      chan struct{}
}

var _ Store = (*Bolt)(nil)

// OpenBolt opens or creates the file at path. It fails when the file is empty,
// damaged or held by another process; it never takes such a file for a new one.
// Nothing can be written until Run is called.
func OpenBolt(path string) (*Bolt, error) {
	if info, err := os.Stat(path); err == nil && info.Size() == 0 {
		return nil, fmt.Errorf("open store %s: the file is empty, so its content was lost; restore a backup, or move the file away to start anew", path)
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout, FreelistType: bolt.FreelistMapType, NoFreelistSync: true})
	if errors.Is(err, bolt.ErrTimeout) {
		return nil, fmt.Errorf("open store %s: another process holds it; stop that one first", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w; restore a backup, or move the file away to start anew", path, err)
	}
	b := &Bolt{
		db:      db,
		path:    path,
		submit:  make(chan *txn, maxBatch),
		closing: make(chan struct{}),
		mirror:  mirror{current: new(tree)},
	}
	revision, err := b.load()
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("read store %s: %w", path, err)
	}
	b.log = newEventLog(revision)
	return b, nil
}

func bucketData() []byte  { return []byte("data") }
func bucketMeta() []byte  { return []byte("meta") }
func keyRevision() []byte { return []byte("revision") }

func (b *Bolt) load() (int64, error) {
	var revision int64
	err := b.db.Update(func(tx *bolt.Tx) error {
		data, err := tx.CreateBucketIfNotExists(bucketData())
		if err != nil {
			return err
		}
		meta, err := tx.CreateBucketIfNotExists(bucketMeta())
		if err != nil {
			return err
		}
		if v := meta.Get(keyRevision()); len(v) == 8 {
			revision = int64(binary.BigEndian.Uint64(v))
		}
		return data.ForEach(func(k, v []byte) error {
			if len(v) < headerSize {
				return fmt.Errorf("value of %q is %d bytes, too short", k, len(v))
			}
			kv := KV{
				Key:      string(k),
				Created:  int64(binary.BigEndian.Uint64(v)),
				Revision: int64(binary.BigEndian.Uint64(v[8:])),
				Value:    append([]byte{}, v[headerSize:]...),
			}
			if kv.Revision > revision {
				return fmt.Errorf("%q is at revision %d, beyond the store's %d", k, kv.Revision, revision)
			}
			b.current.Set(kv.Key, kv)
			return nil
		})
	})
	return revision, err
}

// Run writes until the context ends, then closes the file.
func (b *Bolt) Run(ctx context.Context) error {
	defer b.db.Close()
	defer b.log.close()
	defer close(b.closing)
	for {
		select {
		case <-ctx.Done():
			return nil
		case first := <-b.submit:
			b.commit(b.gather(first))
		}
	}
}

// gather takes what is waiting, without waiting for more: while one batch is
// being synced to disk the next one fills by itself.
func (b *Bolt) gather(first *txn) []*txn {
	batch := []*txn{first}
	for len(batch) < maxBatch {
		select {
		case t := <-b.submit:
			batch = append(batch, t)
		default:
			return batch
		}
	}
	return batch
}

// commit decides each transaction of a batch on a copy of the tree, writes
// those that hold, and only then shows them to readers.
func (b *Bolt) commit(batch []*txn) {
	b.mu.RLock()
	next := b.current.Copy()
	revision := b.log.last()
	b.mu.RUnlock()

	var events []Event
	for _, t := range batch {
		if t.err = check(next, t.ops); t.err != nil {
			continue
		}
		for _, op := range t.ops {
			if op.Check {
				t.revisions = append(t.revisions, op.Expect)
				continue
			}
			revision++
			events = append(events, apply(next, op, revision))
			t.revisions = append(t.revisions, revision)
		}
	}
	err := b.persist(events, revision)
	if err == nil {
		b.mu.Lock()
		b.current = next
		b.log.add(events)
		b.mu.Unlock()
	}
	for _, t := range batch {
		if err != nil && t.err == nil {
			t.err = fmt.Errorf("write %s: %w", b.path, words(err))
		}
		close(t.done)
	}
}

func check(t *tree, ops []Op) error {
	for _, op := range ops {
		have, exists := t.Get(op.Key)
		if op.Expect == Any {
			continue
		}
		if op.Expect != have.Revision || (op.Expect == Absent && exists) {
			return &ConflictError{Key: op.Key, Have: have.Revision, Want: op.Expect}
		}
	}
	return nil
}

func apply(t *tree, op Op, revision int64) Event {
	old, exists := t.Get(op.Key)
	e := Event{KV: KV{Key: op.Key, Value: op.Value, Created: revision, Revision: revision}, Previous: old}
	if op.Value == nil {
		t.Delete(op.Key)
		return e
	}
	if exists {
		e.Created = old.Created
	}
	t.Set(op.Key, e.KV)
	return e
}

func (b *Bolt) persist(events []Event, revision int64) error {
	if len(events) == 0 {
		return nil
	}
	return b.db.Update(func(tx *bolt.Tx) error {
		data := tx.Bucket(bucketData())
		for _, e := range events {
			if e.Deleted() {
				if err := data.Delete([]byte(e.Key)); err != nil {
					return err
				}
				continue
			}
			v := make([]byte, headerSize, headerSize+len(e.Value))
			binary.BigEndian.PutUint64(v, uint64(e.Created))
			binary.BigEndian.PutUint64(v[8:], uint64(e.Revision))
			if err := data.Put([]byte(e.Key), append(v, e.Value...)); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketMeta()).Put(keyRevision(), binary.BigEndian.AppendUint64(nil, uint64(revision)))
	})
}

// words adds the remedy where there is one.
func words(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w: free some space; nothing was changed", err)
	}
	return err
}

// Txn implements Store. When the context ends first, the transaction may still
// be carried out.
func (b *Bolt) Txn(ctx context.Context, ops []Op) ([]int64, error) {
	t := &txn{ops: ops, done: make(chan struct{})}
	select {
	case b.submit <- t:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-b.closing:
		return nil, ErrClosed
	}
	select {
	case <-t.done:
		return t.revisions, t.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-b.closing:
		return nil, ErrClosed
	}
}
