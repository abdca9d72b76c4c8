// Package notify tells the receivers of a Source that it has failed, and that it
// has recovered. It reads Sources and the Secrets with the addresses, and writes
// nothing but Events: a receiver that is dead changes nothing.
package notify

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/event"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/live"
)

const (
	// settle is how long a state must last before it is told: what passes by
	// itself is no news.
	settle = 5 * time.Second
	// gap is the least time between two messages of one Source. Of what happens
	// in between, the last state is told.
	gap = time.Minute
	// recent failures are told at the start, for they may not have been.
	recent = time.Minute
)

// Doer sends a request. *http.Client is one.
type Doer interface {
	Do(*http.Request) (*http.Response, error)
}

// Options are what a Notifier is made of. All must be set.
type Options struct {
	Live *live.Cluster
	// Client reads Secrets and writes Events.
	Client client.Client
	HTTP   Doer
	// AllowHTTP permits receivers without TLS.
	AllowHTTP bool
	Clock     clock.Clock
	Log       *slog.Logger
}

// Notifier follows the Sources.
type Notifier struct {
	Options
	events *event.Recorder

	mu      sync.Mutex
	tellers map[string]*teller
	// fresh are tellers that wait to be started, which started says.
	fresh   []*teller
	started chan struct{}
}

// New makes a Notifier and hooks it to the view, which must not be running yet.
func New(o Options) *Notifier {
	n := &Notifier{
		Options: o,
		events:  &event.Recorder{Client: o.Client, Component: "berth-notify", Clock: o.Clock, Log: o.Log},
		tellers: map[string]*teller{}, started: make(chan struct{}, 1),
	}
	o.Live.Sources.OnChange(n.changed)
	return n
}

// Run works until the context ends.
func (n *Notifier) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for {
		select {
		case <-ctx.Done():
			return g.Wait()
		case <-n.started:
			n.mu.Lock()
			fresh := n.fresh
			n.fresh = nil
			n.mu.Unlock()
			for _, t := range fresh {
				g.Go(func() error {
					t.run(ctx)
					return nil
				})
			}
		}
	}
}

// changed never waits: the views call it.
func (n *Notifier) changed(old, now *v1alpha1.Source) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if now == nil {
		if t := n.tellers[old.Name]; t != nil {
			close(t.gone)
			delete(n.tellers, old.Name)
		}
		return
	}
	t := n.tellers[now.Name]
	if t == nil {
		if len(now.Spec.Notifications) == 0 {
			return
		}
		t = &teller{notifier: n, woken: make(chan struct{}, 1), gone: make(chan struct{}), told: known(now, n.Clock.Now())}
		n.tellers[now.Name] = t
		n.fresh = append(n.fresh, t)
		signal(n.started)
	}
	t.mu.Lock()
	t.latest = now
	t.mu.Unlock()
	signal(t.woken)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// news is what is told of a Source: the zero value says that nothing is wrong.
type news struct{ commit, reason string }

// newsOf is pure; known is false while a commit is on its way.
func newsOf(s *v1alpha1.Source) (n news, known bool) {
	c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReady)
	if c == nil || s.Suspended() {
		return news{}, false
	}
	if c.Status == metav1.ConditionTrue {
		return news{}, true
	}
	switch c.Reason {
	case v1alpha1.ReasonProgressing, v1alpha1.ReasonSuspended, v1alpha1.ReasonDependency, v1alpha1.ReasonOutsideWindow,
		v1alpha1.ReasonWave, v1alpha1.ReasonEmptyRepository:
		return news{}, false
	}
	out := news{reason: c.Reason}
	if s.Status.Observed != nil {
		out.commit = s.Status.Observed.ID
	}
	return out, true
}

// known is what is taken as told of a Source that is seen for the first time.
func known(s *v1alpha1.Source, now time.Time) news {
	n, ok := newsOf(s)
	if c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReady); !ok || now.Sub(c.LastTransitionTime.Time) < recent {
		return news{}
	}
	return n
}

// teller is the loop of one Source.
type teller struct {
	notifier *Notifier
	woken    chan struct{}
	gone     chan struct{}
	// told is what was told last; it belongs to the goroutine.
	told news

	mu     sync.Mutex
	latest *v1alpha1.Source
}

func (t *teller) source() *v1alpha1.Source {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.latest
}

func (t *teller) run(ctx context.Context) {
	now := t.notifier.Clock
	var sent time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.gone:
			return
		case <-t.woken:
		}
		if n, ok := newsOf(t.source()); !ok || n == t.told {
			continue
		}
		wait := max(settle, sent.Add(gap).Sub(now.Now()))
		select {
		case <-ctx.Done():
			return
		case <-t.gone:
			return
		case <-now.After(wait):
		}
		src := t.source()
		n, ok := newsOf(src)
		if !ok || n == t.told {
			continue
		}
		t.told, sent = n, now.Now()
		t.notifier.tell(ctx, src, n)
	}
}
