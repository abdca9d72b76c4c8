// Package manifest holds the value that the compiler hands to the sync engine:
// the objects of a revision, each with its place in the repository.
package manifest

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"berth.dev/berth/api/v1alpha1"
)

// Manifest is one object as the repository has it: not defaulted, with the
// namespace as written.
type Manifest struct {
	Object *unstructured.Unstructured
	Origin Origin
}

// Origin is a place in a repository.
type Origin struct {
	Path string
	// Line counts from 1.
	Line int
}

// String is path:line.
func (o Origin) String() string { return fmt.Sprintf("%s:%d", o.Path, o.Line) }

// Set is the result of compiling a revision. When Diagnostics holds an error,
// Manifests must not be applied.
type Set struct {
	// Manifests sorted by group, kind, namespace and name.
	Manifests []Manifest
	// Diagnostics sorted by path, line and column: all of them, not the first.
	Diagnostics []v1alpha1.Diagnostic
	// Open are the references to objects that the Set does not hold, in the
	// order of their places.
	Open []Reference
}
