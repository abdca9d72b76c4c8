package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"berth.dev/berth/engine/store"
)

const pageSize = 4096

// sample makes a store of a few hundred pairs, small and large, with a history
// of changes and deletions, and returns its file and what is in it.
func sample(t testing.TB, path string) (file []byte, want []store.KV, revision int64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	s, stop := open(t, path)
	for i := range 600 {
		var ops []store.Op
		for range 1 + rng.IntN(4) {
			key := fmt.Sprintf("/%s/%03d", []string{"core/pods", "core/secrets", "apps/deployments"}[rng.IntN(3)], rng.IntN(200))
			op := store.Op{Key: key, Expect: store.Any}
			if rng.IntN(5) > 0 {
				op.Value = make([]byte, 1+rng.IntN(1500))
				if i%50 == 0 {
					op.Value = make([]byte, 20_000) // more than a page
				}
				for j := range op.Value {
					op.Value[j] = byte(rng.Uint32())
				}
			}
			ops = append(ops, op)
		}
		if _, err := s.Txn(t.Context(), ops); err != nil {
			t.Fatal(err)
		}
	}
	want, revision = everything(t, s)
	stop()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return file, want, revision
}

func everything(t testing.TB, s store.Store) ([]store.KV, int64) {
	t.Helper()
	page, err := s.List(t.Context(), store.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return page.KVs, page.Revision
}

// refusedOrWhole opens a file: it must be refused as damaged, or hold exactly
// what it held. It reports whether it was refused.
func refusedOrWhole(t *testing.T, path string, file []byte, want []store.KV, revision int64) bool {
	t.Helper()
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := store.OpenBolt(path)
	var damaged *store.DamagedError
	if errors.As(err, &damaged) {
		if damaged.What == "" || damaged.Path != path {
			t.Errorf("says only %q", err)
		}
		checkIntact(t, damaged.Intact(), want)
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, file) {
			t.Errorf("a damaged file was changed: %v", err)
		}
		return true
	}
	if err != nil {
		t.Fatalf("neither opened nor said to be damaged: %v", err)
	}
	got, at := everything(t, s)
	if at != revision || !slices.EqualFunc(want, got, same) {
		t.Fatalf("opened with other content: %d pairs at revision %d, want %d at %d", len(got), at, len(want), revision)
	}
	run(t, s)()
	return false
}

func same(a, b store.KV) bool {
	return a.Key == b.Key && a.Created == b.Created && a.Revision == b.Revision && bytes.Equal(a.Value, b.Value)
}

// checkIntact: what is read in spite of the damage was once written.
func checkIntact(t *testing.T, intact, want []store.KV) {
	t.Helper()
	known := map[string]store.KV{}
	for _, kv := range want {
		known[kv.Key] = kv
	}
	for _, kv := range intact {
		if w, ok := known[kv.Key]; ok && w.Revision == kv.Revision && !same(w, kv) {
			t.Errorf("%s is said to be intact, but was changed", kv.Key)
		}
	}
}

func TestTruncatedFileIsRecognised(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	file, want, revision := sample(t, path)
	sizes := []int{0, 1, 15, 16, 80, 511, pageSize - 1, pageSize, pageSize + 1, 2 * pageSize, 3*pageSize + 7, len(file) / 2, len(file)/2 + 1}
	for n := 1; n < 40; n++ {
		sizes = append(sizes, n*len(file)/40)
	}
	for back := 1; back < 20; back++ {
		sizes = append(sizes, len(file)-back*pageSize)
	}
	// What is behind the pages in use is free, and may be missing.
	used := usedBytes(t, path)
	refused := 0
	for _, size := range sizes {
		switch {
		case refusedOrWhole(t, path, file[:size], want, revision):
			refused++
		case size < used:
			t.Errorf("cut to %d of %d bytes, of which %d are in use, and opened", size, len(file), used)
		}
	}
	if refused < 10 {
		t.Errorf("%d of %d cuts were refused", refused, len(sizes))
	}
}

// usedBytes is where the pages that are in use end.
func usedBytes(t *testing.T, path string) int {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var size int64
	_ = db.View(func(tx *bolt.Tx) error { size = tx.Size(); return nil })
	return int(size)
}

