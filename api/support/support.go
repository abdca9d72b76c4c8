// Package support knows which fields of Kubernetes' kinds Berth does not carry
// out, and finds those that an object sets. The compiler and the API tell them
// to whoever writes the object, and docs/compatibility.md lists them. It reads
// objects and changes none. A field that is not in the table is carried out.
package support

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// State is what becomes of a field that Berth does not carry out.
type State string

const (
	// Ignored: nothing that matters is lost without it. The writer is warned.
	Ignored State = "ignored"
	// Refused: to do without it would be wrong. It is an error to set it.
	Refused State = "refused"
)

// Entry is a field, or some values of it, that Berth does not carry out.
type Entry struct {
	// Part is the Go type that has the field, such as corev1.PodSpec.
	Part reflect.Type
	// Field is the JSON path below the part. The items of lists are looked
	// through; [name] is a key of a map, and * in it stands for any characters.
	Field string
	State State
	// Values says in words which values are meant; empty means all.
	Values string
	// Message says what happens instead, or what to do.
	Message string

	way  []string
	when func(part, value reflect.Value) bool
}

// Covers reports whether no value of the field is carried out at all.
func (e Entry) Covers() bool { return e.Values == "" }

// Name is the entry's field with its part, such as PodSpec.hostUsers.
func (e Entry) Name() string { return e.Part.Name() + "." + e.Field }

// Finding is a field that an object sets and Berth does not carry out.
type Finding struct {
	// Steps lead to the field: names (string), places in lists (int) and keys of maps (Key).
	Steps []any
	// Field is the Name of its Entry.
	Field   string
	State   State
	Message string
}

// Path is the way to the field as Kubernetes writes it, such as
// spec.containers[0].resources.limits[ephemeral-storage].
func (f Finding) Path() string { return Path(f.Steps) }

// Path writes steps as Kubernetes does.
func Path(steps []any) string {
	var b strings.Builder
	for _, s := range steps {
		switch s := s.(type) {
		case int:
			fmt.Fprintf(&b, "[%d]", s)
		case Key:
			fmt.Fprintf(&b, "[%s]", string(s))
		default:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			fmt.Fprint(&b, s)
		}
	}
	return b.String()
}

// Names are the Steps with the keys of maps as plain names.
func (f Finding) Names() []any {
	out := slices.Clone(f.Steps)
	for i, s := range out {
		if k, ok := s.(Key); ok {
			out[i] = string(k)
		}
	}
	return out
}

// Explanation is the state and the message in one sentence.
func (f Finding) Explanation() string {
	if f.State == Ignored {
		return "ignored: " + f.Message
	}
	return "not carried out: " + f.Message
}

// Entries is the table, part by part.
func Entries() []Entry { return table().entries }

// parts is the table, its entries by part, and the fields of the structs that
// they lead through.
type parts struct {
	entries []Entry
	of      map[reflect.Type][]Entry
	ways    map[reflect.Type]map[string][]int
}

var table = sync.OnceValue(func() parts {
	out := parts{of: map[reflect.Type][]Entry{}, ways: map[reflect.Type]map[string][]int{}}
	for _, list := range [][]Entry{podEntries(), containerEntries(), securityEntries(), volumeEntries(), storageEntries(), serviceEntries(), otherEntries()} {
		out.entries = append(out.entries, list...)
	}
	for i := range out.entries {
		e := &out.entries[i]
		e.way = strings.Split(strings.ReplaceAll(e.Field, "[", ".["), ".")
		out.of[e.Part] = append(out.of[e.Part], *e)
		out.learn(e.Part, e.way)
	}
	return out
})

func entry[P any](state State, field, message string) Entry {
	return Entry{Part: reflect.TypeFor[P](), Field: field, State: state, Message: message, when: set}
}

func ignore[P any](field, message string) Entry { return entry[P](Ignored, field, message) }
func refuse[P any](field, message string) Entry { return entry[P](Refused, field, message) }

// set: a value that is not the zero value of its type.
func set(_, v reflect.Value) bool { return v.IsValid() && !v.IsZero() }

// present narrows an entry to a field that is there, even if it is empty.
func (e Entry) present() Entry {
	e.when = func(_, v reflect.Value) bool { return v.IsValid() }
	return e
}

// of narrows an entry to some values of a field, which are strings; one that
// ends in * stands for all that begin so.
func (e Entry) of(values ...string) Entry {
	e.Values = strings.Join(values, ", ")
	e.when = func(_, v reflect.Value) bool {
		for _, want := range values {
			if v.IsValid() && matches(want, v.String()) {
				return true
			}
		}
		return false
	}
	return e
}

// other narrows an entry to all values of a field but the one.
func (e Entry) other(than string) Entry {
	e.Values = "other than " + than
	e.when = func(_, v reflect.Value) bool { return set(v, v) && fmt.Sprint(v) != than }
	return e
}

// but narrows an entry to all values of a field except some.
func (e Entry) but(values ...string) Entry {
	e.Values = "other than " + strings.Join(values, ", ")
	e.when = func(_, v reflect.Value) bool { return set(v, v) && !slices.Contains(values, v.String()) }
	return e
}

// where narrows an entry by what else its part says.
func where[P any](e Entry, words string, holds func(part P) bool) Entry {
	e.Values = words
	base := e.when
	e.when = func(part, v reflect.Value) bool { return base(part, v) && holds(part.Interface().(P)) }
	return e
}

// only narrows an entry to values for which holds is true.
func only[V any](e Entry, words string, holds func(V) bool) Entry {
	e.Values = words
	e.when = func(_, v reflect.Value) bool { return v.IsValid() && holds(v.Interface().(V)) }
	return e
}

func matches(pattern, s string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(s, prefix)
	}
	return pattern == s
}
