package sync

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/plan"
)

// shownDiagnostics is how many diagnostics the status holds; the rest is counted.
const shownDiagnostics = 100

func sourceKind() schema.GroupVersionKind { return v1alpha1.GroupVersion.WithKind("Source") }

func commitOf(rev revision.Revision) *v1alpha1.Commit {
	return &v1alpha1.Commit{ID: rev.Commit, Author: line(rev.Author), Email: line(rev.Email), Subject: line(rev.Subject), Time: metav1.NewTime(rev.Time), SignedBy: line(rev.SignedBy)}
}

// revisionOf is a commit that the status remembers.
func revisionOf(c v1alpha1.Commit) revision.Revision {
	return revision.Revision{Commit: c.ID, Author: c.Author, Email: c.Email, Subject: c.Subject, Time: c.Time.Time, SignedBy: c.SignedBy}
}

// line is text of a commit as the status holds it, many times: bounded, and
// harmless to a terminal.
func line(s string) string {
	const longest = 200
	if runes := []rune(s); len(runes) > longest {
		s = string(runes[:longest]) + "…"
	}
	return v1alpha1.Printable(s)
}

func short(commit string) string { return commit[:min(len(commit), 10)] }

// total is the number of objects in words.
func total(objects map[string]int32) string {
	var n int32
	for _, count := range objects {
		n += count
	}
	parts := make([]string, 0, len(objects))
	for _, kind := range slices.Sorted(maps.Keys(objects)) {
		parts = append(parts, fmt.Sprintf("%d %s", objects[kind], kind))
	}
	if n == 0 {
		return "no objects"
	}
	noun := "objects"
	if n == 1 {
		noun = "object"
	}
	return fmt.Sprintf("%d %s: %s", n, noun, strings.Join(parts, ", "))
}

func firstError(ds []v1alpha1.Diagnostic) string {
	count, first := 0, ""
	for _, d := range ds {
		if d.Severity != v1alpha1.SeverityError {
			continue
		}
		if count++; count == 1 {
			first = d.String()
		}
	}
	if count > 1 {
		return fmt.Sprintf("%s (and %d more errors)", first, count-1)
	}
	return first
}

func (r *runner) condition(src *v1alpha1.Source, kind string, status metav1.ConditionStatus, reason, message string) {
	const longest = 32768 // a condition's message, by its schema
	message = strings.ToValidUTF8(message[:min(len(message), longest)], "")
	meta.SetStatusCondition(&r.status.Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message,
		ObservedGeneration: src.Generation, LastTransitionTime: metav1.NewTime(r.engine.Clock.Now()),
	})
}

// stage notes when a stage was first reached.
func (r *runner) stage(name string, at time.Time, message string) {
	for i := range r.status.Timeline {
		if r.status.Timeline[i].Name == name {
			return
		}
	}
	r.status.Timeline = append(r.status.Timeline, v1alpha1.Stage{Name: name, Time: metav1.NewMicroTime(at), Message: message})
}

func (r *runner) reached(name string) bool {
	for _, s := range r.status.Timeline {
		if s.Name == name {
			return true
		}
	}
	return false
}

// write stores the status if it differs from what was stored last; src may be
// a moment behind that.
func (r *runner) write(ctx context.Context, src *v1alpha1.Source) {
	r.status.ObservedGeneration = src.Generation
	next := src.DeepCopy()
	next.Status = *r.status.DeepCopy()
	if n := len(next.Status.Diagnostics); n > shownDiagnostics {
		next.Status.Diagnostics = append(next.Status.Diagnostics[:shownDiagnostics:shownDiagnostics], v1alpha1.Diagnostic{
			Severity: v1alpha1.SeverityWarning, Message: fmt.Sprintf("%d more are not shown; run berth validate", n-shownDiagnostics),
		})
	}
	last := &src.Status
	if r.written != nil {
		last = r.written
	}
	if equality.Semantic.DeepEqual(next.Status, *last) {
		return
	}
	next.ResourceVersion = ""
	written := next.Status.DeepCopy()
	ending := ctx.Err() != nil
	ctx, cancel := lasting(ctx)
	defer cancel()
	err := r.engine.Resources.UpdateStatus(ctx, next)
	if err == nil {
		r.written = written
	} else if !ending && !apierrors.IsNotFound(err) {
		r.engine.Log.Warn("write status", "source", r.name, "err", err)
	}
}

// versions are what the objects of a plan are at once it is carried out.
func versions(p plan.Plan) map[plan.Key]int64 {
	out := map[plan.Key]int64{}
	for _, s := range p.Steps {
		if s.Desired == nil {
			continue
		}
		if v, err := strconv.ParseInt(s.Desired.GetResourceVersion(), 10, 64); err == nil {
			out[s.Key] = v
		}
	}
	return out
}
