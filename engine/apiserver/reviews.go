package apiserver

import (
	"context"
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/access"
	"berth.dev/berth/engine/authorize"
	"berth.dev/berth/engine/resources"
)

// reviews adds the paths by which clients ask who somebody is and what they may do.
func (s *Server) reviews() {
	for _, row := range resources.Reviews() {
		path := base(row) + "/" + row.Plural
		if row.Namespaced {
			path = base(row) + "/namespaces/{namespace}/" + row.Plural
		}
		s.mux.HandleFunc("POST "+path, s.handle(row, s.review))
	}
}

// review answers the question in the body of a request.
func (s *Server) review(w http.ResponseWriter, q *request) error {
	obj, err := q.object()
	if err != nil {
		return err
	}
	if err := s.fillReview(q, obj); err != nil {
		return err
	}
	obj.GetObjectKind().SetGroupVersionKind(q.row.GroupVersionKind)
	q.accept.form = formObject
	return s.answer(w, q, http.StatusCreated, obj)
}

func (s *Server) fillReview(q *request, obj client.Object) error {
	ctx := q.Context()
	switch o := obj.(type) {
	case *authenticationv1.TokenReview:
		return s.tokenReview(ctx, o)
	case *authenticationv1.SelfSubjectReview:
		o.Status.UserInfo = userInfo(q.user)
	case *authorizationv1.SelfSubjectAccessReview:
		a, err := attributes(o.Spec.ResourceAttributes, o.Spec.NonResourceAttributes)
		if err != nil {
			return q.invalid(err)
		}
		o.Status = s.accessStatus(ctx, q.user, a)
	case *authorizationv1.SubjectAccessReview:
		return s.accessReview(q, &o.Spec, &o.Status)
	case *authorizationv1.LocalSubjectAccessReview:
		if r := o.Spec.ResourceAttributes; r == nil || o.Spec.NonResourceAttributes != nil || r.Namespace != q.namespace {
			return q.invalid(field.Invalid(field.NewPath("spec", "resourceAttributes", "namespace"), "", "must be the namespace of the review"))
		}
		return s.accessReview(q, &o.Spec, &o.Status)
	case *authorizationv1.SelfSubjectRulesReview:
		if o.Spec.Namespace == "" {
			return q.invalid(field.Required(field.NewPath("spec", "namespace"), "rules are those of one namespace"))
		}
		o.Status = s.rules(ctx, q.user, o.Spec.Namespace)
	}
	return nil
}

func (q *request) invalid(err *field.Error) error {
	return apierrors.NewInvalid(q.row.GroupVersionKind.GroupKind(), "", field.ErrorList{err})
}

func (s *Server) tokenReview(ctx context.Context, o *authenticationv1.TokenReview) error {
	if o.Spec.Token == "" {
		return apierrors.NewBadRequest("spec.token is missing")
	}
	audiences := o.Spec.Audiences
	if len(audiences) == 0 {
		audiences = []string{access.Issuer}
	}
	user, both, err := s.Users.Token(ctx, o.Spec.Token, audiences)
	if err != nil {
		o.Status = authenticationv1.TokenReviewStatus{Error: err.Error()}
		return nil
	}
	o.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: userInfo(user), Audiences: both}
	return nil
}

func userInfo(u access.User) authenticationv1.UserInfo {
	info := authenticationv1.UserInfo{Username: u.Name, UID: u.UID, Groups: u.Groups}
	for key, values := range u.Extra {
		if info.Extra == nil {
			info.Extra = map[string]authenticationv1.ExtraValue{}
		}
		info.Extra[key] = values
	}
	return info
}

func (s *Server) accessReview(q *request, spec *authorizationv1.SubjectAccessReviewSpec, status *authorizationv1.SubjectAccessReviewStatus) error {
	if spec.User == "" && len(spec.Groups) == 0 {
		return q.invalid(field.Required(field.NewPath("spec", "user"), "at least one of user or group must be specified"))
	}
	a, wrong := attributes(spec.ResourceAttributes, spec.NonResourceAttributes)
	if wrong != nil {
		return q.invalid(wrong)
	}
	user, err := s.Users.Named(q.Context(), spec.User, spec.Groups)
	if err != nil {
		return err
	}
	*status = s.accessStatus(q.Context(), user, a)
	return nil
}

func (s *Server) accessStatus(ctx context.Context, u access.User, a authorize.Attributes) authorizationv1.SubjectAccessReviewStatus {
	allowed, reason := s.access.Allowed(ctx, u, a)
	return authorizationv1.SubjectAccessReviewStatus{Allowed: allowed, Reason: reason}
}

// attributes reads what a review asks about.
func attributes(r *authorizationv1.ResourceAttributes, n *authorizationv1.NonResourceAttributes) (authorize.Attributes, *field.Error) {
	if (r == nil) == (n == nil) {
		return authorize.Attributes{}, field.Invalid(field.NewPath("spec", "resourceAttributes"), "",
			"exactly one of nonResourceAttributes or resourceAttributes must be specified")
	}
	if n != nil {
		return authorize.Attributes{Verb: n.Verb, Path: n.Path}, nil
	}
	a := authorize.Attributes{
		Verb: r.Verb, Group: r.Group, Version: r.Version, Resource: r.Resource, Subresource: r.Subresource, Namespace: r.Namespace, Name: r.Name,
	}
	if a.Resource == "" {
		return a, field.Required(field.NewPath("spec", "resourceAttributes", "resource"), "")
	}
	if r.FieldSelector == nil {
		return a, nil
	}
	for _, q := range r.FieldSelector.Requirements {
		if q.Operator != "In" || len(q.Values) != 1 {
			continue
		}
		switch q.Key {
		case "metadata.name":
			a.Name = q.Values[0]
		case "spec.nodeName":
			a.NodeName = q.Values[0]
		}
	}
	return a, nil
}
