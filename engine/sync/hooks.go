package sync

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/health"
	"berth.dev/berth/engine/plan"
)

// keptHooks is how many runs of hooks a Source's status remembers, and more where
// one commit has more.
const keptHooks = 40

// hook is a Job that runs once for a commit. The Job in the cluster has the
// commit in its name: that it is there says that it has run, whatever happened
// to the engine. What is known of it when it is gone is in the Source's status.
type hook struct {
	phase  string
	wave   int
	origin manifest.Origin
	// name in the repository; the Job has the commit's behind it.
	name string
	job  *batchv1.Job
}

// String names a hook as its repository does.
func (h hook) String() string {
	return fmt.Sprintf("%s hook Job %s/%s", h.phase, h.job.Namespace, h.name)
}

// hookOf is the phase of a hook; empty for an object that is none.
func hookOf(obj client.Object) string { return obj.GetAnnotations()[v1alpha1.AnnotationHook] }

// commitLength is how much of a commit's ID stands in the name of its Jobs.
const commitLength = 10

// hook prepares a Job that runs for the commit; what is wrong with it becomes a
// diagnostic.
func (p *preparation) hook(m manifest.Manifest, obj client.Object) {
	at := "metadata.annotations[" + v1alpha1.AnnotationHook + "]"
	phase := hookOf(obj)
	job, ok := obj.(*batchv1.Job)
	if !ok {
		p.fail(m, at, "only a Job can be a hook")
		return
	}
	if phase != v1alpha1.HookPre && phase != v1alpha1.HookPost {
		p.fail(m, at, fmt.Sprintf("%s is not %s or %s", quoted(m, phase), v1alpha1.HookPre, v1alpha1.HookPost))
		return
	}
	if c := job.Annotations[v1alpha1.AnnotationHookCleanup]; c != "" && c != v1alpha1.CleanupNext && c != v1alpha1.CleanupSuccess {
		p.fail(m, "metadata.annotations["+v1alpha1.AnnotationHookCleanup+"]", fmt.Sprintf("%s is not %s or %s", quoted(m, c), v1alpha1.CleanupNext, v1alpha1.CleanupSuccess))
		return
	}
	wave, ok := p.wave(m, job)
	if !ok {
		return
	}
	if job.Spec.TTLSecondsAfterFinished != nil {
		p.fail(m, "spec.ttlSecondsAfterFinished", "a hook is kept until it is known how it ended; say when it goes with the annotation "+v1alpha1.AnnotationHookCleanup)
		return
	}
	h := hook{phase: phase, wave: wave, origin: m.Origin, name: job.Name, job: job}
	job.Name += "-" + cmp.Or(p.commit[:min(len(p.commit), commitLength)], "plan")
	p.label(m, job, nil)
	job.Annotations[v1alpha1.AnnotationRevision] = p.commit
	if errs := p.engine.Resources.ValidateCreate(job.DeepCopy()); len(errs) > 0 {
		p.invalid(m, errs)
		return
	}
	p.hooks = append(p.hooks, h)
}

// hooksOf are the hooks of a commit whose objects are at hand.
func (e *Engine) hooksOf(src *v1alpha1.Source, commit string, objects []manifest.Manifest) []hook {
	p := e.preparation(src, commit)
	for _, m := range objects {
		if hookOf(m.Object) == "" {
			continue
		}
		if row, ok := e.Resources.ByKind(m.Object.GroupVersionKind()); ok {
			if obj, ok := p.typed(m, row); ok && p.allowed(m, row, obj) {
				p.hook(m, obj)
			}
		}
	}
	return p.hooks
}

// of are the hooks of a phase in the order of their waves.
func of(hooks []hook, phase string) []hook {
	out := slices.DeleteFunc(slices.Clone(hooks), func(h hook) bool { return h.phase != phase })
	slices.SortStableFunc(out, func(a, b hook) int {
		return cmp.Or(cmp.Compare(a.wave, b.wave), cmp.Compare(a.job.Namespace, b.job.Namespace), cmp.Compare(a.name, b.name))
	})
	return out
}

// shown is how a plan names the hooks.
func shown(hooks []hook) []plan.Hook {
	var out []plan.Hook
	for _, phase := range []string{v1alpha1.HookPre, v1alpha1.HookPost} {
		for _, h := range of(hooks, phase) {
			out = append(out, plan.Hook{Phase: phase, Namespace: h.job.Namespace, Name: h.name, Origin: h.origin})
		}
	}
	return out
}

// hookState is how far the hooks of a phase have come. With neither, all have
// succeeded.
type hookState struct{ waits, failed string }

