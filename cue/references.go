package cue

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/cue/check"
)

// references checks where the objects of a Set lead to each other. What the Set
// alone decides is an error; what the cluster may hold is left open.
type references struct {
	kinds     kinds
	objects   []object
	byName    map[identity]*unstructured.Unstructured
	names     map[identity][]string
	templates map[string]*templates
	nodePorts map[nodePort]*object
	// namespaces that were said to be missing: once each is enough.
	namespaces map[string]bool
	set        *manifest.Set
}

type nodePort struct {
	port     int32
	protocol string
}

// resolve looks up every link. partial says that objects are missing, because
// there is something wrong with them: then it is not said that one is not there.
func resolve(objects []object, ks kinds, set *manifest.Set, partial bool) {
	r := &references{kinds: ks, objects: objects, set: set,
		byName: make(map[identity]*unstructured.Unstructured, len(objects)),
		names:  map[identity][]string{}, templates: map[string]*templates{}, nodePorts: map[nodePort]*object{}, namespaces: map[string]bool{}}
	for i := range objects {
		u := objects[i].Object
		id := identify(u)
		r.byName[id] = u
		id.name = ""
		r.names[id] = append(r.names[id], u.GetName())
		if t := ks[u.GroupVersionKind()].template(u); t != nil {
			if r.templates[u.GetNamespace()] == nil {
				r.templates[u.GetNamespace()] = &templates{byLabel: map[string][]*template{}, selected: map[string][]*template{}}
			}
			t.encrypted = objects[i].encrypted
			r.templates[u.GetNamespace()].add(t)
		}
	}
	for i := range objects {
		o := &objects[i]
		said := map[identity]bool{}
		for _, l := range o.Links {
			switch {
			case l.NodePort != 0:
				r.nodePort(o, l)
			case l.To.Kind != "":
				r.named(o, l, said, partial)
			case !partial && l.Port != "":
				r.port(o, l)
			case !partial:
				r.selector(o, l)
			}
		}
	}
	slices.SortStableFunc(set.Open, func(a, b manifest.Reference) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Field, b.Field))
	})
}

func (r *references) fail(o *object, at spot, message string) {
	r.set.Diagnostics = append(r.set.Diagnostics, r.reference(o, link{}, at).Diagnostic(v1alpha1.SeverityError, message))
}

func (r *references) reference(o *object, l link, at spot) manifest.Reference {
	origin := manifest.Origin{Path: at.Path, Line: at.Line}
	if at.Line == 0 {
		origin = o.Origin
	}
	return manifest.Reference{
		Origin: origin, Column: at.Column, Object: o.Object.GetKind() + "/" + o.Object.GetName(), Field: at.Field,
		To: l.To, Namespace: o.Object.GetNamespace(), Name: l.Name, Key: l.Key, Selector: l.Selector, Else: l.Else, Hidden: o.encrypted,
	}
}

// named looks up an object by its name, and its key.
func (r *references) named(o *object, l link, said map[identity]bool, partial bool) {
	to := identity{l.To, o.Object.GetNamespace(), l.Name}
	if k := r.kinds.group(l.To); k != nil && !k.namespaced {
		to.namespace = ""
	}
	if r.kinds.group(l.To) == nil {
		return // of an operator, perhaps
	}
	found := r.byName[to]
	if found == nil {
		if !partial && !said[to] && !(to.Kind == "Namespace" && r.namespaces[to.name]) {
			said[to] = true
			r.namespaces[to.name] = r.namespaces[to.name] || to.Kind == "Namespace"
			ref := r.reference(o, l, l.At)
			ref.Namespace, ref.Near = to.namespace, r.near(to)
			r.set.Open = append(r.set.Open, ref)
		}
		return
	}
	if l.Key == "" {
		return
	}
	keys := dataKeys(found)
	if slices.Contains(keys, l.Key) {
		return
	}
	message := fmt.Sprintf("the %s %q has no key %q; ", l.To.Kind, l.Name, l.Key)
	if o.encrypted {
		r.fail(o, l.KeyAt, fmt.Sprintf("the %s that is named here has no such key", l.To.Kind))
		return
	}
	if near := check.Nearest(l.Key, keys); near != "" {
		message += fmt.Sprintf("did you mean %q?", near)
	} else if len(keys) == 0 {
		message += "it is empty"
	} else {
		message += "its keys are " + strings.Join(keys[:min(len(keys), 12)], ", ")
	}
	r.fail(o, l.KeyAt, message)
}

