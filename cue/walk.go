package cue

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/cue/document"
	"berth.dev/berth/cue/kustomize"
)

// Bounds of what is followed, for it happens in the engine's process.
const (
	// maxKustomization is how much one kustomization reads, in bytes.
	maxKustomization = 64 << 20
	// maxAbove is how many kustomizations build on one another.
	maxAbove = 50
	// maxWalk is how many files all kustomizations together read, each file
	// counted for each of them.
	maxWalk = 300_000
)

// walk follows the references of one kustomization that is built.
type walk struct {
	*limits
	root  *kustomize.File
	files map[string]revision.File
	// built are the kustomization files among them.
	built    map[string]bool
	problems []document.Problem
	// failed: there are problems, told here or by another walk.
	failed bool
}

// limits are shared by the walks of a compile.
type limits struct {
	left     int
	reported map[document.Problem]bool
}

// read are the files that the kustomization reads, sorted.
func (w *walk) read() []revision.File {
	return slices.SortedFunc(maps.Values(w.files), func(a, b revision.File) int { return strings.Compare(a.Path, b.Path) })
}

// follow adds what k reads, and what those read that it builds on. above are the
// kustomizations that lead to k.
func (j *job) follow(ctx context.Context, w *walk, k *kustomize.File, above []*kustomize.File) error {
	if w.built[k.Path] || w.left < 0 {
		return nil
	}
	if len(above) >= maxAbove {
		w.problem(document.Problem{Pos: document.Pos{Path: k.Path, Line: 1},
			Message: fmt.Sprintf("more than %d kustomizations build on this one, each on the next; make fewer of them", maxAbove)})
		return nil
	}
	w.built[k.Path] = true
	w.add(j.in.all[k.Path])
	for _, p := range k.Problems {
		w.problem(p)
	}
	above = append(slices.Clip(above), k)
	for _, r := range k.References {
		f, isFile := j.in.all[r.Leads]
		if isFile && r.Target != kustomize.ToFolder {
			w.refer(f, r)
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
	w.problem(document.Problem{Pos: r.Pos, Field: r.Field, Message: message})
}

// problem notes a fault. Kustomizations that build on the same one share its
// faults, which are told once.
func (w *walk) problem(p document.Problem) {
	w.failed = true
	if !w.reported[p] {
		w.reported[p] = true
		w.problems = append(w.problems, p)
	}
}

// refer adds a file that the kustomization refers to, if it can be read.
func (w *walk) refer(f revision.File, r kustomize.Reference) {
	switch {
	case f.Kind == revision.Symlink:
		w.fault(r, fmt.Sprintf("%s is a symbolic link, which is not followed; put the file itself there", f.Path))
	case f.Kind == revision.Submodule:
		w.fault(r, fmt.Sprintf("%s is a submodule, which is not fetched; set spec.submodules: true of the Source, or put the files into this repository", f.Path))
	case f.Size > maxFile:
		w.fault(r, fmt.Sprintf("%s is %.1f MiB; at most %d MiB are read", f.Path, float64(f.Size)/(1<<20), maxFile>>20))
	default:
		w.add(f)
	}
}

func (w *walk) add(f revision.File) {
	if _, known := w.files[f.Path]; known {
		return
	}
	w.files[f.Path] = f
	if w.left--; w.left == -1 {
		w.problem(document.Problem{Pos: document.Pos{Path: w.root.Path, Line: 1},
			Message: fmt.Sprintf("the kustomizations below the deployed folder read more than %d files, counted for each; deploy a smaller folder", maxWalk)})
	}
	w.failed = w.failed || w.left < 0
}

// missing says why a reference leads nowhere.
func (in *inputs) missing(r kustomize.Reference) string {
	if _, isFile := in.all[r.Leads]; isFile {
		return fmt.Sprintf("%s is a file; must be a folder with a kustomization.yaml", r.Written)
	}
	if in.isFolder(r.Leads) {
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

// isFolder reports whether there is anything in a folder.
func (in *inputs) isFolder(dir string) bool {
	if in.folders == nil {
		in.folders = map[string]bool{"": true}
		for name := range in.all {
			for d := folder(name); !in.folders[d]; d = folder(d) {
				in.folders[d] = true
			}
		}
	}
	return in.folders[dir]
}
