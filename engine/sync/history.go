package sync

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
)

// keptHistory is how many commits a Source's status remembers.
const keptHistory = 20

const (
	// keptObjects is of how many of them the objects are kept.
	keptObjects = 10
	// forgetTimeout bounds the last write for a Source that is gone.
	forgetTimeout = 5 * time.Second
)

// record notes that a commit was applied. One that is applied again because the
// cluster had drifted from it is no new entry. What is kept of commits that are
// no longer in the history is dropped.
func (r *runner) record(ctx context.Context, rev revision.Revision, changes string, kept bool, now time.Time) {
	h := r.status.History
	if r.begun(rev.Commit) {
		h[0].Kept = h[0].Kept || kept
		return
	}
	if rev.Commit == "" {
		return
	}
	next := v1alpha1.AppliedCommit{Commit: *commitOf(rev), Applied: metav1.NewTime(now), Changes: changes, Kept: kept}
	h = append([]v1alpha1.AppliedCommit{next}, h[:min(len(h), keptHistory-1)]...)
	keep := map[string]bool{}
	for i := range h {
		// The last healthy one is what an automatic rollback goes to.
		if h[i].Kept = h[i].Kept && (len(keep) < keptObjects || r.status.Healthy != nil && r.status.Healthy.ID == h[i].ID); h[i].Kept {
			keep[h[i].ID] = true
		}
	}
	r.status.History = h
	if err := r.engine.Resources.DropKept(ctx, r.name, keep); err != nil && ctx.Err() == nil {
		r.engine.Log.Warn("drop old revisions", "source", r.name, "err", err)
	}
}

// begun: something of a commit was written, and nothing of a newer one.
func (r *runner) begun(commit string) bool {
	return len(r.status.History) > 0 && r.status.History[0].ID == commit
}

// failed notes why a commit that was written in part, or whole, is no success.
func (r *runner) failed(commit, why string) {
	if r.begun(commit) && r.status.History[0].Healthy == nil {
		r.status.History[0].Failed = why
	}
}

// forget drops what is kept of a Source that is gone.
func (r *runner) forget() {
	ctx, cancel := context.WithTimeout(context.Background(), forgetTimeout)
	defer cancel()
	if err := r.engine.Resources.DropKept(ctx, r.name, nil); err != nil {
		r.engine.Log.Warn("drop the revisions of a Source that is gone", "source", r.name, "err", err)
	}
	tx := r.engine.Resources.Begin()
	err := tx.ForgetFinished(ctx, r.name, nil)
	if err == nil {
		err = tx.Commit(ctx)
	}
	if err != nil {
		r.engine.Log.Warn("forget the Jobs of a Source that is gone", "source", r.name, "err", err)
	}
}

// outcome notes how the newest commit of the history has ended: healthy, or
// failed with a reason. What was healthy once stays so.
func (r *runner) outcome(failed string, now time.Time) {
	h := r.status.History
	if len(h) == 0 || r.status.Applied == nil || h[0].ID != r.status.Applied.ID || h[0].Healthy != nil {
		return
	}
	if h[0].Failed = failed; failed == "" {
		h[0].Healthy = &metav1.Time{Time: now}
	}
}
