package sync

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
)

// keptHistory is how many commits a Source's status remembers.
const keptHistory = 20

// record notes that a commit was applied. One that is applied again because the
// cluster had drifted from it is no new entry.
func (r *runner) record(rev revision.Revision, changes string, now time.Time) {
	h := r.status.History
	if len(h) > 0 && h[0].ID == rev.Commit {
		return
	}
	next := v1alpha1.AppliedCommit{Commit: *commitOf(rev), Applied: metav1.NewTime(now), Changes: changes}
	r.status.History = append([]v1alpha1.AppliedCommit{next}, h[:min(len(h), keptHistory-1)]...)
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
