package support

import (
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Key is a step into a map.
type Key string

// Find returns what a typed object sets that Berth does not carry out, in the
// order of the type's fields. Its status is left out.
func Find(obj any) []Finding {
	f := &finder{table: table()}
	f.value(reflect.ValueOf(obj), nil)
	return f.found
}

type finder struct {
	table parts
	found []Finding
}

// value looks for parts of the table in v and below it.
func (f *finder) value(v reflect.Value, at []any) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			f.value(v.Elem(), at)
		}
	case reflect.Slice:
		if f.holds(v.Type().Elem()) {
			for i := range v.Len() {
				f.value(v.Index(i), step(at, i))
			}
		}
	case reflect.Struct:
		f.object(v, at)
	}
}

// holds reports whether values of a type can have parts below them: those of
// the API's own packages can, times, quantities and selectors cannot.
func (f *finder) holds(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return false
	}
	return strings.HasPrefix(t.PkgPath(), "k8s.io/api/") || strings.HasPrefix(t.PkgPath(), "berth.dev/") || f.table.of[t] != nil
}

func (f *finder) object(v reflect.Value, at []any) {
	if v.Type() == reflect.TypeFor[corev1.EphemeralContainerCommon]() {
		v = v.Convert(reflect.TypeFor[corev1.Container]()) // the same fields, as their documentation promises
	}
	t := v.Type()
	for _, e := range f.table.of[t] {
		f.follow(&e, v, v, e.way, at)
	}
	for i := range t.NumField() {
		field := v.Field(i)
		if field.IsZero() || !f.holds(t.Field(i).Type) {
			continue
		}
		name, inline := jsonName(t.Field(i))
		switch {
		case inline:
			f.value(field, at)
		case len(at) > 0 || name != "status":
			f.value(field, step(at, name))
		}
	}
}

// follow goes the rest of an entry's way below v.
func (f *finder) follow(e *Entry, part, v reflect.Value, way []string, at []any) {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return
		}
		v = v.Elem()
	}
	switch {
	case len(way) == 0:
		if e.when(part, v) {
			f.found = append(f.found, Finding{Steps: at, Field: e.Name(), State: e.State, Message: e.Message})
		}
	case v.Kind() == reflect.Slice:
		rest := way
		if way[0] == "[]" {
			rest = way[1:]
		}
		for i := range v.Len() {
			f.follow(e, part, v.Index(i), rest, step(at, i))
		}
	case v.Kind() == reflect.Map:
		f.keys(e, part, v, way, at)
	case v.Kind() == reflect.Struct:
		if field, ok := f.table.field(v, way[0]); ok {
			f.follow(e, part, field, way[1:], step(at, way[0]))
		}
	}
}

// keys follows the keys of a map that the way names, sorted.
func (f *finder) keys(e *Entry, part, v reflect.Value, way []string, at []any) {
	pattern := strings.Trim(way[0], "[]")
	names := v.MapKeys()
	slices.SortFunc(names, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	for _, name := range names {
		if matches(pattern, name.String()) {
			f.follow(e, part, v.MapIndex(name), way[1:], step(at, Key(name.String())))
		}
	}
}

// step is at and one more, in memory of its own.
func step(at []any, next any) []any { return append(at[:len(at):len(at)], next) }

// field finds a field on the way of an entry by its JSON name.
func (p parts) field(v reflect.Value, name string) (reflect.Value, bool) {
	index, ok := p.ways[v.Type()][name]
	if !ok {
		return reflect.Value{}, false
	}
	return v.FieldByIndex(index), true
}

// learn notes the fields of the structs on an entry's way.
func (p parts) learn(t reflect.Type, way []string) {
	switch t.Kind() {
	case reflect.Pointer:
		p.learn(t.Elem(), way)
	case reflect.Slice:
		if len(way) > 0 && way[0] == "[]" {
			way = way[1:]
		}
		p.learn(t.Elem(), way)
	case reflect.Map:
		if len(way) > 0 {
			p.learn(t.Elem(), way[1:])
		}
	case reflect.Struct:
		if p.ways[t] == nil {
			p.ways[t] = fieldIndices(t)
		}
		if len(way) > 0 {
			if index, ok := p.ways[t][way[0]]; ok {
				p.learn(t.FieldByIndex(index).Type, way[1:])
			}
		}
	}
}

// fieldIndices are the indices of a struct's fields by their JSON names, those
// of inlined structs included.
func fieldIndices(t reflect.Type) map[string][]int {
	out := map[string][]int{}
	for i := range t.NumField() {
		name, inline := jsonName(t.Field(i))
		if !inline {
			out[name] = []int{i}
			continue
		}
		if t.Field(i).Type.Kind() != reflect.Struct {
			continue // a quantity's own
		}
		for below, index := range fieldIndices(t.Field(i).Type) {
			out[below] = append([]int{i}, index...)
		}
	}
	return out
}

// jsonName is a field's name in JSON; inline: its fields are those of the
// struct around it.
func jsonName(f reflect.StructField) (name string, inline bool) {
	name, _, _ = strings.Cut(f.Tag.Get("json"), ",")
	return name, name == "" && f.Anonymous
}
