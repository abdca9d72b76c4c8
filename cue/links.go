package cue

import (
	"strings"

	"berth.dev/berth/api/support"
	"berth.dev/berth/cue/document"
	"berth.dev/berth/cue/links"
)

// link is a link with its places. Steps and KeySteps are empty: the places say
// what they led to.
type link struct {
	links.Link
	At, KeyAt spot
}

// spot is a place in a file and the field that stands there.
type spot struct {
	document.Pos
	Field string
}

func linksOf(n *document.Node, obj any) []link {
	found := links.Find(obj)
	if ns := n.Get("metadata").Text("namespace"); ns != "" && !strings.HasPrefix(ns, "kube-") && ns != "default" { // those are always there
		found = append(found, links.Link{Steps: []any{"metadata", "namespace"}, To: links.Core("Namespace"), Name: ns,
			Else: "a push is refused until the repository or the cluster has it"})
	}
	out := make([]link, len(found))
	for i, l := range found {
		out[i] = link{Link: l, At: spot{n.At(l.Steps...), support.Path(l.Steps)}}
		if l.Key != "" {
			out[i].KeyAt = spot{n.At(l.KeySteps...), support.Path(l.KeySteps)}
		}
		out[i].Steps, out[i].KeySteps = nil, nil
	}
	return out
}
