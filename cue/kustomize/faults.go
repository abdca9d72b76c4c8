package kustomize

import (
	"fmt"
	"regexp"
	"strings"

	"berth.dev/berth/cue/document"
)

// knownFault is a message of the library and what it means.
type knownFault struct {
	says *regexp.Regexp
	// explain completes a Problem at f with what the message says.
	explain func(b *build, f *File, m []string, p *document.Problem)
}

// knownFaults are the messages that people meet.
func knownFaults() []knownFault {
	return []knownFault{
		{regexp.MustCompile(`(?:no matches for Id |no resource matches strategic merge patch "?|unable to find patch target "?)([A-Za-z0-9]+)\.(?:[^/\s"]*)/([^\s."]+)`), unmatchedPatch},
		{regexp.MustCompile(`(?:may not add resource with an already registered id|multiple matches for Id): ?([A-Za-z0-9]+)\.(?:[^/\s]*)/([^\s."]+)`), sameObject},
		{regexp.MustCompile(`Kind:"([A-Za-z]+)".*Name:"([^"]*)".*does not exist; cannot merge or replace`), nothingToMerge},
		{regexp.MustCompile(`(configmap|secret) (\S+) illegally repeats the key`), repeatedKey},
		{regexp.MustCompile(`nothing selected by ([A-Za-z0-9]+)\.[^/]*/([^\s.]+)`), unselected},
		{regexp.MustCompile(`unable to find field "([^"]*)" in replacement target`), noSuchTarget},
		{regexp.MustCompile(`resource with name (\S+) does not match a config with the following GVK`), noReplicas},
		{regexp.MustCompile(`cannot unmarshal (\w+) into Go struct field [A-Za-z]+\.([A-Za-z0-9.]+) of type (\S+)`), mistyped},
		{regexp.MustCompile(`json: unknown field "([^"]*)"`), misspelt},
		{regexp.MustCompile(`specified OpenAPI version is not built in`), noSuchSchema},
	}
}

func unmatchedPatch(b *build, f *File, m []string, p *document.Problem) {
	p.Pos, p.Object = b.patchOf(f, m[1], m[2]), m[1]+"/"+m[2]
	p.Message = "the patch changes this object, but no resource of the kustomization is one; correct the kind, name and namespace in the patch, or list the resource"
}

func sameObject(_ *build, _ *File, m []string, p *document.Problem) {
	p.Object = m[1] + "/" + m[2]
	p.Message = "the kustomization has this object twice; remove one, or give one another name"
}

func nothingToMerge(_ *build, f *File, m []string, p *document.Problem) {
	p.Pos, p.Object = f.generatorOf(m[1], m[2]), m[1]+"/"+m[2]
	p.Message = "no resource of the kustomization is this object, so there is nothing to merge with or to replace; correct the name, or remove behavior"
}

// repeatedKey: the library says configmap of Secrets too.
func repeatedKey(_ *build, f *File, m []string, p *document.Problem) {
	p.Pos = document.Pos{Path: f.Path, Line: 1}
	for _, kind := range []string{"Secret", "ConfigMap"} {
		if at := f.generatorOf(kind, m[2]); at.Column > 0 {
			p.Pos, p.Object = at, kind+"/"+m[2]
		}
	}
	p.Message = "a key is there twice; give one of the files or literals another key"
}

func unselected(_ *build, f *File, m []string, p *document.Problem) {
	p.Pos, p.Field = f.at("replacements"), "replacements"
	p.Message = fmt.Sprintf("no resource of the kustomization is a %s named %s; correct the source, or list the resource", m[1], m[2])
}

func noSuchTarget(_ *build, f *File, m []string, p *document.Problem) {
	p.Pos, p.Field = f.at("replacements"), "replacements"
	p.Message = fmt.Sprintf("a target has no field %s; correct fieldPaths, or set options: {create: true}", m[1])
}

func noReplicas(_ *build, f *File, m []string, p *document.Problem) {
	p.Pos, p.Field = f.at("replicas"), "replicas"
	p.Message = fmt.Sprintf("no resource of the kustomization that has replicas is named %s; correct the name", m[1])
}

func mistyped(_ *build, f *File, m []string, p *document.Problem) {
	p.Field = embedded.ReplaceAllString(m[2], "")
	p.Pos = f.at(p.Field)
	p.Message = fmt.Sprintf("a %s is not allowed; must be a %s", typeName(m[1]), typeName(m[3]))
	if m[3] == "string" && (m[1] == "number" || m[1] == "bool") {
		p.Message += "; quote it"
	}
}

func misspelt(_ *build, f *File, m []string, p *document.Problem) {
	if pos, found := keyOf(f.root, m[1]); found {
		p.Pos = pos
	}
	p.Message = fmt.Sprintf("unknown field %q; kustomize knows no such field here: correct or remove it", m[1])
}

func noSuchSchema(_ *build, f *File, _ []string, p *document.Problem) {
	p.Pos, p.Field = f.at("openapi.version"), "openapi.version"
	p.Message = "there is no schema of this version; remove the field"
}

// keyOf is the place of the first field of that name in n.
func keyOf(n *document.Node, key string) (document.Pos, bool) {
	for _, f := range n.Fields {
		if f.Key == key {
			return f.Pos, true
		}
		if pos, found := keyOf(f.Value, key); found {
			return pos, true
		}
	}
	for _, item := range n.Items {
		if pos, found := keyOf(item, key); found {
			return pos, true
		}
	}
	return document.Pos{}, false
}

// generatorOf is the place of the entry that makes a ConfigMap or a Secret.
func (f *File) generatorOf(kind, name string) document.Pos {
	list := map[string]string{"ConfigMap": "configMapGenerator", "Secret": "secretGenerator"}[kind]
	if entries := f.root.Get(list); entries != nil {
		for _, e := range entries.Items {
			if e.Text("name") == name {
				return e.Pos
			}
		}
	}
	return document.Pos{Path: f.Path, Line: 1}
}

// embedded is the name of a Go type in the way to a field.
var embedded = regexp.MustCompile(`\b[A-Z][A-Za-z]*\.`)

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

// patchOf is the place of the patch of an object, or of the kustomization.
func (b *build) patchOf(f *File, kind, name string) document.Pos {
	for _, doc := range b.patchDocuments(f) {
		if doc.Text("kind") == kind && doc.Get("metadata").Text("name") == name {
			return doc.Pos
		}
	}
	return document.Pos{Path: f.Path, Line: 1}
}
