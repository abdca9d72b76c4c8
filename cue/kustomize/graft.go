package kustomize

import "berth.dev/berth/cue/document"

// graft gives n and all below it the places of the sources that hold the same: for
// a scalar the first that has its value, for a map or a list the last, which is
// where it was before the patches. What none has stands where the nearest thing
// above it does.
func graft(n *document.Node, above document.Pos, sources []*document.Node) {
	n.Pos = above
	for _, s := range sources {
		if s.Line > 0 && same(s, n) {
			n.Pos = s.Pos
			if !container(n) {
				break
			}
		}
	}
	for i := range n.Fields {
		f := &n.Fields[i]
		f.Pos = n.Pos
		var below []*document.Node
		placed := false
		for _, s := range sources {
			for _, field := range s.Fields {
				if field.Key != f.Key {
					continue
				}
				below = append(below, field.Value)
				if field.Line > 0 && same(field.Value, f.Value) && (!placed || container(f.Value)) {
					f.Pos, placed = field.Pos, true
				}
			}
		}
		graft(f.Value, f.Pos, below)
	}
	for i, item := range n.Items {
		graft(item, n.Pos, itemSources(item, i, sources))
	}
}

func container(n *document.Node) bool { return n.Kind == document.Map || n.Kind == document.List }

func same(a, b *document.Node) bool { return a.Kind == b.Kind && a.Value == b.Value }

// itemSources are the items that an item of a list may come from: of the same
// name, or in the same place where there are no names, or of the same value.
func itemSources(item *document.Node, i int, sources []*document.Node) []*document.Node {
	var out []*document.Node
	for _, s := range sources {
		for k, other := range s.Items {
			switch {
			case other.Kind != item.Kind:
			case item.Kind == document.Map && item.Get("name") != nil:
				if other.Text("name") == item.Text("name") || k == i && other.Get("name") == nil {
					out = append(out, other)
				}
			case container(item):
				if k == i {
					out = append(out, other)
				}
			case other.Value == item.Value:
				out = append(out, other)
			}
		}
	}
	return out
}