func TestZeroedPagesAreRecognised(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	file, want, revision := sample(t, path)
	pages := len(file) / pageSize
	refused := 0
	for page := range pages {
		bad := append([]byte{}, file...)
		clear(bad[page*pageSize : (page+1)*pageSize])
		if refusedOrWhole(t, path, bad, want, revision) {
			refused++
		} else if page < 2 {
			t.Errorf("meta page %d is zeros, and the file was opened", page)
		}
	}
	t.Logf("%d of %d single pages were missed; the others are free", refused, pages)
	for _, n := range []int{4, 16, 64, pages} {
		bad := append([]byte{}, file...)
		clear(bad[:min(n, pages)*pageSize])
		if !refusedOrWhole(t, path, bad, want, revision) {
			t.Errorf("the first %d pages are zeros, and the file was opened", n)
		}
	}
}

func TestFlippedBitsAreRecognised(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	file, want, revision := sample(t, path)
	flips := 800
	if testing.Short() {
		flips = 200
	}
	refused := 0
	for seed := range flips {
		rng := rand.New(rand.NewPCG(uint64(seed), 7))
		at := rng.IntN(len(file))
		switch seed % 4 {
		case 0: // the meta pages
			at = rng.IntN(2)*pageSize + rng.IntN(80)
		case 1: // the heads of pages and their first elements
			at = rng.IntN(len(file)/pageSize)*pageSize + rng.IntN(200)
		}
		bad := append([]byte{}, file...)
		bad[at] ^= 1 << rng.IntN(8)
		if refusedOrWhole(t, path, bad, want, revision) {
			refused++
		}
		if t.Failed() {
			t.Fatalf("byte %d of page %d flipped", at%pageSize, at/pageSize)
		}
	}
	t.Logf("%d of %d flips were refused; the others are in pages that are free", refused, flips)
	if refused < flips/4 {
		t.Errorf("only %d of %d flips were refused", refused, flips)
	}
}

// Bytes that belong elsewhere have a valid form: only sums over everything tell.
func TestMisplacedPagesAreRecognised(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	file, want, revision := sample(t, path)
	pages := len(file) / pageSize
	for seed := range 200 {
		rng := rand.New(rand.NewPCG(uint64(seed), 11))
		from, to := rng.IntN(pages), rng.IntN(pages)
		bad := append([]byte{}, file...)
		copy(bad[to*pageSize:(to+1)*pageSize], file[from*pageSize:(from+1)*pageSize])
		if seed%2 == 0 && to > 1 { // and it says that it is where it is
			copy(bad[to*pageSize:to*pageSize+8], file[to*pageSize:to*pageSize+8])
		}
		refusedOrWhole(t, path, bad, want, revision)
	}
}

// A whole leaf that is missing leaves every other sum right.
func TestLostPairsAreRecognised(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	_, _, _ = sample(t, path)
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		key, _ := tx.Bucket([]byte("pairs")).Cursor().First()
		return tx.Bucket([]byte("pairs")).Delete(key)
	})
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	_, err = store.OpenBolt(path)
	var damaged *store.DamagedError
	if !errors.As(err, &damaged) {
		t.Fatalf("a pair is missing: %v", err)
	}
	if n := len(damaged.Intact()); n < 200 {
		t.Errorf("%d pairs can still be read", n)
	}
}

// TestOldFormatIsUpgraded writes a file as former versions did.
func TestOldFormatIsUpgraded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	value := func(created, changed byte, v string) []byte {
		return append([]byte{0, 0, 0, 0, 0, 0, 0, created, 0, 0, 0, 0, 0, 0, 0, changed}, v...)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		data, _ := tx.CreateBucket([]byte("data"))
		meta, _ := tx.CreateBucket([]byte("meta"))
		return errors.Join(data.Put([]byte("/a"), value(1, 3, "x")), data.Put([]byte("/b"), value(2, 2, "y")),
			meta.Put([]byte("revision"), []byte{0, 0, 0, 0, 0, 0, 0, 4}))
	})
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	want := []store.KV{{Key: "/a", Value: []byte("x"), Created: 1, Revision: 3}, {Key: "/b", Value: []byte("y"), Created: 2, Revision: 2}}
	for range 2 {
		s, stop := open(t, path)
		got, revision := everything(t, s)
		if diff := cmp.Diff(want, got); diff != "" || revision != 4 {
			t.Errorf("at revision %d (-want +got):\n%s", revision, diff)
		}
		stop()
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := range b { // and from then on it is protected
		if at%97 == 0 {
			bad := append([]byte{}, b...)
			bad[at] ^= 0x10
			refusedOrWhole(t, path, bad, want, 4)
		}
	}
}
