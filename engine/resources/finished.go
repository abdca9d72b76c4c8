package resources

import (
	"cmp"
	"context"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/store"
)

// finishedPrefix is where the Jobs of Sources are that have ended and were
// removed when their time was over: they are not to run again. The Namespace's
// UID is in the key, for in a Namespace that was made anew nothing has run.
const finishedPrefix = "/berth/finished/"

func finishedKey(source string, namespace types.UID, name string) string {
	return finishedPrefix + source + "/" + string(namespace) + "/" + name
}

// DeleteFinished deletes a Job that has ended, and its Pods before it. It fails
// with a Conflict when the Job was changed meanwhile. One that a Source owns is
// noted in the same transaction, for Finished to tell.
func (r *Resources) DeleteFinished(ctx context.Context, job *batchv1.Job) error {
	t := r.Begin()
	note := job.DeepCopy()
	err := t.Delete(ctx, job, client.DeleteOptions{
		UID: job.UID, ResourceVersion: job.ResourceVersion, Propagation: metav1.DeletePropagationForeground,
	})
	if err != nil {
		return err
	}
	if source, ok := Managed(note); ok {
		var ns corev1.Namespace
		if err := r.Get(ctx, types.NamespacedName{Name: note.Namespace}, &ns); err != nil {
			return err
		}
		value, err := encode(note)
		if err != nil {
			return apierrors.NewInternalError(err)
		}
		t.kept = append(t.kept, store.Op{Key: finishedKey(source, ns.UID, note.Name), Value: value, Expect: store.Any})
	}
	return t.Commit(ctx)
}

// Finished returns a Job of a Source as it was when its time was over; false
// when none was removed so.
func (r *Resources) Finished(ctx context.Context, source string, namespace types.UID, name string) (*batchv1.Job, bool, error) {
	kv, ok, err := r.store.Get(ctx, finishedKey(source, namespace, name))
	if err != nil || !ok {
		return nil, false, err
	}
	job := &batchv1.Job{}
	if err := decodeInto(kv, job); err != nil {
		return nil, false, err
	}
	return job, true, nil
}

// FailedJobs are the Jobs of a Source that had failed when their time was over, in
// the order of their names. Those in Namespaces of other UIDs do not count.
func (r *Resources) FailedJobs(ctx context.Context, source string, namespace func(name string) types.UID) ([]*batchv1.Job, error) {
	page, err := r.store.List(ctx, store.ListRequest{Prefix: finishedPrefix + source + "/"})
	if err != nil {
		return nil, fault(err)
	}
	var out []*batchv1.Job
	for _, kv := range page.KVs {
		job := &batchv1.Job{}
		if err := decodeInto(kv, job); err != nil {
			return nil, err
		}
		failed := slices.ContainsFunc(job.Status.Conditions, func(c batchv1.JobCondition) bool {
			return c.Type == batchv1.JobFailed && c.Status == corev1.ConditionTrue
		})
		if failed && kv.Key == finishedKey(source, namespace(job.Namespace), job.Name) {
			out = append(out, job)
		}
	}
	slices.SortFunc(out, func(a, b *batchv1.Job) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// ForgetFinished adds to the transaction that what Finished tells of a Source's
// Jobs is forgotten, all but those to keep.
func (t *Tx) ForgetFinished(ctx context.Context, source string, keep []types.NamespacedName) error {
	prefix := finishedPrefix + source + "/"
	page, err := t.r.store.List(ctx, store.ListRequest{Prefix: prefix})
	if err != nil {
		return err
	}
	for _, kv := range page.KVs {
		job := &batchv1.Job{}
		if err := decodeInto(kv, job); err != nil {
			return err
		}
		if !slices.Contains(keep, client.Key(job)) {
			t.kept = append(t.kept, store.Op{Key: kv.Key, Expect: store.Any})
		}
	}
	return nil
}
