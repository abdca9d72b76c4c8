// Package store keeps bytes under keys with one global revision, in a bbolt file
// or in etcd. It owns the file on disk, what is below its prefix in etcd, the order of all writes and the window in which watches can be
// resumed. It knows nothing of Kubernetes: engine/resources gives the bytes
// their meaning.
package store

import (
	"context"
	"errors"
	"fmt"
)

// Store is a key-value store with revisions. Every put and every delete has a
// revision of its own, larger than all before it; those of one transaction are
// consecutive, and a deletion of what does not exist may share its
// neighbour's. What is acknowledged is on disk.
type Store interface {
	// Get returns the newest value of key, and false when there is none.
	Get(ctx context.Context, key string) (KV, bool, error)
	// List returns the pairs of a prefix in the order of their keys, all as
	// they were at one revision.
	List(ctx context.Context, r ListRequest) (Page, error)
	// Txn carries out all operations or none. It returns the revision of each
	// operation, or a *ConflictError when an expectation does not hold.
	Txn(ctx context.Context, ops []Op) ([]int64, error)
	// Watch reports what changes below prefix after revision after: all of it,
	// once, in order. It fails with ErrExpired when that is no longer known.
	Watch(ctx context.Context, prefix string, after int64) (Watcher, error)
	// Revision is the revision of the last write.
	Revision() int64
}

// KV is a key with its value. The value is shared and must not be changed.
type KV struct {
	Key   string
	Value []byte
	// Created is the revision at which the key came into being, Revision the
	// one of its last change.
	Created  int64
	Revision int64
}

// ListRequest selects pairs.
type ListRequest struct {
	Prefix string
	// From is the first key to return; empty means the first of the prefix.
	From string
	// Limit is the largest number of pairs to return; 0 means all.
	Limit int
	// At is the revision to read at; 0 means the newest. One that is too old
	// is ErrExpired.
	At int64
}

// Page is an answer to a ListRequest.
type Page struct {
	KVs []KV
	// Revision that all pairs were read at.
	Revision int64
	// Next is the key to go on from, empty at the end.
	Next string
}

// Expectations of an Op besides a revision.
const (
	// Any takes whatever is there.
	Any int64 = -1
	// Absent wants the key not to exist.
	Absent int64 = 0
)

// Op is one operation of a transaction. A nil Value deletes the key.
type Op struct {
	Key   string
	Value []byte
	// Expect is the revision that the key must be at, or Any or Absent.
	Expect int64
	// Check only compares: the key is left as it is, Value is not used, and the
	// revision of the operation is Expect.
	Check bool
}

// Event is one change. Value is nil for a deletion; Previous is the pair as it
// was before, with revision 0 when the key is new.
type Event struct {
	KV
	Previous KV
}

// Deleted reports whether the event is a deletion.
func (e Event) Deleted() bool { return e.Value == nil }

// Watcher hands out events. It is used by one goroutine and needs no closing:
// it holds nothing but a position.
type Watcher interface {
	// Next blocks until there are events and returns them. progress is the
	// revision up to which the watcher has seen everything of its prefix.
	// It fails with ErrExpired when the reader was too slow.
	Next(ctx context.Context) (events []Event, progress int64, err error)
}

// ErrExpired says that a revision is older than the window of changes kept, or
// of a future that a store brought back from a backup has not seen.
var ErrExpired = errors.New("revision has expired: list again")

// ErrClosed says that the store is shutting down.
var ErrClosed = errors.New("store is closed")

// ConflictError says which expectation of a transaction does not hold.
type ConflictError struct {
	Key string
	// Have is the current revision of the key, 0 when it does not exist.
	Have int64
	Want int64
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s is at revision %d, not %d", e.Key, e.Have, e.Want)
}
