package sync

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/plan"
	"berth.dev/berth/engine/resources"
)

// maxDepth of Sources that come out of Sources.
const maxDepth = 10

// limits are those of a Source and of the Sources that it comes out of: what it
// may touch is what all of them may.
func (e *Engine) limits(src *v1alpha1.Source) []*v1alpha1.Source {
	out := []*v1alpha1.Source{src}
	for at := src; len(out) < maxDepth; {
		parent, ok := resources.Managed(at)
		if !ok {
			break
		}
		next, ok := e.Live.Sources.Get(types.NamespacedName{Name: parent})
		if !ok || slices.ContainsFunc(out, func(s *v1alpha1.Source) bool { return s.Name == next.Name }) {
			break
		}
		out = append(out, next)
		at = next
	}
	return out
}

// orphaned is the Source that one has come out of, if that is gone: its limits
// are not known any more.
func (e *Engine) orphaned(limits []*v1alpha1.Source) string {
	parent, ok := resources.Managed(limits[len(limits)-1])
	if ok && !e.exists(parent) {
		return parent
	}
	return ""
}

// unbounded is the Source that one comes out of, over the most that can be on the
// way: what those beyond may touch is not looked at.
func unbounded(limits []*v1alpha1.Source) string {
	parent, ok := resources.Managed(limits[len(limits)-1])
	if ok && len(limits) == maxDepth && !slices.ContainsFunc(limits, func(s *v1alpha1.Source) bool { return s.Name == parent }) {
		return parent
	}
	return ""
}

// within: all Sources on the way may touch an object.
func within(limits []*v1alpha1.Source, key plan.Key) bool {
	for _, s := range limits {
		ns := key.Namespace
		if key.Kind == "Namespace" {
			ns = key.Name
		}
		if key.Kind != "Source" && !matches(s.Spec.Namespaces, ns) || !holds(s, key.Kind) {
			return false
		}
	}
	return true
}

// limited: some Source on the way is limited to some Namespaces or kinds.
func limited(limits []*v1alpha1.Source) *v1alpha1.Source {
	for _, s := range limits {
		if len(s.Spec.Namespaces) > 0 || len(s.Spec.Kinds) > 0 {
			return s
		}
	}
	return nil
}

// bounds are the limits of a Source in words.
func bounds(s *v1alpha1.Source) string {
	var out []string
	if len(s.Spec.Namespaces) > 0 {
		out = append(out, "touch the namespaces "+strings.Join(s.Spec.Namespaces, ", "))
	}
	if len(s.Spec.Kinds) > 0 {
		out = append(out, "hold the kinds "+strings.Join(s.Spec.Kinds, ", "))
	}
	return fmt.Sprintf("Source %s may only %s", s.Name, strings.Join(out, ", and "))
}

// holds: the Source may hold a kind.
func holds(s *v1alpha1.Source, kind string) bool {
	return len(s.Spec.Kinds) == 0 || slices.Contains(s.Spec.Kinds, kind)
}

// matches: a name is one of those that patterns name. No patterns name all.
func matches(patterns []string, name string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return ok && err == nil
	})
}

// allowed: each Source on the way may be limited to some kinds and Namespaces.
func (p *preparation) allowed(m manifest.Manifest, row *resources.Resource, obj client.Object) bool {
	for _, s := range p.limits {
		if !holds(s, row.Kind) {
			p.fail(m, "kind", fmt.Sprintf("Source %s may only hold the kinds %s; change spec.kinds of the Source, or move the object to another", s.Name, strings.Join(s.Spec.Kinds, ", ")))
			return false
		}
		ns := obj.GetNamespace()
		switch {
		case row.Kind == "Namespace":
			ns = obj.GetName()
		case row.Kind == "Source": // it is limited by itself
			continue
		}
		if matches(s.Spec.Namespaces, ns) {
			continue
		}
		if ns == "" {
			p.fail(m, "kind", fmt.Sprintf("a %s is in no namespace, and Source %s may only touch the namespaces %s; move the object to a Source without spec.namespaces",
				row.Kind, s.Name, strings.Join(s.Spec.Namespaces, ", ")))
		} else {
			p.fail(m, "metadata.namespace", fmt.Sprintf("Source %s may only touch the namespaces %s; change spec.namespaces of the Source, or the namespace here",
				s.Name, strings.Join(s.Spec.Namespaces, ", ")))
		}
		return false
	}
	return true
}

