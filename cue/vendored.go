package cue

import (
	"bytes"
	"context"
	"path"
	"strings"

	"berth.dev/berth/cue/document"
	"berth.dev/berth/cue/schema"
)

// inVendored returns the folder of the module that keeps a file as a part of
// its copy of the schema.
func inVendored(name string) (module string, ok bool) {
	module, _, ok = strings.Cut("/"+name, "/"+schema.Vendored+"/")
	return strings.TrimPrefix(module, "/"), ok
}

// copies are the modules with a copy of the schema that deployed packages lie in.
func (in *inputs) copies() []string {
	used := map[string]bool{}
	for _, dir := range in.packages {
		if root := in.moduleRoot(dir); in.vendored[root] != nil {
			used[root] = true
		}
	}
	return sortedKeys(used)
}

// vendored compares a module's copy of the schema with the one that is compiled
// with: editors judge by the copy.
func (j *job) vendored(ctx context.Context, module string) (admitted, error) {
	files := j.in.vendored[module]
	k := j.key("vendored", module, files)
	if e, ok := j.cached(k); ok {
		return e.result, nil
	}
	own, err := schema.Files()
	if err != nil {
		return admitted{}, err
	}
	same := len(files) == len(own)
	for _, f := range files {
		content, _, err := j.in.read(ctx, f)
		if err != nil {
			return admitted{}, err
		}
		same = same && bytes.Equal(content, own[path.Base(f.Path)])
	}
	var result admitted
	if !same {
		result.problems = []document.Problem{{Pos: document.Pos{Path: path.Join(module, schema.Vendored)}, Warning: true,
			Message: "this copy of the schema is not that of this version of Berth, which compiles with its own; an editor may judge otherwise: run berth cue vendor"}}
	}
	j.compiler.cache.put(k, entry{result: result})
	return result, nil
}
