package kustomize

import (
	"fmt"
	"slices"
	"strings"

	"berth.dev/berth/cue/document"
)

// pluginFields are the fields whose entries configure plugins.
func pluginFields() []string { return []string{"generators", "transformers", "validators"} }

// pluginKinds are the plugins of the library that are run: those that need
// nothing but their own configuration.
func pluginKinds() []string {
	return []string{"AnnotationsTransformer", "ConfigMapGenerator", "ImageTagTransformer", "LabelTransformer", "NamespaceTransformer",
		"PatchTransformer", "PrefixTransformer", "ReplicaCountTransformer", "SecretGenerator", "SuffixTransformer"}
}

func pluginEntries(f *File, name string, value *document.Node) {
	for i, item := range f.items(name, value) {
		s, ok := item.Value.(string)
		if !ok || !inline(s) {
			f.refer(item, index(name, i), ToFile)
			continue
		}
		docs, problems := document.YAML(f.Path, []byte(s))
		if len(problems) == 0 {
			problems = checkPlugins(f.Path, docs)
		}
		if len(problems) > 0 {
			f.fault(item.Pos, index(name, i), problems[0].Message)
		}
	}
}

// checkPlugins refuses every plugin that runs a program, or that reads files of
// which nobody knows.
func checkPlugins(name string, docs []*document.Node) []document.Problem {
	var out []document.Problem
	fault := func(pos document.Pos, message string) {
		out = append(out, document.Problem{Pos: pos, Message: message})
	}
	if len(docs) == 0 {
		fault(document.Pos{Path: name, Line: 1}, "no plugin of kustomize is configured here; remove the entry")
	}
	for _, doc := range docs {
		kind := doc.Text("kind")
		if doc.Text("apiVersion") != "builtin" || !slices.Contains(pluginKinds(), kind) {
			fault(doc.Pos, fmt.Sprintf("plugins of kustomize are not run, but for these of apiVersion builtin: %s; use the fields of kustomization.yaml, such as patches", strings.Join(pluginKinds(), ", ")))
			continue
		}
		if a := doc.Get("metadata").Get("annotations"); a != nil {
			fault(a.Pos, "a plugin of kustomize has no annotations here; remove them")
		}
		for _, field := range doc.Fields {
			if slices.ContainsFunc([]string{"path", "paths", "file", "files", "env", "envs"}, func(s string) bool { return strings.EqualFold(s, field.Key) }) {
				fault(field.Pos, fmt.Sprintf("the field %s of a plugin is not read; use the field of kustomization.yaml that does the same, such as patches or configMapGenerator", field.Key))
			}
		}
	}
	return out
}

func isPlugin(field string) bool {
	return slices.ContainsFunc(pluginFields(), func(name string) bool { return strings.HasPrefix(field, name+"[") })
}
