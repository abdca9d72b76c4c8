package cue

import (
	"reflect"
	"strings"
	"testing"

	"berth.dev/berth/cue/check"
	"berth.dev/berth/cue/schema"
)

// TestSchemaHasEveryField keeps the schema in step with the Go types of
// k8s.io/api: each field is there, takes the right kind of value, and the
// schema has none that the type lacks.
func TestSchemaHasEveryField(t *testing.T) {
	files, err := schema.Files()
	if err != nil {
		t.Fatal(err)
	}
	for name := range files {
		if schema.Shorthand(name) {
			delete(files, name)
		}
	}
	s, err := check.Read(files)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kindTable() {
		d := drift{t: t, seen: map[reflect.Type]bool{}}
		d.compare(k.Kind, reflect.TypeOf(k.typed()).Elem(), s.Definition("#"+k.Kind))
	}
}

type drift struct {
	t    *testing.T
	seen map[reflect.Type]bool
}

func (d drift) compare(at string, goType reflect.Type, defined *check.Type) {
	d.t.Helper()
	for goType.Kind() == reflect.Pointer {
		goType = goType.Elem()
	}
	if defined.Open() && goType.Kind() == reflect.Struct {
		return // a status, or managed fields: nothing that a user writes
	}
	want := jsonKinds(goType)
	for _, kind := range want {
		if !defined.Accepts(kind) {
			d.t.Errorf("%s: the schema does not accept a %s", at, kind)
			return
		}
	}
	switch {
	case want[0] == "map" && goType.Kind() == reflect.Struct:
		if d.seen[goType] {
			return
		}
		d.seen[goType] = true
		d.fields(at, goType, defined)
	case want[0] == "list" || want[0] == "map":
		if defined.Elem() == nil {
			d.t.Errorf("%s: the schema does not say what the items are", at)
			return
		}
		d.compare(at+"[]", goType.Elem(), defined.Elem())
	}
}

func (d drift) fields(at string, goType reflect.Type, defined *check.Type) {
	d.t.Helper()
	have := map[string]*check.Type{}
	for _, f := range defined.Fields() {
		have[f.Name] = f.Type
	}
	for name, fieldType := range jsonFields(goType) {
		f := have[name]
		delete(have, name)
		if f == nil {
			d.t.Errorf("%s.%s: missing in the schema", at, name)
			continue
		}
		d.compare(at+"."+name, fieldType, f)
	}
	for name := range have {
		d.t.Errorf("%s.%s: not a field of %s", at, name, goType)
	}
}

func jsonFields(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			for n, ft := range jsonFields(f.Type) {
				out[n] = ft
			}
		case name != "" && name != "-":
			out[name] = f.Type
		}
	}
	return out
}

func jsonKinds(t reflect.Type) []string {
	switch t.String() {
	case "resource.Quantity":
		return []string{"string", "int", "float"}
	case "intstr.IntOrString":
		return []string{"string", "int"}
	case "v1.Time", "v1.MicroTime", "v1.Duration":
		return []string{"string"}
	}
	switch t.Kind() {
	case reflect.String:
		return []string{"string"}
	case reflect.Bool:
		return []string{"bool"}
	case reflect.Int, reflect.Int32, reflect.Int64:
		return []string{"int"}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return []string{"string"}
		}
		return []string{"list"}
	}
	return []string{"map"}
}
