package check

import (
	"fmt"
	"strconv"
	"strings"

	"berth.dev/berth/cue/document"
)

// Options of a check.
type Options struct {
	// Hide keeps every value out of the messages: the object is a Secret.
	Hide bool
}

// Check returns every fault of n, in the order of the file.
func (t *Type) Check(n *document.Node, opts Options) []document.Problem {
	c := &checker{hide: opts.Hide}
	c.value(n, t, &path{})
	return c.problems
}

// Fill puts an empty string where a map of strings has null, as decoding into
// the Go type does. Everywhere else null is an absent field, or a fault.
func (t *Type) Fill(n *document.Node) {
	for _, a := range t.flat() {
		switch {
		case a.kinds&isMap != 0 && n.Kind == document.Map:
			for _, f := range n.Fields {
				if field := a.fields[f.Key]; field != nil {
					field.Type.Fill(f.Value)
				} else if a.values != nil && f.Value.Kind == document.Null && a.values.onlyStrings() {
					f.Value.Kind, f.Value.Value, f.Value.Plain = document.String, "", ""
				} else if a.values != nil {
					a.values.Fill(f.Value)
				}
			}
		case a.kinds&isList != 0 && n.Kind == document.List && a.elem != nil:
			for _, item := range n.Items {
				a.elem.Fill(item)
			}
		}
	}
}

type checker struct {
	hide     bool
	problems []document.Problem
}

// path is the way to a value, shared between siblings; the first has no name.
type path struct {
	up   *path
	name string
	// object is the definition that is checked here, if it is one of an object.
	object *alternative
}

func (p *path) String() string {
	if p.up == nil {
		return ""
	}
	up := p.up.String()
	if strings.HasPrefix(p.name, "[") || up == "" {
		return up + p.name
	}
	return up + "." + p.name
}

// key is a field's name as paths show it: quoted in brackets where it holds dots.
func (p *path) key(name string) *path {
	if strings.ContainsAny(name, "./ ") || name == "" {
		name = "[" + strconv.Quote(name) + "]"
	}
	return &path{up: p, name: name}
}

func (c *checker) report(pos document.Pos, p *path, message string) {
	c.problems = append(c.problems, document.Problem{Pos: pos, Field: p.String(), Message: message})
}

func (c *checker) value(n *document.Node, t *Type, p *path) {
	if n.Kind == document.Null || n.Kind == document.Faulty {
		return
	}
	kind := kindOf(n)
	flat := t.flat()
	for i := range flat {
		a := &flat[i]
		if a.kinds&kind == 0 {
			continue
		}
		switch kind {
		case isMap:
			c.object(n, a, t, p)
			return
		case isList:
			c.list(n, a, t, p)
			return
		}
		if a.takes(n.Value) {
			return
		}
	}
	c.report(n.Pos, p, c.wrong(n, t))
}

func kindOf(n *document.Node) kinds {
	switch n.Kind {
	case document.Bool:
		return isBool
	case document.Int:
		return isInt
	case document.Float:
		return isFloat
	case document.String:
		return isString
	case document.Map:
		return isMap
	default:
		return isList
	}
}

func (a *alternative) takes(v any) bool {
	if a.equals != nil && a.equals != v {
		return false
	}
	for _, cond := range a.conds {
		if !cond.holds(v) {
			return false
		}
	}
	return true
}

// wrong says what is wrong with a value and what would be right.
func (c *checker) wrong(n *document.Node, t *Type) string {
	what := t.describe() + t.beyond(n.Value)
	shown := c.show(n)
	if n.Kind != document.String && n.Kind != document.Map && n.Kind != document.List && !t.Accepts("int") && !t.Accepts("bool") && t.Accepts("string") {
		if c.hide || n.Plain == "" {
			return fmt.Sprintf("%s, but a string is needed; quote it", shown)
		}
		return fmt.Sprintf("%s, but a string is needed; quote it: %q", shown, n.Plain)
	}
	if n.Kind != document.String && n.Plain != "" {
		if c.hide {
			shown = strings.TrimPrefix(shown, "the value is ")
		} else {
			shown = n.Plain
		}
		return fmt.Sprintf("%s is not allowed; must be %s", shown, what)
	}
	if s, ok := n.Value.(string); ok {
		if unquoted(s, t) {
			return fmt.Sprintf("%s; must be %s; remove the quotes", shown, what)
		}
		if near := Nearest(s, t.strings()); near != "" && !c.hide {
			return fmt.Sprintf("%s is not allowed; did you mean %q? It must be %s", shown, near, what)
		}
	}
	return fmt.Sprintf("%s is not allowed; must be %s", shown, what)
}

// unquoted reports whether s would be right without its quotes.
func unquoted(s string, t *Type) bool {
	var v any
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		v = n
	} else if s == "true" || s == "false" {
		v = s == "true"
	} else {
		return false
	}
	for _, a := range t.flat() {
		_, isNumber := v.(int64)
		if (isNumber && a.kinds&isInt != 0 || !isNumber && a.kinds&isBool != 0) && a.takes(v) {
			return true
		}
	}
	return false
}

func (c *checker) show(n *document.Node) string {
	var kind string
	switch n.Kind {
	case document.Map:
		return "an object"
	case document.List:
		return "a list"
	case document.String:
		kind = "this string"
		if s := n.Value.(string); !c.hide && len(s) <= 60 {
			return strconv.Quote(s)
		}
		return kind
	case document.Bool:
		kind = "a boolean"
	default:
		kind = "a number"
	}
	if c.hide {
		return "the value is " + kind
	}
	text := n.Plain
	if text == "" {
		text = fmt.Sprint(n.Value)
	}
	return text + " is " + kind
}

func (c *checker) list(n *document.Node, a *alternative, t *Type, p *path) {
	if len(n.Items) < a.min {
		c.report(n.Pos, p, "the list is empty; at least one item is needed")
	}
	if a.elem == nil {
		return
	}
	for i, item := range n.Items {
		at := &path{up: p, name: "[" + strconv.Itoa(i) + "]"}
		if item.Kind == document.Null {
			c.report(item.Pos, at, "the item is empty; must be "+a.elem.describe())
			continue
		}
		c.value(item, a.elem, at)
	}
}

func (c *checker) object(n *document.Node, a *alternative, t *Type, p *path) {
	p.object = a
	meant := map[string]bool{} // required fields that an unknown one stands for
	for _, f := range n.Fields {
		at := p.key(f.Key)
		if field := a.fields[f.Key]; field != nil {
			c.value(f.Value, field.Type, at)
			continue
		}
		if a.values != nil {
			c.entry(f, a, at)
			continue
		}
		if !a.open {
			message, name := unknown(n, f, p)
			meant[name] = true
			c.report(f.Pos, at, message)
		}
	}
	for _, name := range a.names {
		field := a.fields[name]
		if v := n.Get(name); field.Required && !meant[name] && (v == nil || v.Kind == document.Null) {
			c.report(n.Pos, p.key(name), "missing; must be "+field.Type.describe())
		}
	}
}

func (c *checker) entry(f document.Field, a *alternative, at *path) {
	if a.keys != nil {
		ok := false
		for _, k := range a.keys.flat() {
			ok = ok || k.kinds&isString != 0 && k.takes(f.Key)
		}
		if !ok {
			c.report(f.Pos, at, fmt.Sprintf("the key %q is not allowed; must be %s", f.Key, a.keys.describe()))
		}
	}
	if f.Value.Kind == document.Null {
		c.report(f.Pos, at, "the value is empty; must be "+a.values.describe())
		return
	}
	c.value(f.Value, a.values, at)
}