// child checks a Source that comes out of a Source. What it may touch is bounded
// when it is applied; here are the things that bound cannot reach: whose Source
// it is, and the Secrets that it reads.
func (p *preparation) child(m manifest.Manifest, obj, live client.Object) bool {
	s, ok := obj.(*v1alpha1.Source)
	if !ok {
		return true
	}
	if s.Name == p.source.Name {
		p.fail(m, "metadata.name", "a Source cannot hold itself")
		return false
	}
	if len(p.limits) >= maxDepth {
		p.fail(m, "", fmt.Sprintf("Sources come out of Sources %d deep at most", maxDepth))
		return false
	}
	by := limited(p.limits)
	if by == nil {
		return true
	}
	if live != nil {
		if _, owned := resources.Managed(live); !owned {
			p.fail(m, "metadata.name", fmt.Sprintf("Source %s is there already and was not made by Source %s, and %s; give it another name", s.Name, p.source.Name, bounds(by)))
			return false
		}
	}
	v1alpha1.SetDefaults(s)
	faults := beyond(s, p.limits)
	for _, d := range faults {
		p.fail(m, d.Field, d.Message)
	}
	return len(faults) == 0
}

// beyond finds the Secrets that a Source reads outside of the limits of those that
// it comes out of. They may have become narrower since it was made.
func beyond(s *v1alpha1.Source, limits []*v1alpha1.Source) []v1alpha1.Diagnostic {
	var out []v1alpha1.Diagnostic
	read := reads(s)
	for _, field := range slices.Sorted(maps.Keys(read)) {
		for _, limit := range limits {
			if !matches(limit.Spec.Namespaces, read[field]) {
				out = append(out, v1alpha1.Diagnostic{
					Severity: v1alpha1.SeverityError, Object: "Source/" + s.Name, Field: field,
					Message: fmt.Sprintf("reads a Secret of namespace %s, and Source %s may only touch the namespaces %s; name a namespace of those",
						read[field], limit.Name, strings.Join(limit.Spec.Namespaces, ", ")),
				})
				break
			}
		}
	}
	return out
}

// reads are the Namespaces that a Source reads Secrets of, by field.
func reads(s *v1alpha1.Source) map[string]string {
	out := map[string]string{}
	note := func(field, namespace string) {
		if namespace == "" {
			field, namespace = "spec.targetNamespace", s.Spec.TargetNamespace
		}
		out[field] = namespace
	}
	if c := s.Spec.Credentials; c != nil {
		note("spec.credentials.secretNamespace", c.SecretNamespace)
	}
	if w := s.Spec.Webhook; w != nil {
		note("spec.webhook.secretNamespace", w.SecretNamespace)
	}
	if d := s.Spec.Decryption; d != nil {
		note("spec.decryption.secretNamespace", d.SecretNamespace)
	}
	for i, n := range s.Spec.Notifications {
		note(fmt.Sprintf("spec.notifications[%d].secretNamespace", i), n.SecretNamespace)
	}
	return out
}

// withChildren adds what the Sources own that a commit no longer holds: it goes
// with them, and counts as deletions do. A child that does not prune leaves it.
func (e *Engine) withChildren(ctx context.Context, owned []plan.Owned, wanted []plan.Desired) ([]plan.Owned, error) {
	keep := map[plan.Key]bool{}
	for _, d := range wanted {
		keep[d.Key] = true
	}
	out := owned
	for i := 0; i < len(out); i++ { // children of children are found on the way
		s, ok := out[i].Object.(*v1alpha1.Source)
		a := out[i].Object.GetAnnotations()
		stays := a[v1alpha1.AnnotationPrune] == v1alpha1.PruneDisabled || a[v1alpha1.AnnotationAdopted] != "" || a[v1alpha1.AnnotationHandOver] != ""
		if !ok || keep[out[i].Key] || !*s.Spec.Prune || stays {
			continue
		}
		children, err := e.ownedWithHooks(ctx, s.Name)
		if err != nil {
			return nil, err
		}
		for _, c := range children {
			if !keep[c.Key] && !slices.ContainsFunc(out, func(o plan.Owned) bool { return o.Key == c.Key }) {
				out = append(out, c)
			}
		}
	}
	return out, nil
}

// ownedWithHooks are the objects of a Source, and the Jobs of its hooks: without
// the Source nobody removes those.
func (e *Engine) ownedWithHooks(ctx context.Context, source string) ([]plan.Owned, error) {
	out, err := e.owned(ctx, source)
	if err != nil {
		return nil, err
	}
	kind := batchv1.SchemeGroupVersion.WithKind("Job")
	jobs, err := e.labelled(ctx, source, kind)
	for _, job := range jobs {
		if hookOf(job) != "" && job.GetDeletionTimestamp() == nil {
			out = append(out, plan.Owned{Key: plan.KeyOf(kind, job), Object: job})
		}
	}
	return out, err
}
