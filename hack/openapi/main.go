// Command openapi writes the OpenAPI v3 and v2 documents that the API server embeds:
// those of the pinned Kubernetes, cut down to what Berth serves, and one for
// the kind Source, made from its Go type and comments.
//
//	go run ./hack/openapi -o engine/apiserver/openapi
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"berth.dev/berth/engine/apiserver"
	"berth.dev/berth/engine/resources"
)

func main() {
	out := flag.String("o", "engine/apiserver/openapi", "folder to write to")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}

func run(out string) error {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
	if err != nil {
		return fmt.Errorf("find k8s.io/kubernetes: %w", err)
	}
	specs := filepath.Join(strings.TrimSpace(string(dir)), "api", "openapi-spec", "v3")
	if err := writeV2(filepath.Join(specs, "..", "swagger.json"), out); err != nil {
		return fmt.Errorf("OpenAPI v2: %w", err)
	}
	byVersion := map[schema.GroupVersion][]*resources.Resource{}
	for _, r := range slices.Concat(resources.Table(), resources.Reviews()) {
		byVersion[r.GroupVersion()] = append(byVersion[r.GroupVersion()], r)
	}
	for gv, rows := range byVersion {
		var doc *document
		if gv.Group == "berth.dev" {
			doc, err = ours(specs, rows)
		} else {
			doc, err = upstream(specs, gv, rows)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", gv, err)
		}
		if err := doc.write(filepath.Join(out, fileName(gv))); err != nil {
			return err
		}
	}
	return nil
}

// fileName is api__v1.json.gz or apis__apps__v1.json.gz.
func fileName(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "api__" + gv.Version + ".json.gz"
	}
	return "apis__" + gv.Group + "__" + gv.Version + ".json.gz"
}

// document is an OpenAPI v3 document, as far as it matters here.
type document struct {
	OpenAPI    string                    `json:"openapi"`
	Info       map[string]any            `json:"info"`
	Paths      map[string]map[string]any `json:"paths"`
	Components struct {
		Schemas map[string]any `json:"schemas"`
	} `json:"components"`
}

func read(path string) (*document, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	d := &document{}
	return d, json.Unmarshal(b, d)
}

// upstream cuts a document of Kubernetes down to the kinds and verbs of the table.
func upstream(specs string, gv schema.GroupVersion, rows []*resources.Resource) (*document, error) {
	d, err := read(filepath.Join(specs, strings.TrimSuffix(fileName(gv), ".json.gz")+"_openapi.json"))
	if err != nil {
		return nil, err
	}
	limit(d.Paths, func(path string) []string { return served(path, rows) })
	d.prune()
	return d, nil
}

// served lists the methods of a path, nil for a path that is not served.
func served(path string, rows []*resources.Resource) []string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if slices.Contains(parts, "watch") {
		return nil
	}
	for _, r := range rows {
		i := slices.Index(parts, r.Plural)
		if i < 0 {
			continue
		}
		rest := parts[i+1:]
		// The plural of Namespace also begins the paths of what is in one.
		if r.Kind == "Namespace" && len(rest) > 1 && !hasSubresource(r, rest[1]) {
			continue
		}
		switch {
		case len(rest) > 2:
			return nil
		case len(rest) == 2:
			return subresourceMethods(r, rest[1])
		case r.Review:
			return []string{"post"}
		case r.ReadOnly:
			return []string{"get"}
		case len(rest) == 1:
			return []string{"get", "put", "patch", "delete"}
		case r.Namespaced && !slices.Contains(parts, "{namespace}"):
			return []string{"get"}
		}
		return []string{"get", "post", "delete"}
	}
	return nil
}

func hasSubresource(r *resources.Resource, name string) bool {
	return subresourceMethods(r, name) != nil
}

func subresourceMethods(r *resources.Resource, name string) []string {
	methods := map[string]string{"create": "post", "get": "get", "update": "put", "patch": "patch", "delete": "delete"}
	for _, sub := range apiserver.Subresources(r) {
		if sub.Name != name {
			continue
		}
		var out []string
		for _, v := range sub.Verbs {
			out = append(out, methods[v])
		}
		return out
	}
	return nil
}

// prune drops the schemas that no path leads to.
func (d *document) prune() {
	const at = "#/components/schemas/"
	used := reached(d.Paths, func(ref string) any { return d.Components.Schemas[strings.TrimPrefix(ref, at)] })
	maps.DeleteFunc(d.Components.Schemas, func(name string, _ any) bool { return !used[at+name] })
}

// reached are the references that paths lead to, also by way of others.
func reached(paths map[string]map[string]any, target func(ref string) any) map[string]bool {
	used := map[string]bool{}
	var visit func(v any)
	visit = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok && !used[ref] {
				used[ref] = true
				visit(target(ref))
			}
			for _, child := range v {
				visit(child)
			}
		case []any:
			for _, child := range v {
				visit(child)
			}
		}
	}
	for _, methods := range paths {
		visit(map[string]any(methods))
	}
	return used
}

// limit leaves of paths what keep lists: the methods of a path, nil for none.
func limit(paths map[string]map[string]any, keep func(path string) []string) {
	for path, methods := range paths {
		kept := keep(path)
		if kept == nil {
			delete(paths, path)
			continue
		}
		maps.DeleteFunc(methods, func(m string, _ any) bool { return m != "parameters" && !slices.Contains(kept, m) })
	}
}

// write gzips the document; the same document gives the same bytes.
func (d *document) write(path string) error {
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return writePacked(path, b)
}