// runHooks brings the hooks of a phase one step on. Those of one wave run at the
// same time. spaces are Namespaces that the commit creates: a hook may be in one.
func (r *runner) runHooks(ctx context.Context, commit, phase string, hooks []hook, spaces []*corev1.Namespace) (hookState, error) {
	hooks = of(hooks, phase)
	if len(hooks) == 0 {
		return hookState{}, nil
	}
	if waits, err := r.endFormer(ctx, commit); err != nil || waits != "" {
		return hookState{waits: waits}, err
	}
	for len(hooks) > 0 {
		n := 1
		for n < len(hooks) && hooks[n].wave == hooks[0].wave {
			n++
		}
		if state, err := r.runWave(ctx, commit, hooks[:n], spaces); err != nil || state != (hookState{}) {
			return state, err
		}
		hooks = hooks[n:]
	}
	return hookState{}, nil
}

// runWave makes the Jobs that are not there, and looks at those that are.
func (r *runner) runWave(ctx context.Context, commit string, hooks []hook, spaces []*corev1.Namespace) (hookState, error) {
	var state hookState
	var missing []hook
	for _, h := range hooks {
		run := r.hookRun(commit, h)
		if !run.Succeeded && run.Failed == "" {
			var live batchv1.Job
			err := r.engine.Resources.Get(ctx, client.Key(h.job), &live)
			if apierrors.IsNotFound(err) {
				missing = append(missing, h)
			} else if err != nil {
				return state, err
			} else {
				r.noteEnd(run, &live)
			}
		}
		what := h.String()
		switch {
		case run.Failed != "" && state.failed == "":
			state.failed = what + " failed: " + run.Failed
		case run.Failed == "" && !run.Succeeded:
			state.waits = cmp.Or(state.waits, r.runs(h))
			r.running = append(r.running, client.Key(h.job))
		}
	}
	if len(missing) == 0 || state.failed != "" {
		return state, nil
	}
	return state, r.create(ctx, missing, spaces)
}

// runs says that a hook does, and what keeps it from ending.
func (r *runner) runs(h hook) string {
	what := h.String() + " runs"
	if job, ok := r.engine.Live.Jobs.Get(client.Key(h.job)); ok {
		if state := health.Job(job, r.engine.Live.Pods.OwnedBy(job.UID)); state.State != health.Healthy && state.Reason != "" {
			what += ": " + state.Reason
		}
	}
	return what
}

// sayHook keeps what is said of the pre hook that is waited for up to date.
func (r *runner) sayHook(src *v1alpha1.Source) {
	c := meta.FindStatusCondition(r.status.Conditions, v1alpha1.ConditionApplied)
	if c == nil || c.Status != metav1.ConditionFalse || c.Reason != v1alpha1.ReasonProgressing {
		return
	}
	for _, h := range r.pre {
		if strings.HasPrefix(c.Message, h.String()+" runs") {
			r.condition(src, v1alpha1.ConditionApplied, metav1.ConditionFalse, c.Reason, r.runs(h))
			return
		}
	}
}

// create makes Jobs in one transaction, with the Namespaces that they are in.
func (r *runner) create(ctx context.Context, hooks []hook, spaces []*corev1.Namespace) error {
	tx := r.engine.Resources.Begin()
	for _, ns := range spaces {
		if slices.ContainsFunc(hooks, func(h hook) bool { return h.job.Namespace == ns.Name }) {
			if err := tx.Create(ctx, ns.DeepCopy()); err != nil {
				return err
			}
		}
	}
	for _, h := range hooks {
		if err := tx.Create(ctx, h.job.DeepCopy()); err != nil {
			return fmt.Errorf("run the %s hook Job %s/%s: %w", h.phase, h.job.Namespace, h.name, err)
		}
	}
	return tx.Commit(ctx)
}

// hookRun is what the status knows of a hook; it begins to when it is asked.
func (r *runner) hookRun(commit string, h hook) *v1alpha1.HookRun {
	all := r.status.Hooks
	for i := range all {
		if x := &all[i]; x.Commit == commit && x.Phase == h.phase && x.Namespace == h.job.Namespace && x.Name == h.name {
			return x
		}
	}
	next := []v1alpha1.HookRun{{Commit: commit, Phase: h.phase, Namespace: h.job.Namespace, Name: h.name}}
	for _, x := range all {
		// One of this commit that was forgotten would run again.
		if x.Commit == commit || len(next) < keptHooks {
			next = append(next, x)
		}
	}
	r.status.Hooks = next
	return &r.status.Hooks[0]
}

func (r *runner) noteEnd(run *v1alpha1.HookRun, job *batchv1.Job) {
	switch c := ended(job); {
	case c == nil:
	case c.Type == batchv1.JobComplete:
		run.Succeeded = true
	default:
		run.Failed = health.Job(job, r.engine.Live.Pods.OwnedBy(job.UID)).Reason
	}
}

// ended is the condition with which a Job is over; nil while it is not.
func ended(job *batchv1.Job) *batchv1.JobCondition {
	for i := range job.Status.Conditions {
		c := &job.Status.Conditions[i]
		if c.Status == corev1.ConditionTrue && (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) {
			return c
		}
	}
	return nil
}

