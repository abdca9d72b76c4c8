package cue

import (
	"encoding/base64"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/support"
	"berth.dev/berth/cue/check"
	"berth.dev/berth/cue/document"
)

// maxData is what a ConfigMap or a Secret may hold: Kubernetes' own limit.
const maxData = 1 << 20

// object is an object with where it leads to others.
type object struct {
	manifest.Manifest
	Links []link
	// encrypted: something that it was made of was encrypted.
	encrypted bool
}

// admitted is what came of one document: objects, and what is wrong with it.
type admitted struct {
	objects  []object
	problems []document.Problem
	// root is the kustomization that all of it comes from, if it is from one.
	root string
}

func (a *admitted) failed() bool {
	for _, p := range a.problems {
		if !p.Warning {
			return true
		}
	}
	return false
}

// admit checks a document that has an apiVersion and a kind, and turns it into
// objects: one, or the items of a list. hide keeps its values out of what is said.
func (ks kinds) admit(n *document.Node, hide bool) admitted {
	if kind := n.Text("kind"); kind == "List" || n.Get("items") != nil && strings.HasSuffix(kind, "List") {
		return ks.list(n, hide)
	}
	var out admitted
	name := label(n)
	apiVersion, kind := n.Text("apiVersion"), n.Text("kind")
	if apiVersion == "" || kind == "" {
		out.problems = append(out.problems, unnamed(n))
		return out
	}
	n, old := ks.modern(n)
	blurred := func(problems []document.Problem) []document.Problem {
		if hide {
			return blur(problems)
		}
		return problems
	}
	k, why := ks.find(n.Text("apiVersion"), kind)
	if k == nil {
		pos := n.Pos
		if v := n.Get("kind"); v.Line > 0 {
			pos = v.Pos
		}
		out.problems = append(out.problems, document.Problem{Pos: pos, Object: name, Message: why})
		return out
	}
	n, out.problems = clean(n)
	out.problems = append(blurred(old), out.problems...)
	out.problems = ciphertexts(n, out.problems)
	k.definition.Fill(n)
	secret := hide || strings.Contains(strings.ToLower(kind), "secret")
	out.problems = append(out.problems, k.definition.Check(n, check.Options{Hide: secret})...)
	if !out.failed() {
		out.problems = append(out.problems, blurred(k.inspect(n))...)
	}
	if !out.failed() && !n.Broken() {
		u, typed, problems := k.decode(n, secret)
		out.problems = append(out.problems, blurred(problems)...)
		if !out.failed() {
			m := manifest.Manifest{Object: u, Origin: manifest.Origin{Path: n.Path, Line: n.Line}}
			o := object{Manifest: m, Links: linksOf(n, typed)}
			if out.problems = append(out.problems, blurred(k.validate(n, typed, secret))...); !out.failed() {
				out.objects = []object{o}
			}
		}
	}
	for i := range out.problems {
		out.problems[i].Object = name
	}
	return out
}

// unnamed says that an object lacks its apiVersion or kind, or has none that is text.
func unnamed(n *document.Node) document.Problem {
	p := document.Problem{Pos: n.Pos, Object: label(n)}
	for _, name := range []string{"apiVersion", "kind"} {
		v := n.Get(name)
		if v == nil {
			p.Message = lacks(n)
			return p
		}
		if n.Text(name) == "" {
			if v.Line > 0 {
				p.Pos = v.Pos
			}
			p.Field = name
			p.Message = "must be a string that is not empty, such as apiVersion: apps/v1 and kind: Deployment"
			return p
		}
	}
	return p
}

// list admits the items of a List, or of one of a kind such as ConfigMapList.
func (ks kinds) list(n *document.Node, hide bool) admitted {
	var out admitted
	for _, f := range n.Fields {
		switch f.Key {
		case "apiVersion", "kind", "metadata", "items":
		default:
			out.problems = append(out.problems, document.Problem{Pos: f.Pos, Object: label(n), Field: f.Key,
				Message: fmt.Sprintf("unknown field %q; the fields of a list are apiVersion, items, kind, metadata", f.Key)})
		}
	}
	items := n.Get("items")
	switch {
	case items == nil:
		out.problems = append(out.problems, document.Problem{Pos: n.Pos, Object: label(n), Field: "items", Message: "missing; must be a list of objects"})
		return out
	case items.Kind != document.List && items.Kind != document.Null && items.Kind != document.Faulty:
		out.problems = append(out.problems, document.Problem{Pos: items.Pos, Object: label(n), Field: "items", Message: "must be a list of objects, each with its apiVersion and kind"})
	}
	of := strings.TrimSuffix(n.Text("kind"), "List")
	for _, item := range items.Items {
		if item.Kind != document.Map {
			out.problems = append(out.problems, document.Problem{Pos: item.Pos, Object: label(n), Field: "items", Message: "an item of the list is not an object"})
			continue
		}
		if of != "" && item.Get("kind") == nil {
			item = with(item, "kind", of)
		}
		if of != "" && item.Get("apiVersion") == nil {
			item = with(item, "apiVersion", n.Text("apiVersion"))
		}
		one := ks.admit(item, hide)
		out.objects = append(out.objects, one.objects...)
		out.problems = append(out.problems, one.problems...)
	}
	return out
}

func with(n *document.Node, key, value string) *document.Node {
	c := *n
	c.Fields = append([]document.Field{{Pos: n.Pos, Key: key, Value: &document.Node{Pos: n.Pos, Kind: document.String, Value: value}}}, n.Fields...)
	return &c
}

