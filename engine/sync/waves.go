package sync

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/client"
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
func (r *runner) waits(src *v1alpha1.Source, out Outcome, t *target) bool {
	p, w := out.Plan, out.next
	r.wave = nil
	if t.back || len(p.Waves) < 2 || w.Number <= p.Waves[0] || len(w.Steps) == 0 {
		return false
	}
	now := r.engine.Clock.Now()
	state := r.lower(w.Number)
	if state.health.State == health.Healthy {
		return false
	}
	r.wave = &w.Number
	since := r.waveSince(now)
	reason, wait := v1alpha1.ReasonWave, fmt.Sprintf("%s: %s", state.object, state.health.Reason)
	if timeout := src.Spec.HealthTimeout.Duration; now.Sub(since) > timeout {
		reason = v1alpha1.ReasonTimeout
		why := fmt.Sprintf("wave %d was not written, for those before it are not healthy after %s: %s", w.Number, timeout, wait)
		r.failed(t.rev.Commit, why)
		r.rollBack(src, t.rev.Commit, why)
	}
	r.condition(src, v1alpha1.ConditionApplied, metav1.ConditionFalse, reason,
		fmt.Sprintf("commit %s: wave %d of %s waits for %s", short(t.rev.Commit), w.Number, numbers(p.Waves), wait))
	return true
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
	return r.wave != nil && r.lower(*r.wave).health.State == health.Healthy
}

// lower is the state of the waves before one. A Job that runs is as healthy as
// any, but what comes in a later wave is to come after it: it must have ended.
func (r *runner) lower(wave int) progress {
	out := r.engine.assess(r.name, r.expected, below(wave))
	if out.health.State != health.Healthy {
		return out
	}
	for _, j := range ofSource(r.engine.Live.Jobs.All(), r.name, below(wave)) {
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
	r.stage(waveStage(w.Number), now, part.Summary())
	r.record(ctx, t.rev, changes, kept, now)
	for key, version := range versions(part) {
		r.expected[key] = version
	}
	r.engine.Log.Info("applied", "source", r.name, "commit", short(t.rev.Commit), "plan", changes)
	r.engine.events.Normal(ctx, sourceKind(), src, "Applied", "commit %s: %s", short(t.rev.Commit), changes)
}

// numbers is a list in words.
func numbers(all []int) string {
	words := make([]string, len(all))
	for i, n := range all {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, ", ")
}
