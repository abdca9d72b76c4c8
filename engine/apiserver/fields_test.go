package apiserver_test

import (
	"cmp"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"berth.dev/berth/api/support"
	"berth.dev/berth/engine/resources"
)

const fieldsHead = `
## Fields

Every field of the kinds that act, made from the Go types and the table of what is not carried out (` + "`api/support`" + `). A new version of
Kubernetes that has another field changes this page, and the test fails until somebody has judged it.

A field that is *ignored* works without it: ` + "`berth validate`, `berth plan`" + `, the answer to a push and the API's warnings name it. A field that is
*refused* is an error at its place in the file, and an invalid value (422) in the API; an object that is stored with it can still be changed.
A field without either is carried out, and so are the values of a field that its row does not name. A status is written by Berth.
`

// shared are the parts of kinds that have a heading of their own.
func shared() []reflect.Type {
	return []reflect.Type{
		reflect.TypeFor[metav1.ObjectMeta](), reflect.TypeFor[metav1.LabelSelector](),
		reflect.TypeFor[corev1.PodSpec](), reflect.TypeFor[corev1.Container](), reflect.TypeFor[corev1.ResourceRequirements](),
		reflect.TypeFor[corev1.Probe](), reflect.TypeFor[corev1.Lifecycle](), reflect.TypeFor[corev1.LifecycleHandler](),
		reflect.TypeFor[corev1.ObjectReference](), reflect.TypeFor[corev1.NodeSelectorTerm](), reflect.TypeFor[corev1.SecurityContext](), reflect.TypeFor[corev1.Volume](),
	}
}

// plain are structs that are one value in JSON.
func plain() []reflect.Type {
	return []reflect.Type{
		reflect.TypeFor[metav1.Time](), reflect.TypeFor[metav1.MicroTime](), reflect.TypeFor[metav1.Duration](), reflect.TypeFor[metav1.FieldsV1](),
		reflect.TypeFor[resource.Quantity](), reflect.TypeFor[intstr.IntOrString](), reflect.TypeFor[runtime.RawExtension](),
	}
}

// writeFields lists the fields of all kinds that act, then those of shared parts.
func writeFields(b *strings.Builder) {
	b.WriteString(fieldsHead)
	var kept []string
	var parts []reflect.Type
	for _, row := range resources.Table() {
		switch {
		case row.Idle:
			kept = append(kept, row.Kind)
		case !row.ReadOnly:
			title := row.Kind + " (" + row.GroupVersion().String() + ")"
			parts = append(parts, section(b, title, reflect.TypeOf(row.New()).Elem())...)
		}
	}
	fmt.Fprintf(b, "\n### Kinds that are kept only\n\n%s: every field is kept, and none is carried out.\n", strings.Join(kept, ", "))
	for i := 0; i < len(parts); i++ { // it grows
		if !slices.Contains(parts[:i], parts[i]) {
			parts = append(parts, section(b, parts[i].Name(), parts[i])...)
		}
	}
}

// section writes one kind or part, and returns the shared parts that it has.
func section(b *strings.Builder, title string, t reflect.Type) []reflect.Type {
	l := &lister{}
	l.object(t, "", nil)
	fmt.Fprintf(b, "\n### %s\n\n", title)
	if len(l.carried) > 0 {
		fmt.Fprintf(b, "Carried out: %s.\n", strings.Join(l.carried, ", "))
	}
	if len(l.rows) > 0 {
		b.WriteString("\n| field | values | what becomes of it |\n|---|---|---|\n")
	}
	var said []string
	for _, r := range l.rows { // fields of which the same is said share a row
		if slices.Contains(said, r.text) {
			continue
		}
		said = append(said, r.text)
		var names []string
		for _, other := range l.rows {
			if other.text == r.text {
				names = append(names, "`"+other.field+"`")
			}
		}
		fmt.Fprintf(b, "| %s | %s |\n", strings.Join(names, ", "), r.text)
	}
	return l.parts
}

// lister gathers the fields of a section.
type lister struct {
	carried []string
	rows    []row
	parts   []reflect.Type
}

// row is a field that is not carried out, and what is said of it.
type row struct{ field, text string }

// holder is a struct on the way to a field, and where it is.
type holder struct {
	part   reflect.Type
	prefix string
}

func (l *lister) object(t reflect.Type, prefix string, above []holder) {
	above = append(slices.Clone(above), holder{t, prefix})
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "" && f.Anonymous:
			l.object(f.Type, prefix, above)
		case prefix == "" && name == "status":
		case name != "" && name != "-":
			l.field(prefix+name, f.Type, above)
		}
	}
	for _, e := range support.Entries() { // what a shared part does not show, such as a port of an init container
		if r := rowOf(prefix, e); e.Part == t && !slices.Contains(l.rows, r) {
			l.rows = append(l.rows, r)
		}
	}
}

func (l *lister) field(path string, t reflect.Type, above []holder) {
	covered := false
	for _, h := range above {
		for _, e := range support.Entries() {
			if e.Part == h.part && h.prefix+withoutKeys(e.Field) == path {
				l.rows = append(l.rows, rowOf(h.prefix, e))
				covered = covered || (e.Covers() && !strings.HasSuffix(e.Field, "]")) || strings.HasSuffix(e.Field, "[]")
			}
		}
	}
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	switch {
	case covered:
	case t == reflect.TypeFor[corev1.EphemeralContainer]():
		l.carried = append(l.carried, fmt.Sprintf("`%s` (the fields of [Container](#container), and `targetContainerName`)", path))
	case slices.Contains(shared(), t):
		l.carried = append(l.carried, fmt.Sprintf("`%s` ([%s](#%s))", path, t.Name(), strings.ToLower(t.Name())))
		l.parts = append(l.parts, t)
	case t.Kind() != reflect.Struct || slices.Contains(plain(), t):
		l.carried = append(l.carried, "`"+path+"`")
	default:
		l.object(t, path+".", above)
	}
}

func withoutKeys(path string) string {
	return regexp.MustCompile(`\[[^\]]*\]`).ReplaceAllString(path, "")
}

func rowOf(prefix string, e support.Entry) row {
	state := "ignored, with a warning: "
	if e.State == support.Refused {
		state = "refused: "
	}
	return row{prefix + strings.TrimSuffix(e.Field, "[]"), cmp.Or(e.Values, "all") + " | " + state + e.Message}
}
