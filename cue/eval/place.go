package eval

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/build"
	"cuelang.org/go/cue/token"

	"berth.dev/berth/cue/document"
)

// places finds where the user wrote a field. The syntax names most fields by
// their path; what comes out of a template or a loop is found through the
// value, or stands at the nearest field above it.
type places struct {
	byPath map[string]document.Pos
	first  document.Pos
	// files are what the user wrote.
	files map[string][]byte
}

func index(inst *build.Instance) places {
	p := places{byPath: map[string]document.Pos{}}
	for _, f := range inst.Files {
		name, ok := relative(f.Filename)
		if !ok {
			continue
		}
		if p.first.Path == "" {
			p.first = document.Pos{Path: name, Line: 1, Column: 1}
		}
		p.decls(f.Decls, "")
	}
	return p
}

func (p places) decls(decls []ast.Decl, at string) {
	for _, d := range decls {
		switch d := d.(type) {
		case *ast.Field:
			name, _, err := ast.LabelName(d.Label)
			if err != nil {
				continue
			}
			child := at + "\x00" + name
			p.add(child, d.Label.Pos())
			p.expr(d.Value, child)
		case *ast.EmbedDecl:
			p.expr(d.Expr, at)
		case *ast.Comprehension:
			p.expr(d.Value, at)
		}
	}
}

func (p places) expr(e ast.Expr, at string) {
	switch e := e.(type) {
	case *ast.StructLit:
		p.decls(e.Elts, at)
	case *ast.BinaryExpr:
		p.expr(e.X, at)
		p.expr(e.Y, at)
	case *ast.ParenExpr:
		p.expr(e.X, at)
	case *ast.ListLit:
		for i, item := range e.Elts {
			switch item.(type) {
			case *ast.Ellipsis, *ast.Comprehension:
				return
			}
			child := at + "\x00" + strconv.Itoa(i)
			p.add(child, item.Pos())
			p.expr(item, child)
		}
	}
}

func (p places) add(key string, pos token.Pos) {
	if _, known := p.byPath[key]; known {
		return
	}
	if at, ok := position(pos); ok {
		p.byPath[key] = at
	}
}

func position(pos token.Pos) (document.Pos, bool) {
	if !pos.IsValid() {
		return document.Pos{}, false
	}
	name, ok := relative(pos.Filename())
	return document.Pos{Path: name, Line: pos.Line(), Column: pos.Column()}, ok
}

func key(at []string) string {
	var b strings.Builder
	for _, name := range at {
		b.WriteByte(0)
		b.WriteString(name)
	}
	return b.String()
}

// exact is the place of the field itself.
func (p places) exact(v cue.Value, at []string) (document.Pos, bool) {
	if pos, ok := p.byPath[key(at)]; ok {
		return pos, true
	}
	return origin(v, 3)
}

// origin is where the user wrote a value, or one that it was taken from over
// at most depth references.
func origin(v cue.Value, depth int) (document.Pos, bool) {
	if v == (cue.Value{}) {
		return document.Pos{}, false
	}
	if pos, ok := position(v.Pos()); ok || depth == 0 || v.IncompleteKind()&(cue.StructKind|cue.ListKind) != 0 {
		return pos, ok
	}
	op, args := parts(v)
	if op != cue.AndOp && op != cue.SelectorOp && op != cue.NoOp {
		return document.Pos{}, false
	}
	for _, arg := range append([]cue.Value{v}, args...) {
		if from, ok := referred(arg); ok {
			if pos, ok := origin(from, depth-1); ok {
				return pos, true
			}
		}
	}
	return document.Pos{}, false
}

// parts are what a value was unified from. The evaluator panics on some values:
// they have no place of their own then.
func parts(v cue.Value) (op cue.Op, args []cue.Value) {
	defer func() {
		if recover() != nil {
			op, args = cue.NoOp, nil
		}
	}()
	return v.Expr()
}

// referred is the value that v refers to, if it does.
func referred(v cue.Value) (to cue.Value, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	to = cue.Dereference(v)
	return to, to != v
}

// object is the place of an object.
func (p places) object(v cue.Value, at []string) document.Pos { return p.value(v, at) }

// value is the place of a field, or of the nearest one above it.
func (p places) value(v cue.Value, at []string) document.Pos {
	if pos, ok := p.exact(v, at); ok {
		return pos
	}
	return p.near(at)
}

func (p places) near(at []string) document.Pos {
	for ; len(at) > 0; at = at[:len(at)-1] {
		if pos, ok := p.byPath[key(at)]; ok {
			return pos
		}
	}
	return p.first
}

// written is the longest part of a path that the user wrote.
func (p places) written(at []string) []string {
	for ; len(at) > 0; at = at[:len(at)-1] {
		if _, ok := p.byPath[key(at)]; ok {
			break
		}
	}
	return at[:len(at):len(at)]
}

// fill sets the places in a Node and everything below it; from are the values
// that it was made of.
func (p places) fill(n *document.Node, at []string, from map[*document.Node]cue.Value) {
	n.Pos = p.value(from[n], at)
	p.below(n, at, from)
}

func (p places) below(n *document.Node, at []string, from map[*document.Node]cue.Value) {
	set := func(child *document.Node, name string) document.Pos {
		path := append(at[:len(at):len(at)], name)
		v := from[child]
		pos, ok := p.exact(v, path)
		if !ok {
			pos = n.Pos
		}
		child.Pos = pos
		if exact, ok := position(v.Pos()); ok && exact.Path == pos.Path && exact.Line >= pos.Line && child.Kind != document.Map {
			child.Pos = exact
		}
		if text := p.number(child); text != "" {
			child.Plain = text
		}
		p.below(child, path, from)
		return pos
	}
	for i := range n.Fields {
		n.Fields[i].Pos = set(n.Fields[i].Value, n.Fields[i].Key)
	}
	for i, item := range n.Items {
		set(item, strconv.Itoa(i))
	}
}

// numberAt is a number, or a field that has one.
var numberAt = regexp.MustCompile(`^(?:[\w"-]+\s*:\s*)?([0-9][0-9_.eE+-]*)`)

// number is a number as the user wrote it at its place: 1.10 is another text
// than 1.1. Empty if there is none.
func (p places) number(n *document.Node) string {
	if n.Kind != document.Int && n.Kind != document.Float {
		return ""
	}
	content := p.files[n.Path]
	for line := 1; line < n.Line; line++ {
		i := bytes.IndexByte(content, '\n')
		if i < 0 {
			return ""
		}
		content = content[i+1:]
	}
	if n.Column < 1 || n.Column > len(content) {
		return ""
	}
	m := numberAt.FindSubmatch(content[n.Column-1:])
	if m == nil {
		return ""
	}
	// Another number stands there if the value was computed.
	if f, err := strconv.ParseFloat(strings.ReplaceAll(string(m[1]), "_", ""), 64); err != nil || fmt.Sprint(f) != fmt.Sprint(asFloat(n.Value)) {
		return ""
	}
	return string(m[1])
}

func asFloat(v any) float64 {
	switch v := v.(type) {
	case int64:
		return float64(v)
	case float64:
		return v
	}
	return 0
}
