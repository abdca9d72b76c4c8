package manifest

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"berth.dev/berth/api/v1alpha1"
)

// Reference is a place in a Set that leads to an object which is not in the
// Set. The cluster may have it.
type Reference struct {
	// Origin, Column, Object and Field are the place.
	Origin
	Column int
	Object string
	Field  string
	// To is the kind of the object that is named; the zero value where Pods are
	// selected.
	To        schema.GroupKind
	Namespace string
	Name      string
	// Key that the object must hold; empty when none.
	Key string
	// Selector of the Pods that are meant, in Kubernetes' notation.
	Selector string
	// Near is the name of an object of that kind in the Set that is spelt alike.
	Near string
	// Else says what happens without it.
	Else string
	// Hidden: the object comes out of an encrypted file, so that nothing of what it
	// names may be shown.
	Hidden bool
}

// Target is what is named, as messages call it.
func (r Reference) Target() string {
	if r.Hidden {
		return fmt.Sprintf("%s of the name that stands here", r.To.Kind)
	}
	return fmt.Sprintf("%s %q", r.To.Kind, r.Name)
}

// Missing is the warning that the reference leads nowhere. where says where was
// looked, such as "in this repository".
func (r Reference) Missing(where string) v1alpha1.Diagnostic {
	var message string
	if r.Selector != "" && r.Hidden {
		message = fmt.Sprintf("no pod %s has the labels that stand here; %s", where, r.Else)
	} else if r.Selector != "" {
		message = fmt.Sprintf("no pod %s has the labels %s; %s", where, strings.ReplaceAll(r.Selector, ",", ", "), r.Else)
	} else {
		message = fmt.Sprintf("there is no %s %s; %s", r.Target(), where, r.Else)
		if r.Near != "" && !r.Hidden {
			message += fmt.Sprintf("; did you mean %q?", r.Near)
		}
	}
	return r.Diagnostic(v1alpha1.SeverityWarning, message)
}

// Diagnostic says something about the reference, at its place.
func (r Reference) Diagnostic(severity, message string) v1alpha1.Diagnostic {
	return v1alpha1.Diagnostic{
		Severity: severity, Path: r.Path, Line: int32(r.Line), Column: int32(r.Column),
		Object: r.Object, Field: r.Field, Message: message,
	}
}
