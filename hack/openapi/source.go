package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/resources"
)

const (
	metaPrefix  = "io.k8s.apimachinery.pkg.apis.meta.v1."
	berthPrefix = "dev.berth.v1alpha1."
)

// ours makes the document of Berth's own kinds: their paths are shaped like
// those of Namespace, which is cluster-scoped and has a status too.
func ours(specs string, rows []*resources.Resource) (*document, error) {
	core, err := read(filepath.Join(specs, "api__v1_openapi.json"))
	if err != nil {
		return nil, err
	}
	comments, err := fieldComments("api/v1alpha1/source.go")
	if err != nil {
		return nil, err
	}
	d := &document{OpenAPI: core.OpenAPI, Info: map[string]any{"title": "Berth", "version": "unversioned"}, Paths: map[string]map[string]any{}}
	d.Components.Schemas = core.Components.Schemas
	g := &generator{schemas: d.Components.Schemas, comments: comments}
	for _, r := range rows {
		gvk := map[string]any{"group": r.Group, "version": r.Version, "kind": r.Kind}
		for _, t := range []reflect.Type{reflect.TypeOf(r.New()).Elem(), reflect.TypeOf(r.NewList()).Elem()} {
			g.define(t)
		}
		g.schemas[berthPrefix+r.Kind].(map[string]any)["x-kubernetes-group-version-kind"] = []any{gvk}
		for from, to := range map[string]string{
			"/api/v1/namespaces":               "/apis/" + r.GroupVersion().String() + "/" + r.Plural,
			"/api/v1/namespaces/{name}":        "/apis/" + r.GroupVersion().String() + "/" + r.Plural + "/{name}",
			"/api/v1/namespaces/{name}/status": "/apis/" + r.GroupVersion().String() + "/" + r.Plural + "/{name}/status",
		} {
			d.Paths[to] = renamed(core.Paths[from], r, gvk).(map[string]any)
			for m := range d.Paths[to] {
				if keep := served(from, resourcesNamed("Namespace")); m != "parameters" && !contains(keep, m) {
					delete(d.Paths[to], m)
				}
			}
		}
	}
	d.prune()
	return d, nil
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

func resourcesNamed(kind string) []*resources.Resource {
	for _, r := range resources.Table() {
		if r.Kind == kind {
			return []*resources.Resource{r}
		}
	}
	return nil
}

// renamed copies the description of a path with another kind in it.
func renamed(v any, r *resources.Resource, gvk map[string]any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, child := range v {
			if k == "x-kubernetes-group-version-kind" {
				out[k] = gvk
				continue
			}
			out[k] = renamed(child, r, gvk)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, child := range v {
			out[i] = renamed(child, r, gvk)
		}
		return out
	case string:
		v = strings.ReplaceAll(v, "io.k8s.api.core.v1.Namespace", berthPrefix+r.Kind)
		v = strings.ReplaceAll(v, "core_v1", "berth_v1alpha1")
		return strings.ReplaceAll(strings.ReplaceAll(v, "CoreV1Namespace", "BerthV1alpha1"+r.Kind), "Namespace", r.Kind)
	}
	return v
}

// fieldComments reads the comments of a file's types and fields, as Type and Type.Field.
func fieldComments(path string) (map[string]string, error) {
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, decl := range f.Decls {
		g, ok := decl.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range g.Specs {
			t, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			out[t.Name.Name] = words(g.Doc.Text())
			if s, ok := t.Type.(*ast.StructType); ok {
				for _, field := range s.Fields.List {
					for _, name := range field.Names {
						out[t.Name.Name+"."+name.Name] = words(field.Doc.Text())
					}
				}
			}
		}
	}
	return out, nil
}

// words is a comment on one line, without directives.
func words(comment string) string {
	var lines []string
	for line := range strings.Lines(comment) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "+") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, " ")
}

// generator makes schemas out of Go types.
type generator struct {
	schemas  map[string]any
	comments map[string]string
}

// define adds the schema of a struct, and of what it holds.
func (g *generator) define(t reflect.Type) {
	name := berthPrefix + t.Name()
	if g.schemas[name] != nil {
		return
	}
	properties := map[string]any{}
	g.schemas[name] = map[string]any{"type": "object", "description": g.comments[t.Name()], "properties": properties}
	var required []any
	for i := range t.NumField() {
		f := t.Field(i)
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && tag == "" { // TypeMeta
			for _, k := range []string{"apiVersion", "kind"} {
				properties[k] = map[string]any{"type": "string"}
			}
			continue
		}
		s := g.of(f.Type)
		if c := g.comments[t.Name()+"."+f.Name]; c != "" {
			if ref, ok := s["$ref"]; ok {
				s = map[string]any{"allOf": []any{map[string]any{"$ref": ref}}}
			}
			s["description"] = c
		}
		properties[tag] = s
		if options != "omitempty" && t.Name() != "SourceList" {
			required = append(required, tag)
		}
	}
	if required != nil {
		g.schemas[name].(map[string]any)["required"] = required
	}
}

func (g *generator) of(t reflect.Type) map[string]any {
	ref := func(name string) map[string]any { return map[string]any{"$ref": "#/components/schemas/" + name} }
	switch t {
	case reflect.TypeFor[metav1.Time](), reflect.TypeFor[metav1.MicroTime]():
		return map[string]any{"type": "string", "format": "date-time"}
	case reflect.TypeFor[metav1.Duration]():
		return map[string]any{"type": "string"}
	case reflect.TypeFor[resource.Quantity]():
		return ref("io.k8s.apimachinery.pkg.api.resource.Quantity")
	case reflect.TypeFor[intstr.IntOrString]():
		return map[string]any{"x-kubernetes-int-or-string": true, "anyOf": []any{map[string]any{"type": "integer"}, map[string]any{"type": "string"}}}
	case reflect.TypeFor[metav1.ObjectMeta](), reflect.TypeFor[metav1.ListMeta](), reflect.TypeFor[metav1.Condition]():
		return ref(metaPrefix + t.Name())
	}
	switch t.Kind() {
	case reflect.Pointer:
		return g.of(t.Elem())
	case reflect.Slice:
		return map[string]any{"type": "array", "items": g.of(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": g.of(t.Elem())}
	case reflect.Struct:
		if t.PkgPath() != reflect.TypeFor[v1alpha1.Source]().PkgPath() {
			panic("no schema for " + t.String())
		}
		g.define(t)
		return ref(berthPrefix + t.Name())
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int32, reflect.Int64:
		return map[string]any{"type": "integer", "format": t.Kind().String()}
	}
	return map[string]any{"type": "string"}
}
