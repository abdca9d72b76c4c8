package recovery

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/resources"
	"berth.dev/berth/engine/store"
)

const (
	// keepDelay gathers changes that come together.
	keepDelay = 500 * time.Millisecond
	// keepShare bounds the part of the time that goes into writing: after a
	// write there is a pause of keepShare times as long.
	keepShare = 20
	// keepRevisions is how far the store may go on before the file says so.
	keepRevisions = store.RevisionGap / 10
	keepEvery     = time.Minute
)

// Options are what a Keeper is made of. All must be set.
type Options struct {
	Resources *resources.Resources
	Store     store.Store
	Path      string
	Clock     clock.WithTicker
	Log       *slog.Logger
}

// Keeper keeps the recovery file up to date.
type Keeper struct {
	Options
	dirty chan struct{}
	// written is the revision that the file says.
	written int64
}

// New makes a Keeper.
func New(o Options) *Keeper { return &Keeper{Options: o, dirty: make(chan struct{}, 1)} }

// Run writes the file and keeps it up to date until the context ends.
func (k *Keeper) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	k.mark()
	g.Go(func() error { return k.watch(ctx) })
	g.Go(func() error { return k.write(ctx) })
	return g.Wait()
}

func (k *Keeper) mark() {
	select {
	case k.dirty <- struct{}{}:
	default:
	}
}

// watch looks for changes of what is kept.
func (k *Keeper) watch(ctx context.Context) error {
	for ctx.Err() == nil {
		w, err := k.Store.Watch(ctx, "/", k.Store.Revision())
		for err == nil {
			var events []store.Event
			events, _, err = w.Next(ctx)
			for _, e := range events {
				if k.matters(e) {
					k.mark()
					break
				}
			}
		}
		if errors.Is(err, store.ErrClosed) {
			return nil
		}
		k.mark() // what was missed is not known
		k.sleep(ctx, keepDelay)
	}
	return nil
}

func (k *Keeper) matters(e store.Event) bool {
	now, before := k.object(e.KV), k.object(e.Previous)
	if now == nil || before == nil {
		return now != nil || before != nil
	}
	return !equality.Semantic.DeepEqual(now, before)
}

// object is what is kept of a pair; nil for nothing.
func (k *Keeper) object(kv store.KV) client.Object {
	row, ok := k.Resources.RowOf(kv.Key)
	if !ok || kv.Value == nil || !keeps(row.Kind) {
		return nil
	}
	obj, err := row.Decode(kv)
	if err != nil || !needed(obj) {
		return nil
	}
	return kept(obj)
}

// write writes the file after changes.
func (k *Keeper) write(ctx context.Context) error {
	ticker := k.Clock.NewTicker(keepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
			if k.Store.Revision()-k.written < keepRevisions {
				continue
			}
		case <-k.dirty:
		}
		k.sleep(ctx, keepDelay)
		began := k.Clock.Now()
		if err := k.save(ctx); err != nil && ctx.Err() == nil {
			k.Log.Warn("what is needed to rebuild a damaged store cannot be kept; it is tried again", "err", err)
			k.mark()
			k.sleep(ctx, 20*keepDelay)
		}
		k.sleep(ctx, keepShare*k.Clock.Since(began))
	}
}

func (k *Keeper) sleep(ctx context.Context, d time.Duration) {
	timer := k.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C():
	}
}

func (k *Keeper) save(ctx context.Context) error {
	s := &Saved{Revision: k.Store.Revision(), Time: k.Clock.Now()}
	for _, row := range k.Resources.All() {
		if !keeps(row.Kind) || row.Form() {
			continue
		}
		list, err := k.Resources.Objects(ctx, row, resources.ListRequest{})
		if err != nil {
			return err
		}
		for _, obj := range list.Objects {
			if needed(obj) {
				s.Objects = append(s.Objects, kept(obj))
			}
		}
	}
	if err := s.write(k.Path); err != nil {
		return err
	}
	k.written = s.Revision
	return nil
}
