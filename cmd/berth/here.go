package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/engine/access"
	"berth.dev/berth/engine/store"
)

// here answers for Pods that another machine runs: only that one reaches their
// containers. Everything else goes on to the API.
func (s *server) here(api http.Handler) http.Handler {
	if s.agent != nil && s.etcd == nil {
		return api // there is no other machine
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		node := s.elsewhere(r)
		if node == "" {
			api.ServeHTTP(w, r)
			return
		}
		err := apierrors.NewServiceUnavailable(fmt.Sprintf("the pod is on node %s, and this server does not reach its containers: ask the server of that node", node))
		err.ErrStatus.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = json.NewEncoder(w).Encode(err.ErrStatus) // the client is gone: nobody to tell
	})
}

// elsewhere is the other node whose containers a request needs; empty when it
// needs none.
func (s *server) elsewhere(r *http.Request) string {
	parts := strings.Split(r.URL.Path, "/")
	if len(parts) < 8 || !slices.Equal(parts[:4], []string{"", "api", "v1", "namespaces"}) || parts[5] != "pods" {
		return ""
	}
	if !slices.Contains([]string{"log", "exec", "attach", "portforward", "proxy"}, parts[7]) {
		return ""
	}
	if _, ok := access.From(r.Context()); !ok {
		return ""
	}
	var pod corev1.Pod
	if err := s.res.Get(r.Context(), types.NamespacedName{Namespace: parts[4], Name: parts[6]}, &pod); err != nil {
		return "" // the API says what is wrong
	}
	if s.agent != nil && pod.Spec.NodeName == s.options.nodeName {
		return ""
	}
	return pod.Spec.NodeName
}

// anyAge lets a handler read what is in memory, also while etcd is away.
func anyAge(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(store.AnyAge(r.Context())))
	})
}
