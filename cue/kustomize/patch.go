package kustomize

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"berth.dev/berth/cue/document"
)

// patch is one entry of a kustomization that changes resources.
type patch struct {
	// docs are strategic merge patches, or the one list of operations of a JSON patch.
	docs []*document.Node
	// target selects what it changes; nil: what its documents name.
	target *document.Node
	// problems are those of a patch that cannot be read.
	problems []document.Problem
}

// patches are the values that patches give to a resource, in its shape, the last
// first.
func (b *build) patches(n *document.Node, was string) []*document.Node {
	if was == "" {
		was = n.Get("metadata").Text("name")
	}
	var out []*document.Node
	for _, f := range b.sorted() {
		for _, p := range slices.Backward(b.patchesOf(f)) {
			for _, doc := range p.docs {
				switch {
				case p.target != nil && !selects(p.target, n.Text("kind"), was):
				case doc.Kind == document.List:
					for _, op := range slices.Backward(doc.Items) {
						if s := shaped(op); s != nil {
							out = append(out, s)
						}
					}
				case p.target != nil, doc.Text("kind") == n.Text("kind") && strings.HasSuffix(doc.Get("metadata").Text("name"), was):
					out = append(out, doc)
				}
			}
		}
	}
	return out
}

// selects reports whether a target may select a resource; its selectors of labels
// are not looked at, for only places hang on it.
func selects(target *document.Node, kind, name string) bool {
	matches := func(pattern, s string) bool {
		re, err := regexp.Compile("^(?:" + pattern + ")$")
		return pattern == "" || pattern == s || err == nil && re.MatchString(s)
	}
	return matches(target.Text("kind"), kind) && matches(target.Text("name"), name)
}

// maxIndex bounds the lists that shaped makes.
const maxIndex = 1000

// shaped is the value of an operation of a JSON patch, in the shape of what it
// changes; nil if it gives no value.
func shaped(op *document.Node) *document.Node {
	n := op.Get("value")
	way := op.Text("path")
	if n == nil || !strings.HasPrefix(way, "/") {
		return nil
	}
	pos := op.Pos
	for _, step := range slices.Backward(strings.Split(way[1:], "/")) {
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < maxIndex {
			items := make([]*document.Node, i+1)
			for k := range items {
				items[k] = &document.Node{}
			}
			items[i] = n
			n = &document.Node{Kind: document.List, Items: items}
			continue
		}
		step = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
		n = &document.Node{Kind: document.Map, Fields: []document.Field{{Pos: pos, Key: step, Value: n}}}
	}
	return n
}

// patchesOf are the patches of a kustomization, in its order.
func (b *build) patchesOf(f *File) []patch {
	var out []patch
	for _, name := range []string{"patchesStrategicMerge", "patches", "patchesJson6902"} {
		list := f.root.Get(name)
		if list == nil {
			continue
		}
		for _, entry := range list.Items {
			file, text := entry.Text("path"), entry.Get("patch")
			if entry.Kind == document.String {
				if file = entry.Value.(string); inline(file) {
					file, text = "", entry
				}
			}
			p := patch{target: entry.Get("target")}
			if leads, inside := join(f.Dir(), file); file != "" && inside {
				p.docs = b.documents(leads)
				_, p.problems = document.YAML(leads, b.in.Files[leads])
			} else {
				p.docs, p.problems = b.inlineDocuments(f, text)
			}
			out = append(out, p)
		}
	}
	return out
}

// patchDocuments are the strategic merge patches of a kustomization.
func (b *build) patchDocuments(f *File) []*document.Node {
	var out []*document.Node
	for _, p := range b.patchesOf(f) {
		out = append(out, p.docs...)
	}
	return out
}

// inlineDocuments are those of a patch that stands in the kustomization itself.
// The lines of a literal block are known, all else stands where the patch begins.
func (b *build) inlineDocuments(f *File, n *document.Node) ([]*document.Node, []document.Problem) {
	if n == nil || n.Kind != document.String {
		return nil, nil
	}
	lines := strings.Split(string(b.in.Files[f.Path]), "\n")
	block := n.Line >= 1 && n.Line <= len(lines) && strings.Contains(lines[n.Line-1], "|")
	text := n.Value.(string)
	if block {
		text = strings.Repeat("\n", n.Line) + text
	}
	docs, problems := document.YAML(f.Path, []byte(text))
	place := func(pos document.Pos) document.Pos {
		if !block {
			return n.Pos
		}
		pos.Column = 0 // those of a block are not those of its file
		return pos
	}
	for _, doc := range docs {
		replace(doc, place)
	}
	for i := range problems {
		problems[i].Pos = place(problems[i].Pos)
	}
	return docs, problems
}

// replace gives n and all below it other places.
func replace(n *document.Node, by func(document.Pos) document.Pos) {
	n.Pos = by(n.Pos)
	for i := range n.Fields {
		n.Fields[i].Pos = by(n.Fields[i].Pos)
		replace(n.Fields[i].Value, by)
	}
	for _, item := range n.Items {
		replace(item, by)
	}
}
