package main

import (
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/upstream"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/cue"
	"berth.dev/berth/engine/resources"
	"berth.dev/berth/engine/sync"
	"berth.dev/berth/sources/worktree"
)

// planAgainst compares the working tree, or a commit, with another commit of the
// same repository.
func planAgainst(ctx context.Context, o planOptions) error {
	from, _, err := worktree.At(ctx, o.dir, o.against)
	if err != nil {
		return err
	}
	open := worktree.Open
	if o.commit != "" {
		open = func(ctx context.Context, dir string) (revision.Revision, string, error) {
			return worktree.At(ctx, dir, o.commit)
		}
	}
	to, path, err := open(ctx, o.dir)
	if err != nil {
		return err
	}
	if o.source == "" {
		if o.source, err = repositoryName(o.dir); err != nil {
			return err
		}
	}
	src := &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: o.source}}
	src.Spec.Path = path
	v1alpha1.SetDefaults(src)
	decryption, err := o.keys.decryption()
	if err != nil {
		return err
	}
	before, after, err := compileBoth(ctx, src, from, to, decryption)
	if err != nil {
		return err
	}
	if v1alpha1.HasErrors(before.Diagnostics) {
		newExcerpts(from.Tree).print(ctx, o.stderr, before.Diagnostics)
		return fmt.Errorf("%s in commit %s, which is compared with; name one that compiles", errorCount(before.Diagnostics), o.against)
	}
	answer := planAnswer{Source: o.source, Against: from.Commit, Diagnostics: after.Diagnostics}
	if !v1alpha1.HasErrors(answer.Diagnostics) {
		if err := o.compare(&answer, src, before, after, to.Commit); err != nil {
			return err
		}
	}
	newExcerpts(to.Tree).print(ctx, o.stderr, answer.Diagnostics)
	return o.show(answer)
}

// compileBoth compiles two revisions as a push would.
func compileBoth(ctx context.Context, src *v1alpha1.Source, from, to revision.Revision, decryption cue.Decryption) (before, after manifest.Set, err error) {
	compiler, err := cue.New()
	if err != nil {
		return before, after, err
	}
	compile := &manifests{compiler: compiler, decryption: &decryption}
	options := sync.CompileOptions{Source: src.Name, Path: src.Spec.Path, TargetNamespace: src.Spec.TargetNamespace, Kinds: sync.Kinds()}
	if before, err = compile.Compile(ctx, from, options); err != nil {
		return before, after, fmt.Errorf("compile %s: %w", shortID(from.Commit), err)
	}
	after, err = compile.Compile(ctx, to, options)
	return before, after, err
}

// compare fills an answer with the plan between two sets.
func (o planOptions) compare(answer *planAnswer, src *v1alpha1.Source, before, after manifest.Set, commit string) error {
	up, err := upstream.New()
	if err != nil {
		return err
	}
	kinds := resources.New(resources.Options{Upstream: up, Clock: clock.RealClock{}})
	p, diagnostics := sync.Compare(sync.Comparison{Resources: kinds, Source: src, From: before, To: after, Commit: commit})
	answer.Diagnostics = append(answer.Diagnostics, diagnostics...)
	if v1alpha1.HasErrors(answer.Diagnostics) {
		return nil
	}
	if answer.Plan, err = json.Marshal(p); err != nil {
		return err
	}
	note := "compared with commit " + shortID(answer.Against) + "; no cluster was asked"
	answer.render(p, o.verbose)
	answer.Text += note + "\n"
	answer.Markdown += "\n" + note + "\n"
	return nil
}
