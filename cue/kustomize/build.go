package kustomize

import (
	"fmt"
	"path"
	"sync"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/openapi"

	"berth.dev/berth/cue/document"
)

// Input is all that a build reads.
type Input struct {
	// File is the kustomization file that is built.
	File string
	// Files are the contents of all files that it reads, by path, among them
	// those of the kustomizations that it builds on.
	Files map[string][]byte
	// Encrypted: some of them were, so that no value may be told.
	Encrypted bool
	// Unknown are those among them that nobody could open: what stands in their
	// place is only something to build with.
	Unknown []string
}

// library guards the library: it keeps the schema it works with in one place for
// the whole process.
var library sync.Mutex

// Build builds a kustomization whose references have been followed and found.
// The resources stand in the order of the library, each with the places that it
// comes from.
func Build(in Input) ([]*document.Node, []document.Problem) {
	b := &build{in: in, files: map[string]*File{}, docs: map[string][]*document.Node{}}
	files := b.fill()
	b.inspect()
	if len(b.problems) > 0 {
		return nil, b.problems
	}
	root := b.files[in.File]
	made, err := run(files, root.Dir(), b.ownSchema)
	if err != nil && len(in.Unknown) > 0 {
		return nil, []document.Problem{{Pos: document.Pos{Path: in.File, Line: 1}, Warning: true,
			Message: "not built: it needs what is in a file that is encrypted"}}
	}
	if err != nil {
		return nil, []document.Problem{b.explain(err)}
	}
	var out []*document.Node
	for _, r := range made.Resources() {
		n, problem := b.place(r)
		if problem != nil {
			return nil, []document.Problem{*problem}
		}
		out = append(out, n)
	}
	return out, nil
}

// build is one build.
type build struct {
	in       Input
	files    map[string]*File
	docs     map[string][]*document.Node
	problems []document.Problem
	// ownSchema: some kustomization brings a schema of its own.
	ownSchema bool
}

// fill makes the only file system that the library sees.
func (b *build) fill() *tree {
	t := newTree()
	plugin := map[string]bool{}
	for name, content := range b.in.Files {
		if !IsFile(name) {
			continue
		}
		f := read(name, content)
		b.files[name] = f
		b.problems = append(b.problems, f.Problems...)
		if len(f.Problems) > 0 {
			continue
		}
		b.ownSchema = b.ownSchema || f.root.Get("openapi") != nil
		for _, r := range f.References {
			if isPlugin(r.Field) {
				plugin[r.Leads] = true
			}
		}
	}
	for name, content := range b.in.Files {
		var err error
		if f := b.files[name]; f != nil && len(f.Problems) == 0 {
			content, err = f.rewrite(name == b.in.File)
		} else if plugin[name] {
			content, err = b.plugin(name, content)
		}
		if err != nil {
			b.problems = append(b.problems, document.Problem{Pos: document.Pos{Path: name}, Message: err.Error()})
		}
		t.add(name, content)
	}
	return t
}

func (b *build) plugin(name string, content []byte) ([]byte, error) {
	docs, problems := document.YAML(name, content)
	if len(problems) == 0 {
		problems = checkPlugins(name, docs)
	}
	b.problems = append(b.problems, problems...)
	return rewriteDocuments(docs)
}

// run has the library build a folder; a panic in it is an error.
func run(files *tree, dir string, ownSchema bool) (made resmap.ResMap, err error) {
	library.Lock()
	defer library.Unlock()
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("kustomize failed: %v", fault)
		}
		if ownSchema {
			openapi.ResetOpenAPI()
		}
	}()
	return krusty.MakeKustomizer(&krusty.Options{
		Reorder: krusty.ReorderOptionUnspecified,
		// Everything in the file system belongs to the repository.
		LoadRestrictions: types.LoadRestrictionsNone,
		PluginConfig:     types.DisabledPluginConfig(),
	}).Run(files, path.Join("/", dir))
}

// documents are those of a file that the build reads.
func (b *build) documents(name string) []*document.Node {
	docs, known := b.docs[name]
	if !known {
		docs, _ = document.YAML(name, b.in.Files[name])
		b.docs[name] = docs
	}
	return docs
}
