package sync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/plan"
	"berth.dev/berth/engine/resources"
	"berth.dev/berth/engine/store"
)

// Outcome is what a revision would do. With an error among the diagnostics it
// would do nothing.
type Outcome struct {
	Plan        plan.Plan
	Diagnostics []v1alpha1.Diagnostic
	// Held says why the plan would wait for approval; empty when it would not.
	Held string
	// Waits says what must be gone first; empty when nothing must.
	Waits string
	// Later says why it would be applied later.
	Later Later
	// Objects counts what the revision holds, by kind.
	Objects map[string]int32
	// hooks of the revision.
	hooks []hook
	// manifests are what the revision holds.
	manifests []manifest.Manifest
	// next is the part of the plan that tx carries out.
	next plan.Wave
	tx   *resources.Tx
	// finished are Jobs of the revision that have run and were removed since.
	finished []types.NamespacedName
}

// Failed reports whether the revision cannot be applied.
func (o Outcome) Failed() bool { return v1alpha1.HasErrors(o.Diagnostics) }

// Check compiles and plans a revision against the live cluster, up to but not
// including the write: what it shows is what applying would do. src need not
// exist in the cluster.
func (e *Engine) Check(ctx context.Context, src *v1alpha1.Source, rev revision.Revision) (Outcome, error) {
	decryption, err := e.decryption(ctx, src)
	if err != nil {
		return Outcome{}, err
	}
	set, err := e.Compiler.Compile(ctx, rev, CompileOptions{
		Limits: src.Spec.Compile, Decryption: decryption,
		Source: src.Name, Path: src.Spec.Path, TargetNamespace: src.Spec.TargetNamespace, Kinds: Kinds(),
	})
	if err != nil {
		return Outcome{}, fmt.Errorf("compile: %w", err)
	}
	a := approvalOf(src, rev.Commit)
	a.all = a.all || allowsPrune(rev.Message)
	for attempts := applyAttempts; ; attempts-- {
		out, err := e.plan(ctx, src, rev.Commit, set, a)
		// A commit before may be being applied: it is planned anew after that.
		if attempts == 1 || !changedMeanwhile(err) {
			return out, err
		}
	}
}

// approval is what goes ahead of that which would wait.
type approval struct {
	// all of them, also of what others keep in a Namespace.
	all bool
	// count lets any number of them go ahead.
	count bool
	// anyTime: outside of the sync windows, too.
	anyTime bool
	// atOnce: whatever it depends on, too.
	atOnce bool
}

// approvalOf is what somebody approved of a commit.
func approvalOf(src *v1alpha1.Source, commit string) approval {
	of, now := strings.CutSuffix(src.Annotations[v1alpha1.AnnotationApprove], v1alpha1.ApproveNow)
	given := commit != "" && of == commit
	return approval{all: given, anyTime: given && now}
}

// plan plans the objects of a commit against the live cluster.
func (e *Engine) plan(ctx context.Context, src *v1alpha1.Source, commit string, set manifest.Set, approved approval) (Outcome, error) {
	ctx = store.FreshOnce(ctx) // it reads each object; what is older than that is a conflict at the commit
	out := Outcome{manifests: set.Manifests, Diagnostics: set.Diagnostics, Objects: map[string]int32{}}
	if out.Failed() {
		return out, nil
	}
	p, err := e.prepare(ctx, src, commit, set)
	if err != nil {
		return Outcome{}, err
	}
	out.Diagnostics = append(out.Diagnostics, p.diagnostics...)
	out.Waits, out.hooks, out.finished = p.waits, p.hooks, p.finished
	if out.Failed() {
		slices.SortStableFunc(out.Diagnostics, v1alpha1.CompareDiagnostics)
		return out, nil
	}
	owned, err := e.owned(ctx, src.Name)
	if err == nil {
		owned, err = e.withChildren(ctx, owned, p.wanted)
	}
	if err != nil {
		return Outcome{}, err
	}
	// What is outside of its limits is not the Source's to delete: one of the same
	// name that is gone may have left it behind.
	owned = slices.DeleteFunc(owned, func(o plan.Owned) bool { return !within(p.limits, o.Key) })
	for _, d := range p.wanted {
		out.Objects[d.Key.Kind]++
	}
	for range p.finished {
		out.Objects["Job"]++
	}
	out.Plan = plan.Make(plan.Input{
		Source: src.Name, Commit: commit, Wanted: p.wanted, Owned: owned, Prune: *src.Spec.Prune, Room: e.room(),
	})
	out.Plan.Hooks = shown(p.hooks)
	out.Plan.Unchanged += len(p.finished)
	out.Diagnostics = append(out.Diagnostics, homeless(out.Plan, p.made())...)
	nowhere, err := e.references(ctx, src.Name, set.Open, out.Plan)
	if err != nil {
		return Outcome{}, err
	}
	out.Diagnostics = append(out.Diagnostics, nowhere...)
	if out.Failed() {
		slices.SortStableFunc(out.Diagnostics, v1alpha1.CompareDiagnostics)
		return out, nil
	}
	if !approved.all {
		if !approved.count {
			out.Held = out.Plan.Gate(*src.Spec.MaxPrune)
		}
		if out.Held == "" {
			if out.Held, err = e.foreign(ctx, src.Name, out.Plan); err != nil {
				return Outcome{}, err
			}
		}
	}
	if out.Later = e.later(src, e.Clock.Now()); approved.atOnce || approved.anyTime && out.Later.Reason == v1alpha1.ReasonOutsideWindow {
		out.Later = Later{}
	}
	if out.Waits == "" {
		err = e.stage(ctx, &out, approved.atOnce)
		if err == nil && out.next.Last {
			err = out.tx.ForgetFinished(ctx, src.Name, p.finished)
		}
	}
	slices.SortStableFunc(out.Diagnostics, v1alpha1.CompareDiagnostics)
	return out, err
}

