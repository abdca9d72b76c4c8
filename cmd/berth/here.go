package main

import (
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"berth.dev/berth/engine/store"
)

// reach fails for a Pod on another machine: only the server of that one reaches
// its containers.
func (s *server) reach(pod *corev1.Pod) error {
	node := pod.Spec.NodeName
	if node == "" || (s.agent != nil && (s.etcd == nil || node == s.options.nodeName)) {
		return nil // none has it yet, or this one
	}
	return apierrors.NewServiceUnavailable(fmt.Sprintf("the pod is on node %s, and this server does not reach its containers: ask the server of that node", node))
}

// anyAge lets a handler read what is in memory, also while etcd is away.
func anyAge(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(store.AnyAge(r.Context())))
	})
}
