package kustomize

import (
	"fmt"
	"regexp"
	"strings"

	"berth.dev/berth/cue/document"
)

var recursed = regexp.MustCompile(`(?:recursed accumulation of path|recursed merging from path|couldn't make target for path) '([^']*)'(?:: )?`)

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
	for _, k := range knownFaults() {
		if m := k.says.FindStringSubmatch(text); m != nil {
			k.explain(b, f, m, &p)
			return p
		}
	}
	if pos, found := b.operation(f, text); found {
		p.Pos = pos
	}
	if b.in.Encrypted {
		p.Message = "kustomize cannot build this; what it says may hold a value of an encrypted file and is left out: check the patches, the replacements and the generators"
		return p
	}
	if p.Message = b.tidy(text); b.reveals(p.Message) {
		p.Pos = b.patchOfSecret(f)
		p.Message = "kustomize cannot build this; what it says may hold a value of a Secret and is left out: check the generators and patches of Secrets"
	}
	return p
}

// patchOfSecret is the place of the first patch of a Secret, or of the kustomization.
func (b *build) patchOfSecret(f *File) document.Pos {
	for _, doc := range b.patchDocuments(f) {
		if doc.Text("kind") == "Secret" {
			return doc.Pos
		}
	}
	return document.Pos{Path: f.Path, Line: 1}
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

// kustomizationIn is the kustomization in a folder.
func (b *build) kustomizationIn(dir string) *File {
	for _, f := range b.files {
		if f.Dir() == dir || dir == "." && f.Dir() == "" {
			return f
		}
	}
	return nil
}

var (
	wrapping = regexp.MustCompile(`^(?:accumulating resources: |accumulation err='[^']*': |accumulating components: |accumulateDirectory: "?)+`)
	config   = regexp.MustCompile("(?s)with config: `.*?`(?:: )?")
	space    = regexp.MustCompile(`\s+`)
	// pointer is what the library prints of its own objects, other ones each time.
	pointer = regexp.MustCompile(`merging from generator &\{[^}]*\}: |&?\{?\b0x[0-9a-f]+\b( 0x[0-9a-f]+\b)*\}?`)
)

const maxMessage = 300

// tidy is a message of the library on one line.
func (b *build) tidy(text string) string {
	text = wrapping.ReplaceAllString(text, "")
	text = config.ReplaceAllString(text, "")
	text = pointer.ReplaceAllString(text, "")
	text = strings.TrimSpace(space.ReplaceAllString(text, " "))
	if len(text) > maxMessage && !b.reveals(text) {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "…"
	}
	return fmt.Sprintf("kustomize cannot build this: %s", text)
}
