package cue

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/cue/document"
	"berth.dev/berth/cue/kustomize"
	"berth.dev/berth/cue/sops"
)

// kustomization builds one, unless all that it reads is known.
func (j *job) kustomization(ctx context.Context, w *walk) (admitted, error) {
	result, err := j.built(ctx, w)
	result.root = w.root.Path
	return result, err
}

func (j *job) built(ctx context.Context, w *walk) (admitted, error) {
	if w.failed {
		return admitted{problems: w.problems}, nil
	}
	files := w.read()
	var size int64
	for _, f := range files {
		size += f.Size
	}
	if size > maxKustomization {
		return admitted{problems: []document.Problem{{Pos: document.Pos{Path: w.root.Path, Line: 1},
			Message: fmt.Sprintf("the kustomization reads %d MiB; at most %d MiB are read: split it", size>>20, maxKustomization>>20)}}}, nil
	}
	full := j.key("kustomization", w.root.Path, files)
	if e, ok := j.cached(full); ok {
		return e.result, nil
	}
	in := kustomize.Input{File: w.root.Path, Files: make(map[string][]byte, len(files))}
	r := request{Kustomization: &in}
	var skipped, problems []document.Problem
	for _, f := range files {
		s, problem, err := j.open(ctx, f)
		switch {
		case err != nil:
			return admitted{}, err
		case problem != nil && problem.Warning:
			skipped = append(skipped, *problem)
		case problem != nil:
			problems = append(problems, *problem)
		}
		r.Encrypted = r.Encrypted || s.encrypted && !s.instead
		r.guardian.values = append(r.guardian.values, s.values...)
		if in.Encrypted = r.Encrypted; s.shapeless {
			in.Unknown = append(in.Unknown, f.Path)
			s.content = s.anything(f.Path)
		}
		in.Files[f.Path] = s.content
	}
	if len(problems) > 0 {
		result := admitted{problems: problems}
		j.compiler.cache.put(full, entry{result: result})
		return result, nil
	}
	r.finish = func(a admitted) admitted { return j.withoutSkipped(a, skipped, in.Unknown) }
	return j.do(ctx, full, r)
}

// withoutSkipped leaves out what is said of files that were not looked into, but
// for that.
func (j *job) withoutSkipped(a admitted, skipped []document.Problem, unknown []string) admitted {
	if len(skipped) == 0 {
		return a
	}
	var out []document.Problem
	a.objects = slices.DeleteFunc(slices.Clone(a.objects), func(o object) bool {
		return slices.ContainsFunc(unknown, func(name string) bool { return j.in.written(name) == j.in.written(o.Origin.Path) })
	})
	for _, p := range a.problems {
		if !slices.ContainsFunc(skipped, func(s document.Problem) bool { return s.Path == j.in.written(p.Path) }) {
			out = append(out, p)
		}
	}
	a = guardian{}.guard(a)
	a.problems = append(out, skipped...)
	return a
}

// anything is something to build with in the place of a file of which not even the
// shape is known.
func (s source) anything(name string) []byte {
	if ext := path.Ext(strings.TrimSuffix(name, sops.Suffix)); ext == ".yaml" || ext == ".yml" || ext == ".json" {
		return fmt.Appendf(nil, `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "encrypted-%.10s"}}`, s.content)
	}
	return s.content
}

// unlisted names a manifest that lies in the folder of a kustomization and that
// none lists.
func (j *job) unlisted(ctx context.Context, f revision.File, by string) (admitted, error) {
	k := j.key("unlisted", by, []revision.File{f})
	if e, ok := j.cached(k); ok {
		return e.result, nil
	}
	content, problem, err := j.in.read(ctx, f)
	if err != nil {
		return admitted{}, err
	}
	var result admitted
	if problem == nil && (looksLikeManifest(f.Path, content) || sops.Detect(f.Path, content) == sops.Age) {
		result.problems = []document.Problem{{Pos: document.Pos{Path: f.Path, Line: 1}, Warning: true,
			Message: fmt.Sprintf("not listed in %s; not deployed", by)}}
	}
	j.compiler.cache.put(k, entry{result: result})
	return result, nil
}

func looksLikeManifest(name string, content []byte) bool {
	read := document.YAML
	if path.Ext(name) == ".json" {
		read = document.JSON
	}
	docs, problems := read(name, content)
	return anyManifest(docs) || len(problems) > 0 && mentions.Match(content)
}
