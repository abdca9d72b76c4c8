package election_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/upstream"
	"berth.dev/berth/engine/election"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/resources"
	"berth.dev/berth/engine/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a store and the servers that take part.
type world struct {
	t     *testing.T
	store *store.Bolt
	up    *upstream.Upstream

	mu      sync.Mutex
	leading map[string]store.Store
	changes []change
}

// change is a beginning or an end of leading.
type change struct {
	server string
	begins bool
	at     time.Time
}

// inBubble runs a test in which time only passes while everything waits.
func inBubble(t *testing.T, test func(t *testing.T, w *world)) {
	up, err := upstream.New()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "store.db")
	synctest.Test(t, func(t *testing.T) {
		s, err := store.OpenBolt(path)
		if err != nil {
			t.Fatal(err)
		}
		enginetest.Go(t, s.Run)
		w := &world{t: t, store: s, up: up, leading: map[string]store.Store{}}
		if err := w.resources(s).Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: election.Namespace}}); err != nil {
			t.Fatal(err)
		}
		test(t, w)
	})
}

func (w *world) resources(s store.Store) *resources.Resources {
	return resources.New(resources.Options{Store: s, Upstream: w.up, Clock: clock.RealClock{}, ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16")})
}

// server takes part until the function that it returns is called.
func (w *world) server(name string, s store.Store) (stop func()) {
	e := election.New(election.Options{Store: s, Client: w.resources(s), Identity: name, Log: enginetest.Log(w.t)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := e.Run(ctx, func(ctx context.Context, fenced store.Store) error {
			w.note(name, true, fenced)
			<-ctx.Done()
			w.note(name, false, nil)
			return nil
		})
		if err != nil {
			w.t.Error(err)
		}
	}()
	stop = func() { cancel(); <-done }
	w.t.Cleanup(stop)
	return stop
}

func (w *world) note(server string, begins bool, fenced store.Store) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changes = append(w.changes, change{server, begins, time.Now()})
	if begins {
		w.leading[server] = fenced
	}
	n := 0
	for _, c := range w.changes {
		if c.begins {
			n++
		} else {
			n--
		}
	}
	if n > 1 {
		w.t.Errorf("%d servers lead at once: %v", n, w.changes)
	}
}

func (w *world) history() []change {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.changes)
}

// fenced is the store that a server was given when it was elected.
func (w *world) fenced(server string) store.Store {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.leading[server]
}

func (w *world) leader() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.changes); n > 0 && w.changes[n-1].begins {
		return w.changes[n-1].server
	}
	return ""
}

// gate is a store that a server is cut off from, or whose answers are late.
type gate struct {
	store.Store
	mu     sync.Mutex
	closed bool
	// hangs: calls wait for their context rather than fail at once.
	hangs bool
}

var errCut = errors.New("cut off")

func (g *gate) shut(closed bool) { g.mu.Lock(); defer g.mu.Unlock(); g.closed = closed }

func (g *gate) pass(ctx context.Context) error {
	g.mu.Lock()
	closed := g.closed
	g.mu.Unlock()
	if closed && g.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	if closed {
		return errCut
	}
	return nil
}

func (g *gate) Get(ctx context.Context, key string) (store.KV, bool, error) {
	if err := g.pass(ctx); err != nil {
		return store.KV{}, false, err
	}
	return g.Store.Get(ctx, key)
}

func (g *gate) Txn(ctx context.Context, ops []store.Op) ([]int64, error) {
	if err := g.pass(ctx); err != nil {
		return nil, err
	}
	return g.Store.Txn(ctx, ops)
}

func TestOneLeadsAndHandsOverWhenItEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		stop := map[string]func(){}
		for i := range 3 {
			name := fmt.Sprintf("s%d", i)
			stop[name] = w.server(name, w.store)
		}
		time.Sleep(time.Minute)
		first := w.leader()
		if changes := w.history(); first == "" || len(changes) != 1 {
			t.Fatalf("after a minute: %v", changes)
		}
		var lease coordinationv1.Lease
		key := types.NamespacedName{Namespace: election.Namespace, Name: election.Name}
		if err := w.resources(w.store).Get(t.Context(), key, &lease); err != nil || *lease.Spec.HolderIdentity != first {
			t.Errorf("the Lease is held by %v (%v), %s leads", lease.Spec.HolderIdentity, err, first)
		}
		end := time.Now()
		stop[first]()
		time.Sleep(2 * time.Second)
		if second := w.leader(); second == "" || second == first {
			t.Errorf("%v after the leader ended, %q leads", time.Since(end), second)
		}
	})
}

func TestALeaderThatIsCutOffStopsBeforeTheNextBegins(t *testing.T) {
	for name, hangs := range map[string]bool{"its calls fail": false, "its calls hang": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				cut := &gate{Store: w.store, hangs: hangs}
				w.server("old", cut)
				time.Sleep(5 * time.Second)
				w.server("new", w.store)
				time.Sleep(20*time.Second + 700*time.Millisecond)
				if w.leader() != "old" {
					t.Fatalf("%q leads, want old", w.leader())
				}
				at := time.Now()
				cut.shut(true)
				time.Sleep(15 * time.Second)
				if w.leader() != "new" {
					t.Fatalf("15s after the cut %q leads: %v", w.leader(), w.history())
				}
				stopped, began := w.history()[1], w.history()[2]
				t.Logf("the old one stopped after %v, the new one began after %v", stopped.at.Sub(at), began.at.Sub(at))
				if !stopped.at.Before(began.at) {
					t.Error("the new leader began before the old one had stopped")
				}

				// What the old one sent before and what it still sends changes nothing.
				cut.shut(false)
				op := []store.Op{{Key: "/pods/x", Value: []byte("1"), Expect: store.Absent}}
				if _, err := w.fenced("old").Txn(t.Context(), op); !errors.Is(err, store.ErrFenced) {
					t.Errorf("a write of the old leader: %v, want ErrFenced", err)
				}
				if _, err := w.fenced("new").Txn(t.Context(), op); err != nil {
					t.Errorf("a write of the new leader: %v", err)
				}
			})
		})
	}
}

func TestALeaderGoesOnWhenItsStoreComesBackInTime(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cut := &gate{Store: w.store}
		w.server("a", cut)
		time.Sleep(5 * time.Second)
		w.server("b", w.store)
		time.Sleep(5 * time.Second)
		for range 5 {
			cut.shut(true)
			time.Sleep(2 * time.Second)
			cut.shut(false)
			time.Sleep(4 * time.Second)
		}
		if changes := w.history(); len(changes) != 1 {
			t.Errorf("short cuts ended the lead: %v", changes)
		}
	})
}
