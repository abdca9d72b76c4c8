package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"berth.dev/berth/engine/store"
	"berth.dev/berth/engine/store/storetest"
)

// secure is the address of an etcd with TLS.
func secure(etcd *storetest.Etcd, c storetest.Certs) store.EtcdAddress {
	return store.EtcdAddress{URL: etcd.URL(), CA: c.CA, Cert: c.Cert, Key: c.Key}
}

func openFails(t *testing.T, a store.EtcdAddress) error {
	t.Helper()
	began := time.Now()
	_, err := store.OpenEtcd(t.Context(), store.EtcdOptions{Address: a, Log: testLog(t)})
	if err == nil {
		t.Fatal("it was opened")
	}
	t.Logf("after %v: %v", time.Since(began).Round(time.Millisecond), err)
	return err
}

func says(t *testing.T, err error, words ...string) {
	t.Helper()
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%v; it should say %q", err, w)
		}
	}
}

func TestAnotherAuthorityIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	certs, others := storetest.MakeCerts(t, "berth"), storetest.MakeCerts(t, "berth")
	etcd := storetest.StartSecureEtcd(t, certs, 1)
	address := secure(etcd, certs)
	address.CA = others.CA
	says(t, openFails(t, address), "its certificate is not one to trust by --store-ca "+others.CA, "signed by unknown authority")
}

func TestEtcdWithUsers(t *testing.T) {
	t.Parallel()
	certs := storetest.MakeCerts(t, "berth")
	etcd := storetest.StartSecureEtcd(t, certs, 1)
	for _, line := range []string{
		"user add root --new-user-password=x", "user grant-role root root",
		"user add berth --no-password", "role add berth", "user grant-role berth berth", "auth enable",
	} {
		etcd.Ctl(strings.Fields(line)...)
	}
	says(t, openFails(t, secure(etcd, certs)), "permission denied", "below /berth/", "--store-cert and --store-key")
	etcd.Ctl("--user", "root:x", "role", "grant-permission", "berth", "readwrite", "/berth/", "--prefix")
	s, err := store.OpenEtcd(t.Context(), store.EtcdOptions{Address: secure(etcd, certs), Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	put(t, s, "/a", "1")
}

func TestEtcdWithUsersWantsACertificate(t *testing.T) {
	t.Parallel()
	etcd := storetest.StartEtcd(t, 1)
	for _, line := range []string{"user add root --new-user-password=x", "user grant-role root root", "auth enable"} {
		etcd.Ctl(strings.Fields(line)...)
	}
	says(t, openFails(t, store.EtcdAddress{URL: etcd.URL()}), "user name is empty", "--store-cert and --store-key")
}

func TestEtcdThatIsFull(t *testing.T) {
	t.Parallel()
	etcd := storetest.StartEtcd(t, 1, "--quota-backend-bytes", fmt.Sprint(8<<20))
	var log bytes.Buffer
	s, err := store.OpenEtcd(t.Context(), store.EtcdOptions{Address: store.EtcdAddress{URL: etcd.URL()}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	big := []store.Op{{Key: "/big", Value: make([]byte, 1<<20), Expect: store.Any}}
	for range 50 {
		if _, err = s.Txn(t.Context(), big); err != nil {
			break
		}
	}
	says(t, err, "full (alarm NOSPACE), nothing was changed", "etcdctl defrag", "etcdctl alarm disarm")
	if !errors.Is(err, store.ErrUnavailable) {
		t.Error("a client is not told to come again")
	}
	says(t, errors.New(s.Trouble()), "alarm NOSPACE")
	if _, _, err := s.Get(t.Context(), "/big"); err != nil {
		t.Errorf("a read: %v", err)
	}
	etcd.Ctl("compact", fmt.Sprint(s.Revision()>>17))
	etcd.Ctl("defrag")
	etcd.Ctl("alarm", "disarm")
	put(t, s, "/small", "1")
	if s.Trouble() != "" {
		t.Errorf("afterwards: %s", s.Trouble())
	}
	if n := strings.Count(log.String(), "nothing can be written"); n != 1 {
		t.Errorf("the log says it %d times:\n%s", n, log.String())
	}
}

func TestEtcdLosesItsQuorum(t *testing.T) {
	t.Parallel()
	etcd := storetest.StartEtcd(t, 3)
	s, _ := openEtcd(t, etcd.URL())
	at := put(t, s, "/a", "1")
	etcd.Kill(1)
	etcd.Kill(2)
	limited, cancel := context.WithTimeout(t.Context(), 10*time.Second) // longer than a call is patient
	defer cancel()
	if _, err := s.Txn(limited, []store.Op{{Key: "/a", Value: []byte("2"), Expect: at}}); err == nil {
		t.Error("a write without quorum was acknowledged")
	}
	began := time.Now()
	_, err := s.Txn(t.Context(), []store.Op{{Key: "/b", Value: []byte("2"), Expect: store.Any}})
	took := time.Since(began)
	t.Logf("after %v: %v", took.Round(time.Millisecond), err)
	says(t, err, "the store has no quorum: only 1 of the 3 members of etcd can be reached")
	if !errors.Is(err, store.ErrUnavailable) || took > 10*time.Second {
		t.Errorf("a later write: %v after %v", err, took)
	}
	if kv, _, err := s.Get(store.AnyAge(t.Context()), "/a"); err != nil || string(kv.Value) != "1" {
		t.Errorf("what is in memory: %s, %v", kv.Value, err)
	}
	etcd.Start(1)
	within(t, 20*time.Second, "written again", func() bool {
		_, err := s.Txn(t.Context(), []store.Op{{Key: "/c", Value: []byte("3"), Expect: store.Any}})
		return err == nil
	})
	within(t, 5*time.Second, "well", func() bool { return s.Trouble() == "" })
	if kv, ok, err := s.Get(t.Context(), "/b"); ok || err != nil {
		t.Errorf("what was refused is there: %s, %v", kv.Value, err)
	}
}
