// Package document reads the objects of YAML and JSON files, as Kubernetes
// does, with the place of every field. It knows nothing of kinds or schemas.
package document

import (
	"fmt"
	"slices"
)

// Kind of a Node.
type Kind int

// Kinds of a Node.
const (
	Null Kind = iota
	Bool
	Int
	Float
	String
	Map
	List
	// Faulty is a value that has been reported already.
	Faulty
)

// Pos is a place in a file; lines and columns count from 1, 0 is unknown.
type Pos struct {
	Path   string
	Line   int
	Column int
}

// Node is a value with its place.
type Node struct {
	Pos
	Kind Kind
	// Value is a bool, int64, float64 or string.
	Value any
	// Plain is the text of a scalar that was written without quotes.
	Plain  string
	Fields []Field
	Items  []*Node
}

// Field is one field of a Map. Pos is the place of its name.
type Field struct {
	Pos
	Key   string
	Value *Node
}

// Problem is a fault at a place.
type Problem struct {
	Pos
	// Warning is true where the object can be used all the same.
	Warning bool
	// Lacks: it is about a value that is not there yet.
	Lacks bool
	// Object is kind/name, where it is known.
	Object  string
	Field   string
	Message string
}

// Get returns the field of that name, or nil.
func (n *Node) Get(key string) *Node {
	if n == nil {
		return nil
	}
	for i := range n.Fields {
		if n.Fields[i].Key == key {
			return n.Fields[i].Value
		}
	}
	return nil
}

// Text returns the value of a string field, or "".
func (n *Node) Text(key string) string {
	if v := n.Get(key); v != nil && v.Kind == String {
		return v.Value.(string)
	}
	return ""
}

// At is the place of the field that the steps lead to, names of fields (string)
// and indices of items (int), or of the nearest one that has a place.
func (n *Node) At(steps ...any) Pos {
	top := n.Pos
	pos := top
	for _, s := range steps {
		at := Pos{}
		switch s := s.(type) {
		case string:
			i := slices.IndexFunc(n.Fields, func(f Field) bool { return f.Key == s })
			if i < 0 {
				return pos
			}
			at, n = n.Fields[i].Pos, n.Fields[i].Value
		case int:
			if s >= len(n.Items) {
				return pos
			}
			n = n.Items[s]
			at = n.Pos
		}
		if at.Line > 0 {
			pos = at
		}
	}
	if pos == top {
		return n.below(pos)
	}
	return pos
}

// below is the first place under n that is not pos: a value that a template
// made has no place of its own, but what is in it may.
func (n *Node) below(pos Pos) Pos {
	if n.Line > 0 && n.Pos != pos {
		return n.Pos
	}
	children := slices.Clone(n.Items)
	for _, f := range n.Fields {
		children = append(children, f.Value)
	}
	for _, child := range children {
		if at := child.below(pos); at != pos {
			return at
		}
	}
	return pos
}

// Broken reports whether a value was left out of n because it cannot be read.
func (n *Node) Broken() bool {
	if n.Kind == Faulty {
		return true
	}
	for _, f := range n.Fields {
		if f.Value.Broken() {
			return true
		}
	}
	return slices.ContainsFunc(n.Items, (*Node).Broken)
}

// Interface returns the value as JSON has it, without fields that are null: to
// Kubernetes, such a field is absent.
func (n *Node) Interface() any {
	switch n.Kind {
	case Null:
		return nil
	case Map:
		out := make(map[string]any, len(n.Fields))
		for _, f := range n.Fields {
			if f.Value.Kind != Null {
				out[f.Key] = f.Value.Interface()
			}
		}
		return out
	case List:
		out := make([]any, len(n.Items))
		for i, item := range n.Items {
			out[i] = item.Interface()
		}
		return out
	default:
		return n.Value
	}
}

// scalar makes a Node of a decoded JSON value.
func scalar(pos Pos, v any) (*Node, error) {
	n := &Node{Pos: pos, Value: v}
	switch v.(type) {
	case nil:
		n.Kind = Null
	case bool:
		n.Kind = Bool
	case int64:
		n.Kind = Int
	case float64:
		n.Kind = Float
	case string:
		n.Kind = String
	default:
		return nil, fmt.Errorf("a value of type %T is not JSON", v)
	}
	return n, nil
}
