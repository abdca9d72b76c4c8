// Package kustomize reads kustomizations and builds them with the library, which
// it owns. It knows files by their path in the repository and is handed their
// content: it never touches a disk or a network, and neither does the library,
// for every path that reaches it has been checked and written anew.
package kustomize

import (
	"fmt"
	"path"
	"strings"

	"berth.dev/berth/cue/check"
	"berth.dev/berth/cue/document"
)

// IsFile reports whether a file of that name makes its folder a kustomization.
func IsFile(name string) bool {
	switch path.Base(name) {
	case "kustomization.yaml", "kustomization.yml", "Kustomization":
		return true
	}
	return false
}

// Target is what a reference may lead to.
type Target int

// Targets of a reference.
const (
	// ToFile leads to a file.
	ToFile Target = iota
	// ToFolder leads to the folder of another kustomization.
	ToFolder
	// ToEither leads to a file, or to the folder of another kustomization.
	ToEither
)

// Reference is one entry that names a file or a folder.
type Reference struct {
	document.Pos
	Target Target
	// Field is the way to the entry, such as resources[0].
	Field string
	// Written is the entry as it stands there.
	Written string
	// Leads is the path in the repository.
	Leads string
}

// File is one kustomization file.
type File struct {
	Path       string
	Component  bool
	References []Reference
	// Problems hold an error if the file cannot be built.
	Problems []document.Problem
	root     *document.Node // nil but in a build
}

// Dir is the folder of the file; "" is the root of the repository.
func (f *File) Dir() string {
	if dir := path.Dir(f.Path); dir != "." {
		return dir
	}
	return ""
}

// maxReferences bounds what one kustomization names.
const maxReferences = 10_000

// Read reads a kustomization file for what it refers to.
func Read(name string, content []byte) *File {
	f := read(name, content)
	f.root = nil // it may be large, and is not needed to follow the references
	return f
}

// read reads a kustomization file.
func read(name string, content []byte) *File {
	f := &File{Path: name}
	docs, problems := document.YAML(name, content)
	f.Problems = problems
	switch {
	case len(problems) > 0:
	case len(docs) == 0:
		f.fault(document.Pos{Path: name, Line: 1}, "", "the kustomization is empty; list what it builds under resources, or remove the file")
	case len(docs) > 1:
		f.fault(docs[1].Pos, "", "a second document; a kustomization is one document: remove the rest")
	case docs[0].Kind != document.Map:
		f.fault(docs[0].Pos, "", "the kustomization is no object; must have fields such as resources")
	default:
		f.root = docs[0]
		f.read()
	}
	return f
}

func (f *File) fault(pos document.Pos, field, message string) {
	f.Problems = append(f.Problems, document.Problem{Pos: pos, Field: field, Message: message})
}

func (f *File) read() {
	kind, version := f.root.Text("kind"), f.root.Text("apiVersion")
	f.Component = kind == "Component"
	want := "kustomize.config.k8s.io/v1beta1"
	if f.Component {
		want = "kustomize.config.k8s.io/v1alpha1"
	}
	if version != "" && version != want {
		f.fault(f.root.Get("apiVersion").Pos, "apiVersion", fmt.Sprintf("%q is not allowed; must be %s; give the file another name if it is not kustomize's", version, want))
		return
	}
	if kind != "" && kind != "Kustomization" && !f.Component {
		f.fault(f.root.Get("kind").Pos, "kind", fmt.Sprintf("%q is not allowed; must be Kustomization or Component", kind))
		return
	}
	table := fieldTable()
	for _, field := range f.root.Fields {
		t, known := table[field.Key]
		switch {
		case !known:
			f.fault(field.Pos, field.Key, unknownField(field.Key, table))
		case t.refused != "":
			f.fault(field.Pos, field.Key, t.refused)
		case field.Value.Kind != document.Null && t.read != nil:
			t.read(f, field.Key, field.Value)
		}
	}
}

// unknownField is strict about case too: the library is not, and reads a field
// that nobody has checked.
func unknownField[V any](key string, table map[string]V) string {
	names := make([]string, 0, len(table))
	for name := range table {
		if strings.EqualFold(name, key) {
			return fmt.Sprintf("unknown field %q; did you mean %q?", key, name)
		}
		names = append(names, name)
	}
	if near := check.Nearest(key, names); near != "" {
		return fmt.Sprintf("unknown field %q; did you mean %q?", key, near)
	}
	return fmt.Sprintf("unknown field %q; kustomize knows no such field here: remove it", key)
}

// refer notes a reference, if it leads to a place in the repository.
func (f *File) refer(n *document.Node, field string, target Target) {
	if n.Kind != document.String || n.Value == "" {
		f.fault(n.Pos, field, "must be a path in the repository")
		return
	}
	f.referTo(n.Pos, field, n.Value.(string), target)
}

func (f *File) referTo(pos document.Pos, field, written string, target Target) {
	if remote(written) {
		f.fault(pos, field, fmt.Sprintf("%q is not in this repository, and nothing is fetched from elsewhere; copy it into the repository and name it by its path", written))
		return
	}
	if path.IsAbs(written) {
		f.fault(pos, field, fmt.Sprintf("%q is an absolute path; write it relative to this folder", written))
		return
	}
	if len(f.References) == maxReferences {
		if len(f.Problems) == 0 {
			f.fault(pos, field, fmt.Sprintf("more than %d files and folders are named here; split the kustomization", maxReferences))
		}
		return
	}
	leads, inside := join(f.Dir(), written)
	if !inside {
		f.fault(pos, field, fmt.Sprintf("%q leads out of the repository; copy what it names into the repository", written))
		return
	}
	f.References = append(f.References, Reference{Pos: pos, Target: target, Field: field, Written: written, Leads: leads})
}

// join follows a relative path from a folder; false if it leaves the repository.
func join(dir, written string) (string, bool) {
	leads := path.Join(dir, written)
	if leads == ".." || strings.HasPrefix(leads, "../") {
		return "", false
	}
	if leads == "." {
		leads = ""
	}
	return leads, true
}

// remote reports whether kustomize takes an entry for one that is to be fetched.
func remote(entry string) bool {
	lower := strings.ToLower(entry)
	for _, prefix := range []string{"git::", "github.com/", "github.com:", "gitlab.com/", "bitbucket.org/", "oci:"} {
		if strings.HasPrefix(lower, prefix) {
			return true
		}
	}
	before, _, scp := strings.Cut(entry, ":")
	return strings.Contains(entry, "://") || strings.Contains(entry, "?ref=") || scp && strings.Contains(before, "@") && !strings.Contains(before, "/")
}