// hookEnded: a Job that is waited for is over, or is gone.
func (r *runner) hookEnded() bool {
	return slices.ContainsFunc(r.running, func(key types.NamespacedName) bool {
		job, ok := r.engine.Live.Jobs.Get(key)
		return !ok || ended(job) != nil
	})
}

// hookJobs are the Jobs of hooks that the Source has in the cluster.
func (r *runner) hookJobs(ctx context.Context) ([]*batchv1.Job, error) {
	objects, err := r.engine.labelled(ctx, r.name, batchv1.SchemeGroupVersion.WithKind("Job"))
	if err != nil {
		return nil, err
	}
	var out []*batchv1.Job
	for _, obj := range objects {
		if job := obj.(*batchv1.Job); hookOf(job) != "" {
			out = append(out, job)
		}
	}
	return out, nil
}

// endFormer deletes the Jobs of other commits. One that has not ended is
// stopped, for the newest commit wins at once, but two never run side by side:
// it is waited for until its Pods are gone.
func (r *runner) endFormer(ctx context.Context, commit string) (waits string, err error) {
	jobs, err := r.hookJobs(ctx)
	if err != nil {
		return "", err
	}
	for _, job := range jobs {
		if job.Annotations[v1alpha1.AnnotationRevision] == commit {
			continue
		}
		if ended(job) == nil {
			waits = fmt.Sprintf("hook Job %s/%s of the former commit is stopped", job.Namespace, job.Name)
			r.running = append(r.running, client.Key(job))
			r.noteStopped(job, commit)
		}
		if job.DeletionTimestamp == nil {
			err := r.engine.Resources.Delete(ctx, job, client.DeleteOptions{UID: job.UID, Propagation: metav1.DeletePropagationForeground})
			if err != nil && !apierrors.IsNotFound(err) {
				return "", err
			}
		}
	}
	return waits, nil
}

// noteStopped: a post hook that was stopped has run, and does not run again. A pre
// hook may, when its commit becomes the newest once more: nothing else of that
// was applied.
func (r *runner) noteStopped(job *batchv1.Job, by string) {
	for i := range r.status.Hooks {
		h := &r.status.Hooks[i]
		if h.Phase == v1alpha1.HookPost && h.Commit == job.Annotations[v1alpha1.AnnotationRevision] && h.Namespace == job.Namespace && hookJob(*h) == job.Name && !h.Succeeded && h.Failed == "" {
			h.Failed = "it was stopped, for commit " + short(by) + " came"
		}
	}
}

// tidy deletes the Jobs that are to go when they have succeeded. That they have
// was stored before.
func (r *runner) tidy(ctx context.Context) {
	if r.written == nil {
		return
	}
	if !slices.ContainsFunc(r.written.Hooks, func(h v1alpha1.HookRun) bool { return h.Succeeded }) {
		return
	}
	jobs := ofSource(r.engine.Live.Jobs.All(), r.name, func(obj client.Object) bool { return hookOf(obj) != "" })
	for _, job := range jobs {
		if job.Annotations[v1alpha1.AnnotationHookCleanup] != v1alpha1.CleanupSuccess || job.DeletionTimestamp != nil {
			continue
		}
		for _, h := range r.written.Hooks {
			if h.Succeeded && h.Commit == job.Annotations[v1alpha1.AnnotationRevision] && h.Namespace == job.Namespace && hookJob(h) == job.Name {
				// What cannot be deleted now is found again.
				_ = r.engine.Resources.Delete(ctx, job.DeepCopy(), client.DeleteOptions{UID: job.UID, Propagation: metav1.DeletePropagationForeground})
			}
		}
	}
}

func hookJob(h v1alpha1.HookRun) string {
	return h.Name + "-" + h.Commit[:min(len(h.Commit), commitLength)]
}

// before runs the pre hooks of a commit; false when it must wait for them.
func (r *runner) before(ctx context.Context, src *v1alpha1.Source, t *target, out Outcome) (bool, error) {
	if t.back || t.rev.Commit == "" {
		return true, nil
	}
	r.running, r.pre = nil, of(out.hooks, v1alpha1.HookPre)
	var spaces []*corev1.Namespace
	for _, s := range out.Plan.Steps {
		if ns, ok := s.Desired.(*corev1.Namespace); ok && s.Action == plan.Create {
			spaces = append(spaces, ns)
		}
	}
	state, err := r.runHooks(ctx, t.rev.Commit, v1alpha1.HookPre, out.hooks, spaces)
	switch {
	case err != nil:
		return false, err
	case state.failed != "":
		r.condition(src, v1alpha1.ConditionApplied, metav1.ConditionFalse, v1alpha1.ReasonHookFailed,
			state.failed+"; nothing else of commit "+short(t.rev.Commit)+" was applied: push a commit that mends it")
		return false, nil
	case state.waits != "":
		r.condition(src, v1alpha1.ConditionApplied, metav1.ConditionFalse, v1alpha1.ReasonProgressing, state.waits)
		return false, nil
	}
	return true, nil
}
