package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
)

// Field is one field that differs. Old or New is its value as JSON, whole, and
// empty where there is none.
type Field struct {
	// Path such as spec.template.spec.containers[web].image.
	Path string `json:"path"`
	Old  string `json:"old,omitempty"`
	New  string `json:"new,omitempty"`
	// Hidden values are a Secret's, or out of an encrypted file.
	Hidden bool `json:"hidden,omitempty"`
}

// Fields are the differences between two versions of an object, sorted by path.
// The status and what the server keeps are left out.
func Fields(old, now client.Object) []Field {
	d := differ{hidden: v1alpha1.Hidden(old) || v1alpha1.Hidden(now)}
	_, d.secret = now.(*corev1.Secret)
	d.compare("", content(old), content(now))
	slices.SortStableFunc(d.fields, func(a, b Field) int { return strings.Compare(a.Path, b.Path) })
	return d.fields
}

// content is the part of an object that a user writes.
func content(obj client.Object) map[string]any {
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return nil // a typed object always converts
	}
	delete(m, "status")
	delete(m, "apiVersion")
	delete(m, "kind")
	meta, _ := m["metadata"].(map[string]any)
	kept := map[string]any{}
	for _, k := range []string{"labels", "annotations", "finalizers"} {
		if v, ok := meta[k]; ok {
			kept[k] = v
		}
	}
	if l, ok := kept["labels"].(map[string]any); ok {
		delete(l, v1alpha1.LabelSource)
	}
	if a, ok := kept["annotations"].(map[string]any); ok {
		for _, k := range []string{
			v1alpha1.AnnotationOrigin, v1alpha1.AnnotationRevision, v1alpha1.AnnotationAdopted,
			v1alpha1.AnnotationScheduleChanged, v1alpha1.AnnotationEncrypted,
		} {
			delete(a, k)
		}
	}
	m["metadata"] = kept
	return m
}

type differ struct {
	secret bool
	// hidden: no value may be shown, and no name within a list, which is one too.
	hidden bool
	fields []Field
}

func (d *differ) compare(path string, old, now any) {
	if reflect.DeepEqual(old, now) {
		return
	}
	mo, okOld := old.(map[string]any)
	mn, okNow := now.(map[string]any)
	if (okOld || old == nil) && (okNow || now == nil) && (okOld || okNow) {
		d.compareMaps(path, mo, mn)
		return
	}
	lo, okOld := old.([]any)
	ln, okNow := now.([]any)
	if okOld && okNow {
		d.compareLists(path, lo, ln)
		return
	}
	hidden := d.hidden || d.secret && secretPath(path)
	f := Field{Path: path, Hidden: hidden}
	if !hidden {
		f.Old, f.New = show(old), show(now)
	}
	d.fields = append(d.fields, f)
}

// secretPath: what holds a Secret's values. Keys with a dot, such as tls.crt,
// are written in brackets; kubectl apply leaves a copy in an annotation.
func secretPath(path string) bool {
	head, _, _ := strings.Cut(strings.ReplaceAll(path, "[", "."), ".")
	return head == "data" || head == "stringData" || strings.Contains(path, corev1.LastAppliedConfigAnnotation)
}

func (d *differ) compareMaps(path string, old, now map[string]any) {
	all := map[string]bool{}
	for k := range old {
		all[k] = true
	}
	for k := range now {
		all[k] = true
	}
	for _, k := range slices.Sorted(maps.Keys(all)) {
		d.compare(join(path, k), old[k], now[k])
	}
}

func join(path, key string) string {
	if strings.ContainsAny(key, "./") {
		return path + "[" + key + "]"
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// compareLists matches items by name where they have one, as Kubernetes'
// merge keys do, else by position.
func (d *differ) compareLists(path string, old, now []any) {
	names := func(list []any) (map[string]any, []string, bool) {
		m, order := map[string]any{}, []string{}
		for _, item := range list {
			o, ok := item.(map[string]any)
			name, named := o["name"].(string)
			if !ok || !named || m[name] != nil {
				return nil, nil, false
			}
			m[name] = item
			order = append(order, name)
		}
		return m, order, true
	}
	mo, oldOrder, ok1 := names(old)
	mn, newOrder, ok2 := names(now)
	if !ok1 || !ok2 || d.hidden {
		for i := range max(len(old), len(now)) {
			d.compare(fmt.Sprintf("%s[%d]", path, i), at(old, i), at(now, i))
		}
		return
	}
	for _, name := range oldOrder {
		d.compare(fmt.Sprintf("%s[%s]", path, name), mo[name], mn[name])
	}
	for _, name := range newOrder {
		if mo[name] == nil {
			d.compare(fmt.Sprintf("%s[%s]", path, name), nil, mn[name])
		}
	}
	if len(mo) == len(mn) && !slices.Equal(oldOrder, newOrder) && sameSet(mo, mn) {
		d.fields = append(d.fields, Field{Path: path, Old: "in the order " + strings.Join(oldOrder, ", "), New: strings.Join(newOrder, ", ")})
	}
}

func sameSet(a, b map[string]any) bool {
	for k := range a {
		if b[k] == nil {
			return false
		}
	}
	return true
}

func at(list []any, i int) any {
	if i < len(list) {
		return list[i]
	}
	return nil
}

// show is a value in one line.
func show(v any) string {
	if v == nil {
		return ""
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}
