// Package links finds where an object leads to others: the names, selectors and
// ports in it that only mean something together with another object. It reads
// single typed objects and knows nothing of the rest of a repository.
package links

import (
	"cmp"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Link is one place of an object that leads to others. It is one of three: a
// name (To and Name), a selector of Pods (Selector), or a port.
type Link struct {
	// Steps lead to the place: names of fields (string) and places in lists (int).
	Steps []any
	// To is the kind of the object that is named.
	To   schema.GroupKind
	Name string
	// Key that the named ConfigMap or Secret must hold, and the way to it; empty
	// when none.
	Key      string
	KeySteps []any
	// Selector of the Pods that are meant, in Kubernetes' notation.
	Selector string
	// Port is the name that one of the ports of those Pods must have; empty
	// where the link is not a port of a Service.
	Port string
	// NodePort is taken on every node, with Protocol; 0 when none is.
	NodePort int32
	Protocol string
	// Else says what happens when there is no such object.
	Else string
}

// Core is a kind of the group "".
func Core(kind string) schema.GroupKind { return schema.GroupKind{Kind: kind} }

// finder collects the links of one object.
type finder struct{ links []Link }

func (f *finder) name(to schema.GroupKind, name, orElse string, steps ...any) {
	if name != "" && !standing(to, name) {
		f.links = append(f.links, Link{Steps: steps, To: to, Name: name, Else: orElse})
	}
}

func (f *finder) key(to schema.GroupKind, name, key, orElse string, steps, keySteps []any) {
	if standing(to, name) {
		return
	}
	f.links = append(f.links, Link{Steps: steps, To: to, Name: name, Key: key, KeySteps: keySteps, Else: orElse})
}

// standing: every Namespace has it.
func standing(to schema.GroupKind, name string) bool {
	return to == Core("ConfigMap") && name == "kube-root-ca.crt"
}

// under appends steps to a way, which it leaves as it is.
func under(at []any, steps ...any) []any { return append(at[:len(at):len(at)], steps...) }

func equals(m map[string]string) string { return labels.Set(m).AsSelectorPreValidated().String() }

func protocol[P ~string](p P) string { return cmp.Or(string(p), "TCP") }
