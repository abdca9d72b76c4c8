package apiserver

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/access"
	"berth.dev/berth/engine/authorize"
	"berth.dev/berth/engine/resources"
)

// Users says whom tokens and names stand for.
type Users interface {
	// Token finds the user of a token, and which of the audiences it is for.
	Token(ctx context.Context, token string, audiences []string) (access.User, []string, error)
	// Named is the user of that name and those groups.
	Named(ctx context.Context, name string, groups []string) (access.User, error)
}

// enter lets a request in: its user is known, and allowed what it asks for.
func (s *Server) enter(r *http.Request) (*http.Request, error) {
	user, ok := access.From(r.Context())
	if !ok {
		return nil, apierrors.NewUnauthorized("credentials are missing or not valid; use the kubeconfig in Berth's data directory")
	}
	as, err := s.impersonated(r, user)
	if err != nil {
		return nil, err
	}
	if as != nil {
		user = *as
		r = r.WithContext(access.With(r.Context(), user))
	}
	a := authorize.Of(r)
	err = s.authorize(r.Context(), user, a)
	if err != nil {
		s.countRefusal(a)
	}
	return r, err
}

// countRefusal counts what was not allowed, of kinds that there are.
func (s *Server) countRefusal(a authorize.Attributes) {
	for _, row := range s.kinds() {
		if row.Group == a.Group && row.Plural == a.Resource {
			s.metrics.requests.WithLabelValues(a.Verb, row.Group, row.Version, row.Plural, "", "403").Inc()
		}
	}
}

// authorize fails with Forbidden, and says why.
func (s *Server) authorize(ctx context.Context, u access.User, a authorize.Attributes) error {
	allowed, reason := s.access.Allowed(ctx, u, a)
	if allowed {
		return nil
	}
	of := schema.GroupResource{Group: a.Group, Resource: a.Resource}
	if a.Resource == "" {
		of.Resource = a.Path
	}
	return apierrors.NewForbidden(of, a.Name, errors.New(reason))
}

// impersonated is who an administrator wants to be for one request (kubectl
// --as), or nil.
func (s *Server) impersonated(r *http.Request, by access.User) (*access.User, error) {
	name, groups := r.Header.Get("Impersonate-User"), r.Header.Values("Impersonate-Group")
	extra := map[string][]string{}
	for header, values := range r.Header {
		if key, ok := strings.CutPrefix(header, "Impersonate-Extra-"); ok {
			extra[strings.ToLower(key)] = values
		}
	}
	if name == "" && len(groups) == 0 && len(extra) == 0 && r.Header.Get("Impersonate-Uid") == "" {
		return nil, nil
	}
	if by.Role != access.Admin {
		return nil, apierrors.NewForbidden(schema.GroupResource{Resource: "users"}, name, errors.New("only an administrator may act as another user"))
	}
	if name == "" {
		return nil, apierrors.NewBadRequest("a group, UID or extra is to be impersonated, but no user")
	}
	u, err := s.Users.Named(r.Context(), name, groups)
	if err != nil {
		return nil, err
	}
	if uid := r.Header.Get("Impersonate-Uid"); uid != "" {
		u.UID = uid
	}
	u.Extra = extra
	return &u, nil
}

// nameAllowed asks again about a creation, whose name is in the body.
func (s *Server) nameAllowed(q *request, obj client.Object) error {
	a := authorize.Of(q.Request)
	a.Name = cmp.Or(obj.GetName(), "?") // one that the server will choose
	return s.authorize(q.Context(), q.user, a)
}

// podsOn are the Pods of a namespace that are bound to a node. They are read
// from the store: a node that has just been given a Pod asks at once for what
// the Pod mounts.
func (s *Server) podsOn(ctx context.Context, node, namespace string) ([]*corev1.Pod, error) {
	row, err := s.Resources.Of(&corev1.Pod{})
	if err != nil {
		return nil, err
	}
	found, err := s.Resources.Objects(ctx, row, resources.ListRequest{
		Namespace: namespace, Fields: fields.OneTermEqualSelector("spec.nodeName", node),
	})
	if err != nil {
		return nil, err
	}
	out := make([]*corev1.Pod, len(found.Objects))
	for i, obj := range found.Objects {
		out[i] = obj.(*corev1.Pod)
	}
	return out, nil
}

// volume reads a PersistentVolume from the store.
func (s *Server) volume(ctx context.Context, name string) (*corev1.PersistentVolume, error) {
	pv := &corev1.PersistentVolume{}
	return pv, s.Resources.Get(ctx, types.NamespacedName{Name: name}, pv)
}
