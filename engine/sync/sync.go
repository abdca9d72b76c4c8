// Package sync makes the cluster's desired state follow a Source: fetch,
// compile, plan, gate, apply in one transaction, and watch the health of what
// was applied. It owns the status of Sources. It never decides by what it
// remembers: each pass reads the Source, the revision and the live objects anew.
package sync

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	gosync "sync"
	"time"

	"golang.org/x/sync/errgroup"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/event"
	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/resources"
)

// Fetcher finds the commit that a Source deploys now. An error changes nothing
// in the cluster; a *FetchError gives it a reason.
type Fetcher interface {
	Fetch(ctx context.Context, src *v1alpha1.Source) (revision.Revision, error)
}

// Compiler turns a revision into objects, or into errors with their places.
// The error is for faults that are not the user's.
type Compiler interface {
	Compile(ctx context.Context, rev revision.Revision, o CompileOptions) (manifest.Set, error)
}

// CompileOptions are what a Source says about compiling.
type CompileOptions struct {
	Source          string
	Path            string
	TargetNamespace string
	// Limits may be nil.
	Limits *v1alpha1.CompileLimits
	// Decryption opens encrypted files; nil where the Source names no keys.
	Decryption *Decryption
	// Kinds that a repository may hold.
	Kinds []schema.GroupVersionKind
}

// FetchError is a failure to fetch with a reason for the status.
type FetchError struct {
	// Reason is one of the reasons of v1alpha1.
	Reason string
	Err    error
}

func (e *FetchError) Error() string { return e.Err.Error() }

func (e *FetchError) Unwrap() error { return e.Err }

// Options are what an Engine is made of. All must be set.
type Options struct {
	Resources *resources.Resources
	// Live is filled by others.
	Live     *live.Cluster
	Fetcher  Fetcher
	Compiler Compiler
	Clock    clock.WithTicker
	Log      *slog.Logger
}

// Engine runs one loop per Source.
type Engine struct {
	Options
	events *event.Recorder

	mu      gosync.Mutex
	steady  *steady
	runners map[string]*runner
	// leaving are the loops of Sources that are gone, until they have ended.
	leaving map[string]*runner
	// fresh are runners that wait to be started, which started says.
	fresh   []*runner
	started chan struct{}
	// pushed is when the last push to a built-in repository was accepted.
	pushed map[string]time.Time
}

// NewChecker makes an Engine that can Check and is never run: for a server that
// does not lead.
func NewChecker(o Options) *Engine {
	return &Engine{
		Options: o,
		events:  &event.Recorder{Client: o.Resources, Component: "berth-sync", Clock: o.Clock, Log: o.Log},
		runners: map[string]*runner{},
		leaving: map[string]*runner{},
		started: make(chan struct{}, 1),
		pushed:  map[string]time.Time{},
		steady:  newSteady(),
	}
}

// New makes an Engine and hooks it to the views, which must not be running yet.
func New(o Options) *Engine {
	e := NewChecker(o)
	o.Live.Sources.OnChange(e.sourceChanged)
	e.followHealth()
	return e
}

// Run works until the context ends.
func (e *Engine) Run(ctx context.Context) error {
	if !live.Synced(ctx, e.Live.Sources, e.Live.Namespaces, e.Live.Deployments, e.Live.ReplicaSets, e.Live.StatefulSets, e.Live.DaemonSets,
		e.Live.Jobs, e.Live.Claims, e.Live.Classes, e.Live.Pods, e.Live.Autoscalers, e.Live.Controllers) {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	for {
		select {
		case <-ctx.Done():
			return g.Wait()
		case <-e.started:
			for _, r := range e.takeFresh() {
				g.Go(func() error {
					r.inTurn(ctx)
					return nil
				})
			}
		}
	}
}

// sourceChanged starts, wakes and ends the loops.
func (e *Engine) sourceChanged(old, now *v1alpha1.Source) {
	if now == nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		if r := e.runners[old.Name]; r != nil {
			close(r.gone)
			delete(e.runners, old.Name)
			e.leaving[old.Name] = r
		}
		delete(e.pushed, old.Name)
		e.steady.keep(old.Name, nil)
		// What it has left behind may be another's now.
		for _, r := range e.runners {
			r.recheck.Store(true)
			r.wake()
		}
		return
	}
	if old == nil || readiness(old) != readiness(now) {
		e.wakeDependents(now.Name)
	}
	if old != nil && old.Generation != now.Generation {
		e.recheckBelow(now)
	}
	r := e.runner(now.Name)
	if old == nil || old.Generation != now.Generation || asked(old) != asked(now) {
		r.wake()
	}
}

