package cue

import (
	"context"
	"fmt"
	"path"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/cue/document"
	"berth.dev/berth/cue/kustomize"
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
	full := key("kustomization", w.root.Path, files)
	if e, ok := j.cached(full); ok {
		return e.result, nil
	}
	in := kustomize.Input{File: w.root.Path, Files: make(map[string][]byte, len(files))}
	var problems []document.Problem
	for _, f := range files {
		content, problem, err := j.in.read(ctx, f)
		if err != nil {
			return admitted{}, err
		}
		if problem != nil {
			problems = append(problems, *problem)
		}
		in.Files[f.Path] = content
	}
	if len(problems) > 0 {
		result := admitted{problems: problems}
		j.compiler.cache.put(full, entry{result: result})
		return result, nil
	}
	return j.do(ctx, full, request{Kustomization: &in})
}

// unlisted names a manifest that lies in the folder of a kustomization and that
// none lists.
func (j *job) unlisted(ctx context.Context, f revision.File, by string) (admitted, error) {
	k := key("unlisted", by, []revision.File{f})
	if e, ok := j.cached(k); ok {
		return e.result, nil
	}
	content, problem, err := j.in.read(ctx, f)
	if err != nil {
		return admitted{}, err
	}
	var result admitted
	if problem == nil && looksLikeManifest(f.Path, content) {
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