// label is kind/name.
func label(n *document.Node) string {
	kind := n.Text("kind")
	if kind == "" {
		return ""
	}
	if name := n.Get("metadata").Text("name"); name != "" {
		return kind + "/" + name
	}
	return kind
}

// clusterSet are fields of the metadata that the cluster sets.
func clusterSet(key string) bool {
	switch key {
	case "uid", "resourceVersion", "generation", "creationTimestamp", "selfLink", "managedFields", "deletionTimestamp", "deletionGracePeriodSeconds":
		return true
	}
	return false
}

// clean leaves out what the cluster sets by itself, with a warning each.
func clean(n *document.Node) (*document.Node, []document.Problem) {
	var problems []document.Problem
	drop := func(n *document.Node, prefix string, set func(string) bool) *document.Node {
		if n == nil || n.Kind != document.Map {
			return n
		}
		c := *n
		c.Fields = make([]document.Field, 0, len(n.Fields))
		for _, f := range n.Fields {
			if !set(f.Key) {
				c.Fields = append(c.Fields, f)
			} else if f.Value.Kind != document.Null {
				problems = append(problems, document.Problem{Pos: f.Pos, Warning: true, Field: prefix + f.Key,
					Message: "the cluster sets this field; it is left out: remove it"})
			}
		}
		return &c
	}
	out := drop(n, "", func(key string) bool { return key == "status" })
	for i, f := range out.Fields {
		if f.Key == "metadata" {
			out.Fields[i].Value = drop(f.Value, "metadata.", clusterSet)
		}
	}
	return out, problems
}

// inspect checks what a schema of single fields cannot see.
func (k *kind) inspect(n *document.Node) []document.Problem {
	var out []document.Problem
	if ns := n.Get("metadata").Get("namespace"); ns != nil && !k.namespaced {
		out = append(out, document.Problem{Pos: ns.Pos, Field: "metadata.namespace",
			Message: fmt.Sprintf("a %s belongs to no namespace; remove the field", k.Kind)})
	}
	if k.Kind == "ConfigMap" || k.Kind == "Secret" {
		out = append(out, k.size(n)...)
	}
	if k.pod != nil {
		spec := n
		for _, name := range k.pod {
			spec = spec.Get(name)
		}
		out = append(out, ports(spec, strings.Join(k.pod, "."))...)
		out = append(out, containers(spec, strings.Join(k.pod, "."))...)
	}
	return out
}

// size refuses data beyond Kubernetes' limit.
func (k *kind) size(n *document.Node) []document.Problem {
	total := 0
	for _, part := range []string{"data", "stringData", "binaryData"} {
		data := n.Get(part)
		if data == nil {
			continue
		}
		binary := part == "binaryData" || part == "data" && k.Kind == "Secret"
		for _, f := range data.Fields {
			s, _ := f.Value.Value.(string)
			if binary {
				total += base64.StdEncoding.DecodedLen(len(s)) - strings.Count(s, "=")
			} else {
				total += len(s)
			}
		}
	}
	if total <= maxData {
		return nil
	}
	return []document.Problem{{Pos: n.Pos, Field: "data",
		Message: fmt.Sprintf("the data is %d bytes; a %s holds at most %d: split it, or put it in a volume or an image", total, k.Kind, maxData)}}
}

// ports refuses two ports of one name in a container, and warns of two in a pod.
func ports(spec *document.Node, at string) []document.Problem {
	var out []document.Problem
	inPod := map[string]string{}
	for _, list := range []string{"initContainers", "containers"} {
		containers := spec.Get(list)
		if containers == nil {
			continue
		}
		for i, c := range containers.Items {
			found := c.Get("ports")
			if found == nil {
				continue
			}
			inContainer := map[string]bool{}
			for j, p := range found.Items {
				name := p.Text("name")
				if name == "" {
					continue
				}
				problem := document.Problem{Pos: p.Get("name").Pos, Field: fmt.Sprintf("%s.%s[%d].ports[%d].name", at, list, i, j)}
				if inContainer[name] {
					problem.Message = fmt.Sprintf("two ports of the container are named %q; give each a name of its own", name)
					out = append(out, problem)
				} else if other, taken := inPod[name]; taken {
					problem.Warning = true
					problem.Message = fmt.Sprintf("the container %s of the pod has a port named %q too; a Service finds the first only", other, name)
					out = append(out, problem)
				}
				inContainer[name] = true
				inPod[name] = c.Text("name")
			}
		}
	}
	return out
}

// decode makes the object, proves that it is one of the Go type, and finds the
// fields that Berth does not carry out.
func (k *kind) decode(n *document.Node, hide bool) (*unstructured.Unstructured, runtime.Object, []document.Problem) {
	content, _ := n.Interface().(map[string]any)
	obj := k.typed()
	err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(content, obj, true)
	if err == nil {
		return &unstructured.Unstructured{Object: content}, obj, notCarriedOut(n, obj)
	}
	message := "cannot be read as a " + k.Kind
	if !hide {
		message += ": " + err.Error()
	} else if strings.Contains(err.Error(), "base64") {
		message += ": data must be text in base64; use stringData for plain text"
	}
	return nil, nil, []document.Problem{{Pos: n.Pos, Message: message}}
}

// notCarriedOut are the fields that Berth ignores or refuses, each at its place.
func notCarriedOut(n *document.Node, obj any) []document.Problem {
	var out []document.Problem
	for _, f := range support.Find(obj) {
		out = append(out, document.Problem{
			Pos: n.At(f.Names()...), Warning: f.State == support.Ignored, Field: f.Path(), Message: f.Explanation(),
		})
	}
	return out
}
