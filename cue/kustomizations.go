package cue

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/cue/document"
	"berth.dev/berth/cue/kustomize"
	"berth.dev/berth/cue/sops"
)

// kustomizations are those below the deployed folder.
type kustomizations struct {
	// roots are built: those that no other one builds on.
	roots []*walk
	// deployed by folder, and all of them in the order of their depth.
	deployed map[string]*kustomize.File
	all      []*kustomize.File
	// files that some kustomization reads; they are not deployed by themselves.
	files map[string]bool
	// within are the kustomizations that another one builds on.
	within map[string]bool
}

// enclosing is the kustomization whose folder a file lies in, or nil.
func (ks *kustomizations) enclosing(name string) *kustomize.File {
	for dir := folder(name); ; dir = folder(dir) {
		if f := ks.deployed[dir]; f != nil {
			return f
		}
		if dir == "" {
			return nil
		}
	}
}

// kustomizations finds the kustomizations, and follows those that are built.
func (j *job) kustomizations(ctx context.Context) (*kustomizations, error) {
	ks := &kustomizations{deployed: map[string]*kustomize.File{}, files: map[string]bool{}, within: map[string]bool{}}
	for _, f := range j.in.deployed(j.root, func(name string) bool { return kustomize.IsFile(name) && !inCueMod(name) }) {
		ks.files[f.Path] = true
		k, err := j.kustomizationFile(ctx, f)
		if err != nil {
			return nil, err
		}
		if first := ks.deployed[k.Dir()]; first != nil {
			j.in.problems = append(j.in.problems, document.Problem{Pos: document.Pos{Path: f.Path, Line: 1},
				Message: fmt.Sprintf("the folder has a kustomization already, %s; remove one of the two", path.Base(first.Path))})
			continue
		}
		ks.deployed[k.Dir()] = k
		ks.all = append(ks.all, k)
	}
	if err := j.survey(ctx, ks); err != nil {
		return nil, err
	}
	return ks, j.choose(ctx, ks)
}

// survey finds what any kustomization reads, and which ones others build on.
func (j *job) survey(ctx context.Context, ks *kustomizations) error {
	seen := map[string]bool{}
	for queue := slices.Clone(ks.all); len(queue) > 0; queue = queue[1:] {
		k := queue[0]
		if seen[k.Path] {
			continue
		}
		seen[k.Path] = true
		ks.files[k.Path] = true
		for _, r := range k.References {
			if _, isFile := j.in.all[r.Leads]; isFile {
				ks.files[r.Leads] = true
				continue
			}
			f, ok := j.in.kustomizationIn(r.Leads)
			if !ok || r.Target == kustomize.ToFile {
				continue
			}
			ks.within[f.Path] = ks.within[f.Path] || f.Path != k.Path
			if !seen[f.Path] {
				next, err := j.kustomizationFile(ctx, f)
				if err != nil {
					return err
				}
				queue = append(queue, next)
			}
		}
	}
	return nil
}

// choose finds the roots. Where kustomizations build on one another in a circle,
// none of them is a root by itself: the first is taken, and says what is wrong.
func (j *job) choose(ctx context.Context, ks *kustomizations) error {
	l := &limits{left: maxWalk, reported: map[document.Problem]bool{}}
	reached := map[string]bool{}
	take := func(k *kustomize.File) error {
		w := &walk{root: k, limits: l, files: map[string]revision.File{}, built: map[string]bool{}}
		ks.roots = append(ks.roots, w)
		err := j.follow(ctx, w, k, nil)
		maps.Copy(reached, w.built)
		return err
	}
	for _, k := range ks.all {
		switch {
		case ks.within[k.Path]:
		case k.Component:
			j.in.problems = append(j.in.problems, document.Problem{Pos: document.Pos{Path: k.Path, Line: 1}, Warning: true,
				Message: "no kustomization lists this Component; it is not deployed"})
		default:
			if err := take(k); err != nil {
				return err
			}
		}
	}
	for _, k := range ks.all {
		if ks.within[k.Path] && !reached[k.Path] && !k.Component {
			if err := take(k); err != nil {
				return err
			}
		}
	}
	return nil
}

// kustomizationFile reads a kustomization file, if it is not known.
func (j *job) kustomizationFile(ctx context.Context, f revision.File) (*kustomize.File, error) {
	k := j.key("kustomization file", "", []revision.File{f})
	if e, ok := j.cached(k); ok {
		return e.kustomization, nil
	}
	content, problem, err := j.in.read(ctx, f)
	if err != nil {
		return nil, err
	}
	var read *kustomize.File
	if problem == nil && sops.Detect(f.Path, content) != sops.None {
		problem = &document.Problem{Pos: document.Pos{Path: f.Path, Line: 1}, Message: "a kustomization is not read when it is encrypted itself; encrypt the files that it names"}
	}
	if problem != nil {
		read = &kustomize.File{Path: f.Path, Problems: []document.Problem{*problem}}
	} else {
		read = kustomize.Read(f.Path, content)
	}
	j.compiler.cache.put(k, entry{kustomization: read})
	return read, nil
}

// kustomizationIn is the kustomization file of a folder.
func (in *inputs) kustomizationIn(dir string) (revision.File, bool) {
	for _, name := range []string{"kustomization.yaml", "kustomization.yml", "Kustomization"} {
		if f, ok := in.all[path.Join(dir, name)]; ok && f.Kind == revision.Regular {
			return f, true
		}
	}
	return revision.File{}, false
}
