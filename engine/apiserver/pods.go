package apiserver

import (
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"berth.dev/berth/api/client"
)

// success is the answer to a call that has nothing to show.
func success(w http.ResponseWriter, code int) {
	writeJSON(w, code, &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess, Code: int32(code),
	})
}

// bind gives a Pod the node that a scheduler has chosen.
func (s *Server) bind(w http.ResponseWriter, q *request) error {
	var b corev1.Binding
	if err := q.read(&b); err != nil {
		return err
	}
	if b.Name != "" && b.Name != q.name {
		return apierrors.NewBadRequest(fmt.Sprintf("the body is named %q, but the path says %q", b.Name, q.name))
	}
	if (b.Target.Kind != "" && b.Target.Kind != "Node") || b.Target.Name == "" {
		return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Binding").GroupKind(), q.name, bindingErrors(b.Target))
	}
	var node corev1.Node
	if err := s.Resources.Get(q.Context(), types.NamespacedName{Name: b.Target.Name}, &node); err != nil {
		return err
	}
	if q.dryRun() {
		success(w, http.StatusCreated)
		return nil
	}
	if err := s.Resources.Bind(q.Context(), types.NamespacedName{Namespace: q.namespace, Name: q.name}, b.UID, b.Target.Name); err != nil {
		return err
	}
	success(w, http.StatusCreated)
	return nil
}

// evict deletes a Pod if the disruption budgets allow it.
func (s *Server) evict(w http.ResponseWriter, q *request) error {
	if err := s.writable(q); err != nil {
		return err
	}
	var e policyv1.Eviction
	if err := q.read(&e); err != nil {
		return err
	}
	if e.Name != "" && e.Name != q.name {
		return apierrors.NewBadRequest(fmt.Sprintf("the body is named %q, but the path says %q", e.Name, q.name))
	}
	opts := client.DeleteOptions{}
	if e.DeleteOptions != nil {
		opts = deleteOptions(e.DeleteOptions)
	}
	dry := q.dryRun() || (e.DeleteOptions != nil && len(e.DeleteOptions.DryRun) > 0)
	if err := s.Resources.Evict(q.Context(), types.NamespacedName{Namespace: q.namespace, Name: q.name}, opts, dry); err != nil {
		return err
	}
	success(w, http.StatusCreated)
	return nil
}

// ephemeralContainers is the subresource by which kubectl debug adds a container
// to a Pod that runs. It is open on the Pods of a Source as well: like exec, it
// is for looking and changes nothing that Git says.
const ephemeralContainers = "ephemeralcontainers"

// updateEphemeral gives a Pod its ephemeral containers.
func (s *Server) updateEphemeral(w http.ResponseWriter, q *request) error {
	obj, err := q.object()
	if err != nil {
		return err
	}
	return s.replace(w, q, ephemeralContainers, obj)
}

// finalize sets the finalizers of a Namespace that is being deleted.
func (s *Server) finalize(w http.ResponseWriter, q *request) error {
	obj, err := q.object()
	if err != nil {
		return err
	}
	ns := obj.(*corev1.Namespace)
	if err := s.Resources.SetNamespaceFinalizers(q.Context(), ns); err != nil {
		return err
	}
	return s.answer(w, q, http.StatusOK, ns)
}

func bindingErrors(target corev1.ObjectReference) field.ErrorList {
	path := field.NewPath("target")
	var errs field.ErrorList
	if target.Kind != "" && target.Kind != "Node" {
		errs = append(errs, field.NotSupported(path.Child("kind"), target.Kind, []string{"Node", "<empty>"}))
	}
	if target.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), ""))
	}
	return errs
}
