package store_test

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"berth.dev/berth/engine/store"
	"berth.dev/berth/engine/store/storetest"
)

func TestEtcdContract(t *testing.T) {
	etcd := storetest.StartEtcd(t, 1)
	var n atomic.Int32
	storetest.Run(t, func(t *testing.T) store.Store {
		s, _ := openEtcd(t, fmt.Sprintf("%s/contract-%d", etcd.URL(), n.Add(1)))
		return s
	})
}

// openEtcd opens and runs a store; the function it returns stops it and waits.
func openEtcd(t *testing.T, url string) (*store.Etcd, func()) {
	t.Helper()
	s, err := store.OpenEtcd(t.Context(), store.EtcdOptions{Address: store.EtcdAddress{URL: url}, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	return s, run(t, s)
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// put writes one pair, whatever is there.
func put(t *testing.T, s store.Store, key, value string) int64 {
	t.Helper()
	revisions, err := s.Txn(t.Context(), []store.Op{{Key: key, Value: []byte(value), Expect: store.Any}})
	if err != nil {
		t.Fatal(err)
	}
	return revisions[0]
}

func within(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v: not %s", d, what)
		}
	}
}
