package sync

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/health"
)

// target is what a pass carries out: the newest commit, or one that is gone
// back to.
type target struct {
	rev revision.Revision
	// kept are the objects of a commit that is gone back to; its repository is
	// not asked.
	kept []manifest.Manifest
	back bool
	// asked: somebody wants to go back, it does not happen by itself.
	asked bool
}

// check plans the target against the live cluster.
func (t *target) check(ctx context.Context, e *Engine, src *v1alpha1.Source) (Outcome, error) {
	if !t.back {
		return e.Check(ctx, src, t.rev)
	}
	// What the newer commit made is deleted. Whoever asks for that may; what
	// happens by itself waits like any commit.
	a := approvalOf(src, t.rev.Commit)
	a.count, a.atOnce = t.asked, true
	return e.plan(ctx, src, t.rev.Commit, manifest.Set{Manifests: t.kept}, a)
}

// target decides between the newest commit and one that is gone back to, which
// it notes in the status. It is nil when that one is not kept, and when nothing
// is known to be the newest.
func (r *runner) target(ctx context.Context, src *v1alpha1.Source, newest string, rev revision.Revision) (*target, error) {
	back := r.goesBack(src, newest)
	if back == nil {
		r.status.RolledBack = nil
		return &target{rev: rev}, nil
	}
	objects, ok, err := r.engine.Resources.Kept(ctx, r.name, back.To)
	if err != nil {
		return nil, fmt.Errorf("read what was kept of commit %s: %w", short(back.To), err)
	}
	if !ok {
		r.condition(src, v1alpha1.ConditionApplied, metav1.ConditionFalse, v1alpha1.ReasonNotKept,
			fmt.Sprintf("commit %s is not kept and cannot be gone back to; berth history %s shows those that are", short(back.To), r.name))
		r.status.RolledBack = nil
		return nil, nil
	}
	r.status.RolledBack = back
	t := &target{rev: revision.Revision{Commit: back.To}, kept: objects, back: true, asked: back.Asked}
	for _, h := range r.status.History {
		if h.ID == back.To {
			t.rev = revisionOf(h.Commit)
		}
	}
	return t, nil
}

// goesBack says which commit takes the place of the newest one, if any does:
// because somebody asked for it, or because the newest was not healthy in time.
func (r *runner) goesBack(src *v1alpha1.Source, newest string) *v1alpha1.RolledBack {
	if newest == "" {
		return nil
	}
	if to, from, ok := strings.Cut(src.Annotations[v1alpha1.AnnotationRollback], v1alpha1.RollbackSeparator); ok && from == newest {
		return &v1alpha1.RolledBack{From: from, To: to, Asked: true, Reason: "as it was asked for"}
	}
	if b := r.status.RolledBack; b != nil && !b.Asked && b.From == newest && src.Spec.Rollback == v1alpha1.RollbackAutomatic {
		return b
	}
	return nil
}

// overdue rolls a commit back that did not become healthy in time, if the Source
// wants that and the last healthy one is kept.
func (r *runner) overdue(src *v1alpha1.Source, p progress, now time.Time) {
	s := &r.status
	timeout := src.Spec.HealthTimeout.Duration
	if !r.watching || p.health.State == health.Healthy || now.Sub(r.appliedAt) <= timeout {
		return
	}
	reason := fmt.Sprintf("not healthy after %s: %s: %s", timeout, p.object, p.health.Reason)
	r.outcome(reason, now)
	if r.current() {
		r.rollBack(src, s.Applied.ID, reason)
	}
}

// rollBack goes from a commit back to the last healthy one, if the Source wants
// that and its objects are kept.
func (r *runner) rollBack(src *v1alpha1.Source, from, reason string) {
	s := &r.status
	if src.Suspended() || src.Spec.Rollback != v1alpha1.RollbackAutomatic || s.RolledBack != nil || s.Healthy == nil || s.Healthy.ID == from {
		return
	}
	kept := slices.ContainsFunc(s.History, func(h v1alpha1.AppliedCommit) bool { return h.ID == s.Healthy.ID && h.Kept })
	if !kept {
		return
	}
	s.RolledBack = &v1alpha1.RolledBack{From: from, To: s.Healthy.ID, Reason: reason}
	r.engine.Log.Info("rolling back", "source", r.name, "commit", short(from), "to", short(s.Healthy.ID), "reason", reason)
	r.wake()
}

// observed is the newest commit that is known; empty before the first.
func (r *runner) observed() string {
	if r.status.Observed == nil {
		return ""
	}
	return r.status.Observed.ID
}

// rolledBack is what Ready says of a Source that was rolled back.
func rolledBack(b *v1alpha1.RolledBack) string {
	return fmt.Sprintf("commit %s was rolled back to %s, %s; it is not applied again: push a newer commit", short(b.From), short(b.To), b.Reason)
}
