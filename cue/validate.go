package cue

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"berth.dev/berth/api/support"
	"berth.dev/berth/api/upstream"
	"berth.dev/berth/cue/document"
)

// limitOf finds the resource that Kubernetes names in the message alone.
var limitOf = regexp.MustCompile(`equal to (\S+) limit`)

// validate checks an object with Kubernetes' own rules, as the cluster will when
// it is applied, and finds the place of each fault. obj is changed.
func (k *kind) validate(n *document.Node, obj runtime.Object, hide bool) []document.Problem {
	switch o := obj.(type) { // what the cluster fills in
	case *corev1.Service:
		upstream.SameClusterIPs(o)
	case *batchv1.Job:
		o.UID = "new"
		upstream.SelectOwnPods(o)
	}
	k.rules.Default(obj)
	if meta, ok := obj.(metav1.Object); ok && k.namespaced && meta.GetNamespace() == "" {
		meta.SetNamespace("default") // it is given one before it is applied
	}
	var out []document.Problem
	for _, e := range k.rules.ValidateCreate(obj) {
		if m := limitOf.FindStringSubmatch(e.Detail); m != nil && strings.HasSuffix(e.Field, ".requests") {
			e.Field += "[" + m[1] + "]"
		}
		steps := fieldSteps(n, e.Field)
		out = append(out, document.Problem{Pos: n.At(steps...), Field: support.Path(steps), Message: inWords(e, hide)})
	}
	return out
}

// fieldSteps is the way that a path in Kubernetes' notation leads in n: names of
// fields, places in lists and, in brackets, keys of maps.
func fieldSteps(n *document.Node, path string) []any {
	var steps []any
	for path != "" {
		if path[0] == '[' {
			end := strings.IndexByte(path, ']')
			if end < 0 {
				return steps
			}
			key := path[1:end]
			if i, err := strconv.Atoi(key); err == nil && follow(n, steps).Kind == document.List {
				steps = append(steps, i)
			} else {
				steps = append(steps, key)
			}
			path = strings.TrimPrefix(path[end+1:], ".")
			continue
		}
		end := strings.IndexAny(path, ".[")
		if end < 0 {
			end = len(path)
		}
		steps = append(steps, path[:end])
		path = strings.TrimPrefix(path[end:], ".")
	}
	return steps
}

// follow is the value that steps lead to; an empty one where they lead nowhere.
func follow(n *document.Node, steps []any) *document.Node {
	for _, s := range steps {
		switch s := s.(type) {
		case string:
			n = n.Get(s)
		case int:
			if n == nil || s >= len(n.Items) {
				return &document.Node{}
			}
			n = n.Items[s]
		}
	}
	if n == nil {
		return &document.Node{}
	}
	return n
}

// inWords is a fault as Berth says it. A hidden value is left out.
func inWords(e *field.Error, hide bool) string {
	value := ""
	if !hide {
		value = scalarText(e.BadValue)
	}
	detail := strings.TrimSpace(e.Detail)
	switch e.Type {
	case field.ErrorTypeRequired:
		return joined("missing", detail)
	case field.ErrorTypeForbidden:
		return joined("not allowed here", detail)
	case field.ErrorTypeDuplicate:
		return joined(strings.TrimSpace("given twice: "+value), detail)
	case field.ErrorTypeNotSupported:
		return strings.TrimSpace(value+" is not allowed; must be one of ") + " " + strings.TrimPrefix(detail, "supported values: ")
	case field.ErrorTypeInternal:
		return joined("cannot be checked", detail)
	case field.ErrorTypeNotFound:
		return joined(strings.TrimSpace(value+" is not found"), detail)
	}
	return joined(value, detail)
}

// joined is a fault and what would be right.
func joined(what, detail string) string {
	switch {
	case detail == "":
		return what
	case what == "":
		return detail
	}
	return what + ": " + detail
}

// scalarText is a value as a message shows it; empty for objects and lists.
func scalarText(v any) string {
	b, err := json.Marshal(v)
	if err != nil || len(b) == 0 || b[0] == '{' || b[0] == '[' || string(b) == "null" {
		return ""
	}
	if len(b) > 60 {
		return fmt.Sprintf("%s…", b[:60])
	}
	return string(b)
}
