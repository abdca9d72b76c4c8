package sync

import (
	"slices"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/plan"
	"berth.dev/berth/engine/resources"
)

// Comparison is of two revisions of a repository, both compiled without errors.
type Comparison struct {
	// Resources know the kinds. No store is asked.
	Resources *resources.Resources
	Source    *v1alpha1.Source
	From, To  manifest.Set
	// Commit of To; empty for a working tree.
	Commit string
}

// Compare plans the way from one revision to the other as if the first were all
// that there is: no cluster is asked. Objects are defaulted, validated and
// compared as Check does it; what depends on a cluster is left out, such as
// other Sources, room on nodes, and namespaces that are not in the repository.
func Compare(c Comparison) (plan.Plan, []v1alpha1.Diagnostic) {
	e := &Engine{Options: Options{Resources: c.Resources, Live: live.New()}, steady: newSteady()}
	was := e.preparation(c.Source, "")
	for _, m := range c.From.Manifests {
		was.assume(m)
	}
	had := map[plan.Key]client.Object{}
	in := plan.Input{Source: c.Source.Name, Commit: c.Commit, Prune: *c.Source.Spec.Prune}
	for _, d := range was.wanted {
		had[d.Key] = d.Object
		in.Owned = append(in.Owned, plan.Owned{Key: d.Key, Object: d.Object})
	}
	p := e.preparation(c.Source, c.Commit)
	for _, m := range c.To.Manifests {
		p.compare(m, had)
	}
	p.diagnostics = append(p.diagnostics, p.cycles()...)
	in.Wanted = p.wanted
	out := plan.Make(in)
	out.Hooks = shown(p.hooks)
	diagnostics := append(p.diagnostics, homeless(out, p.made())...)
	slices.SortStableFunc(diagnostics, v1alpha1.CompareDiagnostics)
	return out, diagnostics
}

// assume takes an object for one that is there as its manifest says. Whether it
// was right is no matter any more.
func (p *preparation) assume(m manifest.Manifest) {
	obj, row, ok := p.object(m)
	if !ok || hookOf(obj) != "" {
		return
	}
	p.label(m, obj, nil)
	p.engine.Resources.ValidateCreate(obj) // for the defaults
	obj.SetResourceVersion("1")            // what is there has one
	p.wanted = append(p.wanted, plan.Desired{Key: plan.KeyOf(row.GroupVersionKind, obj), Object: obj, Origin: m.Origin})
}

// compare prepares an object that is wanted where others were there before.
func (p *preparation) compare(m manifest.Manifest, had map[plan.Key]client.Object) {
	obj, row, ok := p.object(m)
	if !ok || !p.grants(m, obj) {
		return
	}
	if hookOf(obj) != "" {
		p.hook(m, obj)
		return
	}
	wave, ok := p.wave(m, obj)
	if !ok {
		return
	}
	d := plan.Desired{Key: plan.KeyOf(row.GroupVersionKind, obj), Object: obj, Origin: m.Origin, Wave: wave}
	if was := had[d.Key]; was != nil {
		d.Live = was
	}
	p.label(m, obj, d.Live)
	if p.validate(m, &d) {
		p.wanted = append(p.wanted, d)
	}
}
