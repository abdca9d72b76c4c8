package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth.dev/berth/engine/store"
	"berth.dev/berth/engine/store/storetest"
)

func TestSealedContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		dir := t.TempDir()
		inner, _ := open(t, filepath.Join(dir, "store.db"))
		return seal(t, inner, filepath.Join(dir, "secrets.key"), "/")
	})
}

func seal(t *testing.T, inner store.Store, file string, prefixes ...string) *store.Sealed {
	t.Helper()
	s, err := store.Seal(t.Context(), inner, file, prefixes...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func get(t *testing.T, s store.Store, key string) string {
	t.Helper()
	kv, ok, err := s.Get(t.Context(), key)
	if err != nil || !ok {
		t.Fatalf("%s: there %v, %v", key, ok, err)
	}
	return string(kv.Value)
}

const secretPrefix = "/core/secrets/"

func TestSecretsAreNotInTheFile(t *testing.T) {
	dir := t.TempDir()
	path, keys := filepath.Join(dir, "store.db"), filepath.Join(dir, "secrets.key")
	inner, stop := open(t, path)
	put(t, inner, secretPrefix+"a/old", "hunter2-old") // as a former version wrote it
	s := seal(t, inner, keys, secretPrefix)
	put(t, s, secretPrefix+"a/new", "hunter2-new")
	put(t, s, secretPrefix+"a/empty", "")
	put(t, s, "/core/configmaps/a/plain", "not a secret")
	if n, err := s.Reseal(t.Context()); err != nil || n != 1 {
		t.Errorf("sealed %d values, %v; want the one in plain text", n, err)
	}
	if err := inner.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"a/old": "hunter2-old", "a/new": "hunter2-new", "a/empty": ""} {
		if got := get(t, s, secretPrefix+key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	stop()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("hunter2")) || !bytes.Contains(b, []byte("not a secret")) {
		t.Error("a Secret is in the file in plain text, or something else is not")
	}
	if info, err := os.Stat(keys); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key file: %v %v", info.Mode(), err)
	}
	inner, _ = open(t, path)
	if got := get(t, seal(t, inner, keys, secretPrefix), secretPrefix+"a/new"); got != "hunter2-new" {
		t.Errorf("after a restart: %q", got)
	}
}

func TestSealedValuesStayUnderTheirNames(t *testing.T) {
	dir := t.TempDir()
	inner, _ := open(t, filepath.Join(dir, "store.db"))
	s := seal(t, inner, filepath.Join(dir, "secrets.key"), secretPrefix)
	put(t, s, secretPrefix+"a/one", "1")
	kv, _, _ := inner.Get(t.Context(), secretPrefix+"a/one")
	put(t, inner, secretPrefix+"b/two", string(kv.Value))
	if _, _, err := s.Get(t.Context(), secretPrefix+"b/two"); err == nil || !strings.Contains(err.Error(), "belongs under another name") {
		t.Errorf("a sealed value was read under another name: %v", err)
	}
	kv.Value = bytes.Clone(kv.Value)
	kv.Value[len(kv.Value)-1] ^= 1
	put(t, inner, secretPrefix+"a/one", string(kv.Value))
	if _, err := s.List(t.Context(), store.ListRequest{Prefix: secretPrefix + "a"}); err == nil {
		t.Error("an altered value was read")
	}
}

func TestKeyFileIsLookedAfter(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "secrets.key")
	inner, _ := open(t, filepath.Join(dir, "store.db"))
	s := seal(t, inner, keys, secretPrefix)
	put(t, s, secretPrefix+"a/one", "1")
	good, err := os.ReadFile(keys)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other.key")
	empty, _ := open(t, filepath.Join(dir, "empty.db"))
	seal(t, empty, other, secretPrefix)
	otherKeys, _ := os.ReadFile(other)
	lines := strings.Split(strings.TrimSpace(string(good)), "\n")
	secret := strings.Fields(lines[len(lines)-1])[1]
	for name, c := range map[string]struct {
		content []byte
		mode    os.FileMode
		want    string
	}{
		"missing":       {nil, 0, "is missing, and 1 sealed values need"},
		"too open":      {good, 0o644, "has mode 0644"},
		"empty":         {[]byte{}, 0o600, "holds no key"},
		"cut off":       {good[:len(good)-10], 0o600, "is damaged"},
		"altered":       {bytes.Replace(good, []byte(secret[:4]), []byte("AAAA"), 1), 0o600, "does not belong to its id"},
		"another's":     {otherKeys, 0o600, "which is not there"},
		"as it was":     {good, 0o600, ""},
		"read by owner": {good, 0o400, ""},
	} {
		os.Remove(keys)
		if c.content != nil {
			if err := os.WriteFile(keys, c.content, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(keys, c.mode); err != nil {
				t.Fatal(err)
			}
		}
		_, err := store.Seal(t.Context(), inner, keys, secretPrefix)
		if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), secret[:10]) {
			t.Errorf("%s: the error holds the key: %v", name, err)
		}
		if now, readErr := os.ReadFile(keys); readErr == nil && !bytes.Equal(now, c.content) {
			t.Errorf("%s: the key file was changed", name)
		}
	}
}

