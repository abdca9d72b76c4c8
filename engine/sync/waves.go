package sync

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/health"
	"berth.dev/berth/engine/plan"
)

// waveOf is the wave that an object is written in; false for one that is not a
// whole number.
func waveOf(obj client.Object) (int, bool) {
	text, ok := obj.GetAnnotations()[v1alpha1.AnnotationWave]
	if !ok {
		return 0, true
	}
	n, err := strconv.Atoi(text)
	return n, err == nil
}

// below are the objects of the waves before one.
func below(wave int) func(client.Object) bool {
	return func(obj client.Object) bool {
		n, _ := waveOf(obj)
		return n < wave
	}
}

// waits says that a wave must not be written yet, and tells why. A wave that is
// not healthy in time is treated as a commit that is not.
func (r *runner) waits(ctx context.Context, src *v1alpha1.Source, out Outcome, t *target) bool {
	p, w := out.Plan, out.next
	r.wave = nil
	if t.back || len(p.Waves) < 2 || w.Number <= p.Waves[0] || len(w.Steps) == 0 {
		return false
	}
	now := r.engine.Clock.Now()
	pending := p.Pending()
	r.readOver(ctx)
	over := slices.DeleteFunc(slices.Clone(r.over.jobs), func(j *batchv1.Job) bool { return !slices.Contains(out.finished, client.Key(j)) })
	state := r.lower(w.Number, pending, over)
	if state.health.State == health.Healthy {
		return false
	}
	r.wave = &waiting{number: w.Number, pending: pending, over: over, what: fmt.Sprintf("commit %s: wave %d of %s waits for ", short(t.rev.Commit), w.Number, numbers(p.Waves))}
	since := r.waveSince(now)
	reason, wait := v1alpha1.ReasonWave, fmt.Sprintf("%s: %s", state.object, state.health.Reason)
	if timeout := src.Spec.HealthTimeout.Duration; now.Sub(since) > timeout {
		reason = v1alpha1.ReasonTimeout
		why := fmt.Sprintf("wave %d was not written, for those before it are not healthy after %s: %s", w.Number, timeout, wait)
		r.failed(t.rev.Commit, why)
		r.rollBack(src, t.rev.Commit, why)
	}
	r.condition(src, v1alpha1.ConditionApplied, metav1.ConditionFalse, reason, r.wave.what+wait)
	return true
}

// sayWave keeps what is said of a wave that waits up to date.
func (r *runner) sayWave(src *v1alpha1.Source) {
	c := meta.FindStatusCondition(r.status.Conditions, v1alpha1.ConditionApplied)
	if r.wave == nil || c == nil || !strings.HasPrefix(c.Message, r.wave.what) {
		return
	}
	if state := r.lower(r.wave.number, r.wave.pending, r.wave.over); state.health.State != health.Healthy {
		r.condition(src, v1alpha1.ConditionApplied, metav1.ConditionFalse, c.Reason, r.wave.what+state.object+": "+state.health.Reason)
	}
}

// waveStage is how a timeline names a wave that was written.
func waveStage(n int) string { return v1alpha1.StageWave + " " + strconv.Itoa(n) }

// waveSince is when the last wave of the newest commit was written, or when the
// commit was compiled. It outlives the process.
func (r *runner) waveSince(now time.Time) time.Time {
	since := now
	for _, s := range r.status.Timeline {
		if s.Name == v1alpha1.StageCompiled || strings.HasPrefix(s.Name, v1alpha1.StageWave+" ") {
			since = s.Time.Time
		}
	}
	return since
}

// waveReady: what the next wave waits for has become healthy.
func (r *runner) waveReady() bool {
	return r.wave != nil && r.lower(r.wave.number, r.wave.pending, r.wave.over).health.State == health.Healthy
}

// waiting is a wave whose turn has not come.
type waiting struct {
	number int
	// pending are the objects that the commit has still to write or to delete.
	pending map[plan.Key]bool
	// over are Jobs of the commit that had failed when their time was over.
	over []*batchv1.Job
	// what waits, in words that what is waited for is put behind.
	what string
}

