package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
)

const (
	// A file is written anew when it is larger than this, in bytes, and more
	// than half of it is free.
	compactAbove = 16 << 20
	// switchEvents is how many changes may be left when the writer waits for
	// the new file; more are written beside it first, maxRounds times.
	switchEvents = 1000
	maxRounds    = 8
)

// compaction writes the pairs to a new file while the old one is in use, and
// then puts it in its place. Its fields belong to the writer, but for the
// channels.
type compaction struct {
	above  int64
	asked  chan chan error
	copied chan error // answers of the goroutine that copies
	stop   chan struct{}

	running bool
	db      *bolt.DB // the new file; belongs to the copier until it answers
	at      state    // what the new file holds
	missing []Event  // since then
	rounds  int
	// waiting want the end of this one, later that of the next one.
	waiting, later []chan error
	// before is the size of the file when it began, in bytes; failed the size at
	// which one that failed is tried again.
	before, failed int64
}

func (c *compaction) init() {
	c.above = compactAbove
	c.asked, c.copied, c.stop = make(chan chan error), make(chan error, 1), make(chan struct{})
}

// note remembers what a new file lacks.
func (c *compaction) note(events []Event) {
	if c.running {
		c.missing = append(c.missing, events...)
	}
}

// end waits for the copier and removes what it has made.
func (c *compaction) end() {
	close(c.stop)
	if c.running {
		<-c.copied
		if c.db != nil {
			discard(c.db)
		}
	}
	for _, done := range append(c.waiting, c.later...) {
		done <- ErrClosed
	}
}

// Compact writes the file anew, so that nothing is left in it of what was
// deleted or replaced, and returns when that is done. Reads and writes go on.
func (b *Bolt) Compact(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case b.compaction.asked <- done:
	case <-ctx.Done():
		return ctx.Err()
	case <-b.closing:
		return ErrClosed
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *Bolt) compactFor(done chan error) {
	c := &b.compaction
	if c.running {
		// It began before what the caller wants gone was gone.
		c.later = append(c.later, done)
		return
	}
	c.waiting = append(c.waiting, done)
	b.startCompaction()
}

// sizes are those of the pages in the file and of the free ones among them.
func (b *Bolt) sizes() (used, free int64) {
	stats := b.db.Stats()
	page := int64(b.db.Info().PageSize)
	_ = b.db.View(func(tx *bolt.Tx) error { used = tx.Size(); return nil }) // does not fail while the file is open
	return used, int64(stats.FreePageN+stats.PendingPageN) * page
}

func (b *Bolt) compactIfWorth() {
	if b.compaction.running {
		return
	}
	size, free := b.sizes()
	if size > max(b.compaction.above, b.compaction.failed) && free > size/2 {
		b.startCompaction()
	}
}

func (b *Bolt) startCompaction() {
	c := &b.compaction
	b.mu.RLock()
	pairs := b.current // published, so never changed
	b.mu.RUnlock()
	c.running, c.at, c.missing, c.rounds, c.db = true, b.state, nil, 0, nil
	c.before, _ = b.sizes()
	at := c.at
	go func() {
		db, err := build(b.path, pairs, at, c.stop)
		c.db = db
		c.copied <- err
	}()
}

// catchUp goes on when the copier has answered: with what has changed meanwhile,
// or with the switch. Its error is one after which nothing can be written.
func (b *Bolt) catchUp(copied error) error {
	c := &b.compaction
	switch {
	case copied != nil:
		b.compacted(copied)
		return nil
	case len(c.missing) > switchEvents && c.rounds < maxRounds:
		db, events, at := c.db, c.missing, b.state
		c.missing, c.rounds = nil, c.rounds+1
		go func() { c.copied <- write(db, events, at) }()
		return nil
	case len(c.missing) > 0:
		if err := write(c.db, c.missing, b.state); err != nil {
			b.compacted(err)
			return nil
		}
	}
	return b.switchFiles()
}

// switchFiles puts the new file, which holds everything, in the place of the
// old one. The old one's lock is held until the new one is there.
func (b *Bolt) switchFiles() error {
	if err := os.Rename(partial(b.path), b.path); err != nil {
		b.compacted(err)
		return nil
	}
	old := b.db
	b.db, b.compaction.db = b.compaction.db, nil
	err := errors.Join(syncDir(filepath.Dir(b.path)), old.Close())
	b.compacted(err)
	if err != nil {
		// Which of the two a power loss would leave is not known, and what is
		// written from now on is in one of them only.
		return fmt.Errorf("put the compacted store in place: %w; see to the disk, then start again", err)
	}
	return nil
}

// compacted ends a compaction, and begins the one that was asked for meanwhile.
func (b *Bolt) compacted(err error) {
	c := &b.compaction
	if err != nil {
		err = fmt.Errorf("compact %s: %w", b.path, words(err))
		c.failed = 2 * c.before
	} else {
		c.failed = 0
	}
	if c.db != nil {
		discard(c.db)
	}
	if b.Log != nil {
		if after, _ := b.sizes(); err == nil {
			b.Log.Info("compacted the store", "before", c.before, "after", after)
		} else {
			b.Log.Warn("the store was not compacted; it is tried again when it has grown", "err", err)
		}
	}
	for _, done := range c.waiting {
		done <- err
	}
	c.running, c.db, c.missing = false, nil, nil
	c.waiting, c.later = c.later, nil
	if len(c.waiting) > 0 {
		b.startCompaction()
	}
}
