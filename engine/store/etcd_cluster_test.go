package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"berth.dev/berth/engine/store"
	"berth.dev/berth/engine/store/storetest"
)

// Two servers write to three members. One is killed and started again, then
// another. What was acknowledged is there, what was refused is not, and a watch
// on each server sees the same, once and in order.
func TestAMemberOfThreeIsKilledUnderLoad(t *testing.T) {
	etcd := storetest.StartEtcd(t, 3)
	var servers [2]*store.Etcd
	var seen [2]*follower
	for i := range servers {
		servers[i], _ = openEtcd(t, etcd.URL())
	}
	start := servers[0].Revision()
	end := make(chan struct{})
	for i, s := range servers {
		seen[i] = follow(t, s, start)
	}
	var mu sync.Mutex
	acknowledged, unknown := map[string]int64{}, map[string]bool{}
	var failed atomic.Int32
	var longest time.Duration
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-end:
					return
				default:
				}
				key := fmt.Sprintf("/w/%d/%05d", w, i)
				began := time.Now()
				revisions, err := servers[w%2].Txn(context.Background(), []store.Op{
					{Key: key, Value: []byte("x"), Expect: store.Absent},
					{Key: fmt.Sprintf("/n/%d", w), Value: []byte(key), Expect: store.Any},
				})
				mu.Lock()
				longest = max(longest, time.Since(began))
				switch {
				case err == nil:
					acknowledged[key] = revisions[0]
				case errors.Is(err, store.ErrUnknown):
					unknown[key] = true
				default:
					failed.Add(1)
					t.Logf("%s: %v", key, err)
				}
				mu.Unlock()
			}
		})
	}
	for _, member := range []int{0, 1, 2} {
		time.Sleep(1500 * time.Millisecond)
		etcd.Kill(member)
		time.Sleep(2 * time.Second)
		etcd.Start(member)
	}
	time.Sleep(2 * time.Second)
	close(end)
	wg.Wait()

	fresh, _ := openEtcd(t, etcd.URL())
	have := map[string]int64{}
	for _, kv := range allPairs(t, fresh, "/w/") {
		have[kv.Key] = kv.Revision
	}
	for key, revision := range acknowledged {
		if have[key] != revision {
			t.Errorf("%s was acknowledged at %d, there is %d", key, revision, have[key])
		}
	}
	for key := range have {
		if acknowledged[key] == 0 && !unknown[key] {
			t.Errorf("%s is there, but its write was refused", key)
		}
	}
	for i, f := range seen {
		f.stop(servers[i].Revision())
		if len(f.events) != len(have) {
			t.Errorf("server %d has seen %d writes of %d", i, len(f.events), len(have))
		}
		for key, revision := range f.events {
			if have[key] != revision {
				t.Errorf("server %d has seen %s at %d, there is %d", i, key, revision, have[key])
			}
		}
	}
	t.Logf("%d writes acknowledged, %d of unknown outcome, %d refused; the longest took %v",
		len(acknowledged), len(unknown), failed.Load(), longest.Round(time.Millisecond))
	if len(acknowledged) < 500 {
		t.Errorf("only %d writes were acknowledged", len(acknowledged))
	}
}

// follower notes what a watch reports below /w/.
type follower struct {
	t      *testing.T
	cancel context.CancelFunc
	done   chan struct{}
	until  atomic.Int64
	events map[string]int64
}

func follow(t *testing.T, s store.Store, after int64) *follower {
	t.Helper()
	w, err := s.Watch(t.Context(), "/", after)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	f := &follower{t: t, cancel: cancel, done: make(chan struct{}), events: map[string]int64{}}
	go func() {
		defer close(f.done)
		last := after
		for {
			if until := f.until.Load(); until > 0 && last >= until {
				return
			}
			wait, stop := context.WithTimeout(ctx, 100*time.Millisecond)
			events, progress, err := w.Next(wait)
			stop()
			if err != nil && !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
				t.Errorf("watch: %v", err)
				return
			}
			for _, e := range events {
				if e.Revision <= last {
					t.Errorf("revision %d after %d", e.Revision, last)
				}
				last = e.Revision
				if e.Key < "/w/" {
					continue
				}
				if f.events[e.Key] != 0 {
					t.Errorf("%s was reported twice", e.Key)
				}
				f.events[e.Key] = e.Revision
			}
			last = max(last, progress)
		}
	}()
	return f
}

// stop waits until the watch has come to a revision.
func (f *follower) stop(revision int64) {
	f.until.Store(revision)
	<-f.done
	f.cancel()
}
