package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"berth.dev/berth/engine/store"
	"berth.dev/berth/engine/store/storetest"
)

func TestServersReadWhatTheOthersWrote(t *testing.T) {
	etcd := storetest.StartEtcd(t, 1)
	var servers [2]*store.Etcd
	for i := range servers {
		servers[i], _ = openEtcd(t, etcd.URL())
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			key := fmt.Sprintf("/k%d", g)
			for i := range 100 {
				writer, reader := servers[(g+i)%2], servers[(g+i+1)%2]
				want := fmt.Sprint(i)
				revisions, err := writer.Txn(t.Context(), []store.Op{{Key: key, Value: []byte(want), Expect: store.Any}})
				if err != nil {
					t.Error(err)
					return
				}
				kv, _, err := reader.Get(t.Context(), key)
				if err != nil || string(kv.Value) != want || kv.Revision != revisions[0] {
					t.Errorf("wrote %s at %d, read %q at %d (%v)", want, revisions[0], kv.Value, kv.Revision, err)
				}
				if _, err := reader.Watch(t.Context(), "/", revisions[0]); err != nil {
					t.Errorf("go on elsewhere: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

func TestEtcdStopsAndComesBack(t *testing.T) {
	etcd := storetest.StartEtcd(t, 1)
	s, _ := openEtcd(t, etcd.URL())
	from := put(t, s, "/a", "1")
	w, err := s.Watch(t.Context(), "/", from)
	if err != nil {
		t.Fatal(err)
	}
	etcd.Kill(0)
	start := time.Now()
	_, _, err = s.Get(t.Context(), "/a")
	if !errors.Is(err, store.ErrUnavailable) || time.Since(start) > 10*time.Second {
		t.Errorf("a read without etcd: %v after %v", err, time.Since(start))
	}
	t.Logf("a read says: %v", err)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	_, err = s.Txn(ctx, []store.Op{{Key: "/b", Value: []byte("x"), Expect: store.Any}})
	cancel()
	if err == nil {
		t.Error("a write without etcd was acknowledged")
	}
	t.Logf("a write says: %v", err)
	etcd.Start(0)
	within(t, 15*time.Second, "written again", func() bool {
		_, err := s.Txn(t.Context(), []store.Op{{Key: "/a", Value: []byte("2"), Expect: from}})
		return err == nil
	})
	limited, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	events, _, err := w.Next(limited)
	if err != nil || string(events[len(events)-1].Value) != "2" {
		t.Errorf("the watch goes on with %v, %v", events, err)
	}
}

func TestAGapInTheHistoryEndsWatches(t *testing.T) {
	etcd := storetest.StartEtcd(t, 1)
	link := newLink(t, strings.TrimPrefix(etcd.URL(), "etcd://"))
	s, _ := openEtcd(t, "etcd://"+link.address())
	other, _ := openEtcd(t, etcd.URL())
	from := put(t, s, "/a", "1")
	quiet, err := s.Watch(t.Context(), "/", from)
	if err != nil {
		t.Fatal(err)
	}

	link.cut()
	last := from
	for i := range 5 {
		last = put(t, other, "/a", fmt.Sprint(i))
	}
	etcd.Ctl("compact", fmt.Sprint(last>>17))
	link.mend()
	within(t, 15*time.Second, "readable again", func() bool {
		kv, _, err := s.Get(t.Context(), "/a")
		return err == nil && string(kv.Value) == "4" && kv.Revision == last
	})
	if _, _, err := quiet.Next(t.Context()); !errors.Is(err, store.ErrExpired) {
		t.Errorf("a watch over the gap: %v, want ErrExpired", err)
	}
	w, err := s.Watch(t.Context(), "/", s.Revision())
	if err != nil {
		t.Fatal(err)
	}
	put(t, other, "/a", "new")
	if events, _, err := w.Next(t.Context()); err != nil || string(events[0].Value) != "new" {
		t.Errorf("a new watch: %v, %v", events, err)
	}
}

func TestAddressesOfEtcd(t *testing.T) {
	for url, want := range map[string]string{
		"bolt:///x":              "say etcd://HOST:2379",
		"etcd://":                "is not an address",
		"etcd://h:1,":            "is not an address",
		"etcds://127.0.0.1:1/x":  "--store-ca",
		"etcd://127.0.0.1:1/tls": "--store-ca",
	} {
		_, err := store.OpenEtcd(t.Context(), store.EtcdOptions{Address: store.EtcdAddress{URL: url, CA: "/nowhere"}, Log: testLog(t)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
	}
}

func TestOtherMachinesNeedTLS(t *testing.T) {
	address := store.EtcdAddress{URL: "etcd://192.0.2.1:2379"}
	_, err := store.OpenEtcd(t.Context(), store.EtcdOptions{Address: address, Log: testLog(t)})
	if err == nil || !strings.Contains(err.Error(), "--store-plain") {
		t.Errorf("without TLS: %v, want a sentence that names --store-plain", err)
	}
}

// link is a TCP connection to etcd that can be cut.
type link struct {
	t        *testing.T
	to       string
	listener net.Listener

	mu    sync.Mutex
	whole bool
	open  []net.Conn
}

func newLink(t *testing.T, to string) *link {
	l := &link{t: t, to: to, whole: true}
	var err error
	if l.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { l.carry(c) })
		}
	})
	t.Cleanup(func() { l.listener.Close(); l.cut(); wg.Wait() })
	return l
}

func (l *link) address() string { return l.listener.Addr().String() }

func (l *link) carry(c net.Conn) {
	defer c.Close()
	far, err := net.Dial("tcp", l.to)
	if err != nil {
		return
	}
	defer far.Close()
	l.mu.Lock()
	ok := l.whole
	l.open = append(l.open, c, far)
	l.mu.Unlock()
	if !ok {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(far, c); far.Close() })
	wg.Go(func() { io.Copy(c, far); c.Close() })
	wg.Wait()
}

func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.whole = false
	for _, c := range l.open {
		c.Close()
	}
	l.open = nil
}

func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.whole = true
}
