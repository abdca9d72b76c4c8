package resources

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
)

func kind(group, version, name string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: group, Version: version, Kind: name}
}

func newOf[T any, P interface {
	*T
	client.Object
}]() client.Object {
	return P(new(T))
}

func listOf[T any, P interface {
	*T
	client.ObjectList
}]() client.ObjectList {
	return P(new(T))
}

// statusForm is what a kind with a status has.
type statusForm struct {
	// copy sets the status of dst to that of src.
	copy func(dst, src client.Object)
	// clear takes away what a client says of a new object's status; nil keeps it.
	clear func(client.Object)
}

// kept leaves the status of a new object as the client says it.
func (s *statusForm) kept() *statusForm { return &statusForm{copy: s.copy} }

func statusAt[P client.Object, T any, S interface {
	*T
	DeepCopy() *T
}](at func(P) S) *statusForm {
	return &statusForm{
		copy: func(dst, src client.Object) { *at(dst.(P)) = *at(src.(P)).DeepCopy() },
		clear: func(o client.Object) {
			var zero T
			*at(o.(P)) = zero
		},
	}
}

// Table is every kind that the cluster serves, in the order of discovery. The
// short names and categories are those of Kubernetes.
func Table() []*Resource {
	return slices.Concat(coreKinds(), workloadKinds(), otherKinds())
}

// withoutBerth leaves out the annotations that say where an object is from:
// they are no change of it.
func withoutBerth(annotations map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range annotations {
		if k != v1alpha1.AnnotationOrigin && k != v1alpha1.AnnotationRevision {
			out[k] = v
		}
	}
	return out
}
