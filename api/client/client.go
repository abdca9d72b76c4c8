// Package client is how every part of Berth reads and writes the cluster: one
// small interface over typed Kubernetes objects, with an HTTP form here and an
// in-process form in engine/resources. Both pass api/clienttest.
package client

import (
	"context"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// Object is a Kubernetes object of a registered type, such as *corev1.Pod.
type Object interface {
	metav1.Object
	runtime.Object
}

// ObjectList is a list of a registered type, such as *corev1.PodList.
type ObjectList interface {
	metav1.ListInterface
	runtime.Object
}

// Client reads and writes objects. All errors are Kubernetes API errors, to be
// told apart with k8s.io/apimachinery/pkg/api/errors. Objects that come out of
// Get and List belong to the caller; objects that come out of Watch are shared
// and must not be changed.
type Client interface {
	// Get fills into with the object of its type. Cluster-scoped objects have
	// no namespace in their key.
	Get(ctx context.Context, key types.NamespacedName, into Object) error
	// List fills into with the objects that opts selects, all at one revision,
	// sorted by namespace and name.
	List(ctx context.Context, into ObjectList, opts ListOptions) error
	// Watch reports changes to the objects of list's item type after
	// opts.ResourceVersion, in order, without loss or repetition. A version
	// that is too old is an error of reason Expired, at once or as an event.
	Watch(ctx context.Context, list ObjectList, opts ListOptions) (watch.Interface, error)
	// Create stores obj and fills it with what was stored.
	Create(ctx context.Context, obj Object) error
	// Update replaces everything but the status, and fills obj with what was
	// stored. A resourceVersion in obj that is not the current one is a Conflict.
	Update(ctx context.Context, obj Object) error
	// UpdateStatus replaces the status alone, and fills obj with what was stored.
	UpdateStatus(ctx context.Context, obj Object) error
	// Delete removes the object of obj's type, namespace and name.
	Delete(ctx context.Context, obj Object, opts DeleteOptions) error
	// RequestToken makes a token of a service account as request.Spec says, and
	// fills request with what was made.
	RequestToken(ctx context.Context, account types.NamespacedName, request *authenticationv1.TokenRequest) error
}

// ListOptions selects objects. The zero value selects all of them.
type ListOptions struct {
	Namespace string
	Labels    labels.Selector
	Fields    fields.Selector
	// ResourceVersion is where a watch begins; List ignores it.
	ResourceVersion string
}

// DeleteOptions limits a deletion. Unset fields do not limit.
type DeleteOptions struct {
	// UID and ResourceVersion must be those of the stored object, else Conflict.
	UID             types.UID
	ResourceVersion string
	// GracePeriodSeconds is for Pods: 0 removes the object at once, nil takes
	// the Pod's own terminationGracePeriodSeconds.
	GracePeriodSeconds *int64
	// Propagation to the objects that name this one as their owner. Default Background.
	Propagation metav1.DeletionPropagation
}

// Key is the key of an object.
func Key(obj metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: obj.GetNamespace(), Name: obj.GetName()}
}