// made are the objects and the Jobs of hooks that a revision writes.
func (p *preparation) made() []plan.Desired {
	out := slices.Clone(p.wanted)
	for _, h := range p.hooks {
		key := plan.KeyOf(batchv1.SchemeGroupVersion.WithKind("Job"), h.job)
		key.Name = h.name
		out = append(out, plan.Desired{Key: key, Origin: h.origin})
	}
	return out
}

// homeless finds the objects whose Namespace the same plan deletes: they would
// be applied only to go with it.
func homeless(p plan.Plan, wanted []plan.Desired) []v1alpha1.Diagnostic {
	going := map[string]bool{}
	for _, s := range p.Steps {
		if s.Action == plan.Delete && s.Key.Kind == "Namespace" {
			going[s.Key.Name] = true
		}
	}
	var out []v1alpha1.Diagnostic
	for _, d := range wanted {
		if d.Key.Namespace != "" && going[d.Key.Namespace] {
			out = append(out, v1alpha1.Diagnostic{
				Severity: v1alpha1.SeverityError, Path: d.Origin.Path, Line: int32(d.Origin.Line),
				Object: d.Key.Kind + "/" + d.Key.Name, Field: "metadata.namespace",
				Message: fmt.Sprintf("namespace %s is no longer in the repository and would be deleted with everything in it; keep the Namespace object, move this object, or keep the namespace with the annotation %s: %s on it",
					d.Key.Namespace, v1alpha1.AnnotationPrune, v1alpha1.PruneDisabled),
			})
		}
	}
	return out
}

// foreign says whether a Namespace would be deleted that holds what the plan does
// not delete: it would go with the Namespace.
func (e *Engine) foreign(ctx context.Context, source string, p plan.Plan) (string, error) {
	goes := map[plan.Key]bool{}
	for _, s := range p.Steps {
		if s.Action == plan.Delete {
			goes[s.Key] = true
		}
	}
	for _, s := range p.Steps {
		if s.Action != plan.Delete || s.Key.Kind != "Namespace" {
			continue
		}
		for _, row := range e.Resources.All() {
			if !row.Namespaced || row.ReadOnly || row.Form() || passing(row.Kind) {
				continue
			}
			list, err := e.Resources.Objects(ctx, row, resources.ListRequest{Namespace: s.Key.Name})
			if err != nil {
				return "", fmt.Errorf("list what namespace %s holds: %w", s.Key.Name, err)
			}
			for _, obj := range list.Objects {
				owner, _ := resources.Managed(obj)
				own := goes[plan.KeyOf(row.GroupVersionKind, obj)] || owner == source && (hookOf(obj) != "" || obj.GetDeletionTimestamp() != nil)
				if !own && len(obj.GetOwnerReferences()) == 0 && !resources.Standing(obj) {
					return fmt.Sprintf("would delete namespace %s with what others keep in it, such as %s %s", s.Key.Name, row.Kind, obj.GetName()), nil
				}
			}
		}
	}
	return "", nil
}

// passing: objects of the kind are notes about others, and nobody keeps them.
func passing(kind string) bool {
	return kind == "Event" || kind == "Lease" || kind == "ControllerRevision"
}

// allowsPrune looks for the trailer that approves deletions.
func allowsPrune(message string) bool {
	for line := range strings.Lines(message) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		if ok && strings.EqualFold(key, v1alpha1.TrailerAllowPrune) && strings.EqualFold(strings.TrimSpace(value), "true") {
			return true
		}
	}
	return false
}

