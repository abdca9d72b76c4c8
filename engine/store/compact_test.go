package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"berth.dev/berth/engine/store"
)

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// random bytes, which no two values share.
func random(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func TestFileShrinksByItself(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, stop := open(t, path)
	value := bytes.Repeat([]byte("x"), 64<<10)
	for i := range 600 {
		if _, err := s.Txn(t.Context(), []store.Op{{Key: fmt.Sprintf("/%d", i), Value: value, Expect: store.Any}}); err != nil {
			t.Fatal(err)
		}
	}
	full := size(t, path)
	for i := range 590 {
		if _, err := s.Txn(t.Context(), []store.Op{{Key: fmt.Sprintf("/%d", i), Expect: store.Any}}); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	// A file is left alone up to this size.
	for size(t, path) > 16<<20 {
		if time.Now().After(deadline) {
			t.Fatalf("the file is %d bytes long, was %d, and holds %d", size(t, path), full, 10*len(value))
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("from %d to %d bytes", full, size(t, path))
	want, revision := everything(t, s)
	stop()
	s, _ = open(t, path)
	if got, at := everything(t, s); at != revision || !slices.EqualFunc(want, got, same) {
		t.Errorf("after the compaction and a restart: %d pairs at %d, want %d at %d", len(got), at, len(want), revision)
	}
}

// Everything that is acknowledged, read or watched while the file is written
// anew is as without it.
func TestCompactionUnderLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, stop := open(t, path)
	rng := rand.New(rand.NewPCG(9, 9))
	for i := range 300 {
		if _, err := s.Txn(t.Context(), []store.Op{{Key: fmt.Sprintf("/still/%d", i), Value: random(rng, 2000), Expect: store.Any}}); err != nil {
			t.Fatal(err)
		}
	}
	start := s.Revision()
	ctx, cancel := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	var writes atomic.Int64
	var longest atomic.Int64
	for w := range 4 {
		busy.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				op := store.Op{Key: fmt.Sprintf("/moving/%d/%d", w, i%40), Value: []byte(fmt.Sprint(i)), Expect: store.Any}
				if i%7 == 0 {
					op.Value = nil
				}
				began := time.Now()
				if _, err := s.Txn(context.WithoutCancel(ctx), []store.Op{op}); err != nil {
					t.Error(err)
					return
				}
				longest.Store(max(longest.Load(), int64(time.Since(began))))
				writes.Add(1)
			}
		})
	}
	for range 2 {
		busy.Go(func() {
			for ctx.Err() == nil {
				if page, err := s.List(ctx, store.ListRequest{Prefix: "/still/"}); err != nil || len(page.KVs) != 300 {
					t.Errorf("%d pairs, %v", len(page.KVs), err)
					return
				}
			}
		})
	}
	const compactions = 20
	for range compactions {
		if err := s.Compact(ctx); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	busy.Wait()
	t.Logf("%d writes during %d compactions, the longest took %v", writes.Load(), compactions, time.Duration(longest.Load()))
	if writes.Load() < compactions {
		t.Errorf("%d writes during %d compactions", writes.Load(), compactions)
	}
	want, revision := everything(t, s)
	checkReplay(t, s, start, want, revision)
	stop()
	s, _ = open(t, path)
	if got, at := everything(t, s); at != revision || !slices.EqualFunc(want, got, same) {
		t.Errorf("after a restart: %d pairs at %d, want %d at %d", len(got), at, len(want), revision)
	}
}

// checkReplay follows the events from a revision on: together they make up what
// is there.
func checkReplay(t *testing.T, s store.Store, from int64, want []store.KV, revision int64) {
	t.Helper()
	w, err := s.Watch(t.Context(), "/moving/", from)
	if errors.Is(err, store.ErrExpired) {
		t.Logf("%d changes are more than the window", revision-from)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]store.KV{}
	for seen := from; seen < revision; {
		events, progress, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			delete(there, e.Key)
			if !e.Deleted() {
				there[e.Key] = e.KV
			}
		}
		seen = progress
	}
	for _, kv := range want {
		if e, ok := there[kv.Key]; ok && !same(e, kv) {
			t.Errorf("%s: the events say %q, the store %q", kv.Key, e.Value, kv.Value)
		}
		delete(there, kv.Key)
	}
	if len(there) > 0 {
		t.Errorf("%d pairs are in the events alone", len(there))
	}
}

func TestCompactionLeavesNothingBehind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, stop := open(t, path)
	secret := bytes.Repeat([]byte("hunter2!"), 100)
	if _, err := s.Txn(t.Context(), []store.Op{{Key: "/a", Value: secret, Expect: store.Any}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Txn(t.Context(), []store.Op{{Key: "/a", Value: []byte("changed"), Expect: store.Any}}); err != nil {
		t.Fatal(err)
	}
	holds := func() bool {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(b, secret)
	}
	if !holds() {
		t.Fatal("the replaced value is gone already: nothing is tested")
	}
	if err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if holds() {
		t.Error("the replaced value is still in the file")
	}
	// The file is locked all the same.
	if _, err := store.OpenBolt(path); err == nil {
		t.Error("a second process could open the file after the compaction")
	}
	stop()
	if err := s.Compact(t.Context()); !errors.Is(err, store.ErrClosed) {
		t.Errorf("compact a closed store: %v", err)
	}
}

// A crash may leave the new file beside the old one, finished or not.
func TestLeftoverOfACompactionIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	_, want, revision := sample(t, path)
	for _, left := range []string{"", "half a file"} {
		if err := os.WriteFile(path+".new", []byte(left), 0o600); err != nil {
			t.Fatal(err)
		}
		s, stop := open(t, path)
		if got, at := everything(t, s); at != revision || !slices.EqualFunc(want, got, same) {
			t.Errorf("beside a leftover: %d pairs at %d", len(got), at)
		}
		if _, err := os.Stat(path + ".new"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the leftover is still there: %v", err)
		}
		stop()
	}
}
