package sync

import (
	"context"
	"sync/atomic"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/engine/health"
)

// overJobs are Jobs of a Source that had failed when their ttlSecondsAfterFinished
// removed them: they have failed still. They are read anew when they are not known.
type overJobs struct {
	jobs  []*batchv1.Job
	known atomic.Bool
}

// failedBefore is the health of a Job that was removed after it had failed.
func failedBefore(j *batchv1.Job) health.Health {
	h := health.Job(j, nil)
	h.Reason += "; its ttlSecondsAfterFinished has removed it since"
	return h
}

// removed: a Job is gone, perhaps because its time was over.
func (e *Engine) removed(job *batchv1.Job) {
	if r := e.runnerOf(job); r != nil {
		r.over.known.Store(false)
	}
}

// readOver reads which Jobs had failed when their time was over, if that may have
// changed.
func (r *runner) readOver(ctx context.Context) {
	if r.over.known.Swap(true) {
		return
	}
	jobs, err := r.engine.Resources.FailedJobs(ctx, r.name, func(namespace string) types.UID {
		ns, ok := r.engine.Live.Namespaces.Get(types.NamespacedName{Name: namespace})
		if !ok {
			return ""
		}
		return ns.UID
	})
	if err != nil {
		r.over.known.Store(false)
		if ctx.Err() == nil {
			r.engine.Log.Warn("look which jobs have failed", "source", r.name, "err", err)
		}
		return
	}
	r.over.jobs = jobs
}
