package cue

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"berth.dev/berth/cue/convert"
	"berth.dev/berth/cue/document"
)

// modern is a document of a kind that is known, in the version that is: one of an
// older version is converted, and a warning says so.
func (ks kinds) modern(n *document.Node) (*document.Node, []document.Problem) {
	if ks.has(n) {
		return n, nil
	}
	if converted, problems := convert.Document(n); ks.has(converted) {
		return converted, problems
	}
	return n, nil
}

func (ks kinds) has(n *document.Node) bool {
	return ks[schema.FromAPIVersionAndKind(n.Text("apiVersion"), n.Text("kind"))] != nil
}
