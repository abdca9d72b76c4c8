package cue

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/cue/document"
	"berth.dev/berth/cue/kustomize"
)

// maxKustomization is how much one kustomization reads, in bytes.
const maxKustomization = 64 << 20

// kustomizations are those below the deployed folder.
type kustomizations struct {
	// roots are built: those that no other one builds on.
	roots []*walk
	// deployed by folder.
	deployed map[string]*kustomize.File
	// files that some kustomization reads; they are not deployed by themselves.
	files map[string]bool
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

// walk follows the references of one kustomization.
type walk struct {
	root     *kustomize.File
	files    map[string]revision.File
	built    map[string]bool
	problems []document.Problem
}

// read are the files that the kustomization reads, sorted.
func (w *walk) read() []revision.File {
	return slices.SortedFunc(maps.Values(w.files), func(a, b revision.File) int { return strings.Compare(a.Path, b.Path) })
}

// kustomizations finds the kustomizations and what they read.
func (j *job) kustomizations(ctx context.Context) (*kustomizations, error) {
	ks := &kustomizations{deployed: map[string]*kustomize.File{}, files: map[string]bool{}}
	var all []*kustomize.File
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
		all = append(all, k)
	}
	walks := map[string]*walk{}
	within := map[string]bool{} // kustomizations that another one builds on
	for _, k := range all {
		w := &walk{root: k, files: map[string]revision.File{}, built: map[string]bool{}}
		if err := j.follow(ctx, w, k, nil); err != nil {
			return nil, err
		}
		walks[k.Path] = w
		for name := range w.files {
			ks.files[name] = true
		}
		for name := range w.built {
			within[name] = within[name] || name != k.Path
		}
	}
	ks.choose(j.in, all, walks, within)
	return ks, nil
}

// choose finds the roots. Where kustomizations build on one another in a circle,
// none of them is a root by itself: the first is taken, and says what is wrong.
func (ks *kustomizations) choose(in *inputs, all []*kustomize.File, walks map[string]*walk, within map[string]bool) {
	reached := map[string]bool{}
	take := func(k *kustomize.File) {
		ks.roots = append(ks.roots, walks[k.Path])
		maps.Copy(reached, walks[k.Path].built)
	}
	for _, k := range all {
		if within[k.Path] {
			continue
		}
		if k.Component {
			in.problems = append(in.problems, document.Problem{Pos: document.Pos{Path: k.Path, Line: 1}, Warning: true,
				Message: "no kustomization lists this Component; it is not deployed"})
			continue
		}
		take(k)
	}
	for _, k := range all {
		if within[k.Path] && !reached[k.Path] && !k.Component {
			take(k)
		}
	}
}

// kustomizationFile reads a kustomization file, if it is not known.
func (j *job) kustomizationFile(ctx context.Context, f revision.File) (*kustomize.File, error) {
	k := key("kustomization file", "", []revision.File{f})
	if e, ok := j.cached(k); ok {
		return e.kustomization, nil
	}
	content, problem, err := j.in.read(ctx, f)
	if err != nil {
		return nil, err
	}
	var read *kustomize.File
	if problem != nil {
		read = &kustomize.File{Path: f.Path, Problems: []document.Problem{*problem}}
	} else {
		read = kustomize.Read(f.Path, content)
	}
	j.compiler.cache.put(k, entry{kustomization: read})
	return read, nil
}

// follow adds what k reads, and what those read that it builds on. above are the
// kustomizations that lead to k.
func (j *job) follow(ctx context.Context, w *walk, k *kustomize.File, above []*kustomize.File) error {
	if w.built[k.Path] {
		return nil
	}
	w.built[k.Path] = true
	w.files[k.Path] = j.in.all[k.Path]
	w.problems = append(w.problems, k.Problems...)
	above = append(slices.Clip(above), k)
	for _, r := range k.References {
		f, isFile := j.in.all[r.Leads]
		if isFile && r.Target != kustomize.ToFolder {
			w.add(f, r)
			continue
		}
		if r.Target == kustomize.ToFile || isFile {
			w.fault(r, j.in.missing(r))
			continue
		}
		if err := j.followFolder(ctx, w, r, above); err != nil {
			return err
		}
	}
	return nil
}

func (j *job) followFolder(ctx context.Context, w *walk, r kustomize.Reference, above []*kustomize.File) error {
	for _, k := range above {
		if within(r.Leads, k.Dir()) {
			w.fault(r, fmt.Sprintf("%s leads back to %s; a kustomization cannot contain itself", r.Written, k.Path))
			return nil
		}
	}
	f, ok := j.in.kustomizationIn(r.Leads)
	if !ok {
		w.fault(r, j.in.missing(r))
		return nil
	}
	k, err := j.kustomizationFile(ctx, f)
	if err != nil {
		return err
	}
	if component := strings.HasPrefix(r.Field, "components["); component != k.Component && len(k.Problems) == 0 {
		if component {
			w.fault(r, fmt.Sprintf("%s is no Component; list it under resources", r.Written))
		} else {
			w.fault(r, fmt.Sprintf("%s is a Component; list it under components", r.Written))
		}
	}
	return j.follow(ctx, w, k, above)
}

func (w *walk) fault(r kustomize.Reference, message string) {
	w.problems = append(w.problems, document.Problem{Pos: r.Pos, Field: r.Field, Message: message})
}

// add adds a file that the kustomization reads.
func (w *walk) add(f revision.File, r kustomize.Reference) {
	switch {
	case f.Kind == revision.Symlink:
		w.fault(r, fmt.Sprintf("%s is a symbolic link, which is not followed; put the file itself there", f.Path))
		return
	case f.Kind == revision.Submodule:
		w.fault(r, fmt.Sprintf("%s is a submodule, which is not fetched; put the files into this repository", f.Path))
		return
	case f.Size > maxFile:
		w.fault(r, fmt.Sprintf("%s is %.1f MiB; at most %d MiB are read", f.Path, float64(f.Size)/(1<<20), maxFile>>20))
	}
	w.files[f.Path] = f
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

// missing says why a reference leads nowhere.
func (in *inputs) missing(r kustomize.Reference) string {
	if _, isFile := in.all[r.Leads]; isFile {
		return fmt.Sprintf("%s is a file; must be a folder with a kustomization.yaml", r.Written)
	}
	for name := range in.all {
		if !strings.HasPrefix(name, r.Leads+"/") {
			continue
		}
		if r.Target == kustomize.ToFile {
			return fmt.Sprintf("%s is a folder; must be a file", r.Written)
		}
		return fmt.Sprintf("the folder %s has no kustomization.yaml; add one, or list its files", r.Leads)
	}
	what := "file or folder"
	switch r.Target {
	case kustomize.ToFile:
		what = "file"
	case kustomize.ToFolder:
		what = "folder"
	}
	return fmt.Sprintf("no %s %s at this commit; correct the path, or add it (what .berthignore lists is not there either)", what, r.Leads)
}