// wakeDependents wakes the Sources that depend on one.
func (e *Engine) wakeDependents(name string) {
	for _, s := range e.Live.Sources.All() {
		if !slices.Contains(s.Spec.DependsOn, name) {
			continue
		}
		e.mu.Lock()
		r := e.runners[s.Name]
		e.mu.Unlock()
		if r != nil {
			r.wake()
		}
	}
}

// recheckBelow looks again at the Sources that come out of one: its limits are
// theirs.
func (e *Engine) recheckBelow(src *v1alpha1.Source) {
	for _, s := range e.Live.Sources.All() {
		if !slices.ContainsFunc(e.limits(s)[1:], func(above *v1alpha1.Source) bool { return above.Name == src.Name }) {
			continue
		}
		e.mu.Lock()
		r := e.runners[s.Name]
		e.mu.Unlock()
		if r != nil {
			r.recheck.Store(true)
			r.wake()
		}
	}
}

// asked are the annotations with which people ask for a pass.
func asked(s *v1alpha1.Source) [4]string {
	a := s.Annotations
	return [4]string{a[v1alpha1.AnnotationApprove], a[v1alpha1.AnnotationSync], a[v1alpha1.AnnotationSuspended], a[v1alpha1.AnnotationRollback]}
}

func (e *Engine) runner(name string) *runner {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.runners[name]
	if r == nil {
		r = newRunner(e, name)
		r.former = e.leaving[name]
		e.runners[name] = r
		// Never a wait here: the views call this, and Run waits for the views.
		e.fresh = append(e.fresh, r)
		signal(e.started)
	}
	return r
}

// left forgets a loop that has ended.
func (e *Engine) left(r *runner) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.leaving[r.name] == r {
		delete(e.leaving, r.name)
	}
}

func (e *Engine) takeFresh() []*runner {
	e.mu.Lock()
	defer e.mu.Unlock()
	fresh := e.fresh
	e.fresh = nil
	return fresh
}

// Pushed says that a push to the built-in repository of a Source was accepted.
func (e *Engine) Pushed(name string, at time.Time) {
	e.mu.Lock()
	e.pushed[name] = at
	r := e.runners[name]
	e.mu.Unlock()
	if r != nil {
		r.wake()
	}
}

// Recheck looks at once, for every Source, whether the cluster holds what was
// applied: something has changed it from outside.
func (e *Engine) Recheck() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.runners {
		r.recheck.Store(true)
		r.wake()
	}
}

func (e *Engine) pushedAt(name string) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pushed[name]
}

// Kinds that a repository may hold: what people write, and Berth carries out.
func Kinds() []schema.GroupVersionKind {
	core := func(kind string) schema.GroupVersionKind { return schema.GroupVersionKind{Version: "v1", Kind: kind} }
	apps := func(kind string) schema.GroupVersionKind {
		return schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: kind}
	}
	return []schema.GroupVersionKind{
		core("Namespace"), core("ConfigMap"), core("Secret"), core("ServiceAccount"), core("Service"), core("Pod"),
		core("LimitRange"), core("ResourceQuota"), core("ReplicationController"),
		core("PersistentVolumeClaim"), core("PersistentVolume"), storagev1.SchemeGroupVersion.WithKind("StorageClass"),
		apps("Deployment"), apps("ReplicaSet"), apps("StatefulSet"), apps("DaemonSet"),
		batchv1.SchemeGroupVersion.WithKind("Job"), batchv1.SchemeGroupVersion.WithKind("CronJob"),
		autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"),
		policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget"), schedulingv1.SchemeGroupVersion.WithKind("PriorityClass"), v1alpha1.GroupVersion.WithKind("Source"),
	}
}

func reasonOf(err error) string {
	var f *FetchError
	if errors.As(err, &f) {
		return f.Reason
	}
	return v1alpha1.ReasonFetchFailed
}
