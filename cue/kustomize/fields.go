package kustomize

import (
	"fmt"
	"strings"

	"berth.dev/berth/cue/document"
)

// field is what a field of a kustomization is to the reader.
type field struct {
	// read checks the value and notes what it refers to; nil: it refers to nothing.
	read func(f *File, name string, value *document.Node)
	// refused says why the field is an error.
	refused string
}

// fieldTable lists every field of a kustomization.
func fieldTable() map[string]field {
	const helm = "Helm charts are not run; run helm template, commit its output, and list that under resources"
	table := map[string]field{
		"resources":                   {read: paths(ToEither)},
		"bases":                       {read: paths(ToFolder)},
		"components":                  {read: paths(ToFolder)},
		"crds":                        {read: paths(ToFile)},
		"configurations":              {read: paths(ToFile)},
		"generators":                  {read: pluginEntries},
		"transformers":                {read: pluginEntries},
		"validators":                  {read: pluginEntries},
		"patchesStrategicMerge":       {read: pathsOrInline},
		"patches":                     {read: each("path", "patch", "target", "options")},
		"patchesJson6902":             {read: each("path", "patch", "target", "options")},
		"replacements":                {read: each("path", "source", "targets")},
		"configMapGenerator":          {read: generator("name", "namespace", "behavior", "files", "literals", "envs", "env", "options")},
		"secretGenerator":             {read: generator("name", "namespace", "behavior", "files", "literals", "envs", "env", "options", "type")},
		"openapi":                     {read: openAPI},
		"helmCharts":                  {refused: helm},
		"helmGlobals":                 {refused: helm},
		"helmChartInflationGenerator": {refused: helm},
	}
	for _, name := range []string{"apiVersion", "kind", "metadata", "namePrefix", "nameSuffix", "namespace", "commonLabels", "labels",
		"commonAnnotations", "images", "imageTags", "replicas", "vars", "sortOptions", "generatorOptions", "buildMetadata"} {
		table[name] = field{}
	}
	return table
}

// items are the items of a list; a value that is none is a fault.
func (f *File) items(name string, value *document.Node) []*document.Node {
	if value.Kind != document.List {
		f.fault(value.Pos, name, "must be a list")
		return nil
	}
	return value.Items
}

func index(name string, i int) string { return fmt.Sprintf("%s[%d]", name, i) }

func paths(target Target) func(*File, string, *document.Node) {
	return func(f *File, name string, value *document.Node) {
		for i, item := range f.items(name, value) {
			f.refer(item, index(name, i), target)
		}
	}
}

// inline reports whether an entry is the content itself and no path.
func inline(entry string) bool {
	return strings.Contains(entry, "\n") || strings.HasPrefix(strings.TrimSpace(entry), "{")
}

func pathsOrInline(f *File, name string, value *document.Node) {
	for i, item := range f.items(name, value) {
		if s, ok := item.Value.(string); !ok || !inline(s) {
			f.refer(item, index(name, i), ToFile)
		}
	}
}

// known checks the names of the fields of an entry.
func (f *File) known(at string, entry *document.Node, allowed []string) bool {
	if entry.Kind != document.Map {
		f.fault(entry.Pos, at, "must be an object")
		return false
	}
	table := make(map[string]bool, len(allowed))
	for _, name := range allowed {
		table[name] = true
	}
	for _, field := range entry.Fields {
		if !table[field.Key] {
			f.fault(field.Pos, at+"."+field.Key, unknownField(field.Key, table))
		}
	}
	return true
}

// each reads a list of objects of which each may name a file under path.
func each(allowed ...string) func(*File, string, *document.Node) {
	return func(f *File, name string, value *document.Node) {
		for i, item := range f.items(name, value) {
			at := index(name, i)
			if !f.known(at, item, allowed) {
				continue
			}
			if p := item.Get("path"); p != nil && p.Kind != document.Null && p.Value != "" {
				f.refer(p, at+".path", ToFile)
			}
		}
	}
}

// generator reads a list of generators of ConfigMaps or Secrets.
func generator(allowed ...string) func(*File, string, *document.Node) {
	return func(f *File, name string, value *document.Node) {
		for i, item := range f.items(name, value) {
			at := index(name, i)
			if !f.known(at, item, allowed) {
				continue
			}
			if literals := item.Get("literals"); literals != nil && literals.Kind != document.Null {
				for k, entry := range f.items(at+".literals", literals) {
					if s, _ := entry.Value.(string); strings.Index(s, "=") < 1 {
						f.fault(entry.Pos, index(at+".literals", k), "must be a string like KEY=value")
					}
				}
			}
			if env := item.Get("env"); env != nil && env.Kind != document.Null && env.Value != "" {
				f.refer(env, at+".env", ToFile)
			}
			for _, list := range []string{"envs", "files"} {
				entries := item.Get(list)
				if entries == nil || entries.Kind == document.Null {
					continue
				}
				for k, entry := range f.items(at+"."+list, entries) {
					f.source(entry, index(at+"."+list, k), list == "files")
				}
			}
		}
	}
}

// source is a file of a generator, which may stand as key=path.
func (f *File) source(entry *document.Node, at string, keyed bool) {
	written, ok := entry.Value.(string)
	if key, file, found := strings.Cut(written, "="); ok && keyed && found {
		if key == "" || file == "" || strings.Contains(file, "=") {
			f.fault(entry.Pos, at, "must be a path, or key=path")
			return
		}
		f.referTo(entry.Pos, at, file, ToFile)
		return
	}
	f.refer(entry, at, ToFile)
}

func openAPI(f *File, name string, value *document.Node) {
	if !f.known(name, value, []string{"path", "version"}) {
		return
	}
	if p := value.Get("path"); p != nil && p.Kind != document.Null {
		f.refer(p, name+".path", ToFile)
	}
}
