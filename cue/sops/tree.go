package sops

import (
	"errors"
	"fmt"
	"time"
)

// maxDepth bounds how deep a file nests.
const maxDepth = 200

var errDeep = fmt.Errorf("more than %d levels", maxDepth)

type kind int

const (
	scalar kind = iota
	mapping
	list
	// remark is a comment: rules may name what is below one.
	remark
)

// node is a value of a file, in the order of the file.
type node struct {
	kind kind
	line int
	// value of a scalar, nil for null; the text of a remark.
	value  any
	fields []field
	items  []*node
}

// field of a mapping. A remark has no key.
type field struct {
	key  string
	line int
	// column of the key, in bytes, where the reader knows it.
	column int
	value  *node
}

func (n *node) get(key string) *node {
	if n == nil || n.kind != mapping {
		return nil
	}
	for _, f := range n.fields {
		if f.value.kind != remark && f.key == key {
			return f.value
		}
	}
	return nil
}

func (n *node) text() string {
	if n == nil || n.kind != scalar {
		return ""
	}
	s, _ := n.value.(string)
	return s
}

// without returns a mapping without a field.
func (n *node) without(key string) *node {
	out := *n
	out.fields = nil
	for _, f := range n.fields {
		if f.value.kind == remark || f.key != key {
			out.fields = append(out.fields, f)
		}
	}
	return &out
}

// visitor is shown each value but null, with its path and the comments above it.
type visitor func(n *node, path []string, comments [][]string) error

func walk(n *node, path []string, comments [][]string, visit visitor) error {
	if len(comments) > maxDepth {
		return &fault{n.line, "the file nests " + errDeep.Error()}
	}
	switch n.kind {
	case mapping:
		comments, last := level(comments)
		for _, f := range n.fields {
			if f.value.kind == remark {
				comments[last] = append(comments[last], f.value.value.(string))
				continue
			}
			if err := walk(f.value, append(path[:len(path):len(path)], f.key), comments, visit); err != nil {
				return err
			}
			comments[last] = nil
		}
	case list:
		comments, last := level(comments)
		for _, item := range n.items {
			if item.kind == remark {
				comments[last] = append(comments[last], item.value.(string))
				continue
			}
			if err := walk(item, path, comments, visit); err != nil {
				return err
			}
			comments[last] = nil
		}
	case scalar:
		if n.value != nil {
			return visit(n, path, comments)
		}
	}
	return nil
}

func level(comments [][]string) ([][]string, int) {
	return append(comments[:len(comments):len(comments)], nil), len(comments)
}

// same reports whether two trees hold the same values. Comments do not count.
func same(a, b *node) bool {
	if a.kind != b.kind {
		return false
	}
	switch a.kind {
	case mapping:
		x, y := a.plainFields(), b.plainFields()
		if len(x) != len(y) {
			return false
		}
		for i := range x {
			if x[i].key != y[i].key || !same(x[i].value, y[i].value) {
				return false
			}
		}
		return true
	case list:
		x, y := a.plainItems(), b.plainItems()
		if len(x) != len(y) {
			return false
		}
		for i := range x {
			if !same(x[i], y[i]) {
				return false
			}
		}
		return true
	}
	return sameValue(a.value, b.value)
}

func sameValue(a, b any) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	x, err1 := hashed(a)
	y, err2 := hashed(b)
	return errors.Join(err1, err2) == nil && string(x) == string(y) && textual(a) == textual(b)
}

// textual: a time is written as text, so that it stays what it is.
func textual(v any) bool {
	switch v.(type) {
	case string, time.Time:
		return true
	}
	return false
}

func (n *node) plainFields() []field {
	out := make([]field, 0, len(n.fields))
	for _, f := range n.fields {
		if f.value.kind != remark {
			out = append(out, f)
		}
	}
	return out
}

// plainItems leaves out comments, also those that stand where values do.
func (n *node) plainItems() []*node {
	out := make([]*node, 0, len(n.items))
	for _, item := range n.items {
		if _, is := item.value.(comment); item.kind != remark && !is {
			out = append(out, item)
		}
	}
	return out
}
