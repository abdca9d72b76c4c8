// Package check holds the definitions of cue/schema as plain Go values and
// checks documents with them: every fault of an object in one walk, each at its
// place and in words. The definitions are read from CUE's syntax once and are
// never evaluated, so a check costs microseconds and leaves nothing behind.
package check

import (
	"fmt"
	"math"
	"regexp"
	"sort"
	"strings"
)

// kinds is a set of the kinds of JSON values.
type kinds uint8

const (
	isBool kinds = 1 << iota
	isInt
	isFloat
	isString
	isMap
	isList
)

// Type is what a value must be: one alternative of a disjunction at least.
type Type struct {
	// Name of the definition, such as "#Container"; empty if it has none.
	Name string
	// words complete "must be …", from the definition's comment.
	words string
	alts  []alternative
}

// alternative is one way for a value to be right.
type alternative struct {
	kinds  kinds
	equals any
	conds  []cond
	fields map[string]*Field
	names  []string
	keys   *Type
	values *Type
	open   bool
	elem   *Type
	min    int
	// least and most are the bounds of a number, if it has them.
	least, most *int64
	// ref is a definition that this alternative stands for.
	ref *Type
}

// cond is a bound, a pattern or a length.
type cond struct {
	words string
	holds func(v any) bool
}

// Field is a field of a definition.
type Field struct {
	Name     string
	Required bool
	Type     *Type
}

// Fields of a definition of an object, sorted by name; nil for other types.
func (t *Type) Fields() []Field {
	a := t.object()
	if a == nil {
		return nil
	}
	out := make([]Field, 0, len(a.names))
	for _, name := range a.names {
		out = append(out, *a.fields[name])
	}
	return out
}

// Elem is the type of a list's items or of a map's values, or nil.
func (t *Type) Elem() *Type {
	for _, a := range t.flat() {
		if a.elem != nil {
			return a.elem
		}
		if a.values != nil {
			return a.values
		}
	}
	return nil
}

// Open reports whether an object may have fields that the schema does not name.
func (t *Type) Open() bool {
	a := t.object()
	return a != nil && a.open
}

// Bounded reports whether each whole number that the type takes is one of 32
// bits: others are cut off in silence where the Go type is an int32.
func (t *Type) Bounded() bool {
	for _, a := range t.flat() {
		if a.kinds&isInt != 0 && a.equals == nil && (a.least == nil || a.most == nil || *a.least < math.MinInt32 || *a.most > math.MaxInt32) {
			return false
		}
	}
	return true
}

// Accepts reports which JSON kinds the type takes at all.
func (t *Type) Accepts(kind string) bool {
	want := map[string]kinds{"bool": isBool, "int": isInt, "float": isFloat, "string": isString, "map": isMap, "list": isList}[kind]
	for _, a := range t.flat() {
		if a.kinds&want != 0 {
			return true
		}
	}
	return false
}

// flat resolves references to other definitions.
func (t *Type) flat() []alternative {
	if len(t.alts) == 1 && t.alts[0].ref == nil {
		return t.alts
	}
	var out []alternative
	for _, a := range t.alts {
		if a.ref != nil {
			out = append(out, a.ref.flat()...)
		} else {
			out = append(out, a)
		}
	}
	return out
}

// resolved is the definition itself for a type that only refers to one.
func (t *Type) resolved() *Type {
	for len(t.alts) == 1 && t.alts[0].ref != nil {
		t = t.alts[0].ref
	}
	return t
}

// onlyStrings reports whether the type takes strings and nothing else.
func (t *Type) onlyStrings() bool {
	for _, a := range t.flat() {
		if a.kinds != isString {
			return false
		}
	}
	return true
}

func (t *Type) object() *alternative {
	flat := t.flat()
	for i := range flat {
		if flat[i].kinds&isMap != 0 && flat[i].fields != nil {
			return &flat[i]
		}
	}
	return nil
}

// describe completes "must be …".
func (t *Type) describe() string {
	if t.words != "" {
		return t.words
	}
	if len(t.alts) == 1 && t.alts[0].ref != nil {
		return t.alts[0].ref.describe()
	}
	enum, rest := t.choices()
	switch {
	case len(enum) == 1:
		rest = append([]string{enum[0]}, rest...)
	case len(enum) > 1:
		rest = append([]string{"one of " + join(enum, ", ")}, rest...)
	}
	return join(rest, " or ")
}

