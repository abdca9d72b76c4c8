package convert

import (
	"slices"

	"berth.dev/berth/cue/document"
)

// edit is one conversion under way. It changes copies only.
type edit struct {
	from string
	root *document.Node
	// notes are the fields that are written anew, as a user would write them.
	notes    []string
	problems []document.Problem
}

// copy is a node with fields of its own.
func (e *edit) copy(n *document.Node) *document.Node {
	c := *n
	c.Fields = slices.Clone(n.Fields)
	c.Items = slices.Clone(n.Items)
	return &c
}

// child is a map below n, copied, to be changed; nil if there is none.
func (e *edit) child(n *document.Node, key string) *document.Node {
	if n == nil {
		return nil
	}
	for i := range n.Fields {
		if f := &n.Fields[i]; f.Key == key && f.Value.Kind == document.Map {
			f.Value = e.copy(f.Value)
			return f.Value
		}
	}
	return nil
}

// spec is the spec, copied; nil if there is none.
func (e *edit) spec() *document.Node { return e.child(e.root, "spec") }

// set gives n a field; what has no place of its own stands where n does, or where
// the field was.
func (e *edit) set(n *document.Node, key string, value *document.Node) {
	for i := range n.Fields {
		if f := &n.Fields[i]; f.Key == key {
			f.Value = placed(value, f.Value.Pos)
			return
		}
	}
	n.Fields = append(n.Fields, document.Field{Pos: n.Pos, Key: key, Value: placed(value, n.Pos)})
}

// take removes a field of n and returns its value, or nil.
func (e *edit) take(n *document.Node, key string) *document.Node {
	for i, f := range n.Fields {
		if f.Key == key {
			n.Fields = slices.Delete(n.Fields, i, i+1)
			if f.Value.Kind == document.Null {
				return nil
			}
			return f.Value
		}
	}
	return nil
}

// has reports whether a field is there and not null.
func has(n *document.Node, key string) bool {
	v := n.Get(key)
	return v != nil && v.Kind != document.Null
}

func (e *edit) note(what string) { e.notes = append(e.notes, what) }

func (e *edit) refuse(pos document.Pos, field, message string) {
	e.problems = append(e.problems, document.Problem{Pos: pos, Field: field, Message: message})
}

func placed(n *document.Node, pos document.Pos) *document.Node {
	if n.Line > 0 {
		return n
	}
	c := *n
	c.Pos = pos
	c.Fields = slices.Clone(n.Fields)
	for i := range c.Fields {
		if c.Fields[i].Line == 0 {
			c.Fields[i].Pos = pos
		}
		c.Fields[i].Value = placed(c.Fields[i].Value, pos)
	}
	c.Items = slices.Clone(n.Items)
	for i := range c.Items {
		c.Items[i] = placed(c.Items[i], pos)
	}
	return &c
}

func text(s string) *document.Node { return &document.Node{Kind: document.String, Value: s} }

func integer(i int64) *document.Node { return &document.Node{Kind: document.Int, Value: i} }

func list(items ...*document.Node) *document.Node {
	return &document.Node{Kind: document.List, Items: items}
}

func object(fields ...document.Field) *document.Node {
	return &document.Node{Kind: document.Map, Fields: fields}
}

func field(key string, value *document.Node) document.Field {
	return document.Field{Pos: value.Pos, Key: key, Value: value}
}
