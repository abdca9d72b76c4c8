package access

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
)

// What a user's Extra says about the token of a service account, as in
// Kubernetes (k8s.io/apiserver/pkg/authentication/serviceaccount).
const (
	extraPodName      = "authentication.kubernetes.io/pod-name"
	extraPodUID       = "authentication.kubernetes.io/pod-uid"
	extraNodeName     = "authentication.kubernetes.io/node-name"
	extraNodeUID      = "authentication.kubernetes.io/node-uid"
	extraCredentialID = "authentication.kubernetes.io/credential-id"
)

// deletedGrace is how long after its deletion time a Pod's token still counts,
// for what it does while it ends, as in Kubernetes.
const deletedGrace = 60 * time.Second

// Objects reads what tokens name.
type Objects interface {
	Get(ctx context.Context, key types.NamespacedName, into client.Object) error
}

// Accounts recognises the tokens of service accounts: their signature, their
// end, their audience, and that the account and what the token is bound to are
// still those that it was made for. All fields must be set.
type Accounts struct {
	Key     *AccountKey
	Objects Objects
	Now     func() time.Time
}

// Token finds the user of a token, and which of the audiences it is for.
func (a *Accounts) Token(ctx context.Context, token string, audiences []string) (User, []string, error) {
	now := a.Now()
	c, both, err := a.Key.Verify(token, audiences, now)
	if err != nil {
		return User{}, nil, err
	}
	var account corev1.ServiceAccount
	if err := a.same(ctx, "ServiceAccount", c.Namespace, &c.Account, &account, now); err != nil {
		return User{}, nil, err
	}
	if err := a.bound(ctx, c, now); err != nil {
		return User{}, nil, err
	}
	u := accountUser(&account)
	u.Extra = extra(c)
	return u, both, nil
}

// Named finds the account of a user name.
func (a *Accounts) Named(ctx context.Context, namespace, name string) (User, error) {
	var account corev1.ServiceAccount
	if err := a.Objects.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, &account); err != nil {
		return User{}, err
	}
	return accountUser(&account), nil
}

// bound checks that what the token is bound to is still there.
func (a *Accounts) bound(ctx context.Context, c Claims, now time.Time) error {
	switch {
	case c.Pod != nil:
		return a.same(ctx, "Pod", c.Namespace, c.Pod, &corev1.Pod{}, now)
	case c.Secret != nil:
		return a.same(ctx, "Secret", c.Namespace, c.Secret, &corev1.Secret{}, now)
	case c.Node != nil:
		return a.same(ctx, "Node", "", c.Node, &corev1.Node{}, now)
	}
	return nil
}

// same reads an object and checks that it is the one that the token names.
func (a *Accounts) same(ctx context.Context, kind, namespace string, n *Named, into client.Object, now time.Time) error {
	err := a.Objects.Get(ctx, types.NamespacedName{Namespace: namespace, Name: n.Name}, into)
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%s %s of the token is gone", kind, n.Name)
	}
	if err != nil {
		return errors.New("what the token names cannot be read now")
	}
	if into.GetUID() != n.UID {
		return fmt.Errorf("%s %s of the token was created anew", kind, n.Name)
	}
	if d := into.GetDeletionTimestamp(); d != nil && now.After(d.Add(deletedGrace)) {
		return fmt.Errorf("%s %s of the token is being deleted", kind, n.Name)
	}
	return nil
}

func extra(c Claims) map[string][]string {
	out := map[string][]string{extraCredentialID: {"JTI=" + c.ID}}
	if c.Pod != nil {
		out[extraPodName], out[extraPodUID] = []string{c.Pod.Name}, []string{string(c.Pod.UID)}
	}
	if c.Node != nil {
		out[extraNodeName] = []string{c.Node.Name}
		if c.Node.UID != "" {
			out[extraNodeUID] = []string{string(c.Node.UID)}
		}
	}
	return out
}
