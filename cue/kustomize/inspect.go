package kustomize

import (
	"slices"
	"strings"

	"berth.dev/berth/cue/document"
)

// inspect finds what is wrong with the files that kustomizations read before the
// library does, which says one thing at a time and not where.
func (b *build) inspect() {
	seen := map[string]bool{}
	for _, f := range b.sorted() {
		for _, r := range f.References {
			content, isFile := b.in.Files[r.Leads]
			if !isFile || seen[r.Leads] {
				continue
			}
			seen[r.Leads] = true
			switch name, _, _ := strings.Cut(r.Field, "["); {
			case name == "resources":
				b.resources(r.Leads, content)
			case strings.HasPrefix(name, "patches"), name == "replacements", name == "configurations":
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
