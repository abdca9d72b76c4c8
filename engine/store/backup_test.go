package store_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth.dev/berth/engine/store"
)

func backup(t *testing.T, s store.Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := store.WriteBackup(t.Context(), s, &b, "v1", time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func content(t *testing.T, s store.Store) map[string]string {
	t.Helper()
	kvs, _ := everything(t, s)
	out := map[string]string{}
	for _, kv := range kvs {
		out[kv.Key] = string(kv.Value)
	}
	return out
}

func TestBackupAndRestore(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "secrets.key")
	inner, _ := open(t, filepath.Join(dir, "store.db"))
	s := seal(t, inner, keys, secretPrefix)
	put(t, s, "/a", "1")
	put(t, s, "/b", "2")
	put(t, s, secretPrefix+"x/y", "hunter2")
	want := content(t, s)
	saved := backup(t, s)
	if bytes.Contains(saved, []byte("hunter2")) {
		t.Error("a Secret is in the backup in plain text")
	}
	put(t, s, "/a", "changed")
	put(t, s, "/new", "3")
	put(t, s, secretPrefix+"x/z", "later")
	before := s.Revision()

	b, err := store.ReadBackup(bytes.NewReader(saved))
	if err != nil {
		t.Fatal(err)
	}
	did, err := s.Restore(t.Context(), b, nil)
	if err != nil {
		t.Fatal(err)
	}
	if did.Written != 1 || did.Deleted != 2 || did.Same != 2 || did.Revision != before+3 {
		t.Errorf("did %+v after revision %d", did, before)
	}
	if diff := cmp.Diff(want, content(t, s)); diff != "" {
		t.Errorf("restored (-want +got):\n%s", diff)
	}
	w, err := s.Watch(t.Context(), "/", before)
	if err != nil {
		t.Fatal(err)
	}
	if events, _, err := w.Next(t.Context()); err != nil || len(events) != 3 || string(events[0].Value) != "1" || !events[1].Deleted() {
		t.Errorf("events %+v, %v", events, err)
	}
}

func TestRestoreAfterARotationNeedsTheOldKey(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "secrets.key")
	inner, _ := open(t, filepath.Join(dir, "store.db"))
	s := seal(t, inner, keys, secretPrefix)
	put(t, s, secretPrefix+"x/y", "hunter2")
	saved, old := backup(t, s), read(t, keys)
	if _, err := s.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, s, secretPrefix+"x/y", "changed")
	b, err := store.ReadBackup(bytes.NewReader(saved))
	if err != nil {
		t.Fatal(err)
	}
	// A new process: it does not remember the key.
	s = seal(t, inner, keys, secretPrefix)
	if _, err := s.Restore(t.Context(), b, nil); err == nil || !strings.Contains(err.Error(), "give the copy of the key file") {
		t.Errorf("restored without the key: %v", err)
	}
	if got := get(t, s, secretPrefix+"x/y"); got != "changed" {
		t.Errorf("a refused restore left %q", got)
	}
	now := read(t, keys)
	if _, err := s.Restore(t.Context(), b, old); err != nil {
		t.Fatal(err)
	}
	s = seal(t, inner, keys, secretPrefix)
	if got := get(t, s, secretPrefix+"x/y"); got != "hunter2" || !bytes.Equal(now, read(t, keys)) {
		t.Errorf("restored %q; the key file is as before: %v", got, bytes.Equal(now, read(t, keys)))
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAlteredBackupIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	_, want, _ := sample(t, path)
	s, _ := open(t, path)
	saved := backup(t, s)
	b, err := store.ReadBackup(bytes.NewReader(saved))
	if err != nil || len(b.KVs) != len(want) {
		t.Fatalf("%v", err)
	}
	rng := rand.New(rand.NewPCG(5, 5))
	for range 200 {
		if _, err := store.ReadBackup(bytes.NewReader(saved[:rng.IntN(len(saved))])); err == nil || !strings.Contains(err.Error(), "nothing was restored") {
			t.Fatalf("cut off: %v", err)
		}
		bad := bytes.Clone(saved)
		bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
		if _, err := store.ReadBackup(bytes.NewReader(bad)); err == nil {
			t.Fatal("an altered backup was read")
		}
	}
	for name, bad := range map[string][]byte{
		"empty": {}, "something else": []byte("hello, world\nhow are you?\n"), "more behind it": append(bytes.Clone(saved), 0),
		"a long line": bytes.Repeat([]byte("x"), 1<<20),
	} {
		if _, err := store.ReadBackup(bytes.NewReader(bad)); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}

func TestBackupBecomesANewStore(t *testing.T) {
	dir := t.TempDir()
	_, want, revision := sample(t, filepath.Join(dir, "store.db"))
	s, _ := open(t, filepath.Join(dir, "store.db"))
	b, err := store.ReadBackup(bytes.NewReader(backup(t, s)))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Create(filepath.Join(dir, "new.db")); err != nil {
		t.Fatal(err)
	}
	fresh, _ := open(t, filepath.Join(dir, "new.db"))
	got, at := everything(t, fresh)
	if !slices.EqualFunc(want, got, func(a, b store.KV) bool { return a.Key == b.Key && bytes.Equal(a.Value, b.Value) }) || at <= revision {
		t.Errorf("%d pairs at %d, want %d above %d", len(got), at, len(want), revision)
	}
	if _, err := fresh.Watch(t.Context(), "/", revision); !errors.Is(err, store.ErrExpired) {
		t.Errorf("a watch of the former store goes on: %v", err)
	}
}
