// Package simulate runs the real engine (store, Source, controllers and
// scheduler) over the objects of a repository and nodes that do not exist:
// they take Pods to Ready, or to their end, without running them. It says where
// each Pod lands and which do not fit. It reaches no cluster and no machine.
package simulate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/upstream"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/controllers"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/resources"
	"berth.dev/berth/engine/store"
	"berth.dev/berth/engine/sync"
)

// source is the name of the Source that has all objects, and commit that of its
// one revision.
const (
	source = "simulation"
	commit = "working-tree"
)

// Options are what a simulation is made of. All must be set.
type Options struct {
	// Set is what the repository holds, compiled without errors.
	Set manifest.Set
	// TargetNamespace is for objects without one.
	TargetNamespace string
	// Nodes all have the same CPU, Memory and number of Pods; they are in as many
	// Zones, one after the other.
	Nodes, Zones int
	CPU, Memory  resource.Quantity
	Pods         int64
	// Quiet is how long nothing may happen for it to be over. Timeout ends it
	// anyway; the Result says so.
	Quiet, Timeout time.Duration
	Clock          clock.WithTicker
	Log            *slog.Logger
}

// Run carries out a simulation. A *RefusedError says that nothing was applied.
func Run(ctx context.Context, o Options) (result Result, err error) {
	err = during(ctx, o, func(ctx context.Context, s *simulation) (err error) {
		result, err = s.await(ctx)
		return err
	})
	return result, err
}

// during calls watch while the engine and the nodes run.
func during(ctx context.Context, o Options, watch func(context.Context, *simulation) error) error {
	dir, err := os.MkdirTemp("", "berth-simulate-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	kept, err := store.OpenBolt(filepath.Join(dir, "store.db"))
	if err != nil {
		return err
	}
	up, err := upstream.New()
	if err != nil {
		return err
	}
	s := &simulation{
		Options: o, views: live.New(),
		resources: resources.New(resources.Options{Store: kept, Upstream: up, Clock: o.Clock, ServiceCIDR: serviceRange()}),
	}
	// The store ends last: what still runs may write to it.
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- kept.Run(base) }()
	err = s.run(ctx, watch)
	stop()
	return errors.Join(err, <-ended)
}

type simulation struct {
	Options
	resources *resources.Resources
	views     *live.Cluster
	settling  settling
}

func (s *simulation) run(ctx context.Context, watch func(context.Context, *simulation) error) error {
	if err := s.resources.Bootstrap(ctx); err != nil {
		return err
	}
	if err := s.createNodes(ctx); err != nil {
		return err
	}
	s.settling.follow(s.views, s.Clock)
	parts := controllers.New(controllers.Options{Resources: s.resources, Live: s.views, Clock: s.Clock, Log: s.Log})
	engine := sync.New(sync.Options{Resources: s.resources, Live: s.views, Fetcher: fixed{}, Compiler: fixed{s.Set}, Clock: s.Clock, Log: s.Log})
	agents := &agents{resources: s.resources, clock: s.Clock}
	inner, stop := context.WithCancel(ctx)
	defer stop()
	g, inner := errgroup.WithContext(inner)
	g.Go(func() error { return s.views.Run(inner, s.resources) })
	g.Go(func() error { return parts.Run(inner) })
	g.Go(func() error { return engine.Run(inner) })
	g.Go(func() error { return agents.run(inner) })
	g.Go(func() error { return s.heartbeats(inner) })
	err := watch(inner, s)
	stop()
	return errors.Join(err, g.Wait())
}

// await creates the Source and waits until everything has come to rest.
func (s *simulation) await(ctx context.Context) (Result, error) {
	src := &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: source}}
	src.Spec.TargetNamespace = s.TargetNamespace
	if err := s.resources.Create(ctx, src); err != nil {
		return Result{}, fmt.Errorf("create Source %s: %w", source, err)
	}
	tick := s.Clock.NewTicker(s.Quiet / 10)
	defer tick.Stop()
	began := s.Clock.Now()
	for {
		select {
		case <-ctx.Done():
			return Result{}, ctx.Err()
		case <-tick.C():
		}
		now := s.Clock.Now()
		if err := s.refused(); err != nil {
			return Result{}, err
		}
		late := now.Sub(began) >= s.Timeout
		if late || (s.settled() && now.Sub(s.settling.last()) >= s.Quiet) {
			return s.result(late), nil
		}
	}
}

// fixed is a repository with one revision.
type fixed struct{ set manifest.Set }

var (
	_ sync.Fetcher  = fixed{}
	_ sync.Compiler = fixed{}
)

// Fetch implements sync.Fetcher.
func (fixed) Fetch(context.Context, *v1alpha1.Source) (revision.Revision, error) {
	return revision.Revision{Commit: commit, Subject: "working tree"}, nil
}

// Compile implements sync.Compiler.
func (f fixed) Compile(context.Context, revision.Revision, sync.CompileOptions) (manifest.Set, error) {
	return f.set, nil
}
