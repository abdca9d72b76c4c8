package kustomize

import (
	"encoding/base64"
	"strings"

	"berth.dev/berth/cue/document"
)

// reveals reports whether a text may hold a value of a Secret: what stands under
// data in a file or a patch, and what a generator of Secrets reads.
func (b *build) reveals(text string) bool {
	text = " " + text + " "
	for _, value := range b.secretValues() {
		for _, line := range strings.Split(value, "\n") {
			line = strings.Join(strings.Fields(line), " ")
			if line != "" && (holds(text, line) || holds(text, base64.StdEncoding.EncodeToString([]byte(line)))) {
				return true
			}
		}
		if holds(text, base64.StdEncoding.EncodeToString([]byte(value))) {
			return true
		}
	}
	return false
}

// holds reports whether a value stands in a text; a short one only as a word.
func holds(text, value string) bool {
	if value == "" {
		return false
	}
	if len(value) >= 4 {
		return strings.Contains(text, value)
	}
	for at := 0; ; {
		i := strings.Index(text[at:], value)
		if i < 0 {
			return false
		}
		before, after := text[at+i-1], text[at+i+len(value)]
		if !wordly(before) && !wordly(after) {
			return true
		}
		at += i + 1
	}
}

func wordly(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_'
}

func (b *build) secretValues() []string {
	var out []string
	for name, content := range b.in.Files {
		f := b.files[name]
		if f == nil {
			for _, doc := range flatten(b.documents(name)) {
				out = append(out, dataOf(doc)...)
			}
			continue
		}
		out = append(out, b.generated(f, content)...)
	}
	return out
}

// generated are the values of the Secrets that a kustomization makes, and those in
// the patches that stand in it.
func (b *build) generated(f *File, content []byte) []string {
	var out []string
	for _, name := range []string{"patches", "patchesJson6902", "patchesStrategicMerge"} {
		for _, text := range scalars(f.root.Get(name)) {
			if inline(text) || strings.Contains(text, "Secret") {
				docs, _ := document.YAML(f.Path, []byte(text))
				for _, doc := range docs {
					out = append(out, dataOf(doc)...)
				}
			}
		}
	}
	list := f.root.Get("secretGenerator")
	if list == nil {
		return out
	}
	for _, entry := range list.Items {
		for _, literal := range scalars(entry.Get("literals")) {
			_, value, _ := strings.Cut(literal, "=")
			out = append(out, value, literal)
		}
	}
	for _, r := range f.References {
		if !strings.HasPrefix(r.Field, "secretGenerator[") {
			continue
		}
		for _, line := range strings.Split(string(b.in.Files[r.Leads]), "\n") {
			_, value, _ := strings.Cut(line, "=")
			out = append(out, value, line)
		}
	}
	return out
}

// dataOf are the values under data of a document, or those that the operations of
// a JSON patch put there.
func dataOf(doc *document.Node) []string {
	if doc.Kind == document.Map {
		return append(scalars(doc.Get("data")), scalars(doc.Get("stringData"))...)
	}
	var out []string
	for _, op := range doc.Items {
		if at := op.Text("path"); strings.HasPrefix(at, "/data") || strings.HasPrefix(at, "/stringData") {
			out = append(out, scalars(op.Get("value"))...)
		}
	}
	return out
}

// scalars are the texts of all values in n.
func scalars(n *document.Node) []string {
	if n == nil {
		return nil
	}
	var out []string
	if s, ok := n.Value.(string); ok {
		out = append(out, s)
	} else if n.Plain != "" {
		out = append(out, n.Plain)
	}
	for _, f := range n.Fields {
		out = append(out, scalars(f.Value)...)
	}
	for _, item := range n.Items {
		out = append(out, scalars(item)...)
	}
	return out
}
