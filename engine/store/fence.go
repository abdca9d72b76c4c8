package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// ErrFenced says that a write came from a server that no longer leads.
var ErrFenced = errors.New("another server leads by now")

// Fence is a Store whose writes are carried out only while key is at revision:
// they fail with ErrFenced from then on, also those that were sent before.
func Fence(s Store, key string, revision int64) Store {
	return &fenced{Store: s, key: key, revision: revision}
}

type fenced struct {
	Store
	key      string
	revision int64
}

// Txn implements Store.
func (f *fenced) Txn(ctx context.Context, ops []Op) ([]int64, error) {
	guarded := append(slices.Clone(ops), Op{Key: f.key, Expect: f.revision, Check: true})
	revisions, err := f.Store.Txn(ctx, guarded)
	var conflict *ConflictError
	if errors.As(err, &conflict) && conflict.Key == f.key {
		return nil, fmt.Errorf("%w; nothing was changed", ErrFenced)
	}
	if err != nil {
		return nil, err
	}
	return revisions[:len(ops)], nil
}
