package kustomize

import (
	"bytes"
	"encoding/json"
	"path"
	"slices"
	"strings"

	"berth.dev/berth/cue/document"
)

const originAnnotations = "originAnnotations"

// rewrite is the kustomization as the library gets it: what has been checked and
// nothing else. Each path begins with a dot, which the library never takes for
// something to fetch. The root tells where its resources come from.
func (f *File) rewrite(root bool) ([]byte, error) {
	content, _ := f.root.Interface().(map[string]any)
	for _, name := range []string{"resources", "bases", "components", "crds", "configurations"} {
		rewriteList(content, name, dotted)
	}
	rewriteList(content, "patchesStrategicMerge", unlessInline(dotted))
	for _, name := range pluginFields() {
		rewriteList(content, name, plugins)
	}
	for _, name := range []string{"patches", "patchesJson6902", "replacements"} {
		rewriteEach(content[name], func(entry map[string]any) { rewriteText(entry, "path", dotted) })
	}
	for _, name := range []string{"configMapGenerator", "secretGenerator"} {
		rewriteEach(content[name], func(entry map[string]any) {
			rewriteText(entry, "env", dotted)
			rewriteList(entry, "envs", dotted)
			rewriteList(entry, "files", afterKey(dotted))
		})
	}
	rewriteEach([]any{content["openapi"]}, func(entry map[string]any) { rewriteText(entry, "path", dotted) })
	renameOld(content)
	if root {
		list, _ := content["buildMetadata"].([]any)
		if !slices.Contains(list, any(originAnnotations)) {
			content["buildMetadata"] = append(list, originAnnotations)
		}
	}
	return json.Marshal(content)
}

// wantsOrigins: the user asks for the annotations that this package puts in.
func (f *File) wantsOrigins() bool {
	list := f.root.Get("buildMetadata")
	return list != nil && slices.ContainsFunc(list.Items, func(n *document.Node) bool { return n.Value == originAnnotations })
}

// dotted writes a path so that it begins with ./ or ../.
func dotted(file string) string {
	if file = path.Clean(file); file != ".." && !strings.HasPrefix(file, "../") {
		file = "./" + file
	}
	return file
}

func unlessInline(write func(string) string) func(string) string {
	return func(entry string) string {
		if inline(entry) {
			return entry
		}
		return write(entry)
	}
}

// afterKey leaves the key of key=path.
func afterKey(write func(string) string) func(string) string {
	return func(entry string) string {
		if key, file, keyed := strings.Cut(entry, "="); keyed {
			return key + "=" + write(file)
		}
		return write(entry)
	}
}

// plugins are written anew where they stand inline: what the library cannot read
// as a plugin, it takes for a path.
func plugins(entry string) string {
	if !inline(entry) {
		return dotted(entry)
	}
	docs, _ := document.YAML("", []byte(entry))
	content, err := rewriteDocuments(docs)
	if err != nil {
		return ""
	}
	return string(content)
}

func rewriteList(content map[string]any, name string, write func(string) string) {
	list, _ := content[name].([]any)
	for i, item := range list {
		if s, ok := item.(string); ok {
			list[i] = write(s)
		}
	}
}

func rewriteText(content map[string]any, name string, write func(string) string) {
	if s, ok := content[name].(string); ok && s != "" {
		content[name] = write(s)
	}
}

func rewriteEach(list any, write func(map[string]any)) {
	items, _ := list.([]any)
	for _, item := range items {
		if entry, ok := item.(map[string]any); ok {
			write(entry)
		}
	}
}

// renameOld does what "kustomize edit fix" does, where the meaning is the same: the
// library complains on stderr of fields with an old name.
func renameOld(content map[string]any) {
	move := func(from, to string, old []any) {
		list, isList := content[to].([]any)
		if content[to] == nil || isList {
			content[to] = append(list, old...)
			delete(content, from)
		}
	}
	for from, to := range map[string]string{"bases": "resources", "imageTags": "images"} {
		if old, ok := content[from].([]any); ok {
			move(from, to, old)
		}
	}
	if pairs, ok := content["commonLabels"].(map[string]any); ok && allText(pairs) {
		move("commonLabels", "labels", []any{map[string]any{"pairs": pairs, "includeSelectors": true}})
	}
}

func allText(values map[string]any) bool {
	for _, v := range values {
		if _, ok := v.(string); !ok {
			return false
		}
	}
	return true
}

// rewriteDocuments writes the documents of a file anew, so that the library reads
// what has been checked.
func rewriteDocuments(docs []*document.Node) ([]byte, error) {
	var b bytes.Buffer
	for _, doc := range docs {
		line, err := json.Marshal(doc.Interface())
		if err != nil {
			return nil, err
		}
		b.WriteString("---\n")
		b.Write(append(line, '\n'))
	}
	return b.Bytes(), nil
}