// lower is the state of the waves before one: of what the commit has written, not
// of what it is about to change or to delete. A Job that runs is as healthy as
// any, but what comes in a later wave is to come after it: it must have ended.
func (r *runner) lower(wave int, pending map[plan.Key]bool, over []*batchv1.Job) progress {
	written := func(obj client.Object) bool {
		gvks, _, err := r.engine.Resources.Scheme().ObjectKinds(obj)
		return below(wave)(obj) && (err != nil || !pending[plan.KeyOf(gvks[0], obj)])
	}
	out := r.engine.assess(r.name, r.expected, over, written)
	if out.health.State != health.Healthy {
		return out
	}
	for _, j := range ofSource(r.engine.Live.Jobs.All(), r.name, written) {
		if hookOf(j) == "" && ended(j) == nil && !(j.Spec.Suspend != nil && *j.Spec.Suspend) {
			out.object = plan.KeyOf(batchv1.SchemeGroupVersion.WithKind("Job"), j).String()
			out.health = health.Health{State: health.Progressing, Reason: "has not ended"}
			return out
		}
	}
	return out
}

// wrote notes a wave that is not the last.
func (r *runner) wrote(ctx context.Context, src *v1alpha1.Source, t *target, out Outcome, kept bool) {
	w, now := out.next, r.engine.Clock.Now()
	part := plan.Plan{Steps: w.Steps}
	changes := fmt.Sprintf("wave %d of %s: %s", w.Number, numbers(out.Plan.Waves), part.Summary())
	r.midway = t.rev.Commit
	r.stage(waveStage(w.Number), now, part.Summary())
	r.record(ctx, t.rev, out.Plan.Summary(), kept, now)
	for key, version := range versions(part) {
		r.expected[key] = version
	}
	r.engine.Log.Info("applied", "source", r.name, "commit", short(t.rev.Commit), "plan", changes)
	r.engine.events.Normal(ctx, sourceKind(), src, "Applied", "commit %s: %s", short(t.rev.Commit), changes)
}

// recoverMidway finds a commit that an earlier process has begun and not
// finished. Its objects were kept with its first wave, so it is the one whose
// objects were kept last. The history may not know of it yet.
func (r *runner) recoverMidway(ctx context.Context) {
	last, err := r.engine.Resources.LastKept(ctx, r.name)
	if err != nil {
		r.engine.Log.Warn("list what is kept", "source", r.name, "err", err)
		return
	}
	known := slices.ContainsFunc(r.status.History, func(c v1alpha1.AppliedCommit) bool { return c.ID == last })
	applied := r.status.Applied != nil && r.status.Applied.ID == last
	if !known || r.begun(last) && !applied {
		r.midway = last
	}
}

// finish carries on with a commit that was begun, when the newest is refused or
// held, or its repository is away: the cluster never stays between two commits
// for longer than the waves take. Its objects are kept, so nothing is asked. What
// the status says of the newest commit stays.
func (r *runner) finish(ctx context.Context, src *v1alpha1.Source, newest string) {
	if r.midway == "" || r.status.RolledBack != nil {
		return
	}
	objects, ok, err := r.engine.Resources.Kept(ctx, r.name, r.midway)
	if err != nil || !ok {
		return // too large to be kept: the repository is waited for
	}
	if r.midway != newest {
		conditions, timeline := slices.Clone(r.status.Conditions), slices.Clone(r.status.Timeline)
		defer func() { r.status.Conditions, r.status.Timeline = conditions, timeline }()
	}
	t := &target{rev: revision.Revision{Commit: r.midway}}
	for _, h := range r.status.History {
		if h.ID == r.midway {
			t.rev = revisionOf(h.Commit)
		}
	}
	for range applyAttempts * (1 + len(objects)) {
		// Its deletions were approved, or needed no approval, when it was begun.
		out, err := r.engine.plan(ctx, src, r.midway, manifest.Set{Manifests: objects}, approval{all: true, count: true, anyTime: true})
		if changedMeanwhile(err) {
			continue
		}
		if err != nil || out.Failed() || out.Waits != "" || r.waits(ctx, src, out, t) {
			return
		}
		if err := commit(ctx, out); changedMeanwhile(err) {
			continue
		} else if err != nil {
			r.engine.Log.Warn("apply failed", "source", r.name, "err", err)
			return
		}
		if out.next.Last {
			r.post = of(out.hooks, v1alpha1.HookPost)
			r.done(ctx, src, t.rev, out, true)
			return
		}
		r.wrote(ctx, src, t, out, true)
	}
}

// numbers is a list in words.
func numbers(all []int) string {
	words := make([]string, len(all))
	for i, n := range all {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, ", ")
}
