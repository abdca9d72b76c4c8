package cue

import (
	"context"
	"slices"

	"berth.dev/berth/api/revision"
)

// task compiles one file, one package or one kustomization.
type task func(context.Context) (admitted, error)

// tasks sorts out which of the files below the deployed folder are deployed by
// themselves, and which are part of something else.
func (j *job) tasks(ctx context.Context) ([]task, error) {
	if err := j.charts(ctx); err != nil {
		return nil, err
	}
	ks, err := j.kustomizations(ctx)
	if err != nil {
		return nil, err
	}
	var out []task
	for _, f := range j.in.plain {
		switch listed, dir := ks.files[f.Path] || ks.files[j.in.written(f.Path)], ks.enclosing(f.Path); {
		case listed, dir != nil && len(dir.Problems) > 0:
		case dir != nil:
			out = append(out, func(ctx context.Context) (admitted, error) { return j.unlisted(ctx, f, dir.Path) })
		default:
			out = append(out, func(ctx context.Context) (admitted, error) { return j.plain(ctx, f) })
		}
	}
	for _, dir := range j.in.packages {
		out = append(out, func(ctx context.Context) (admitted, error) { return j.folder(ctx, dir) })
	}
	for _, m := range j.in.copies() {
		out = append(out, func(ctx context.Context) (admitted, error) { return j.vendored(ctx, m) })
	}
	for _, w := range ks.roots {
		out = append(out, func(ctx context.Context) (admitted, error) { return j.kustomization(ctx, w) })
	}
	return out, nil
}

// deployed are the regular files below the deployed folder whose name passes,
// those of shallow folders first.
func (in *inputs) deployed(root string, passes func(name string) bool) []revision.File {
	var out []revision.File
	for name, f := range in.all {
		if f.Kind == revision.Regular && f.Size <= maxFile && within(root, name) && !hidden(root, name) && passes(name) {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b revision.File) int { return compareDepth(a.Path, b.Path) })
	return out
}
