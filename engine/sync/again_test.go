package sync_test

import (
	"context"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/sync"

	"k8s.io/utils/clock"
)

// slow is a remote whose first answer takes until it is let go.
type slow struct {
	*remote
	asked, goOn chan struct{}
}

func (s *slow) Fetch(ctx context.Context, src *v1alpha1.Source) (revision.Revision, error) {
	select {
	case s.asked <- struct{}{}:
		<-s.goOn
	default:
	}
	return s.remote.Fetch(ctx, src)
}

// TestASourceThatIsMadeAgainIsNotForgotten by the loop of the one before, which
// ends late.
func TestASourceThatIsMadeAgainIsNotForgotten(t *testing.T) {
	r := enginetest.Resources(t)
	views := live.New()
	f := &fixture{Resources: r, remote: &remote{}}
	s := &slow{remote: f.remote, asked: make(chan struct{}), goOn: make(chan struct{})}
	f.engine = sync.New(sync.Options{Resources: r, Live: views, Fetcher: s, Compiler: f.remote, Clock: clock.RealClock{}, Log: enginetest.Log(t)})
	f.remote.push("c1", "", configMap("a", "1"))
	enginetest.Go(t, f.engine.Run)
	enginetest.Go(t, func(ctx context.Context) error { return views.Run(ctx, r) })
	first := make(chan struct{})
	go func() { <-s.asked; close(first) }()
	createSource(t, f)
	<-first
	if err := f.Delete(t.Context(), f.source(t), client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	createSource(t, f)
	// Whether or not the second one is at work by now, it is what counts.
	for range 30 {
		if src := f.source(t); src.Status.Applied != nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	close(s.goOn)
	f.await(t, "c1", ready())
	for range 20 {
		if _, ok, err := f.Kept(t.Context(), "shop", "c1"); err != nil || !ok {
			t.Fatalf("what was applied is not kept: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := f.Get(t.Context(), types.NamespacedName{Name: "shop"}, &v1alpha1.Source{}); err != nil {
		t.Error(err)
	}
}
