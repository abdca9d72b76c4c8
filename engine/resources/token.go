package resources

import (
	"context"
	"errors"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/access"
)

// Bounds of the life of a service account's token, as in Kubernetes
// (TokenRequestSpec.expirationSeconds), in seconds.
const (
	tokenLife    = 3600
	tokenMinLife = 600
	tokenMaxLife = 1 << 32
)

// Signer makes tokens of service accounts.
type Signer interface {
	Sign(*access.Claims) (string, error)
}

// RequestToken implements client.Client.
func (r *Resources) RequestToken(ctx context.Context, key types.NamespacedName, t *authenticationv1.TokenRequest) error {
	if r.signer == nil {
		return apierrors.NewMethodNotSupported(corev1.Resource("serviceaccounts/token"), "create")
	}
	var account corev1.ServiceAccount
	if err := r.Get(ctx, key, &account); err != nil {
		return err
	}
	life := int64(tokenLife)
	if t.Spec.ExpirationSeconds != nil {
		life = *t.Spec.ExpirationSeconds
	}
	if err := checkLife(key.Name, life); err != nil {
		return err
	}
	if len(t.Spec.Audiences) == 0 {
		t.Spec.Audiences = []string{access.Issuer}
	}
	now := r.clock.Now()
	claims := access.Claims{
		Namespace: key.Namespace, Account: access.Named{Name: account.Name, UID: account.UID},
		Audiences: t.Spec.Audiences, Issued: now, Expires: now.Add(time.Duration(life) * time.Second),
	}
	if ref := t.Spec.BoundObjectRef; ref != nil {
		if err := r.bind(ctx, &claims, ref); err != nil {
			return err
		}
	}
	token, err := r.signer.Sign(&claims)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	t.SetGroupVersionKind(authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"))
	t.Name, t.Namespace, t.CreationTimestamp = key.Name, key.Namespace, metav1.NewTime(now)
	t.Spec.ExpirationSeconds = &life
	t.Status = authenticationv1.TokenRequestStatus{Token: token, ExpirationTimestamp: metav1.NewTime(claims.Expires)}
	return nil
}

func checkLife(name string, seconds int64) error {
	path, why := field.NewPath("spec", "expirationSeconds"), ""
	switch {
	case seconds < tokenMinLife:
		why = "may not specify a duration less than 10 minutes"
	case seconds > tokenMaxLife:
		why = "may not specify a duration larger than 2^32 seconds"
	default:
		return nil
	}
	return apierrors.NewInvalid(authenticationv1.SchemeGroupVersion.WithKind("TokenRequest").GroupKind(), name,
		field.ErrorList{field.Invalid(path, seconds, why)})
}

// bind ties a token to the life of an object.
func (r *Resources) bind(ctx context.Context, c *access.Claims, ref *authenticationv1.BoundObjectReference) error {
	switch (metav1.TypeMeta{APIVersion: ref.APIVersion, Kind: ref.Kind}) {
	case metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}:
		var pod corev1.Pod
		named, err := r.boundTo(ctx, c.Namespace, ref, &pod)
		if err != nil {
			return err
		}
		if pod.Spec.ServiceAccountName != c.Account.Name {
			return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", c.Account.Name))
		}
		c.Pod = named
		return r.onNode(ctx, c, pod.Spec.NodeName)
	case metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}:
		named, err := r.boundTo(ctx, c.Namespace, ref, &corev1.Secret{})
		c.Secret = named
		return err
	case metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}:
		named, err := r.boundTo(ctx, "", ref, &corev1.Node{})
		c.Node = named
		return err
	}
	return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to a %s of %s: it can be bound to a Pod, Secret or Node of v1", ref.Kind, ref.APIVersion))
}

func (r *Resources) boundTo(ctx context.Context, namespace string, ref *authenticationv1.BoundObjectReference, into client.Object) (*access.Named, error) {
	if err := r.Get(ctx, types.NamespacedName{Namespace: namespace, Name: ref.Name}, into); err != nil {
		return nil, err
	}
	if ref.UID != "" && ref.UID != into.GetUID() {
		row, err := r.Of(into)
		if err != nil {
			return nil, err
		}
		return nil, apierrors.NewConflict(row.GroupResource(), ref.Name, errors.New("the object was deleted and created anew: its UID is another one"))
	}
	return &access.Named{Name: ref.Name, UID: into.GetUID()}, nil
}

// onNode notes where the Pod of a token runs. The token is not bound to the
// Node: a Node that is registered anew changes nothing for its Pods.
func (r *Resources) onNode(ctx context.Context, c *access.Claims, name string) error {
	if name == "" {
		return nil
	}
	c.Node = &access.Named{Name: name}
	var node corev1.Node
	err := r.Get(ctx, types.NamespacedName{Name: name}, &node)
	if err == nil {
		c.Node.UID = node.UID
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