// choices are the fixed strings of a type, and the words for what else it takes.
func (t *Type) choices() (enum, rest []string) {
	for _, a := range t.alts {
		s, fixed := a.equals.(string)
		switch {
		case fixed:
			enum = append(enum, quoteEmpty(s))
		case a.ref != nil && a.ref.words != "":
			rest = append(rest, a.ref.words)
		case a.ref != nil:
			e, r := a.ref.choices()
			enum, rest = append(enum, e...), append(rest, r...)
		default:
			rest = append(rest, a.describe())
		}
	}
	return enum, rest
}

func quoteEmpty(s string) string {
	if s == "" {
		return `""`
	}
	return s
}

func (a alternative) describe() string {
	var base string
	switch {
	case a.kinds == isString:
		base = "a string"
	case a.kinds == isBool:
		base = "true or false"
	case a.kinds == isInt:
		base = "a whole number"
	case a.kinds&isFloat != 0:
		base = "a number"
	case a.kinds == isList:
		base = a.describeList()
	case a.kinds == isMap && a.fields != nil:
		base = "an object"
		if len(a.names) > 0 && len(a.names) <= 6 {
			base += " with the fields " + join(a.names, ", ")
		}
	case a.kinds == isMap && a.values != nil:
		base = "a map such as {key: value}"
	case a.kinds == isMap:
		base = "a map"
	default:
		base = "a value"
	}
	for i, c := range a.conds {
		if i > 0 {
			base += " and"
		}
		base += " " + c.words
	}
	return base
}

// describeList says what an item looks like.
func (a alternative) describeList() string {
	base, one := "a list", "item"
	if a.elem == nil {
		return base
	}
	example := ""
	if object := a.elem.object(); object != nil {
		one = "object"
		example = object.example()
	} else if a.elem.onlyStrings() {
		one = "string"
		if len(a.elem.strings()) == 0 {
			example = `["a", "b"]`
		}
	}
	if a.min > 0 {
		base += " of at least one " + one
	} else if one != "item" {
		base += " of " + one + "s"
	}
	if example != "" {
		base += " such as " + example
	}
	return base
}

// example shows the required fields of an object as the item of a list.
func (a *alternative) example() string {
	var shown []string
	if f := a.fields["name"]; f != nil {
		shown = append(shown, "name: …")
	}
	for _, name := range a.names {
		if a.fields[name].Required && name != "name" {
			shown = append(shown, name+": …")
		}
	}
	if len(shown) == 0 && len(a.names) > 0 && len(a.names) <= 6 {
		shown = append(shown, a.names[0]+": …")
	}
	if len(shown) == 0 {
		return ""
	}
	return "[{" + strings.Join(shown, ", ") + "}]"
}

// beyond names the largest number where v is above it and the words, such as
// "from 1 to 65535", do not.
func (t *Type) beyond(v any) string {
	if f, ok := v.(float64); ok && math.Abs(f) >= 1<<63 && t.Accepts("int") && !t.Accepts("float") {
		return ", and fit in 64 bits"
	}
	n, ok := v.(int64)
	if !ok {
		return ""
	}
	for _, a := range t.flat() {
		if a.most != nil && n > *a.most && !strings.Contains(t.describe(), " to ") && !strings.Contains(t.describe(), "at most") {
			return fmt.Sprintf(" and at most %d", *a.most)
		}
	}
	return ""
}

func join(parts []string, sep string) string {
	out := ""
	for i, p := range parts {
		if i > 0 {
			out += sep
		}
		out += p
	}
	return out
}

// strings lists the fixed strings that the type takes, sorted.
func (t *Type) strings() []string {
	var out []string
	for _, a := range t.flat() {
		if s, ok := a.equals.(string); ok && s != "" {
			out = append(out, s)
		}
	}
	sort.Strings(out)
	return out
}

func pattern(re *regexp.Regexp, want bool) cond {
	words := "that matches " + re.String()
	if !want {
		words = "that does not match " + re.String()
	}
	return cond{words: words, holds: func(v any) bool {
		s, ok := v.(string)
		return ok && re.MatchString(s) == want
	}}
}
