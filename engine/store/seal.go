package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
)

// A sealed value is sealMark, the id of the key, the nonce and the ciphertext.
// The name that it is stored under is authenticated with it, so a value cannot
// be put in the place of another one. Nothing else begins with sealMark: what
// is stored in plain text begins with a letter.
const (
	sealMark  = "\x00sealed1"
	nonceSize = 12
	// resealBatch is how many values are sealed anew in one transaction.
	resealBatch = 100
)

// Sealed is a Store whose values below certain prefixes are encrypted wherever
// the Store within keeps them: in its memory, on disk, on the way to etcd and in
// backups. They are opened each time that they are read, which takes about a
// microsecond, so that a memory dump holds few of them in plain text.
type Sealed struct {
	Store
	prefixes []string
	file     string

	// mu is held for reading while something is written under a key, so that no
	// write under an old one is still under way when the old one is dropped.
	mu   sync.RWMutex
	keys keyring
	// retired keys are in no file any more; they open the changes of the past
	// that can still be watched.
	retired keyring
	// rotating lets one rotation or restore happen at a time.
	rotating sync.Mutex
	// shared is set when several servers seal in the same store.
	shared bool
	// notedAt is the revision of keyNote, under mu.
	notedAt int64
}

var _ Store = (*Sealed)(nil)

// Seal seals what inner holds below the prefixes with the keys of a file, which
// it makes if there is none. It fails when there is a value that they do not
// open. What is stored in plain text is sealed by Reseal.
func Seal(ctx context.Context, inner Store, file string, prefixes ...string) (*Sealed, error) {
	s := &Sealed{Store: inner, prefixes: prefixes, file: file}
	sealed, err := s.all(ctx)
	if err != nil {
		return nil, err
	}
	s.keys, err = readKeys(file)
	if errors.Is(err, fs.ErrNotExist) {
		if n := countSealed(sealed); n > 0 {
			return nil, fmt.Errorf("the key file %s is missing, and %d sealed values need a key that was in it: put back your copy of it", file, n)
		}
		k, err := newKey()
		if err != nil {
			return nil, err
		}
		s.keys = keyring{k}
		return s, writeKeys(file, s.keys)
	}
	if err != nil {
		return nil, err
	}
	return s, s.openable(sealed, s.keys)
}

// openable checks that keys open all values of kvs that are sealed.
func (s *Sealed) openable(kvs []KV, keys keyring) error {
	for _, kv := range kvs {
		if !s.covers(kv.Key) {
			continue
		}
		if _, err := openValue(keys, kv.Key, kv.Value); err != nil {
			return fmt.Errorf("%w; the keys are in %s: put back your copy of that file", err, s.file)
		}
	}
	return nil
}

func (s *Sealed) covers(key string) bool {
	return slices.ContainsFunc(s.prefixes, func(p string) bool { return strings.HasPrefix(key, p) })
}

// all are the pairs to be sealed, as they are kept.
func (s *Sealed) all(ctx context.Context) ([]KV, error) {
	var out []KV
	for _, p := range s.prefixes {
		page, err := s.Store.List(ctx, ListRequest{Prefix: p})
		if err != nil {
			return nil, err
		}
		out = append(out, page.KVs...)
	}
	return out, nil
}

func countSealed(kvs []KV) (n int) {
	for _, kv := range kvs {
		if bytes.HasPrefix(kv.Value, []byte(sealMark)) {
			n++
		}
	}
	return n
}

func sealValue(k key, name string, value []byte) []byte {
	out := make([]byte, 0, len(sealMark)+keyIDSize+nonceSize+len(value)+k.aead.Overhead())
	out = append(append(out, sealMark...), k.id[:]...)
	nonce := make([]byte, nonceSize)
	rand.Read(nonce) // never fails
	return k.aead.Seal(append(out, nonce...), nonce, value, []byte(name))
}

// sealedWith is the key of a sealed value; false for plain text.
func sealedWith(value []byte) (id keyID, rest []byte, ok bool) {
	rest, ok = bytes.CutPrefix(value, []byte(sealMark))
	if !ok || len(rest) < keyIDSize {
		return id, nil, false
	}
	return keyID(rest[:keyIDSize]), rest[keyIDSize:], true
}

func openValue(keys keyring, name string, value []byte) ([]byte, error) {
	id, rest, sealed := sealedWith(value)
	if !sealed {
		return value, nil
	}
	k, ok := keys.find(id)
	if !ok {
		return nil, fmt.Errorf("%s is sealed with the key %s, which is not there", name, id)
	}
	if len(rest) < nonceSize {
		return nil, fmt.Errorf("%s is sealed, but cut off", name)
	}
	plain, err := k.aead.Open(nil, rest[:nonceSize], rest[nonceSize:], []byte(name))
	if err != nil {
		return nil, fmt.Errorf("%s cannot be opened: it was changed, or belongs under another name", name)
	}
	if plain == nil {
		plain = []byte{}
	}
	return plain, nil
}

// ring is all keys that open values, the newest first.
func (s *Sealed) ring() keyring {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return append(slices.Clip(s.keys), s.retired...)
}

func (s *Sealed) open(keys keyring, kv KV) (KV, error) {
	if kv.Value == nil || !s.covers(kv.Key) {
		return kv, nil
	}
	var err error
	kv.Value, err = openValue(keys, kv.Key, kv.Value)
	return kv, err
}

