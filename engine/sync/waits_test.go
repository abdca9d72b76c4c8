package sync_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/sync"
)

// counted is a remote that counts how often it is asked.
type counted struct {
	*remote
	asked atomic.Int32
}

func (c *counted) Fetch(ctx context.Context, src *v1alpha1.Source) (revision.Revision, error) {
	c.asked.Add(1)
	return c.remote.Fetch(ctx, src)
}

// TestARemoteIsAskedLessOften while an object is waited for that is being deleted,
// which may take for ever.
func TestARemoteIsAskedLessOften(t *testing.T) {
	r := enginetest.Resources(t)
	views := live.New()
	f := &fixture{Resources: r, remote: &remote{}}
	c := &counted{remote: f.remote}
	f.engine = sync.New(sync.Options{Resources: r, Live: views, Fetcher: c, Compiler: f.remote, Clock: clock.RealClock{}, Log: enginetest.Log(t)})
	stuck := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a", Finalizers: []string{"example.org/stays"}}}
	if err := f.Create(t.Context(), stuck); err != nil {
		t.Fatal(err)
	}
	if err := f.Delete(t.Context(), stuck, client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	enginetest.Go(t, f.engine.Run)
	enginetest.Go(t, func(ctx context.Context) error { return views.Run(ctx, r) })
	f.remote.push("c1", "", configMap("a", "1"))
	createSource(t, f)
	f.await(t, "c1", metav1.Condition{Type: "Applied", Status: metav1.ConditionFalse, Reason: "Progressing", Message: "waits: ConfigMap a is being deleted"})
	before := c.asked.Load()
	time.Sleep(2200 * time.Millisecond)
	if n := c.asked.Load() - before; n > 3 {
		t.Errorf("it was asked %d times in two seconds", n)
	}
}
