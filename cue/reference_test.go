package cue_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/format"
	"cuelang.org/go/cue/parser"
	"cuelang.org/go/cue/token"
	"github.com/google/go-cmp/cmp"

	"berth.dev/berth/cue/schema"
)

// definition is a definition of the schema as docs/schema.md shows it.
type definition struct {
	name   string
	doc    string
	fields []*ast.Field
	value  ast.Expr
}

func definitions(t *testing.T) map[string]definition {
	t.Helper()
	files, err := schema.Files()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]definition{}
	for name, content := range files {
		f, err := parser.ParseFile(name, content, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			field, ok := d.(*ast.Field)
			if !ok {
				continue
			}
			def := definition{doc: comment(field), value: field.Value}
			def.name, _, _ = ast.LabelName(field.Label)
			if body, ok := field.Value.(*ast.StructLit); ok {
				for _, e := range body.Elts {
					if f, ok := e.(*ast.Field); ok {
						def.fields = append(def.fields, f)
					}
				}
			}
			out[def.name] = def
		}
	}
	return out
}

func comment(n ast.Node) string {
	for _, g := range ast.Comments(n) {
		if g.Doc {
			return strings.Join(strings.Fields(g.Text()), " ")
		}
	}
	return ""
}

// shorthand is the table of the fields that a user writes of a definition.
func shorthand(t *testing.T, d definition) string {
	var b strings.Builder
	b.WriteString("| field | value | |\n|---|---|---|\n")
	for _, f := range d.fields {
		name, _, _ := ast.LabelName(f.Label)
		value := valueText(t, f.Value)
		if strings.HasPrefix(name, "_") || value == "_" || computed(f) {
			continue
		}
		about := comment(f)
		if f.Constraint == token.NOT {
			about = strings.TrimSpace("Required. " + about)
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", name, strings.ReplaceAll(value, "|", "\\|"), about)
	}
	return b.String()
}

// computed: an object that the shorthand makes.
func computed(f *ast.Field) bool {
	b, ok := f.Value.(*ast.BinaryExpr)
	return ok && b.Op == token.AND && f.Constraint == token.ILLEGAL
}

func valueText(t *testing.T, e ast.Expr) string {
	t.Helper()
	if s, ok := e.(*ast.StructLit); ok && len(s.Elts) > 1 {
		var names []string
		for _, d := range s.Elts {
			if f, ok := d.(*ast.Field); ok {
				name, _, _ := ast.LabelName(f.Label)
				names = append(names, name)
			}
		}
		return "{" + strings.Join(names, ", ") + "}"
	}
	text, err := format.Node(e)
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`\s+`).ReplaceAllString(string(text), " ")
}

// TestSchemaReference keeps docs/schema.md in step with the schema.
func TestSchemaReference(t *testing.T) {
	defs := definitions(t)
	parts := map[string]string{}
	for _, name := range []string{"#Program", "#App", "#AppPort", "#AppVolume", "#AppClaim", "#AppAutoscale", "#CronTask", "_jobFields"} {
		parts[name] = shorthand(t, defs[name])
	}
	var kinds, words, others []string
	for name, d := range defs {
		kind, apiVersion := fixed(d, "kind"), fixed(d, "apiVersion")
		switch {
		case kind != "" && name == "#"+kind:
			kinds = append(kinds, fmt.Sprintf("| `%s` | `%s` |\n", name, apiVersion))
		case d.fields == nil && d.doc != "" && strings.HasPrefix(name, "#"):
			words = append(words, fmt.Sprintf("| `%s` | %s |\n", name, strings.ReplaceAll(d.doc, "|", "\\|")))
		case parts[name] == "" && name != "#Task" && d.fields != nil && strings.HasPrefix(name, "#"):
			others = append(others, "`"+name+"`")
		}
	}
	slices.Sort(kinds)
	slices.Sort(words)
	slices.Sort(others)
	parts["kinds"] = "| definition | apiVersion |\n|---|---|\n" + strings.Join(kinds, "")
	parts["values"] = "| definition | must be |\n|---|---|\n" + strings.Join(words, "")
	parts["others"] = strings.Join(others, ", ") + "\n"

	const path = "../docs/schema.md"
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	section := regexp.MustCompile(`(?s)(<!-- begin (\S+) -->\n).*?(<!-- end -->)`)
	used := map[string]bool{}
	want := section.ReplaceAllStringFunc(string(have), func(s string) string {
		m := section.FindStringSubmatch(s)
		used[m[2]] = true
		return m[1] + parts[m[2]] + m[3]
	})
	for name := range parts {
		if !used[name] {
			t.Errorf("docs/schema.md has no section %s", name)
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(have)); diff != "" {
		t.Errorf("docs/schema.md is not what the schema says (-schema +document); write it anew with: go test ./cue -run SchemaReference -update\n%s", diff)
	}
}

// fixed is the value of a field that a definition fixes.
func fixed(d definition, field string) string {
	for _, f := range d.fields {
		if name, _, _ := ast.LabelName(f.Label); name == field && f.Constraint == token.ILLEGAL {
			if lit, ok := f.Value.(*ast.BasicLit); ok {
				return strings.Trim(lit.Value, `"`)
			}
		}
	}
	return ""
}
