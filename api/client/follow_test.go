package client_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"berth.dev/berth/api/client"
)

// scripted is a Client whose lists and watches are told what to do.
type scripted struct {
	client.Client
	list  func() error
	watch func() (watch.Interface, error)

	mu    sync.Mutex
	lists int
}

func (s *scripted) List(_ context.Context, into client.ObjectList, _ client.ListOptions) error {
	s.mu.Lock()
	s.lists++
	s.mu.Unlock()
	into.SetResourceVersion("1")
	return s.list()
}

func (s *scripted) Watch(context.Context, client.ObjectList, client.ListOptions) (watch.Interface, error) {
	return s.watch()
}

type said struct {
	mu    sync.Mutex
	words []string
}

func (s *said) say(w string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.words = append(s.words, w)
}
func (s *said) Set(o client.Object)  { s.say("set " + o.GetName() + string(o.GetUID())) }
func (s *said) Gone(o client.Object) { s.say("gone " + o.GetName() + string(o.GetUID())) }
func (s *said) Synced()              { s.say("synced") }

func follow(t *testing.T, c client.Client, f client.Follower, lasting time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lasting)
	defer cancel()
	return client.Follow(ctx, c, &corev1.PodList{}, client.ListOptions{}, f)
}

func fine() error { return nil }

func TestFollowWaitsLongerWhileWatchesFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &scripted{list: fine, watch: func() (watch.Interface, error) { return nil, errors.New("no watches today") }}
		if err := follow(t, c, &said{}, time.Minute); err != nil {
			t.Fatal(err)
		}
		// 0.1, 0.2, 0.4 … 10, 10 s: not 600 lists in a minute.
		if c.lists < 8 || c.lists > 14 {
			t.Errorf("%d lists in a minute", c.lists)
		}
	})
}

func TestFollowWaitsLongerWhileListsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &scripted{list: func() error { return errors.New("away") }}
		f := &said{}
		if err := follow(t, c, f, time.Minute); err != nil || len(f.words) > 0 {
			t.Fatal(err, f.words)
		}
		if c.lists < 8 || c.lists > 14 {
			t.Errorf("%d lists in a minute", c.lists)
		}
	})
}

func TestFollowEndsWhenItIsRefusedAtFirst(t *testing.T) {
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("no"))
	if err := follow(t, &scripted{list: func() error { return forbidden }}, &said{}, time.Minute); !apierrors.IsForbidden(err) {
		t.Errorf("%v", err)
	}
}

func TestFollowOutlivesALaterRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &scripted{watch: func() (watch.Interface, error) { return nil, errors.New("away") }}
		c.list = func() error {
			if c.lists > 1 {
				return apierrors.NewUnauthorized("the server forgot")
			}
			return nil
		}
		if err := follow(t, c, &said{}, time.Minute); err != nil {
			t.Errorf("a node would have given up: %v", err)
		}
	})
}

func TestFollowTellsAReplacementAsGoneAndSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := func(uid, version string) *corev1.Pod {
			return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: types.UID(uid), ResourceVersion: version}}
		}
		w := watch.NewFakeWithChanSize(10, false)
		w.Add(pod("-1", "2"))
		w.Modify(pod("-2", "3")) // another object, in one event
		w.Delete(pod("-9", "4"))
		w.Delete(pod("-9", "5")) // repeated after a resume
		w.Stop()
		first := true
		c := &scripted{list: fine, watch: func() (watch.Interface, error) {
			if first {
				first = false
				return w, nil
			}
			return nil, errors.New("away")
		}}
		f := &said{}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- client.Follow(ctx, c, &corev1.PodList{}, client.ListOptions{}, f) }()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, w := range f.words {
			got += w + " "
		}
		if got != "synced set p-1 gone p-1 set p-2 gone p-9 " {
			t.Errorf("it said %s", got)
		}
	})
}