// Opened is a pair as it was before it was sealed.
func (s *Sealed) Opened(kv KV) (KV, error) { return s.open(s.ring(), kv) }

// Get implements Store.
func (s *Sealed) Get(ctx context.Context, key string) (KV, bool, error) {
	kv, ok, err := s.Store.Get(ctx, key)
	if err != nil || !ok {
		return kv, ok, err
	}
	kv, err = s.open(s.ring(), kv)
	return kv, err == nil, err
}

// List implements Store.
func (s *Sealed) List(ctx context.Context, r ListRequest) (Page, error) {
	page, err := s.Store.List(ctx, r)
	if err != nil {
		return page, err
	}
	keys := s.ring()
	for i := range page.KVs {
		if page.KVs[i], err = s.open(keys, page.KVs[i]); err != nil {
			return Page{}, err
		}
	}
	return page, nil
}

// Txn implements Store.
func (s *Sealed) Txn(ctx context.Context, ops []Op) ([]int64, error) {
	if !slices.ContainsFunc(ops, s.toSeal) {
		return s.Store.Txn(ctx, ops)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	ops = slices.Clone(ops)
	for i, op := range ops {
		if s.toSeal(op) {
			ops[i].Value = sealValue(s.keys[0], op.Key, op.Value)
		}
	}
	return s.txnSealed(ctx, ops)
}

func (s *Sealed) toSeal(op Op) bool { return op.Value != nil && !op.Check && s.covers(op.Key) }

// Watch implements Store.
func (s *Sealed) Watch(ctx context.Context, prefix string, after int64) (Watcher, error) {
	w, err := s.Store.Watch(ctx, prefix, after)
	if err != nil {
		return nil, err
	}
	return &sealedWatcher{Watcher: w, s: s}, nil
}

type sealedWatcher struct {
	Watcher
	s *Sealed
}

// Next implements Watcher. A change that the keys do not open is reported as
// expired: who watches lists again.
func (w *sealedWatcher) Next(ctx context.Context) ([]Event, int64, error) {
	events, progress, err := w.Watcher.Next(ctx)
	if err != nil {
		return events, progress, err
	}
	keys := w.s.ring()
	for i := range events {
		e := &events[i]
		if !w.s.covers(e.Key) {
			continue
		}
		for _, kv := range []*KV{&e.KV, &e.Previous} {
			if *kv, err = w.s.open(keys, *kv); err != nil {
				return nil, progress, fmt.Errorf("%w: %w", err, ErrExpired)
			}
		}
	}
	return events, progress, nil
}

// Reseal seals what is not sealed with the newest key, and then drops the older
// keys. It ends a rotation that was cut short. It returns how many values it
// sealed.
func (s *Sealed) Reseal(ctx context.Context) (int, error) {
	s.rotating.Lock()
	defer s.rotating.Unlock()
	return s.reseal(ctx)
}

func (s *Sealed) reseal(ctx context.Context) (int, error) {
	total := 0
	for done := false; !done; {
		sealed, stale, err := s.resealOnce(ctx)
		total += sealed
		if err != nil {
			return total, err
		}
		done = stale == 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.keys) == 1 {
		return total, nil
	}
	if err := writeKeys(s.file, s.keys[:1]); err != nil {
		return total, err
	}
	s.retired = append(s.retired, s.keys[1:]...)
	s.keys = s.keys[:1]
	return total, nil
}

// resealOnce goes through the values that are not sealed with the newest key;
// what changes meanwhile is sealed with it anyway.
func (s *Sealed) resealOnce(ctx context.Context) (sealed, stale int, err error) {
	keys := s.ring()
	all, err := s.all(ctx)
	if err != nil {
		return 0, 0, err
	}
	all = slices.DeleteFunc(all, func(kv KV) bool {
		id, _, sealed := sealedWith(kv.Value)
		return sealed && id == keys[0].id
	})
	for chunk := range slices.Chunk(all, resealBatch) {
		var ops []Op
		for _, kv := range chunk {
			plain, err := openValue(keys, kv.Key, kv.Value)
			if err != nil {
				return sealed, len(all), err
			}
			ops = append(ops, Op{Key: kv.Key, Value: sealValue(keys[0], kv.Key, plain), Expect: kv.Revision})
		}
		var conflict *ConflictError
		_, err := s.txnSealed(ctx, ops)
		if err == nil {
			sealed += len(ops)
		} else if !errors.As(err, &conflict) {
			return sealed, len(all), err
		}
	}
	return sealed, len(all), nil
}

// Rotate makes a new key, seals everything with it and drops the others. The
// file holds the old and the new key until that is done, so it can be cut short
// at any moment.
func (s *Sealed) Rotate(ctx context.Context) (sealed int, err error) {
	s.rotating.Lock()
	defer s.rotating.Unlock()
	k, err := newKey()
	if err != nil {
		return 0, err
	}
	if err := s.addKeys(k); err != nil {
		return 0, err
	}
	if err := s.note(ctx); err != nil {
		return 0, err
	}
	return s.reseal(ctx)
}

// addKeys puts a new key before the present ones. It waits for the writes under
// those.
func (s *Sealed) addKeys(newest key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := slices.Insert(slices.Clone(s.keys), 0, newest)
	if err := writeKeys(s.file, next); err != nil {
		return err
	}
	s.keys = next
	return nil
}
