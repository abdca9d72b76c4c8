// Package resources is the one place that knows how each kind is prepared,
// defaulted, validated, selected and printed, and the one way that anything is
// read from or written to the store. It owns the bytes in the store. The REST
// API, the sync engine and the controllers all go through it, in-process; it
// implements api/client.Client.
package resources

import (
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
)

// Resource is one row of the table of kinds.
type Resource struct {
	schema.GroupVersionKind
	// Plural is the name in paths, such as "pods".
	Plural     string
	Singular   string
	ShortNames []string
	// Categories such as "all" group kinds for kubectl.
	Categories []string
	Namespaced bool
	// Status is true when the status is a subresource of its own.
	Status bool
	// Scale is true when the kind has replicas that can be set on their own.
	Scale bool
	// ReadOnly kinds are written by Berth alone.
	ReadOnly bool
	// Review kinds are asked and answered, and never stored.
	Review bool
	// Measured kinds are read from the nodes when they are asked for, and never stored.
	Measured bool
	// Idle kinds are kept, but nothing in the cluster acts on them yet.
	Idle bool

	newObject func() client.Object
	newList   func() client.ObjectList
	// prepareCreate fills and clears what a client may not decide.
	prepareCreate func(client.Object)
	// forget takes off what was made out of the UID that an object had before it
	// is given another one; nil for nothing.
	forget func(obj client.Object, was types.UID)
	// prepareUpdate carries over from old what a client may not change.
	prepareUpdate func(obj, old client.Object)
	// status is nil without one.
	status *statusForm
	// stored is set for a kind that is another one in other words.
	stored *storedForm
	// spec is what makes a new generation when it changes; nil for none.
	spec func(client.Object) any
	// fields are the field labels that can be selected besides metadata.
	fields func(client.Object) fields.Set
}

// GroupResource names the resource in errors.
func (r *Resource) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: r.Group, Resource: r.Plural}
}

// GroupVersionResource names the resource in paths.
func (r *Resource) GroupVersionResource() schema.GroupVersionResource {
	return r.GroupVersion().WithResource(r.Plural)
}

// New returns an empty object of the kind.
func (r *Resource) New() client.Object { return r.newObject() }

// NewList returns an empty list of the kind.
func (r *Resource) NewList() client.ObjectList { return r.newList() }

// Form reports whether the kind is another one in other words: each of its
// objects is one of that kind too.
func (r *Resource) Form() bool { return r.stored != nil }

// Fields are the labels of obj that a field selector can name.
func (r *Resource) Fields(obj client.Object) fields.Set {
	set := fields.Set{}
	if r.fields != nil {
		set = r.fields(obj)
	}
	set["metadata.name"] = obj.GetName()
	set["metadata.namespace"] = obj.GetNamespace()
	return set
}

// Sealed are the prefixes of the keys whose values may only be stored encrypted.
func Sealed() []string {
	return []string{
		(&Resource{Plural: "secrets", Namespaced: true}).prefix(""),
		(&Resource{Plural: "configmaps", Namespaced: true}).prefix(""), // they may be out of encrypted files
		revisionPrefix,
	}
}

// prefix of the keys of a namespace; all namespaces when it is empty.
func (r *Resource) prefix(namespace string) string {
	group, plural := r.Group, r.Plural
	if r.stored != nil {
		group, plural = r.stored.group, r.stored.plural
	}
	if group == "" {
		group = "core"
	}
	p := "/" + group + "/" + plural + "/"
	if r.Namespaced && namespace != "" {
		p += namespace + "/"
	}
	return p
}

func (r *Resource) key(namespace, name string) string {
	if !r.Namespaced {
		namespace = ""
	}
	return r.prefix(namespace) + name
}
