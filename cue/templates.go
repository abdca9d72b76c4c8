package cue

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// template is what a Service sees of the pods of an object.
type template struct {
	object string
	labels labels.Set
	ports  []corev1.ContainerPort
	// encrypted: no value of it may be shown.
	encrypted bool
}

// templates are those of one Namespace.
type templates struct {
	all []*template
	// byLabel finds them by each of their labels, key=value.
	byLabel map[string][]*template
	// selected are those that a selector was found to mean.
	selected map[string][]*template
}

func (ts *templates) add(t *template) {
	ts.all = append(ts.all, t)
	for key, value := range t.labels {
		ts.byLabel[key+"="+value] = append(ts.byLabel[key+"="+value], t)
	}
}

// find returns the templates that a selector means.
func (ts *templates) find(notation string) []*template {
	if found, known := ts.selected[notation]; known {
		return found
	}
	selector, err := labels.Parse(notation)
	if err != nil {
		return nil // made by this program from a valid one
	}
	candidates := ts.all
	requirements, _ := selector.Requirements() // one that selects nothing has none, and matches none
	for _, q := range requirements {
		if op := q.Operator(); op != selection.Equals && op != selection.DoubleEquals && op != selection.In {
			continue
		}
		if values := q.ValuesUnsorted(); len(values) == 1 && len(ts.byLabel[q.Key()+"="+values[0]]) < len(candidates) {
			candidates = ts.byLabel[q.Key()+"="+values[0]]
		}
	}
	var out []*template
	for _, t := range candidates {
		if selector.Matches(t.labels) {
			out = append(out, t)
		}
	}
	ts.selected[notation] = out
	return out
}

// template finds the pods of an object; nil if it has none.
func (k *kind) template(u *unstructured.Unstructured) *template {
	if k.pod == nil {
		return nil
	}
	above := below(u.Object, k.pod[:len(k.pod)-1]...)
	t := &template{object: u.GetKind() + "/" + u.GetName(), labels: labels.Set{}}
	for key, value := range below(above, "metadata", "labels") {
		t.labels[key], _ = value.(string)
	}
	spec := below(above, "spec")
	for _, list := range []string{"initContainers", "containers"} {
		containers, _ := spec[list].([]any)
		for _, c := range containers {
			c, _ := c.(map[string]any)
			if list == "initContainers" && c["restartPolicy"] != string(corev1.ContainerRestartPolicyAlways) {
				continue
			}
			ports, _ := c["ports"].([]any)
			for _, p := range ports {
				p, _ := p.(map[string]any)
				name, _ := p["name"].(string)
				protocol, _ := p["protocol"].(string)
				t.ports = append(t.ports, corev1.ContainerPort{Name: name, Protocol: corev1.Protocol(protocol)})
			}
		}
	}
	return t
}
