package store_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"berth.dev/berth/engine/store"
	"berth.dev/berth/engine/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBoltContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s, _ := open(t, filepath.Join(t.TempDir(), "store.db"))
		return s
	})
}

// open starts a store; the function it returns stops it and waits.
func open(t testing.TB, path string) (*store.Bolt, func()) {
	t.Helper()
	s, err := store.OpenBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	return s, run(t, s)
}

// run starts a store; the function it returns stops it and waits.
func run(t testing.TB, s interface{ Run(context.Context) error }) func() {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx); close(done) }()
	stop := func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func TestReopenKeepsEverything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, stop := open(t, path)
	for i := range 20 {
		if _, err := s.Txn(t.Context(), []store.Op{{Key: fmt.Sprintf("/%02d", i), Value: []byte{byte(i)}, Expect: store.Absent}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Txn(t.Context(), []store.Op{{Key: "/00", Expect: store.Any}}); err != nil {
		t.Fatal(err)
	}
	revision := s.Revision()
	stop()
	if _, err := s.Txn(t.Context(), []store.Op{{Key: "/x", Value: []byte{1}}}); err == nil {
		t.Error("a stopped store took a write")
	}

	s, _ = open(t, path)
	page, err := s.List(t.Context(), store.ListRequest{Prefix: "/"})
	if err != nil || len(page.KVs) != 19 || page.Revision != revision {
		t.Errorf("%d keys at revision %d (%v), want 19 at %d", len(page.KVs), page.Revision, err, revision)
	}
}

func TestOpenRefusesWhatIsNotAStore(t *testing.T) {
	dir := t.TempDir()
	held := filepath.Join(dir, "held.db")
	open(t, held)
	empty := filepath.Join(dir, "empty.db")
	junk := filepath.Join(dir, "junk.db")
	for path, content := range map[string]string{empty: "", junk: strings.Repeat("not a store ", 4096)} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		held:  "another process holds it",
		empty: "it is empty, so its content was lost",
		junk:  "meta page 0 is not that of a store",
	} {
		if _, err := store.OpenBolt(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", filepath.Base(path), err, want)
		}
	}
}

func BenchmarkTxn(b *testing.B) {
	s, err := store.OpenBolt(filepath.Join(b.TempDir(), "store.db"))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	value := make([]byte, 1024)
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := s.Txn(ctx, []store.Op{{Key: fmt.Sprintf("/%p/%d", pb, i%100), Value: value, Expect: store.Any}}); err != nil {
				b.Error(err)
			}
		}
	})
}
