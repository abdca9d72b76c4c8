package sync

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/plan"
)

const (
	// retryDelay is the wait before a pass that failed for a passing reason is
	// tried again; it doubles up to retryDelayMax while it fails.
	retryDelay    = 500 * time.Millisecond
	retryDelayMax = 10 * time.Second
	// applyAttempts is how often a plan is made anew in one pass because an
	// object changed between the plan and its write.
	applyAttempts = 5
	// driftEvery is how many passes over an applied commit go by between two
	// looks at whether the cluster still holds what it says.
	driftEvery = 10
	// restAfter is how long a look at the health may take without a rest after it,
	// restMax the longest rest.
	restAfter = 2 * time.Millisecond
	restMax   = 300 * time.Millisecond
)

// runner is the loop of one Source. Its fields belong to its goroutine, but for
// the channels and recheck.
type runner struct {
	engine *Engine
	name   string
	// woken asks for a pass over the Source, changed for a look at the health.
	woken   chan struct{}
	changed chan struct{}
	gone    chan struct{}
	// former is the loop of a Source of the same name that was deleted; nil when
	// that has ended.
	former *runner
	// ended is closed when the loop is over.
	ended chan struct{}
	// recheck makes the next pass look whether the cluster holds what was applied.
	recheck atomic.Bool

	status v1alpha1.SourceStatus
	// written is the status that was stored last; nil before the first time.
	written *v1alpha1.SourceStatus
	// failures in a row for passing reasons.
	failures int
	// settledPasses counts the passes that found their commit applied.
	settledPasses int
	// expected is what the last transaction wrote, to tell a view that has seen
	// it from one that is behind.
	expected map[plan.Key]int64
	// wave is the one whose turn has not come, because those before it are not
	// healthy; nil when none waits.
	wave *waiting
	// running are the Jobs of hooks that are waited for.
	running []types.NamespacedName
	// pre are the hooks that were looked at last before a commit was written.
	pre []hook
	// post are the hooks that run when the applied commit is healthy.
	post []hook
	over overJobs
	// midway is a commit of which some waves are written, and not the last; empty
	// when there is none.
	midway string
	// wakeAt is when what keeps a commit back ends; zero when nothing does.
	wakeAt time.Time
	// fetchFailures in a row.
	fetchFailures int
	// watching is true from the apply until the commit is healthy.
	watching  bool
	appliedAt time.Time
}

func newRunner(e *Engine, name string) *runner {
	return &runner{
		engine: e, name: name,
		woken: make(chan struct{}, 1), changed: make(chan struct{}, 1), gone: make(chan struct{}),
		ended:    make(chan struct{}),
		expected: map[plan.Key]int64{},
	}
}

// inTurn runs the loop when that of the former Source of its name has ended: what
// that one drops at its end would be this one's.
func (r *runner) inTurn(ctx context.Context) {
	defer r.engine.left(r)
	defer close(r.ended)
	if r.former != nil {
		<-r.former.ended // it ends with its pass, for it was told so, or with the context
		r.former = nil
	}
	r.run(ctx)
}

