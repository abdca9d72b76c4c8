package eval

import (
	"fmt"
	"sort"
	"strings"

	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/format"
	"cuelang.org/go/cue/parser"
	"cuelang.org/go/cue/token"

	"berth.dev/berth/cue/schema"
)

// loosen makes a schema without constraints out of the schema: the same
// definitions and fields, but open, nothing required, and any value for what is
// not a struct. Only apiVersion and kind keep their values, and what computes
// stays as it is.
func loosen(strict map[string][]byte) (map[string][]byte, error) {
	files := map[string]*ast.File{}
	for name, content := range strict {
		f, err := parser.ParseFile(name, content)
		if err != nil {
			return nil, fmt.Errorf("parse the schema: %w", err)
		}
		files[name] = f
	}
	out := map[string][]byte{}
	for name, f := range files {
		if schema.Shorthand(name) {
			out[name] = strict[name]
			continue
		}
		var b strings.Builder
		b.WriteString("package schema\n")
		var defs []string
		for _, d := range f.Decls {
			if field, ok := d.(*ast.Field); ok {
				defs = append(defs, labelOf(field)+": "+loose(field.Value)+"\n")
			}
		}
		sort.Strings(defs)
		b.WriteString(strings.Join(defs, ""))
		content, err := format.Source([]byte(b.String()))
		if err != nil {
			return nil, fmt.Errorf("loosen the schema's %s: %w", name, err)
		}
		out[name] = content
	}
	return out, nil
}

func labelOf(f *ast.Field) string {
	name, _, err := ast.LabelName(f.Label)
	if err != nil {
		return ""
	}
	return name
}

func loose(e ast.Expr) string {
	x, ok := e.(*ast.StructLit)
	if !ok {
		return "_"
	}
	var b strings.Builder
	b.WriteString("{\n")
	for _, d := range x.Elts {
		f, ok := d.(*ast.Field)
		if !ok || labelOf(f) == "" {
			continue
		}
		if lit, ok := f.Value.(*ast.BasicLit); ok && f.Constraint == token.ILLEGAL {
			fmt.Fprintf(&b, "%s: %s\n", labelOf(f), lit.Value)
			continue
		}
		fmt.Fprintf(&b, "%q?: _\n", labelOf(f))
	}
	b.WriteString("...\n}")
	return b.String()
}
