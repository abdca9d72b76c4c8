package kustomize

import (
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/resource"

	"berth.dev/berth/cue/document"
)

const originAnnotation = "config.kubernetes.io/origin"

// place turns a resource into a Node whose places are those of the files that it
// was made of.
func (b *build) place(r *resource.Resource) (*document.Node, *document.Problem) {
	root := b.files[b.in.File]
	from, _ := r.GetOrigin() // without one it is the root's
	content, err := r.MarshalJSON()
	if err != nil {
		return nil, &document.Problem{Pos: document.Pos{Path: root.Path, Line: 1}, Object: r.GetKind() + "/" + r.GetName(),
			Message: "the resource cannot be written as JSON"}
	}
	docs, problems := document.JSON(root.Path, content)
	if len(problems) > 0 || len(docs) != 1 {
		return nil, &document.Problem{Pos: document.Pos{Path: root.Path, Line: 1}, Object: r.GetKind() + "/" + r.GetName(),
			Message: "the resource cannot be read back"}
	}
	n := docs[0]
	if !root.wantsOrigins() {
		withoutOrigin(n)
	}
	pos, sources := b.sources(n, from)
	graft(n, pos, sources)
	n.Pos = pos
	return n, nil
}

// withoutOrigin takes the annotation out, and what it alone has made.
func withoutOrigin(n *document.Node) {
	drop := func(n *document.Node, key string) {
		n.Fields = slices.DeleteFunc(n.Fields, func(f document.Field) bool { return f.Key == key })
	}
	if metadata := n.Get("metadata"); metadata != nil {
		if annotations := metadata.Get("annotations"); annotations != nil {
			drop(annotations, originAnnotation)
			if len(annotations.Fields) == 0 {
				drop(metadata, "annotations")
			}
		}
	}
}

// sources are the place of a resource, and the documents that its fields may come
// from: the patches that name it, then the resource as it stands in its file.
func (b *build) sources(n *document.Node, from *resource.Origin) (document.Pos, []*document.Node) {
	root := b.files[b.in.File]
	pos := document.Pos{Path: root.Path, Line: 1}
	var own *document.Node
	if from != nil && from.Path != "" {
		if name, inside := join(root.Dir(), from.Path); inside && b.in.Files[name] != nil {
			pos = document.Pos{Path: name, Line: 1}
			own = nearest(n, flatten(b.documents(name)))
		}
	} else if from != nil && from.ConfiguredIn != "" {
		if name, inside := join(root.Dir(), from.ConfiguredIn); inside && b.files[name] != nil {
			pos = document.Pos{Path: name, Line: 1}
			own = b.generator(n, b.files[name])
		}
	}
	if own == nil {
		return pos, b.patches(n, "")
	}
	pos = own.Pos
	return pos, append(b.patches(n, own.Get("metadata").Text("name")), own)
}

// generator is the entry of a kustomization that makes a ConfigMap or a Secret.
func (b *build) generator(n *document.Node, f *File) *document.Node {
	list := "configMapGenerator"
	if n.Text("kind") == "Secret" {
		list = "secretGenerator"
	}
	var best *document.Node
	entries := f.root.Get(list)
	if entries == nil {
		return nil
	}
	for _, e := range entries.Items {
		if name := e.Text("name"); strings.Contains(n.Get("metadata").Text("name"), name) && (best == nil || len(name) > len(best.Text("name"))) {
			best = e
		}
	}
	return best
}

// flatten puts the items of lists beside the other documents.
func flatten(docs []*document.Node) []*document.Node {
	var out []*document.Node
	for _, doc := range docs {
		if items := doc.Get("items"); items != nil && strings.HasSuffix(doc.Text("kind"), "List") {
			out = append(out, items.Items...)
		} else {
			out = append(out, doc)
		}
	}
	return out
}

// nearest is the document that a resource was, before its name got a prefix or a
// suffix: the one of its kind whose name is the longest part of its own.
func nearest(n *document.Node, docs []*document.Node) *document.Node {
	var best *document.Node
	length := -2
	name := n.Get("metadata").Text("name")
	for _, doc := range docs {
		if doc.Text("kind") != n.Text("kind") {
			continue
		}
		was := doc.Get("metadata").Text("name")
		l := len(was)
		if !strings.Contains(name, was) {
			l = -1
		}
		if l > length {
			best, length = doc, l
		}
	}
	return best
}

// sorted are the kustomizations, the built one first, then by path.
func (b *build) sorted() []*File {
	out := make([]*File, 0, len(b.files))
	for _, f := range b.files {
		out = append(out, f)
	}
	slices.SortFunc(out, func(x, y *File) int {
		switch {
		case x.Path == b.in.File:
			return -1
		case y.Path == b.in.File:
			return 1
		}
		return strings.Compare(x.Path, y.Path)
	})
	return out
}

// relative is a path of the library as one of the repository.
func relative(name string) string { return strings.TrimPrefix(path.Clean(name), "/") }