// wake asks for a pass; several requests become one.
func (r *runner) wake() { signal(r.woken) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (r *runner) run(ctx context.Context) {
	poll := r.engine.Clock.NewTimer(0)
	defer poll.Stop()
	// Who deletes a Source ends the pass that is under way.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	defer func() { cancel(); <-ended }()
	go func() {
		defer close(ended)
		select {
		case <-r.gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	defer func() {
		select {
		case <-r.gone:
			r.forget()
		default:
		}
	}()
	first := true
	// A look goes over all objects of the Source: while thousands of Pods change,
	// it takes a share of the time and no more.
	changed := r.changed
	var rested <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.gone:
			return
		case <-r.woken:
		case <-poll.C():
		case <-rested:
			changed, rested = r.changed, nil
			continue
		case <-changed:
			src, ok := r.source()
			if !ok || first {
				continue
			}
			began := time.Now()
			r.look(ctx, src)
			if took := time.Since(began); took > restAfter {
				changed, rested = nil, r.engine.Clock.After(min(3*took, restMax))
			}
			if !r.waveReady() && !r.hookEnded() {
				continue
			}
		}
		src, ok := r.source()
		if !ok {
			return
		}
		if first {
			r.recover(ctx, src)
			first = false
		}
		reset(poll, r.pass(ctx, src))
	}
}

func reset(t clock.Timer, d time.Duration) {
	if !t.Stop() {
		select {
		case <-t.C():
		default:
		}
	}
	t.Reset(d)
}

func (r *runner) source() (*v1alpha1.Source, bool) {
	return r.engine.Live.Sources.Get(types.NamespacedName{Name: r.name})
}

// recover takes up the status that an earlier process left.
func (r *runner) recover(ctx context.Context, src *v1alpha1.Source) {
	r.status = *src.Status.DeepCopy()
	r.recoverMidway(ctx)
	if a := r.status.Applied; a != nil && r.status.RolledBack == nil {
		if objects, ok, err := r.engine.Resources.Kept(ctx, r.name, a.ID); err == nil && ok {
			r.post = of(r.engine.hooksOf(src, a.ID, objects), v1alpha1.HookPost)
		}
	}
	if a := r.status.Applied; a != nil && (r.status.Healthy == nil || r.status.Healthy.ID != a.ID) {
		r.watching = true
		r.appliedAt = r.engine.Clock.Now()
		for _, st := range r.status.Timeline {
			if st.Name == v1alpha1.StageApplied && r.current() {
				r.appliedAt = st.Time.Time // a restart does not begin the wait anew
			}
		}
	}
}

// pass fetches, compiles, plans and applies. It returns when to come back.
func (r *runner) pass(ctx context.Context, src *v1alpha1.Source) time.Duration {
	interval := src.Spec.Interval.Duration
	if src.Suspended() {
		r.look(ctx, src)
		return r.next(src, interval)
	}
	rev, err := r.engine.Fetcher.Fetch(ctx, src)
	if ctx.Err() != nil {
		return interval
	}
	newest := rev.Commit
	if err != nil {
		r.fetchFailed(src, rev, err)
		newest = r.observed()
	} else {
		r.fetched(src, rev)
		r.fetchFailures = 0
	}
	t, fault := r.target(ctx, src, newest, rev)
	again := fault != nil
	switch {
	case fault != nil:
		r.passingFault(src, fault)
	case t == nil || err != nil && r.status.RolledBack == nil:
	case r.settled(src, newest, t) && !r.drifted(ctx, src, t):
		r.midway = ""
	default:
		if err == nil {
			r.observe(src, rev)
		}
		again = r.apply(ctx, src, t)
	}
	if r.midway != newest || err != nil {
		r.finish(ctx, src, newest)
	}
	r.look(ctx, src)
	if !again {
		r.failures = 0
		return r.next(src, interval)
	}
	r.failures++
	return min(retryDelayMax, retryDelay<<min(r.failures-1, 10))
}

// next is when to come back: after the interval, or when something that is
// waited for ends by itself, for no event may come to say so.
func (r *runner) next(src *v1alpha1.Source, interval time.Duration) time.Duration {
	now := r.engine.Clock.Now()
	wait := jittered(interval)
	if r.fetchFailures > 1 {
		wait = backOff(wait, r.fetchFailures-1)
	}
	sooner := func(at time.Time) {
		if left := at.Sub(now); left >= 0 {
			wait = min(wait, left+time.Millisecond)
		}
	}
	if r.watching {
		sooner(r.appliedAt.Add(src.Spec.HealthTimeout.Duration))
	}
	if r.wave != nil {
		sooner(r.waveSince(now).Add(src.Spec.HealthTimeout.Duration))
	}
	if !r.wakeAt.IsZero() {
		sooner(r.wakeAt)
	}
	return wait
}

// maxBackOff is the longest wait between two polls of a remote that fails, if
// its interval is not longer.
const maxBackOff = 5 * time.Minute

// backOff doubles a wait with each failure in a row.
func backOff(wait time.Duration, failures int) time.Duration {
	return max(wait, min(maxBackOff, wait<<min(failures, 20)))
}

// jittered makes a wait longer by up to a tenth, so that many Sources do not ask
// one server at the same moment.
func jittered(d time.Duration) time.Duration { return d + rand.N(d/10+1) }

// settled: the target was applied under this specification already, and nothing
// was found since that would keep it from being applied now.
func (r *runner) settled(src *v1alpha1.Source, newest string, t *target) bool {
	s := &r.status
	return !meta.IsStatusConditionFalse(s.Conditions, v1alpha1.ConditionCompiled) && r.observed() == newest && s.Applied != nil && s.Applied.ID == t.rev.Commit && r.appliedSpec(src.Generation)
}

// drifted looks, in the first pass and then in every tenth, whether what was
// applied is still there, and may still be: a process may have ended between the
// apply and its status, the Namespace of an object may have been deleted under it,
// and the limits of the Sources above may have become narrower. Applying it again
// mends that, or says why it cannot be.
func (r *runner) drifted(ctx context.Context, src *v1alpha1.Source, t *target) bool {
	if r.recheck.Swap(false) {
		r.settledPasses = 0
	}
	r.settledPasses++
	if (r.settledPasses-1)%driftEvery != 0 {
		return false
	}
	out, err := t.check(ctx, r.engine, src)
	return err == nil && (out.Failed() || !out.Plan.Empty())
}

// appliedSpec: the last apply went well, and was made under this specification.
func (r *runner) appliedSpec(generation int64) bool {
	c := meta.FindStatusCondition(r.status.Conditions, v1alpha1.ConditionApplied)
	return c != nil && c.Status == metav1.ConditionTrue && c.ObservedGeneration == generation
}

func (r *runner) fetchFailed(src *v1alpha1.Source, rev revision.Revision, err error) {
	if reasonOf(err) == v1alpha1.ReasonVerifyFailed {
		r.condition(src, v1alpha1.ConditionFetched, metav1.ConditionTrue, v1alpha1.ReasonSucceeded, "commit "+short(rev.Commit))
		r.condition(src, v1alpha1.ConditionVerified, metav1.ConditionFalse, v1alpha1.ReasonVerifyFailed, err.Error())
		r.engine.Log.Info("verification failed", "source", r.name, "err", err)
		return
	}
	r.condition(src, v1alpha1.ConditionFetched, metav1.ConditionFalse, reasonOf(err), err.Error())
	r.fetchFailures++
	r.engine.Log.Info("fetch failed", "source", r.name, "err", err)
}

// fetched says which commit is the newest, and whether its history was rewritten.
func (r *runner) fetched(src *v1alpha1.Source, rev revision.Revision) {
	reason, message := v1alpha1.ReasonSucceeded, "commit "+short(rev.Commit)
	was := meta.FindStatusCondition(r.status.Conditions, v1alpha1.ConditionFetched)
	known := r.status.Observed != nil && r.status.Observed.ID == rev.Commit
	if rev.Rewritten || (known && was != nil && was.Reason == v1alpha1.ReasonHistoryRewrite) {
		reason, message = v1alpha1.ReasonHistoryRewrite, message+"; the history was rewritten, the former commit is no ancestor"
	}
	r.condition(src, v1alpha1.ConditionFetched, metav1.ConditionTrue, reason, message)
	if src.Spec.Verify == nil {
		meta.RemoveStatusCondition(&r.status.Conditions, v1alpha1.ConditionVerified)
		return
	}
	r.condition(src, v1alpha1.ConditionVerified, metav1.ConditionTrue, v1alpha1.ReasonSucceeded, "signed by "+line(rev.SignedBy))
}

// observe begins the timeline of a commit.
func (r *runner) observe(src *v1alpha1.Source, rev revision.Revision) {
	if r.status.Observed != nil && r.status.Observed.ID == rev.Commit && len(r.status.Timeline) > 0 && r.status.ObservedGeneration == src.Generation {
		return
	}
	isNew := r.status.Observed == nil || r.status.Observed.ID != rev.Commit
	r.status.Observed = commitOf(rev)
	r.status.ObservedGeneration = src.Generation
	r.status.Timeline = nil
	if at := r.engine.pushedAt(r.name); isNew && src.Spec.URL == "" && !at.IsZero() {
		r.stage(v1alpha1.StagePushed, at, "")
	}
	r.stage(v1alpha1.StageFetched, r.engine.Clock.Now(), "commit "+short(rev.Commit))
}

// apply carries a target out; again asks for another attempt soon.
func (r *runner) apply(ctx context.Context, src *v1alpha1.Source, t *target) (again bool) {
	r.wave, r.running, r.wakeAt = nil, nil, time.Time{}
	for attempts := applyAttempts; attempts > 0; attempts-- {
		out, err := t.check(ctx, r.engine, src)
		if ctx.Err() != nil {
			return true
		}
		if changedMeanwhile(err) {
			continue // an object changed while it was planned: plan anew
		}
		if err != nil {
			r.passingFault(src, err)
			return true
		}
		r.status.Diagnostics = out.Diagnostics
		if out.Failed() {
			r.refused(src, out)
			return false
		}
		r.stage(v1alpha1.StageCompiled, r.engine.Clock.Now(), total(out.Objects))
		r.condition(src, v1alpha1.ConditionCompiled, metav1.ConditionTrue, v1alpha1.ReasonSucceeded, total(out.Objects))
		// What was begun was not held, or was approved.
		if out.Held != "" && r.midway != t.rev.Commit {
			r.held(ctx, src, out)
			return false
		}
		if out.Waits != "" {
			r.condition(src, v1alpha1.ConditionApplied, metav1.ConditionFalse, v1alpha1.ReasonProgressing, "waits: "+out.Waits)
			return true
		}
		if r.wakeAt = out.Later.At; out.Later.Reason != "" && r.midway != t.rev.Commit {
			r.condition(src, v1alpha1.ConditionApplied, metav1.ConditionFalse, out.Later.Reason, out.Later.Message)
			return false
		}
		if !r.begun(t.rev.Commit) {
			goesOn, err := r.before(ctx, src, t, out)
			if changedMeanwhile(err) {
				continue
			}
			if err != nil {
				r.passingFault(src, err)
				return true
			}
			if !goesOn {
				return false
			}
		}
		if r.waits(ctx, src, out, t) {
			return false
		}
		kept, err := out.tx.Keep(r.name, t.rev.Commit, out.manifests)
		if err == nil {
			err = commit(ctx, out)
		}
		if changedMeanwhile(err) {
			continue // an object changed under the plan: make it anew
		}
		if err != nil {
			r.passingFault(src, err)
			return true
		}
		if !out.next.Last {
			r.wrote(ctx, src, t, out, kept)
			attempts++
			continue
		}
		if r.post = nil; !t.back {
			r.post = of(out.hooks, v1alpha1.HookPost)
		}
		r.done(ctx, src, t.rev, out, kept)
		return false
	}
	r.condition(src, v1alpha1.ConditionApplied, metav1.ConditionFalse, v1alpha1.ReasonConflict, "objects keep changing while they are planned; trying again")
	return true
}

// passingFault is one that is not the commit's: nothing was changed.
func (r *runner) passingFault(src *v1alpha1.Source, err error) {
	r.engine.Log.Warn("apply failed", "source", r.name, "err", err)
	r.condition(src, v1alpha1.ConditionApplied, metav1.ConditionFalse, v1alpha1.ReasonApplyFailed, err.Error()+"; nothing was changed, trying again")
}

// refused: the commit has errors, and what runs goes on.
func (r *runner) refused(src *v1alpha1.Source, out Outcome) {
	r.condition(src, v1alpha1.ConditionCompiled, metav1.ConditionFalse, v1alpha1.ReasonCompileFailed, firstError(out.Diagnostics))
}

func (r *runner) held(ctx context.Context, src *v1alpha1.Source, out Outcome) {
	message := out.Held + "; to go ahead: berth approve " + src.Name + ", or a commit with the trailer \"" + v1alpha1.TrailerAllowPrune + ": true\""
	r.condition(src, v1alpha1.ConditionApplied, metav1.ConditionFalse, v1alpha1.ReasonPruneHeld, message)
	r.engine.events.Warning(ctx, sourceKind(), src, v1alpha1.ReasonPruneHeld, "%s", message)
}

// done notes what was written and begins to watch its health.
func (r *runner) done(ctx context.Context, src *v1alpha1.Source, rev revision.Revision, out Outcome, kept bool) {
	now := r.engine.Clock.Now()
	r.stage(v1alpha1.StageApplied, now, out.Plan.Summary())
	r.status.Applied = commitOf(rev)
	r.status.Objects = out.Objects
	r.condition(src, v1alpha1.ConditionApplied, metav1.ConditionTrue, v1alpha1.ReasonSucceeded, out.Plan.Summary())
	r.record(ctx, rev, out.Plan.Summary(), kept, now)
	r.watching, r.appliedAt, r.midway = true, now, ""
	r.over.known.Store(false)
	r.expected = versions(out.Plan)
	r.engine.Log.Info("applied", "source", r.name, "commit", short(rev.Commit), "plan", out.Plan.Summary())
	if !out.Plan.Empty() {
		r.engine.events.Normal(ctx, sourceKind(), src, "Applied", "commit %s: %s", short(rev.Commit), out.Plan.Summary())
	}
}
