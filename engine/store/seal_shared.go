package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// keyNote is the key of the store that names the key which all servers seal
// with. Whatever is sealed is written only while that is as the server knows it:
// one that has missed a rotation cannot seal with a key that was dropped.
const keyNote = "/berth/sealed-with"

// ErrOtherKey says that another server has changed the key of Secrets.
var ErrOtherKey = errors.New("the key of Secrets was changed by another server: copy its secrets.key to this server and start this one again")

// SealShared is Seal for a store that several servers use: it makes a key only
// for a store that none has sealed in yet. It needs a store that can be written.
func SealShared(ctx context.Context, inner Store, file string, prefixes ...string) (*Sealed, error) {
	note, noted, err := inner.Get(ctx, keyNote)
	if err != nil {
		return nil, err
	}
	if noted {
		return joinSealed(ctx, inner, file, note, prefixes)
	}
	_, missing := os.Lstat(file)
	s, err := Seal(ctx, inner, file, prefixes...)
	if err != nil {
		return nil, err
	}
	s.shared = true
	err = s.note(ctx)
	if !errors.Is(err, ErrOtherKey) {
		return s, err
	}
	// Another server was first.
	if errors.Is(missing, fs.ErrNotExist) {
		if err := os.Remove(file); err != nil {
			return nil, err
		}
	}
	if note, _, err = inner.Get(ctx, keyNote); err != nil {
		return nil, err
	}
	return joinSealed(ctx, inner, file, note, prefixes)
}

// joinSealed takes the key that the store names out of the file.
func joinSealed(ctx context.Context, inner Store, file string, note KV, prefixes []string) (*Sealed, error) {
	keys, err := readKeys(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the servers of this cluster seal with the key %s, and the key file %s is missing: copy it from one of them (mode 0600), or name it with --key-file", note.Value, file)
	}
	if err != nil {
		return nil, err
	}
	for i, k := range keys {
		if k.id.String() != string(note.Value) {
			continue
		}
		keys[0], keys[i] = keys[i], keys[0]
		s := &Sealed{Store: inner, prefixes: prefixes, file: file, keys: keys, shared: true, notedAt: note.Revision}
		sealed, err := s.all(ctx)
		if err != nil {
			return nil, err
		}
		return s, s.openable(sealed, keys)
	}
	return nil, fmt.Errorf("the servers of this cluster seal with the key %s, which is not in the key file %s: it is of another cluster, or older than the last rotation; copy the file from one of them (mode 0600)", note.Value, file)
}

// note says in the store which key is the newest.
func (s *Sealed) note(ctx context.Context) error {
	if !s.shared {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	revisions, err := s.Store.Txn(ctx, []Op{{Key: keyNote, Value: []byte(s.keys[0].id.String()), Expect: s.notedAt}})
	if err == nil {
		s.notedAt = revisions[0]
	}
	return otherKey(err)
}

// txnSealed writes what is sealed already. The caller holds mu, or rotating.
func (s *Sealed) txnSealed(ctx context.Context, ops []Op) ([]int64, error) {
	if !s.shared {
		return s.Store.Txn(ctx, ops)
	}
	revisions, err := s.Store.Txn(ctx, append(ops[:len(ops):len(ops)], Op{Key: keyNote, Expect: s.notedAt, Check: true}))
	if err != nil {
		return nil, otherKey(err)
	}
	return revisions[:len(ops)], nil
}

func otherKey(err error) error {
	var conflict *ConflictError
	if errors.As(err, &conflict) && conflict.Key == keyNote {
		return fmt.Errorf("%w; nothing was changed", ErrOtherKey)
	}
	return err
}
