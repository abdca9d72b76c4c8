// Package election has one of several servers lead at a time. Who leads stands in
// a Lease, which the leader renews, and in a key of the store, which changes only
// when the leader does: the leader's writes compare that key, so those of one that
// was deposed fail, whenever they arrive. It owns both and nothing else.
package election

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/store"
)

// The Lease that says who leads.
const (
	Namespace = "kube-system"
	Name      = "berth-engine"
)

// termKey is the key of the store that changes with the leader.
const termKey = "/election/" + Name

// A leader that cannot renew its lease stops after lead. Others take the lease
// once they have seen it unchanged for life, which began later and is longer: so
// the one has stopped before the next begins.
const (
	life  = 8 * time.Second
	lead  = 6 * time.Second
	renew = 2 * time.Second
	poll  = time.Second
	// release bounds the hand-over of a leader that ends.
	release = time.Second
)

// Options are what an Elector is made of. All must be set.
type Options struct {
	Store store.Store
	// Client reads and writes the Lease in the Store.
	Client client.Client
	// Identity of this server, another one at each start.
	Identity string
	Log      *slog.Logger
}

// Elector takes part in the election.
type Elector struct {
	Options
	// seen is the version of the Lease when it was last seen to change, at when.
	seen string
	at   time.Time
}

// New makes an Elector.
func New(o Options) *Elector { return &Elector{Options: o} }

// Run takes part until the context ends. Whenever this server is elected it
// calls work with a context that ends when it no longer leads, and with a store
// whose writes fail from then on. An error of work ends the election.
func (e *Elector) Run(ctx context.Context, work func(ctx context.Context, fenced store.Store) error) error {
	for ctx.Err() == nil {
		t, err := e.campaign(ctx)
		if err != nil {
			e.Log.Debug("election", "err", err)
		}
		if t == nil {
			pause(ctx, poll)
			continue
		}
		e.Log.Info("this server leads", "identity", e.Identity)
		if err := e.hold(ctx, t, work); err != nil {
			return err
		}
		if ctx.Err() == nil {
			e.Log.Warn("this server no longer leads", "identity", e.Identity)
		}
	}
	return nil
}

// term is one time of leading.
type term struct {
	lease *coordinationv1.Lease
	// revision of the term's key.
	revision int64
	// until is when to stop without another renewal.
	until time.Time
}

// campaign tries to be elected, once. It returns nil when another server leads.
func (e *Elector) campaign(ctx context.Context) (*term, error) {
	ctx, cancel := context.WithTimeout(ctx, lead)
	defer cancel()
	// Before the Lease: if another one is elected in between, the key has changed.
	key, _, err := e.Store.Get(ctx, termKey)
	if err != nil {
		return nil, err
	}
	lease, err := e.read(ctx)
	if err != nil || !e.free(lease) {
		return nil, err
	}
	start := time.Now()
	if err := e.take(ctx, lease); err != nil {
		return nil, err
	}
	revisions, err := e.Store.Txn(ctx, []store.Op{{Key: termKey, Value: []byte(e.Identity), Expect: key.Revision}})
	if err != nil {
		return nil, err
	}
	return &term{lease: lease, revision: revisions[0], until: start.Add(lead)}, nil
}

// read returns the Lease, or a new one that nobody holds.
func (e *Elector) read(ctx context.Context) (*coordinationv1.Lease, error) {
	var lease coordinationv1.Lease
	err := e.Client.Get(ctx, types.NamespacedName{Namespace: Namespace, Name: Name}, &lease)
	if apierrors.IsNotFound(err) {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: Name}}, nil
	}
	return &lease, err
}

// free reports whether the Lease can be taken: nobody holds it, or it was not
// renewed for as long as it lives, by this server's own clock.
func (e *Elector) free(lease *coordinationv1.Lease) bool {
	if lease.ResourceVersion != e.seen {
		e.seen, e.at = lease.ResourceVersion, time.Now()
	}
	holder := holderOf(lease)
	return holder == "" || holder == e.Identity || time.Since(e.at) >= life
}

func holderOf(lease *coordinationv1.Lease) string {
	if lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

func (e *Elector) take(ctx context.Context, lease *coordinationv1.Lease) error {
	now := metav1.NowMicro()
	transitions := int32(0)
	if t := lease.Spec.LeaseTransitions; t != nil {
		transitions = *t + 1
	}
	seconds := int32(life / time.Second)
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds = &e.Identity, &seconds
	lease.Spec.AcquireTime, lease.Spec.RenewTime, lease.Spec.LeaseTransitions = &now, &now, &transitions
	if lease.ResourceVersion == "" {
		return e.Client.Create(ctx, lease)
	}
	return e.Client.Update(ctx, lease)
}

// hold works and renews the Lease until it is lost or the context ends.
func (e *Elector) hold(ctx context.Context, t *term, work func(context.Context, store.Store) error) error {
	working, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- work(working, store.Fence(e.Store, termKey, t.revision)) }()
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		defer stop()
		e.renewAll(working, t)
	}()
	err := <-done
	ended := working.Err() != nil
	stop()
	<-renewed
	if ctx.Err() != nil {
		e.handOver(ctx)
	}
	if err == nil && !ended {
		err = errors.New("it ended by itself")
	}
	if err != nil {
		return fmt.Errorf("lead: %w", err)
	}
	return nil
}

// renewAll renews the Lease until it is lost or the context ends.
func (e *Elector) renewAll(ctx context.Context, t *term) {
	for {
		pause(ctx, renew)
		for {
			if ctx.Err() != nil || !time.Now().Before(t.until) {
				return
			}
			lost, err := e.renewOnce(ctx, t)
			if err == nil {
				break
			}
			if ctx.Err() == nil {
				e.Log.Warn("renew the lease of the leader", "err", err)
			}
			if lost {
				return
			}
			pause(ctx, min(poll, time.Until(t.until)))
		}
	}
}

func (e *Elector) renewOnce(ctx context.Context, t *term) (lost bool, err error) {
	start := time.Now()
	ctx, cancel := context.WithDeadline(ctx, t.until)
	defer cancel()
	now := metav1.NowMicro()
	next := t.lease.DeepCopy()
	next.Spec.RenewTime = &now
	err = e.Client.Update(ctx, next)
	if apierrors.IsConflict(err) {
		// Perhaps an earlier renewal of ours, the answer to which was lost.
		have, readErr := e.read(ctx)
		if readErr != nil {
			return false, readErr
		}
		if holderOf(have) != e.Identity {
			return true, fmt.Errorf("%s has taken it", holderOf(have))
		}
		t.lease = have
		return false, err
	}
	if err != nil {
		return apierrors.IsNotFound(err), err
	}
	t.lease, t.until = next, start.Add(lead)
	return false, nil
}

// handOver lets another server lead at once.
func (e *Elector) handOver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), release)
	defer cancel()
	err := e.letGo(ctx)
	for apierrors.IsConflict(err) { // with a renewal, the answer to which was given up
		err = e.letGo(ctx)
	}
	if err != nil {
		e.Log.Info("hand over", "err", err) // the others wait for the end of the lease
	}
}

func (e *Elector) letGo(ctx context.Context) error {
	lease, err := e.read(ctx)
	if err != nil || holderOf(lease) != e.Identity {
		return err
	}
	nobody := ""
	lease.Spec.HolderIdentity = &nobody
	return e.Client.Update(ctx, lease)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
