package kustomize

import (
	"fmt"
	"regexp"
	"strings"

	"berth.dev/berth/cue/document"
)

var (
	recursed   = regexp.MustCompile(`(?:recursed accumulation of path|recursed merging from path|couldn't make target for path) '([^']*)'(?:: )?`)
	unmatched  = regexp.MustCompile(`(?:no matches for Id |no resource matches strategic merge patch "?|unable to find patch target "?)([A-Za-z0-9]+)\.(?:[^/\s"]*)/([^\s."]+)`)
	unselected = regexp.MustCompile(`nothing selected by ([A-Za-z0-9]+)\.[^/]*/([^\s.]+)`)
	mistyped   = regexp.MustCompile(`cannot unmarshal (\w+) into Go struct field [A-Za-z]+\.([A-Za-z0-9.]+) of type (\S+)`)
	twice      = regexp.MustCompile(`(?:may not add resource with an already registered id|multiple matches for Id): ?([A-Za-z0-9]+)\.(?:[^/\s]*)/([^\s."]+)`)
)

// explain says in words what the library has found, at the kustomization or the
// patch that it is about.
func (b *build) explain(err error) document.Problem {
	text := err.Error()
	f := b.files[b.in.File]
	if all := recursed.FindAllStringSubmatchIndex(text, -1); len(all) > 0 {
		last := all[len(all)-1]
		if inner := b.kustomizationIn(relative(text[last[2]:last[3]])); inner != nil {
			f = inner
		}
		text = text[last[1]:]
	}
	p := document.Problem{Pos: document.Pos{Path: f.Path, Line: 1}}
	if m := unmatched.FindStringSubmatch(text); m != nil {
		p.Pos = b.patchOf(f, m[1], m[2])
		p.Object = m[1] + "/" + m[2]
		p.Message = "the patch changes this object, but no resource of the kustomization is one; correct the kind, name and namespace in the patch, or list the resource"
		return p
	}
	if m := twice.FindStringSubmatch(text); m != nil {
		p.Object = m[1] + "/" + m[2]
		p.Message = "the kustomization has this object twice; remove one, or give one another name"
		return p
	}
	if m := unselected.FindStringSubmatch(text); m != nil {
		p.Pos, p.Field = f.at("replacements"), "replacements"
		p.Message = fmt.Sprintf("no resource of the kustomization is a %s named %s; correct the source, or list the resource", m[1], m[2])
		return p
	}
	if m := mistyped.FindStringSubmatch(text); m != nil {
		p.Field = embedded.ReplaceAllString(m[2], "")
		p.Pos = f.at(p.Field)
		p.Message = fmt.Sprintf("a %s is not allowed; must be a %s", typeName(m[1]), typeName(m[3]))
		if m[3] == "string" && (m[1] == "number" || m[1] == "bool") {
			p.Message += "; quote it"
		}
		return p
	}
	if pos, found := b.operation(f, text); found {
		p.Pos = pos
	}
	p.Message = b.tidy(text)
	return p
}

// at is the place of a field such as images.name, or of what it lies in.
func (f *File) at(way string) document.Pos {
	pos, n := f.root.Pos, f.root
	for _, name := range strings.Split(way, ".") {
		if n.Kind == document.List && len(n.Items) == 1 {
			n = n.Items[0]
		}
		v := n.Get(name)
		if v == nil {
			break
		}
		pos, n = v.Pos, v
	}
	return pos
}

// operation is the place of the operation of a JSON patch whose path a text names.
func (b *build) operation(f *File, text string) (document.Pos, bool) {
	for _, doc := range b.patchDocuments(f) {
		for _, op := range doc.Items {
			if way := op.Text("path"); len(way) > 1 && strings.Contains(text, way) {
				return op.Pos, true
			}
		}
	}
	return document.Pos{}, false
}

// typeName is a type of Go or JSON in words.
func typeName(name string) string {
	switch {
	case name == "bool":
		return "boolean"
	case strings.HasPrefix(name, "int"), strings.HasPrefix(name, "float"):
		return "number"
	case strings.HasPrefix(name, "[]"), name == "array":
		return "list"
	case name == "string", name == "number":
		return name
	}
	return "map of fields"
}

// kustomizationIn is the kustomization in a folder.
func (b *build) kustomizationIn(dir string) *File {
	for _, f := range b.files {
		if f.Dir() == dir || dir == "." && f.Dir() == "" {
			return f
		}
	}
	return nil
}

// patchOf is the place of the patch of an object, or of the kustomization.
func (b *build) patchOf(f *File, kind, name string) document.Pos {
	for _, doc := range b.patchDocuments(f) {
		if doc.Text("kind") == kind && doc.Get("metadata").Text("name") == name {
			return doc.Pos
		}
	}
	return document.Pos{Path: f.Path, Line: 1}
}

var (
	wrapping = regexp.MustCompile(`^(?:accumulating resources: |accumulation err='[^']*': |accumulating components: |accumulateDirectory: "?)+`)
	config   = regexp.MustCompile("(?s)with config: `.*?`(?:: )?")
	space    = regexp.MustCompile(`\s+`)
)

// embedded is the name of a Go type in the way to a field.
var embedded = regexp.MustCompile(`\b[A-Z][A-Za-z]*\.`)

const maxMessage = 300

// tidy is a message of the library on one line, without the values of Secrets.
func (b *build) tidy(text string) string {
	text = wrapping.ReplaceAllString(text, "")
	text = config.ReplaceAllString(text, "")
	text = strings.TrimSpace(space.ReplaceAllString(text, " "))
	if b.reveals(text) {
		return "kustomize cannot build this; what it says may hold a value of a Secret and is left out: check the generators and patches of Secrets"
	}
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "…"
	}
	return fmt.Sprintf("kustomize cannot build this: %s", text)
}
