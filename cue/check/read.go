package check

import (
	"cmp"
	"fmt"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/literal"
	"cuelang.org/go/cue/parser"
	"cuelang.org/go/cue/token"
)

// Schema is a set of definitions by name.
type Schema struct {
	defs map[string]*Type
}

// Definition returns the definition of that name, such as "#Deployment", or nil.
func (s *Schema) Definition(name string) *Type { return s.defs[name] }

// Read takes the definitions out of files of CUE. It understands what a schema
// of data needs: closed structs, references, enumerations, bounds, patterns and
// lists. Anything else is an error, so that no constraint is lost in silence.
func Read(files map[string][]byte) (*Schema, error) {
	r := &reader{Schema: &Schema{defs: map[string]*Type{}}, exprs: map[string]ast.Expr{}}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		f, err := parser.ParseFile(name, files[name], parser.ParseComments)
		if err != nil {
			return nil, fmt.Errorf("parse the schema: %w", err)
		}
		r.collect(f)
	}
	for _, name := range sortedKeys(r.exprs) {
		t, err := r.typ(r.exprs[name])
		if err != nil {
			return nil, fmt.Errorf("read the definition %s: %w", name, err)
		}
		r.defs[name].alts = t.alts
	}
	return r.Schema, nil
}

type reader struct {
	*Schema
	exprs map[string]ast.Expr
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func (r *reader) collect(f *ast.File) {
	for _, d := range f.Decls {
		field, ok := d.(*ast.Field)
		if !ok {
			continue
		}
		ident, ok := field.Label.(*ast.Ident)
		if !ok || !strings.HasPrefix(ident.Name, "#") {
			continue
		}
		t := &Type{Name: ident.Name}
		for _, group := range ast.Comments(field) {
			if group.Doc {
				t.words = strings.Join(strings.Fields(group.Text()), " ")
			}
		}
		if _, isStruct := field.Value.(*ast.StructLit); isStruct {
			t.words = ""
		}
		r.defs[ident.Name] = t
		r.exprs[ident.Name] = field.Value
	}
}

func (r *reader) typ(e ast.Expr) (*Type, error) {
	if b, ok := e.(*ast.BinaryExpr); ok && b.Op == token.OR {
		left, err := r.typ(b.X)
		if err != nil {
			return nil, err
		}
		right, err := r.typ(b.Y)
		if err != nil {
			return nil, err
		}
		return &Type{alts: append(left.alts, right.alts...)}, nil
	}
	if p, ok := e.(*ast.ParenExpr); ok {
		return r.typ(p.X)
	}
	a, err := r.alternative(e)
	if err != nil {
		return nil, err
	}
	return &Type{alts: []alternative{a}}, nil
}

func basicType(name string) (kinds, bool) {
	switch name {
	case "string":
		return isString, true
	case "int":
		return isInt, true
	case "number":
		return isInt | isFloat, true
	case "bool":
		return isBool, true
	case "_":
		return isBool | isInt | isFloat | isString | isMap | isList, true
	}
	return 0, false
}

func (r *reader) alternative(e ast.Expr) (alternative, error) {
	switch x := e.(type) {
	case *ast.Ident:
		if k, ok := basicType(x.Name); ok {
			return alternative{kinds: k, open: x.Name == "_"}, nil
		}
		if t, ok := r.defs[x.Name]; ok {
			return alternative{ref: t}, nil
		}
		return alternative{}, fmt.Errorf("unknown name %s", x.Name)
	case *ast.ParenExpr:
		return r.alternative(x.X)
	case *ast.BasicLit:
		return basic(x)
	case *ast.UnaryExpr:
		return bound(x)
	case *ast.CallExpr:
		return length(x)
	case *ast.BinaryExpr:
		return r.both(x)
	case *ast.ListLit:
		return r.list(x)
	case *ast.StructLit:
		return r.structure(x)
	}
	return alternative{}, fmt.Errorf("%T is not understood", e)
}

func basic(x *ast.BasicLit) (alternative, error) {
	switch x.Kind {
	case token.STRING:
		s, err := literal.Unquote(x.Value)
		return alternative{kinds: isString, equals: s}, err
	case token.INT:
		n, err := strconv.ParseInt(x.Value, 10, 64)
		return alternative{kinds: isInt, equals: n}, err
	}
	return alternative{}, fmt.Errorf("the literal %s is not understood", x.Value)
}

func bound(x *ast.UnaryExpr) (alternative, error) {
	if x.Op == token.MAT || x.Op == token.NMAT {
		lit, ok := x.X.(*ast.BasicLit)
		if !ok {
			return alternative{}, fmt.Errorf("a pattern must be a literal")
		}
		s, err := literal.Unquote(lit.Value)
		if err != nil {
			return alternative{}, err
		}
		re, err := regexp.Compile(s)
		if err != nil {
			return alternative{}, err
		}
		return alternative{kinds: isString, conds: []cond{pattern(re, x.Op == token.MAT)}}, nil
	}
	n, err := integer(x.X)
	if err != nil {
		return alternative{}, err
	}
	c := cond{}
	var least, most *int64
	switch x.Op {
	case token.GEQ:
		least = &n
		c = cond{fmt.Sprintf("of at least %d", n), func(v any) bool { return numeric(v) >= float64(n) }}
	case token.LEQ:
		most = &n
		c = cond{fmt.Sprintf("of at most %d", n), func(v any) bool { return numeric(v) <= float64(n) }}
	case token.SUB:
		return alternative{kinds: isInt, equals: -n}, nil
	default:
		return alternative{}, fmt.Errorf("the operator %s is not understood", x.Op)
	}
	return alternative{kinds: isInt | isFloat, conds: []cond{c}, least: least, most: most}, nil
}

func integer(e ast.Expr) (int64, error) {
	switch x := e.(type) {
	case *ast.BasicLit:
		return strconv.ParseInt(x.Value, 10, 64)
	case *ast.UnaryExpr:
		n, err := integer(x.X)
		if x.Op == token.SUB {
			n = -n
		}
		return n, err
	}
	return 0, fmt.Errorf("a bound must be a whole number")
}

func numeric(v any) float64 {
	switch n := v.(type) {
	case int64:
		return float64(n)
	case float64:
		return n
	}
	return 0
}

// length reads strings.MaxRunes(n) and strings.MinRunes(n).
func length(x *ast.CallExpr) (alternative, error) {
	sel, ok := x.Fun.(*ast.SelectorExpr)
	if !ok || len(x.Args) != 1 {
		return alternative{}, fmt.Errorf("the call is not understood")
	}
	n, err := integer(x.Args[0])
	if err != nil {
		return alternative{}, err
	}
	name, _, err := ast.LabelName(sel.Sel)
	if err != nil {
		return alternative{}, err
	}
	runes := func(v any) int64 { s, _ := v.(string); return int64(utf8.RuneCountInString(s)) }
	switch name {
	case "MaxRunes":
		return alternative{kinds: isString, conds: []cond{{fmt.Sprintf("of at most %d characters", n), func(v any) bool { return runes(v) <= n }}}}, nil
	case "MinRunes":
		return alternative{kinds: isString, conds: []cond{{fmt.Sprintf("of at least %d characters", n), func(v any) bool { return runes(v) >= n }}}}, nil
	}
	return alternative{}, fmt.Errorf("the function %s is not understood", name)
}

// both reads a conjunction of scalars.
func (r *reader) both(x *ast.BinaryExpr) (alternative, error) {
	if x.Op != token.AND {
		return alternative{}, fmt.Errorf("the operator %s is not understood", x.Op)
	}
	left, err := r.alternative(x.X)
	if err != nil {
		return alternative{}, err
	}
	right, err := r.alternative(x.Y)
	if err != nil {
		return alternative{}, err
	}
	if left.ref != nil || right.ref != nil || (left.kinds|right.kinds)&(isMap|isList) != 0 {
		return alternative{}, fmt.Errorf("only scalars can be unified in the schema")
	}
	left.kinds &= right.kinds
	left.conds = append(append([]cond{}, left.conds...), right.conds...)
	left.least, left.most = cmp.Or(left.least, right.least), cmp.Or(left.most, right.most)
	return left, nil
}

func (r *reader) list(x *ast.ListLit) (alternative, error) {
	a := alternative{kinds: isList}
	for _, e := range x.Elts {
		item := e
		if dots, ok := e.(*ast.Ellipsis); ok {
			if dots.Type == nil {
				continue
			}
			item = dots.Type
		} else {
			a.min++
		}
		t, err := r.typ(item)
		if err != nil {
			return a, err
		}
		a.elem = t
	}
	return a, nil
}

func (r *reader) structure(x *ast.StructLit) (alternative, error) {
	a := alternative{kinds: isMap, fields: map[string]*Field{}}
	for _, d := range x.Elts {
		switch d := d.(type) {
		case *ast.Ellipsis:
			a.open = true
		case *ast.Field:
			if err := r.field(&a, d); err != nil {
				return a, err
			}
		default:
			return a, fmt.Errorf("%T in a struct is not understood", d)
		}
	}
	sort.Strings(a.names)
	if len(a.fields) == 0 && a.values != nil {
		a.fields = nil
	}
	return a, nil
}

func (r *reader) field(a *alternative, f *ast.Field) error {
	value, err := r.typ(f.Value)
	if err != nil {
		return err
	}
	if list, ok := f.Label.(*ast.ListLit); ok && len(list.Elts) == 1 {
		a.values = value
		a.keys, err = r.typ(list.Elts[0])
		return err
	}
	name, _, err := ast.LabelName(f.Label)
	if err != nil {
		return err
	}
	a.fields[name] = &Field{Name: name, Required: f.Constraint != token.OPTION, Type: value}
	a.names = append(a.names, name)
	return nil
}