// near is the name of an object of the same kind that is spelt most alike. Of
// many that are missing, the first are likely the telling ones.
func (r *references) near(to identity) string {
	if len(r.set.Open) > 20 {
		return ""
	}
	name := to.name
	to.name = ""
	return check.Nearest(name, r.names[to])
}

// dataKeys are the keys of a ConfigMap or a Secret, sorted.
func dataKeys(u *unstructured.Unstructured) []string {
	var keys []string
	for _, part := range []string{"data", "stringData", "binaryData"} {
		for key := range below(u.Object, part) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// selected are the pods of the Set that a selector means.
func (r *references) selected(o *object, l link) []*template {
	if in := r.templates[o.Object.GetNamespace()]; in != nil {
		return in.find(l.Selector)
	}
	return nil
}

func (r *references) selector(o *object, l link) {
	if len(r.selected(o, l)) == 0 {
		r.set.Open = append(r.set.Open, r.reference(o, l, l.At))
	}
}

// port looks for a port by its name in the pods that a Service selects.
func (r *references) port(o *object, l link) {
	found := r.selected(o, l)
	if len(found) == 0 {
		return // its selector is told
	}
	var names []string
	for _, t := range found {
		for _, p := range t.ports {
			if p.Name == l.Port && cmp.Or(string(p.Protocol), "TCP") == l.Protocol {
				return
			}
			if p.Name == l.Port {
				names = append(names, fmt.Sprintf("%s of protocol %s", p.Name, cmp.Or(p.Protocol, "TCP")))
			} else if p.Name != "" {
				names = append(names, p.Name)
			}
		}
	}
	message := fmt.Sprintf("%s has no port %q of protocol %s; ", found[0].object, l.Port, l.Protocol)
	if o.encrypted || slices.ContainsFunc(found, func(t *template) bool { return t.encrypted }) {
		r.fail(o, l.At, fmt.Sprintf("%s has no port of that name and protocol", found[0].object))
		return
	}
	slices.Sort(names)
	names = slices.Compact(names)
	switch near := check.Nearest(l.Port, names); {
	case near != "" && near != l.Port:
		message += fmt.Sprintf("did you mean %q?", near)
	case len(names) > 0:
		message += "its ports are " + strings.Join(names, ", ")
	default:
		message += "give a port of its container that name, or use the number here"
	}
	r.fail(o, l.At, message)
}

func (r *references) nodePort(o *object, l link) {
	key := nodePort{l.NodePort, l.Protocol}
	if first := r.nodePorts[key]; first != nil && first != o {
		if o.encrypted || first.encrypted {
			r.fail(o, l.At, fmt.Sprintf("the node port is that of Service/%s at %s too; use another one, or leave it out", first.Object.GetName(), first.Origin))
			return
		}
		r.fail(o, l.At, fmt.Sprintf("node port %d is that of Service/%s at %s too; use another one, or leave it out",
			l.NodePort, first.Object.GetName(), first.Origin))
		return
	}
	r.nodePorts[key] = o
}

// below is the object that names lead to; nil where there is none.
func below(m map[string]any, names ...string) map[string]any {
	for _, name := range names {
		m, _ = m[name].(map[string]any)
	}
	return m
}

// group finds a kind by its group; nil if there is none.
func (ks kinds) group(gk schema.GroupKind) *kind {
	for gvk, k := range ks {
		if gvk.GroupKind() == gk {
			return k
		}
	}
	return nil
}