func TestRotationUnderLoad(t *testing.T) {
	dir := t.TempDir()
	path, keys := filepath.Join(dir, "store.db"), filepath.Join(dir, "secrets.key")
	inner, stop := open(t, path)
	s := seal(t, inner, keys, secretPrefix)
	for i := range 250 {
		put(t, s, fmt.Sprintf("%sstill/%d", secretPrefix, i), "0")
	}
	w, err := s.Watch(t.Context(), secretPrefix, s.Revision())
	if err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(keys)
	ctx, cancel := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	last := make([]string, 3)
	for i := range last {
		busy.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				last[i] = fmt.Sprint(n)
				if _, err := s.Txn(context.WithoutCancel(ctx), []store.Op{{Key: fmt.Sprintf("%smoving/%d", secretPrefix, i), Value: []byte(last[i]), Expect: store.Any}}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 3 {
		if n, err := s.Rotate(ctx); err != nil || n < 250 {
			t.Fatalf("sealed %d values anew, %v", n, err)
		}
	}
	cancel()
	busy.Wait()
	after, _ := os.ReadFile(keys)
	if cmp.Equal(before, after) || strings.Count(string(after), "\n") != strings.Count(string(before), "\n") {
		t.Errorf("the key file does not hold one other key")
	}
	stop()
	inner, _ = open(t, path)
	s = seal(t, inner, keys, secretPrefix) // which checks that the key opens everything
	for i := range last {
		if got := get(t, s, fmt.Sprintf("%smoving/%d", secretPrefix, i)); got != last[i] {
			t.Errorf("%q, want %q", got, last[i])
		}
	}
	events, _, err := w.Next(t.Context())
	if err != nil || len(events) < 750 {
		t.Errorf("%d events, %v", len(events), err)
	}
}

// faulty fails from the n-th transaction on.
type faulty struct {
	store.Store
	left int
}

func (f *faulty) Txn(ctx context.Context, ops []store.Op) ([]int64, error) {
	if f.left--; f.left < 0 {
		return nil, errors.New("the power is gone")
	}
	return f.Store.Txn(ctx, ops)
}

func TestRotationThatWasCutShortIsEnded(t *testing.T) {
	for after := range 4 {
		dir := t.TempDir()
		keys := filepath.Join(dir, "secrets.key")
		inner, _ := open(t, filepath.Join(dir, "store.db"))
		s := seal(t, inner, keys, secretPrefix)
		for i := range 250 {
			put(t, s, fmt.Sprintf("%sa/%d", secretPrefix, i), fmt.Sprint(i))
		}
		first, _ := os.ReadFile(keys)
		if _, err := seal(t, &faulty{inner, after}, keys, secretPrefix).Rotate(t.Context()); (err == nil) != (after == 3) {
			t.Fatalf("cut short after %d transactions: %v", after, err)
		}
		s = seal(t, inner, keys, secretPrefix) // the next start
		if _, err := s.Reseal(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range 250 {
			if got := get(t, s, fmt.Sprintf("%sa/%d", secretPrefix, i)); got != fmt.Sprint(i) {
				t.Errorf("%d is %q", i, got)
			}
		}
		now, _ := os.ReadFile(keys)
		if len(now) != len(first) || bytes.Equal(now, first) {
			t.Errorf("after %d transactions: the old key was not dropped", after)
		}
	}
}
