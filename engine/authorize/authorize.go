// Package authorize decides what a user may do in the API: by role, and for
// nodes by what the Pods bound to them need. The server asks it about every
// request and the reviews answer with it, so both say the same. It owns no
// state and writes nothing. Whether Git owns an object is another question,
// which the server asks after this one.
package authorize

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/access"
)

// Authorizer decides.
type Authorizer struct {
	// Pods are those of a namespace that are bound to a node.
	Pods func(ctx context.Context, node, namespace string) ([]*corev1.Pod, error)
	// Volume reads a PersistentVolume.
	Volume func(ctx context.Context, name string) (*corev1.PersistentVolume, error)
}

// Allowed decides about a request, and says why.
func (z *Authorizer) Allowed(ctx context.Context, u access.User, a Attributes) (allowed bool, reason string) {
	if everybody(a) {
		return true, "everybody with credentials may"
	}
	switch u.Role {
	case access.Admin:
		if a.Resource != "" && !reads(a.Verb) {
			return true, "role admin; what a Source owns is still changed by a push alone"
		}
		return true, "role admin"
	case access.Viewer:
		if viewer(a) {
			return true, "role viewer"
		}
		return false, fmt.Sprintf("user %s has the role %s, which does not allow it", u.Name, u.Role)
	case access.Node:
		return z.node(ctx, u.NodeName(), a)
	}
	return false, without(u)
}

// without says what a user lacks who has no role.
func without(u access.User) string {
	if namespace, name, ok := access.AccountName(u.Name); ok {
		return fmt.Sprintf("ServiceAccount %s/%s has no role: give it the annotation %s: viewer or admin, in the repository of its Source",
			namespace, name, v1alpha1.AnnotationRole)
	}
	return fmt.Sprintf("user %s has no role", u.Name)
}

func reads(verb string) bool { return verb == "get" || verb == "list" || verb == "watch" }

// everybody may learn what the server speaks, who they are, and what they may do.
func everybody(a Attributes) bool {
	switch {
	case a.Resource == "":
		return (a.Verb == "get" || a.Verb == "head") && discovery(a.Path)
	case a.Group == "authentication.k8s.io":
		return a.Verb == "create" && a.Resource == "selfsubjectreviews"
	case a.Group == "authorization.k8s.io":
		return a.Verb == "create" && (a.Resource == "selfsubjectaccessreviews" || a.Resource == "selfsubjectrulesreviews")
	}
	return false
}

// DiscoveryPaths are those that everybody with credentials may read; a star at
// the end stands for anything.
func DiscoveryPaths() []string {
	return []string{
		"/.well-known/openid-configuration", "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/readyz",
		"/openapi/*", "/openid/v1/jwks", "/version", "/version/",
	}
}

func discovery(path string) bool {
	return slices.ContainsFunc(DiscoveryPaths(), func(p string) bool {
		head, star := strings.CutSuffix(p, "*")
		return path == p || (star && strings.HasPrefix(path, head))
	})
}

// viewer: reading of objects, their status and logs, but nothing of Secrets and
// nothing that leads into a container.
func viewer(a Attributes) bool {
	if a.Resource == "" {
		return (a.Verb == "get" || a.Verb == "head") && a.Path == "/metrics"
	}
	// A review may ask about all groups or resources at once: Secrets are among them.
	secrets := (a.Group == "" || a.Group == "*") && (a.Resource == "secrets" || a.Resource == "*")
	if !reads(a.Verb) || secrets {
		return false
	}
	return slices.Contains([]string{"", "status", "scale", "log", "ephemeralcontainers"}, a.Subresource)
}
