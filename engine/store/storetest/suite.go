// Package storetest is the contract that every Store passes.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth.dev/berth/engine/store"
)

// Run tests the stores that open makes: a new, empty one each time.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for name, test := range map[string]func(*testing.T, store.Store){
		"put, get, delete": putGetDelete,
		"a transaction holds as a whole or not at all":          txnAllOrNothing,
		"a check compares and changes nothing":                  checkOnly,
		"list is sorted and paged at one revision":              listPages,
		"list reads the past":                                   listPast,
		"watch resumes without loss or repetition":              watchResumes,
		"watch sees only its prefix":                            watchPrefix,
		"an old revision has expired":                           expired,
		"writers with preconditions never lose an update":       contention,
		"a watcher that never sleeps misses nothing under load": watchUnderLoad,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func putGetDelete(t *testing.T, s store.Store) {
	ctx := t.Context()
	first := put(t, s, "/a", "1", store.Absent)
	second := put(t, s, "/a", "2", first)
	got, ok, err := s.Get(ctx, "/a")
	want := store.KV{Key: "/a", Value: []byte("2"), Created: first, Revision: second}
	if diff := cmp.Diff(want, got); err != nil || !ok || diff != "" {
		t.Fatalf("Get: %v %v (-want +got):\n%s", ok, err, diff)
	}
	if _, err := s.Txn(ctx, []store.Op{{Key: "/a", Expect: second}}); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.Get(ctx, "/a"); ok || err != nil {
		t.Fatalf("after delete: exists %v, %v", ok, err)
	}
	again := put(t, s, "/a", "3", store.Absent)
	if got, _, _ := s.Get(ctx, "/a"); got.Created != again {
		t.Errorf("created anew at %d, store says %d", again, got.Created)
	}
}

func txnAllOrNothing(t *testing.T, s store.Store) {
	ctx := t.Context()
	at := put(t, s, "/a", "1", store.Absent)
	before := s.Revision()
	_, err := s.Txn(ctx, []store.Op{
		{Key: "/b", Value: []byte("x"), Expect: store.Absent},
		{Key: "/a", Value: []byte("2"), Expect: at + 1000},
	})
	var conflict *store.ConflictError
	if !errors.As(err, &conflict) || conflict.Key != "/a" || conflict.Have != at {
		t.Fatalf("got %v, want a conflict on /a at %d", err, at)
	}
	if _, ok, _ := s.Get(ctx, "/b"); ok || s.Revision() != before {
		t.Errorf("a refused transaction left something: /b exists %v, revision %d, was %d", ok, s.Revision(), before)
	}
	revisions, err := s.Txn(ctx, []store.Op{
		{Key: "/b", Value: []byte("x"), Expect: store.Absent},
		{Key: "/a", Value: []byte("2"), Expect: at},
	})
	if err != nil || len(revisions) != 2 || revisions[1] != revisions[0]+1 {
		t.Fatalf("got revisions %v, %v; want two, consecutive", revisions, err)
	}
}

func checkOnly(t *testing.T, s store.Store) {
	ctx := t.Context()
	term := put(t, s, "/term", "1", store.Absent)
	guarded := func(expect int64) error {
		revisions, err := s.Txn(ctx, []store.Op{
			{Key: "/a", Value: []byte("x"), Expect: store.Any},
			{Key: "/term", Check: true, Expect: expect},
			{Key: "/none", Check: true, Expect: store.Absent},
		})
		if err == nil && (len(revisions) != 3 || revisions[1] != expect || revisions[2] != store.Absent) {
			t.Errorf("revisions %v, want those of the checks to be what they expect", revisions)
		}
		return err
	}
	if err := guarded(term); err != nil {
		t.Fatal(err)
	}
	if kv, ok, err := s.Get(ctx, "/term"); err != nil || !ok || kv.Revision != term || string(kv.Value) != "1" {
		t.Fatalf("after a check: %q at %d, exists %v, %v", kv.Value, kv.Revision, ok, err)
	}
	before, _, _ := s.Get(ctx, "/a")
	if revisions, err := s.Txn(ctx, []store.Op{{Key: "/term", Check: true, Expect: term}}); err != nil || revisions[0] != term {
		t.Errorf("a check alone: %v, %v", revisions, err)
	}
	put(t, s, "/term", "2", term)
	var conflict *store.ConflictError
	if err := guarded(term); !errors.As(err, &conflict) || conflict.Key != "/term" {
		t.Errorf("a check of a former revision: %v, want a conflict", err)
	}
	if kv, _, _ := s.Get(ctx, "/a"); kv.Revision != before.Revision {
		t.Error("a transaction whose check fails changed something")
	}
}

func listPages(t *testing.T, s store.Store) {
	ctx := t.Context()
	for _, k := range []string{"/p/c", "/p/a", "/q/z", "/p/d", "/p/b"} {
		put(t, s, k, k, store.Absent)
	}
	first := list(t, s, store.ListRequest{Prefix: "/p/", Limit: 2})
	if diff := cmp.Diff([]string{"/p/a", "/p/b"}, keys(first)); diff != "" {
		t.Fatal(diff)
	}
	// Changes between two pages must not be seen.
	put(t, s, "/p/bb", "new", store.Absent)
	put(t, s, "/p/c", "changed", store.Any)
	if _, err := s.Txn(ctx, []store.Op{{Key: "/p/d", Expect: store.Any}}); err != nil {
		t.Fatal(err)
	}
	rest := list(t, s, store.ListRequest{Prefix: "/p/", From: first.Next, At: first.Revision})
	if diff := cmp.Diff([]string{"/p/c", "/p/d"}, keys(rest)); diff != "" {
		t.Fatal(diff)
	}
	if string(rest.KVs[0].Value) != "/p/c" || rest.Next != "" || rest.Revision != first.Revision {
		t.Errorf("second page is %q at %d, next %q", rest.KVs[0].Value, rest.Revision, rest.Next)
	}
}

