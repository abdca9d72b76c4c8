package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
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
)

// Bolt is the Store in one bbolt file. All pairs are held in memory, so no read
// touches the file; one goroutine writes, many transactions to an fsync, and
// writes the file anew when most of it is free.
type Bolt struct {
	// Log is told of what goes on in the background. Optional; set before Run.
	Log *slog.Logger

	path    string
	submit  chan *txn
	closing chan struct{}

	mirror
	// What follows belongs to the goroutine of Run.
	db         *bolt.DB
	state      state
	compaction compaction
}

type txn struct {
	// ops are made on the newest tree.
	ops       func(*tree) []Op
	revisions []int64
	err       error
	done      chan struct{}
}

var _ Store = (*Bolt)(nil)

// OpenBolt opens or creates the file at path. A file that is damaged, empty or
// cut off is a *DamagedError, never a new store; one that an earlier version
// wrote is brought up to date. Nothing can be written until Run is called.
func OpenBolt(path string) (*Bolt, error) { return OpenBoltAt(path, 0) }

// OpenBoltAt is OpenBolt, with the revision that a new file begins at.
func OpenBoltAt(path string, revision int64) (*Bolt, error) {
	b := &Bolt{path: path, submit: make(chan *txn, maxBatch), closing: make(chan struct{})}
	c, err := b.open(revision)
	var damaged *DamagedError
	var newer *NewerFormatError
	if errors.As(err, &damaged) || errors.As(err, &newer) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, words(err))
	}
	b.state = c.state
	b.mirror = mirror{current: c.pairs, log: newEventLog(c.state.revision)}
	b.compaction.init()
	return b, nil
}

func (b *Bolt) open(revision int64) (*content, error) {
	f, err := lockFile(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		c := &content{pairs: new(tree), state: state{revision: revision}}
		return c, b.replaceFile(c)
	}
	if err != nil {
		return nil, err
	}
	// Under the lock: nobody else is writing it.
	if err := os.Remove(partial(b.path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.Close()
		return nil, err
	}
	c, err := inspect(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	if c.old {
		err = b.replaceFile(c)
		f.Close() // its lock is held until the new file is in place and locked
		return c, err
	}
	b.db, err = openDB(f)
	return c, err
}

// replaceFile writes content to a new file and puts it in place.
func (b *Bolt) replaceFile(c *content) error {
	db, err := build(b.path, c.pairs, c.state, nil)
	if err != nil {
		return err
	}
	if err := install(b.path); err != nil {
		discard(db)
		return err
	}
	b.db = db
	return nil
}

// Run writes until the context ends, then closes the file. It fails when the
// disk leaves in doubt what was written.
func (b *Bolt) Run(ctx context.Context) error {
	defer func() { b.db.Close() }()
	defer b.compaction.end()
	defer b.log.close()
	defer close(b.closing)
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case first := <-b.submit:
			err = b.commit(b.gather(first))
			b.compactIfWorth()
		case done := <-b.compaction.asked:
			b.compactFor(done)
		case copied := <-b.compaction.copied:
			if err = b.catchUp(copied); err == nil {
				b.compactIfWorth() // perhaps no write follows, and much was freed meanwhile
			}
		}
		if err != nil {
			return err
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
func (b *Bolt) commit(batch []*txn) error {
	b.mu.RLock()
	next := b.current.Copy()
	b.mu.RUnlock()

	var events []Event
	s := b.state
	for _, t := range batch {
		ops := t.ops(next)
		if t.err = check(next, ops); t.err != nil {
			continue
		}
		for _, op := range ops {
			if op.Check {
				t.revisions = append(t.revisions, op.Expect)
				continue
			}
			e := apply(next, op, s.revision+1)
			s.take(e)
			events = append(events, e)
			t.revisions = append(t.revisions, s.revision)
		}
	}
	doubt, err := b.persist(events, s)
	if err == nil {
		b.mu.Lock()
		b.current = next
		b.log.add(events)
		b.mu.Unlock()
		b.state = s
		b.compaction.note(events)
	}
	for _, t := range batch {
		if err != nil && t.err == nil {
			t.err = fmt.Errorf("write %s: %w", b.path, words(err))
		}
		close(t.done)
	}
	if doubt {
		return fmt.Errorf("write %s: %w; whether the last transaction is on disk is not known, so nothing more is written: see to the disk, then start again", b.path, err)
	}
	return nil
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

// persist writes a batch. After a failure it looks what the file says now: when
// the batch is in it although the disk has failed, that is in doubt.
func (b *Bolt) persist(events []Event, s state) (doubt bool, err error) {
	if len(events) == 0 {
		return false, nil
	}
	if err = write(b.db, events, s); err == nil {
		return false, nil
	}
	var there state
	look := b.db.View(func(tx *bolt.Tx) (err error) {
		there, err = decodeState(tx.Bucket(bucketState()).Get(keyState()))
		return err
	})
	return look != nil || there != b.state, err
}

// write carries events out in one transaction, on disk when it returns.
func write(db *bolt.DB, events []Event, s state) error {
	return db.Update(func(tx *bolt.Tx) error {
		pairs := tx.Bucket(bucketPairs())
		for _, e := range events {
			var err error
			if e.Deleted() {
				err = pairs.Delete([]byte(e.Key))
			} else {
				err = pairs.Put([]byte(e.Key), encodePair(e.KV))
			}
			if err != nil {
				return err
			}
		}
		return tx.Bucket(bucketState()).Put(keyState(), encodeState(s))
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
	return b.transact(ctx, func(*tree) []Op { return ops })
}

func (b *Bolt) transact(ctx context.Context, ops func(*tree) []Op) ([]int64, error) {
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
