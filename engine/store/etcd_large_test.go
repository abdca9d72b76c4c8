package store_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth.dev/berth/engine/store"
	"berth.dev/berth/engine/store/storetest"
)

func manyOps(n int, prefix, value string) []store.Op {
	ops := make([]store.Op, n)
	for i := range ops {
		ops[i] = store.Op{Key: fmt.Sprintf("%s%05d", prefix, i), Value: []byte(value), Expect: store.Absent}
	}
	return ops
}

// allPairs is what a store holds, as it is now.
func allPairs(t *testing.T, s store.Store, prefix string) []store.KV {
	t.Helper()
	page, err := s.List(t.Context(), store.ListRequest{Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	return page.KVs
}

// clean fails when a large transaction has left a trace in etcd.
func clean(t *testing.T, etcd *storetest.Etcd, prefix string) {
	t.Helper()
	for _, key := range []string{"staging/", "commit", "lock"} {
		if left := etcd.Ctl("get", "--prefix", "--keys-only", prefix+key); strings.TrimSpace(left) != "" {
			t.Errorf("left in etcd: %s", left)
		}
	}
}

func TestALargeTransactionHoldsAsAWhole(t *testing.T) {
	const n = 10_000
	etcd := storetest.StartEtcd(t, 1)
	s, _ := openEtcd(t, etcd.URL())
	other, _ := openEtcd(t, etcd.URL())
	put(t, s, "/b/old", "1")
	ops := append(manyOps(n, "/a/", strings.Repeat("x", 1000)),
		store.Op{Key: "/b/old", Expect: store.Any}, store.Op{Key: "/b/none", Expect: store.Any})

	refused := append(manyOps(n, "/a/", "y"), store.Op{Key: "/b/old", Value: []byte("2"), Expect: store.Absent})
	before := s.Revision()
	var conflict *store.ConflictError
	if _, err := s.Txn(t.Context(), refused); !errors.As(err, &conflict) || conflict.Key != "/b/old" {
		t.Fatalf("got %v, want a conflict on /b/old", err)
	}
	if got := allPairs(t, other, "/a/"); len(got) > 0 {
		t.Fatalf("a refused transaction left %d pairs", len(got))
	}

	start := time.Now()
	revisions, err := s.Txn(t.Context(), ops)
	if err != nil {
		t.Fatal(err)
	}
	acknowledged := time.Since(start)
	put(t, other, "/b/after", "1")
	t.Logf("%d operations acknowledged in %v, the next write of another server in %v", len(ops), acknowledged, time.Since(start))
	for i := range revisions {
		if i > 0 && revisions[i] != revisions[i-1]+1 {
			t.Fatalf("revision %d follows %d", revisions[i], revisions[i-1])
		}
	}
	fresh, _ := openEtcd(t, etcd.URL())
	for name, s := range map[string]*store.Etcd{"the other server": other, "a new server": fresh} {
		got := allPairs(t, s, "/a/")
		if len(got) != n || got[0].Revision != revisions[0] || got[n-1].Revision != revisions[n-1] {
			t.Fatalf("%s has %d pairs", name, len(got))
		}
	}
	w, err := other.Watch(t.Context(), "/", before)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for last := before; seen < n+2; {
		events, _, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Revision <= last {
				t.Fatalf("revision %d after %d", e.Revision, last)
			}
			last = e.Revision
			seen++
		}
	}
	clean(t, etcd, "/berth/")

	// A pair that was staged can be changed and expected as any other.
	if _, err := s.Txn(t.Context(), []store.Op{{Key: "/a/00007", Value: []byte("z"), Expect: revisions[7]}}); err != nil {
		t.Error(err)
	}
	if kv, _, _ := fresh.Get(t.Context(), "/a/00007"); kv.Created != revisions[7] || string(kv.Value) != "z" {
		t.Errorf("changed pair is %q, created at %d, want %d", kv.Value, kv.Created, revisions[7])
	}
	_, err = s.Txn(t.Context(), []store.Op{{Key: "/huge", Value: make([]byte, 2<<20), Expect: store.Any}})
	if err == nil || !strings.Contains(err.Error(), "2097152 bytes") {
		t.Errorf("a value that is too large: %v", err)
	}
}

func TestALargeTransactionOfAServerThatDies(t *testing.T) {
	if url, step := os.Getenv("STORE_TEST_URL"), os.Getenv("STORE_TEST_STEP"); url != "" {
		die(t, url, step)
		return
	}
	const n = 1000
	etcd := storetest.StartEtcd(t, 1)
	steps := map[string]bool{"staged": false, "locked": false, "committed": true, "placing": true, "placed": true}
	servers := map[string]*store.Etcd{}
	for step := range steps {
		url := etcd.URL() + "/" + step
		servers[step], _ = openEtcd(t, url)
		put(t, servers[step], "/a/00003", "old")
		put(t, servers[step], "/c", "1")
		child := exec.Command(os.Args[0], "-test.run=^TestALargeTransactionOfAServerThatDies$")
		child.Env = append(os.Environ(), "STORE_TEST_URL="+url, "STORE_TEST_STEP="+step)
		out, err := child.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the child ended with %v:\n%s", err, out)
		}
	}
	for step, decided := range steps {
		t.Run(step, func(t *testing.T) {
			url := etcd.URL() + "/" + step
			s := servers[step]
			early, _ := openEtcd(t, url) // reads what is half in its place
			start := time.Now()
			put(t, s, "/c", "2")
			waited := time.Since(start)
			t.Logf("the next write waited %v", waited.Round(time.Millisecond))
			if waited > 10*time.Second {
				t.Errorf("the next write waited %v", waited)
			}
			got := allPairs(t, s, "/a/")
			if want := map[bool]int{true: n, false: 1}[decided]; len(got) != want {
				t.Fatalf("%d pairs, want %d", len(got), want)
			}
			late, _ := openEtcd(t, url)
			for _, other := range []*store.Etcd{early, late} {
				if diff := cmp.Diff(got, allPairs(t, other, "/a/")); diff != "" {
					t.Errorf("servers differ:\n%.500s", diff)
				}
			}
			if step == "staged" { // without a lock it is only in the way
				within(t, 10*time.Second, "clean", func() bool {
					_, stop := openEtcd(t, url)
					time.Sleep(200 * time.Millisecond)
					stop()
					return strings.TrimSpace(etcd.Ctl("get", "--prefix", "--keys-only", "/"+step+"/staging/")) == ""
				})
			}
			clean(t, etcd, "/"+step+"/")
		})
	}
}

// die begins a large transaction and is killed at a step of it.
func die(t *testing.T, url, step string) {
	s, _ := openEtcd(t, url)
	s.AtStep(func(now string) {
		if now == step {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	})
	ops := manyOps(1000, "/a/", "new")
	ops[3].Expect = store.Any
	if _, err := s.Txn(t.Context(), ops); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Second) // it is acknowledged before the last steps
	t.Fatal("still alive")
}