func listPast(t *testing.T, s store.Store) {
	put(t, s, "/p/a", "1", store.Absent)
	at := put(t, s, "/p/b", "1", store.Absent)
	put(t, s, "/p/a", "2", store.Any)
	put(t, s, "/p/a", "3", store.Any)
	got := list(t, s, store.ListRequest{Prefix: "/p/", At: at})
	if len(got.KVs) != 2 || string(got.KVs[0].Value) != "1" {
		t.Errorf("at %d: %v", at, got.KVs)
	}
	if _, err := s.List(t.Context(), store.ListRequest{Prefix: "/p/", At: s.Revision() + 100}); err == nil {
		t.Error("a revision of the future was read")
	}
}

func watchResumes(t *testing.T, s store.Store) {
	ctx := t.Context()
	start := s.Revision()
	if _, err := s.Txn(ctx, []store.Op{
		{Key: "/a", Value: []byte("1"), Expect: store.Any},
		{Key: "/b", Value: []byte("1"), Expect: store.Any},
		{Key: "/a", Value: []byte("2"), Expect: store.Any},
		{Key: "/b", Expect: store.Any},
	}); err != nil {
		t.Fatal(err)
	}
	all := take(t, s, "/", start, 4)
	for i := range all {
		rest := take(t, s, "/", all[i].Revision, len(all)-i-1)
		if diff := cmp.Diff(all[i+1:], rest); diff != "" && len(rest) > 0 {
			t.Errorf("resumed after event %d (-want +got):\n%s", i, diff)
		}
	}
	if last := all[3]; !last.Deleted() || string(last.Previous.Value) != "1" {
		t.Errorf("deletion is %+v", last)
	}
}

func watchPrefix(t *testing.T, s store.Store) {
	start := s.Revision()
	put(t, s, "/a/1", "x", store.Any)
	put(t, s, "/b/1", "x", store.Any)
	put(t, s, "/a/2", "x", store.Any)
	events := take(t, s, "/a/", start, 2)
	if events[0].Key != "/a/1" || events[1].Key != "/a/2" {
		t.Errorf("got %v", events)
	}
}

func expired(t *testing.T, s store.Store) {
	start := s.Revision()
	value := strings.Repeat("x", 1<<20)
	for i := range 40 {
		put(t, s, fmt.Sprintf("/big/%d", i%2), value, store.Any)
	}
	if _, err := s.Watch(t.Context(), "/", start); !errors.Is(err, store.ErrExpired) {
		t.Errorf("watch from %d: %v, want ErrExpired", start, err)
	}
	if _, err := s.List(t.Context(), store.ListRequest{Prefix: "/", At: start + 1}); !errors.Is(err, store.ErrExpired) {
		t.Errorf("list at %d: %v, want ErrExpired", start+1, err)
	}
}

func contention(t *testing.T, s store.Store) {
	ctx := t.Context()
	put(t, s, "/n", "", store.Absent)
	var wg sync.WaitGroup
	const writers, each = 8, 20
	for range writers {
		wg.Go(func() {
			for done := 0; done < each; {
				kv, _, _ := s.Get(ctx, "/n")
				_, err := s.Txn(ctx, []store.Op{{Key: "/n", Value: append([]byte("x"), kv.Value...), Expect: kv.Revision}})
				if err == nil {
					done++
				}
			}
		})
	}
	wg.Wait()
	if kv, _, _ := s.Get(ctx, "/n"); len(kv.Value) != writers*each {
		t.Errorf("%d updates of %d are there", len(kv.Value), writers*each)
	}
}

func watchUnderLoad(t *testing.T, s store.Store) {
	const total = 600
	start := s.Revision()
	go func() {
		for i := range total {
			key := fmt.Sprintf("/w/%d", i%7)
			s.Txn(context.WithoutCancel(t.Context()), []store.Op{{Key: key, Value: []byte(fmt.Sprint(i)), Expect: store.Any}})
		}
	}()
	events := take(t, s, "/w/", start, total)
	for i, e := range events {
		if string(e.Value) != fmt.Sprint(i) {
			t.Fatalf("event %d is write %s", i, e.Value)
		}
	}
}

func put(t *testing.T, s store.Store, key, value string, expect int64) int64 {
	t.Helper()
	revisions, err := s.Txn(t.Context(), []store.Op{{Key: key, Value: []byte(value), Expect: expect}})
	if err != nil {
		t.Fatal(err)
	}
	return revisions[0]
}

func list(t *testing.T, s store.Store, r store.ListRequest) store.Page {
	t.Helper()
	page, err := s.List(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

func keys(p store.Page) []string {
	var out []string
	for _, kv := range p.KVs {
		out = append(out, kv.Key)
	}
	return out
}

// take reads n events after a revision.
func take(t *testing.T, s store.Store, prefix string, after int64, n int) []store.Event {
	t.Helper()
	w, err := s.Watch(t.Context(), prefix, after)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out []store.Event
	for len(out) < n {
		events, _, err := w.Next(ctx)
		if err != nil {
			t.Fatalf("after %d of %d events: %v", len(out), n, err)
		}
		out = append(out, events...)
	}
	if len(out) != n {
		t.Fatalf("%d events, want %d", len(out), n)
	}
	return out
}
