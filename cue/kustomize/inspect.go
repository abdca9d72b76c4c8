package kustomize

import (
	"fmt"
	"slices"
	"strings"

	"berth.dev/berth/cue/document"
)

// inspect finds what is wrong with the files that kustomizations read before the
// library does, which says one thing at a time and not where.
func (b *build) inspect() {
	seen := map[string]bool{}
	for _, f := range b.sorted() {
		if len(f.Problems) > 0 {
			continue
		}
		b.inspectPatches(f)
		for _, r := range f.References {
			content, isFile := b.in.Files[r.Leads]
			if !isFile || seen[r.Leads] {
				continue
			}
			seen[r.Leads] = true
			switch name, _, _ := strings.Cut(r.Field, "["); {
			case name == "resources":
				b.resources(r.Leads, content)
			case name == "replacements", name == "configurations":
				_, problems := document.YAML(r.Leads, content)
				b.problems = append(b.problems, problems...)
			}
		}
	}
}

func (b *build) resources(name string, content []byte) {
	docs, problems := document.YAML(name, content)
	b.problems = append(b.problems, problems...)
	fault := func(n *document.Node, field, message string) {
		p := document.Problem{Pos: n.Pos, Field: field, Message: message}
		if kind := n.Text("kind"); kind != "" {
			p.Object = strings.TrimSuffix(kind+"/"+n.Get("metadata").Text("name"), "/")
		}
		b.problems = append(b.problems, p)
	}
	for _, doc := range flatten(docs) {
		switch metadata := doc.Get("metadata"); {
		case doc.Kind != document.Map:
			fault(doc, "", "the document is no object; must have apiVersion, kind and metadata")
		case doc.Text("apiVersion") == "":
			fault(doc, "", "apiVersion is missing; must be like v1 or apps/v1")
		case doc.Text("kind") == "":
			fault(doc, "", "kind is missing; must be like Deployment or Service")
		case slices.Contains([]string{"Kustomization", "Component"}, doc.Text("kind")) && strings.HasPrefix(doc.Text("apiVersion"), "kustomize.config.k8s.io/"):
			fault(doc, "", "a kustomization is listed by its folder, and its file is named kustomization.yaml")
		case metadata.Text("name") == "" && metadata.Text("generateName") == "":
			fault(doc, "metadata.name", "missing; must be the name of the object")
		}
	}
}

// inspectPatches looks at the patches of a kustomization: the library shows a
// patch that it cannot read, which may hold the value of a Secret.
func (b *build) inspectPatches(f *File) {
	for _, p := range b.patchesOf(f) {
		b.problems = append(b.problems, p.problems...)
		for _, doc := range p.docs {
			switch doc.Kind {
			case document.List:
				b.operations(doc)
			case document.Map:
				if p.target == nil && (doc.Text("kind") == "" || doc.Get("metadata").Text("name") == "") {
					b.patchFault(doc.Pos, "the patch does not say what it changes; must have apiVersion, kind and metadata.name, or a target beside it")
				}
			default:
				b.patchFault(doc.Pos, "must be a part of an object, or a list of operations such as {op: replace, path: /spec/replicas, value: 3}")
			}
		}
	}
}

func (b *build) patchFault(pos document.Pos, message string) {
	b.problems = append(b.problems, document.Problem{Pos: pos, Message: message})
}

func (b *build) operations(list *document.Node) {
	known := []string{"add", "remove", "replace", "move", "copy", "test"}
	for _, op := range list.Items {
		switch {
		case op.Kind != document.Map || !slices.Contains(known, op.Text("op")):
			b.patchFault(op.Pos, fmt.Sprintf("must be an operation of a JSON patch, whose op is one of %s", strings.Join(known, ", ")))
		case op.Text("path") != "" && !strings.HasPrefix(op.Text("path"), "/"):
			b.patchFault(op.Pos, "path must begin with a slash, such as /spec/replicas")
		}
	}
}
