package cue

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"

	"berth.dev/berth/api/manifest"
	"berth.dev/berth/cue/document"
)

// twins says once of two kustomizations, such as overlays of one base, that they
// make the same objects: each object by itself would be an error at the base,
// where nothing is wrong. Only the first one's objects are kept.
func twins(results []admitted, ks kinds, opts Options) []document.Problem {
	var out []document.Problem
	type owner struct {
		manifest.Manifest
		root string
	}
	owners := map[identity]owner{}
	for i := range results {
		r := &results[i]
		if r.root == "" {
			continue
		}
		shared := 0
		var first owner
		for _, m := range r.objects {
			placed := place(m, ks, opts)
			id := identify(placed.Object)
			o, taken := owners[id]
			if !taken {
				owners[id] = owner{placed.Manifest, r.root}
				continue
			}
			same := o.Origin == placed.Origin && equality.Semantic.DeepEqual(o.Object.Object, placed.Object.Object)
			if o.root != r.root && !same {
				if shared == 0 {
					first = o
				}
				shared++
			}
		}
		if shared > 0 {
			out = append(out, twin(r.root, first.root, first.Manifest, shared-1))
			r.objects = nil
		}
	}
	return out
}

func twin(root, other string, m manifest.Manifest, more int) document.Problem {
	what := m.Object.GetKind() + "/" + m.Object.GetName()
	if ns := m.Object.GetNamespace(); ns != "" {
		what += " in the namespace " + ns
	}
	if more > 0 {
		what += fmt.Sprintf(" and %d more", more)
	}
	return document.Problem{Pos: document.Pos{Path: root, Line: 1},
		Message: fmt.Sprintf("this kustomization and %s both make %s; deploy one of them by setting the path of the Source to its folder, or give them different namespaces or names", other, what)}
}