// stage builds the transaction of the whole plan, so that what the cluster
// refuses, such as a node port that is taken, is known before anything is
// written; or of its next wave, if that is not all of it and waves are heeded.
func (e *Engine) stage(ctx context.Context, out *Outcome, atOnce bool) error {
	out.next = plan.Wave{Steps: out.Plan.Steps, Last: true}
	if err := e.fill(ctx, out); err != nil || out.Failed() || atOnce {
		return err
	}
	next := out.Plan.Next()
	if next.Last { // the transaction is that of the whole plan
		out.next = next
		return nil
	}
	for _, n := range out.Plan.Waves[:len(out.Plan.Waves)-1] {
		out.next = plan.Wave{Number: n, Steps: out.Plan.Through(n)}
		if err := e.fill(ctx, out); err != nil {
			return err
		}
		if out.Failed() {
			for i := range out.Diagnostics {
				if d := &out.Diagnostics[i]; d.Severity == v1alpha1.SeverityError {
					d.Message += fmt.Sprintf("; what gives it up comes after wave %d: write this object in the last wave, %d, or delete the other one in a commit before", n, out.Plan.Waves[len(out.Plan.Waves)-1])
				}
			}
			return nil
		}
	}
	out.next = next
	return e.fill(ctx, out)
}

// fill makes the transaction out of the next steps. What the cluster refuses
// becomes a diagnostic at the object's place.
func (e *Engine) fill(ctx context.Context, out *Outcome) error {
	out.tx = e.Resources.Begin()
	steps := make([]*plan.Step, 0, len(out.next.Steps))
	for i := range out.next.Steps {
		steps = append(steps, &out.next.Steps[i])
	}
	// Deletions first: what they give up, such as a node port, can be taken.
	slices.SortStableFunc(steps, func(a, b *plan.Step) int {
		return cmp.Compare(boolInt(a.Action != plan.Delete), boolInt(b.Action != plan.Delete))
	})
	for _, s := range steps {
		err := stageStep(ctx, out.tx, s)
		var status *apierrors.StatusError
		switch {
		case err == nil:
		case apierrors.IsInvalid(err), apierrors.IsForbidden(err), apierrors.IsBadRequest(err):
			errors.As(err, &status)
			message := status.ErrStatus.Message
			if v1alpha1.Hidden(s.Desired) {
				message = refusal(status)
			}
			out.Diagnostics = append(out.Diagnostics, v1alpha1.Diagnostic{
				Severity: v1alpha1.SeverityError, Path: s.Origin.Path, Line: int32(s.Origin.Line),
				Object: s.Key.Kind + "/" + s.Key.Name, Message: message,
			})
		default:
			return fmt.Errorf("%s %s: %w", s.Action, s.Key, err)
		}
	}
	return nil
}

// refusal is what the cluster said, without the values: the fields that it is about.
func refusal(status *apierrors.StatusError) string {
	var fields []string
	if d := status.ErrStatus.Details; d != nil {
		for _, c := range d.Causes {
			fields = append(fields, c.Field)
		}
	}
	message := "the cluster refuses it; why may quote a value of an encrypted file, and is left out"
	if len(fields) > 0 {
		message += ": look at " + strings.Join(fields, ", ")
	}
	return message
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func stageStep(ctx context.Context, tx *resources.Tx, s *plan.Step) error {
	switch s.Action {
	case plan.Create:
		return tx.Create(ctx, s.Desired)
	case plan.Change, plan.Touch:
		return tx.Update(ctx, s.Desired)
	case plan.Replace:
		return tx.Replace(ctx, s.Desired)
	case plan.Release:
		released := s.Live.DeepCopyObject().(client.Object)
		release(released)
		return tx.Update(ctx, released)
	case plan.Delete:
		return tx.Delete(ctx, s.Live.DeepCopyObject().(client.Object), client.DeleteOptions{
			UID: s.Live.GetUID(), ResourceVersion: s.Live.GetResourceVersion(),
		})
	}
	return nil
}

// release takes off what says that a Source owns the object.
func release(obj client.Object) {
	l, a := copied(obj.GetLabels()), copied(obj.GetAnnotations())
	delete(l, v1alpha1.LabelSource)
	for _, k := range []string{v1alpha1.AnnotationOrigin, v1alpha1.AnnotationRevision, v1alpha1.AnnotationAdopted} {
		delete(a, k)
	}
	obj.SetLabels(l)
	obj.SetAnnotations(a)
	resources.Forget(obj)
}
