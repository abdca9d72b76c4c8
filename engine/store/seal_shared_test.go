package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"berth.dev/berth/engine/store"
	"berth.dev/berth/engine/store/storetest"
)

func TestOneOfTwoFirstServersMakesTheKey(t *testing.T) {
	etcd := storetest.StartEtcd(t, 1)
	for round := range 5 {
		url := fmt.Sprintf("%s/race-%d", etcd.URL(), round)
		var errs [2]error
		var files [2]string
		var wg sync.WaitGroup
		for i := range errs {
			s, _ := openEtcd(t, url)
			files[i] = filepath.Join(t.TempDir(), "secrets.key")
			wg.Go(func() { _, errs[i] = store.SealShared(t.Context(), s, files[i], "/core/secrets/") })
		}
		wg.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("both or none has made it: %v, %v", errs[0], errs[1])
		}
		for i, err := range errs {
			_, missing := os.Stat(files[i])
			if err == nil && missing != nil {
				t.Errorf("it has made the key, but %v", missing)
			}
			if err != nil {
				says(t, err, "copy it from one of them")
				if missing == nil {
					t.Error("who was second keeps a key that is good for nothing")
				}
			}
		}
	}
}

func TestAServerThatMissedARotationSealsNothing(t *testing.T) {
	etcd := storetest.StartEtcd(t, 1)
	var sealed [2]*store.Sealed
	var files [2]string
	for i := range sealed {
		s, _ := openEtcd(t, etcd.URL())
		files[i] = filepath.Join(t.TempDir(), "secrets.key")
		if i == 1 {
			copyFile(t, files[0], files[1])
		}
		var err error
		if sealed[i], err = store.SealShared(t.Context(), s, files[i], "/core/secrets/"); err != nil {
			t.Fatal(err)
		}
	}
	put(t, sealed[0], "/core/secrets/a", "1")
	put(t, sealed[1], "/core/secrets/b", "2")
	if n, err := sealed[0].Rotate(t.Context()); n != 2 || err != nil {
		t.Fatalf("sealed %d anew, %v", n, err)
	}
	_, err := sealed[1].Txn(t.Context(), []store.Op{{Key: "/core/secrets/c", Value: []byte("3"), Expect: store.Any}})
	if !errors.Is(err, store.ErrOtherKey) {
		t.Errorf("sealed with a key that was dropped: %v", err)
	}
	put(t, sealed[1], "/plain", "is written as ever")
	put(t, sealed[0], "/core/secrets/c", "3")

	s, _ := openEtcd(t, etcd.URL())
	if _, err := store.SealShared(t.Context(), s, files[1], "/core/secrets/"); err == nil {
		t.Error("the old file is taken")
	}
	copyFile(t, files[0], files[1])
	again, err := store.SealShared(t.Context(), s, files[1], "/core/secrets/")
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"a": "1", "b": "2", "c": "3"} {
		kv, _, err := again.Get(t.Context(), "/core/secrets/"+key)
		if err != nil || string(kv.Value) != want {
			t.Errorf("%s: %s, %v", key, kv.Value, err)
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestRestoreIntoEtcd: a backup of a file, with a key of its own, replaces what is
// in etcd while another server writes.
func TestRestoreIntoEtcd(t *testing.T) {
	bolt, _ := open(t, filepath.Join(t.TempDir(), "store.db"))
	keys := filepath.Join(t.TempDir(), "secrets.key")
	saved, err := store.Seal(t.Context(), bolt, keys, "/core/secrets/")
	if err != nil {
		t.Fatal(err)
	}
	for n := range 500 {
		put(t, saved, fmt.Sprintf("/k/%03d", n), "saved")
	}
	put(t, saved, "/core/secrets/a", "secret")
	var backup bytes.Buffer
	if _, err := store.WriteBackup(t.Context(), saved, &backup, "v0", time.Now()); err != nil {
		t.Fatal(err)
	}

	etcd := storetest.StartEtcd(t, 1)
	s, _ := openEtcd(t, etcd.URL())
	other, _ := openEtcd(t, etcd.URL())
	sealed, err := store.SealShared(t.Context(), s, filepath.Join(t.TempDir(), "secrets.key"), "/core/secrets/")
	if err != nil {
		t.Fatal(err)
	}
	term := put(t, s, "/election/x", "me")
	for n := range 50 {
		put(t, s, fmt.Sprintf("/gone/%d", n), "x")
	}
	b, err := store.ReadBackup(bytes.NewReader(backup.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sealed.Restore(t.Context(), b, nil); err == nil {
		t.Fatal("restored without the key")
	}
	key, err := os.ReadFile(keys)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				_, _ = other.Txn(t.Context(), []store.Op{{Key: fmt.Sprintf("/gone/later-%d", n), Value: []byte("x"), Expect: store.Any}})
			}
		}
	})
	did, err := sealed.Restore(t.Context(), b, key)
	close(stop)
	wg.Wait()
	if err != nil || did.Written != 501 || did.Deleted < 50 {
		t.Fatalf("%+v, %v", did, err)
	}
	page, err := other.List(t.Context(), store.ListRequest{Prefix: "/k/"})
	if err != nil || len(page.KVs) != 500 {
		t.Errorf("the other server has %d (%v)", len(page.KVs), err)
	}
	if kv, _, err := sealed.Get(t.Context(), "/core/secrets/a"); err != nil || string(kv.Value) != "secret" {
		t.Errorf("the Secret: %s, %v", kv.Value, err)
	}
	if kv, _, _ := s.Get(t.Context(), "/election/x"); kv.Revision != term {
		t.Error("who leads was replaced too")
	}
}
