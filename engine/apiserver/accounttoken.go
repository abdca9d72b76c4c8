package apiserver

import (
	"errors"
	"fmt"
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/engine/access"
)

// requestToken makes a token of a service account.
func (s *Server) requestToken(w http.ResponseWriter, q *request) error {
	var t authenticationv1.TokenRequest
	if err := q.read(&t); err != nil {
		return err
	}
	if (t.Name != "" && t.Name != q.name) || (t.Namespace != "" && t.Namespace != q.namespace) {
		return apierrors.NewBadRequest(fmt.Sprintf("the body is of %s/%s, but the path says %s/%s", t.Namespace, t.Name, q.namespace, q.name))
	}
	if err := s.nodeBinds(q, t.Spec.BoundObjectRef); err != nil {
		return err
	}
	if err := s.Resources.RequestToken(q.Context(), types.NamespacedName{Namespace: q.namespace, Name: q.name}, &t); err != nil {
		return err
	}
	q.accept.form = formObject
	return s.answer(w, q, http.StatusCreated, &t)
}

// nodeBinds: a node makes tokens for the Pods that it runs and for nothing else,
// as Kubernetes' NodeRestriction has it.
func (s *Server) nodeBinds(q *request, ref *authenticationv1.BoundObjectReference) error {
	node := q.user.NodeName()
	if q.user.Role != access.Node {
		return nil
	}
	refused := apierrors.NewForbidden(corev1.Resource("serviceaccounts/token"), q.name,
		errors.New("a node may make tokens only for pods that are bound to it"))
	if ref == nil || ref.Kind != "Pod" || ref.UID == "" {
		return refused
	}
	var pod corev1.Pod
	err := s.Resources.Get(q.Context(), types.NamespacedName{Namespace: q.namespace, Name: ref.Name}, &pod)
	if err == nil && (pod.Spec.NodeName != node || pod.UID != ref.UID) {
		return refused
	}
	return err
}

// issuer adds the documents by which others can check the tokens of service
// accounts (OpenID Connect Discovery 1.0).
func (s *Server) issuer() {
	const keys = "/openid/v1/jwks"
	s.mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{
			"issuer": access.Issuer, "jwks_uri": access.Issuer + keys, "response_types_supported": []string{"id_token"},
			"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"ES256"},
		})
	})
	s.mux.HandleFunc("GET "+keys, func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, s.AccountKeys) })
}
