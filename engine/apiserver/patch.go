package apiserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	kyaml "sigs.k8s.io/yaml"

	"berth.dev/berth/api/client"
)

const (
	// patchAttempts is how often a patch is applied anew because another write
	// came between.
	patchAttempts = 10
	// maxPatchOperations bounds a JSON patch, as in Kubernetes.
	maxPatchOperations = 10_000
)

// patch changes an object as the body says, in one of four languages; an apply
// creates what is not there.
func (s *Server) patch(w http.ResponseWriter, q *request) error {
	if q.row.ReadOnly {
		return apierrors.NewMethodNotSupported(q.row.GroupResource(), q.Method)
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, q.Body, maxBody))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("the limit is %d bytes", maxBody))
	}
	if err != nil {
		return apierrors.NewBadRequest("read the body: " + err.Error())
	}
	language, _, err := mime.ParseMediaType(q.Header.Get("Content-Type"))
	if err != nil {
		return apierrors.NewBadRequest("the Content-Type names no patch language: " + err.Error())
	}
	for attempt := 1; ; attempt++ {
		obj, code, err := s.patchOnce(q, types.PatchType(language), body)
		retry := apierrors.IsConflict(err) || (apierrors.IsAlreadyExists(err) && language == string(types.ApplyYAMLPatchType))
		if retry && attempt < patchAttempts && !fieldConflict(err) && !pinned(body) {
			continue
		}
		if err != nil {
			return err
		}
		return s.answer(w, q, code, obj)
	}
}

// fieldConflict: an apply met fields of another manager; trying again is no use.
func fieldConflict(err error) bool {
	var status *apierrors.StatusError
	return errors.As(err, &status) && status.ErrStatus.Details != nil && len(status.ErrStatus.Details.Causes) > 0
}

// pinned: the patch names the version that it is meant for.
func pinned(body []byte) bool {
	var o struct {
		Metadata struct{ ResourceVersion string }
	}
	return kyaml.Unmarshal(body, &o) == nil && o.Metadata.ResourceVersion != ""
}

func (s *Server) patchOnce(q *request, language types.PatchType, body []byte) (client.Object, int, error) {
	live := q.row.New()
	err := s.Resources.Get(q.Context(), types.NamespacedName{Namespace: q.namespace, Name: q.name}, live)
	exists := err == nil
	if apierrors.IsNotFound(err) && language == types.ApplyYAMLPatchType && q.subresource == "" {
		err = nil
	}
	if err != nil {
		return nil, 0, err
	}
	var refused error
	if exists && q.subresource == "" {
		if refused = s.unowned(q, live); refused != nil && q.row.Kind != "Source" {
			return nil, 0, refused
		}
	}
	var next client.Object
	if language == types.ApplyYAMLPatchType {
		next, err = s.applied(q, live, body)
	} else {
		next, err = patched(q, language, live, body)
	}
	if err != nil {
		return nil, 0, err
	}
	if next.GetName() != q.name || next.GetNamespace() != q.namespace {
		return nil, 0, apierrors.NewBadRequest("a patch cannot change the name or namespace of an object")
	}
	if refused != nil && !asks(live, next) {
		return nil, 0, refused
	}
	if q.subresource == "" && refused == nil {
		if err := s.unmanaged(next, q); err != nil {
			return nil, 0, err
		}
	}
	if language != types.ApplyYAMLPatchType {
		if err := s.managers.note(q, live.DeepCopyObject().(client.Object), next); err != nil {
			return nil, 0, err
		}
	}
	if !exists {
		if err := s.openNamespace(q, next); err != nil {
			return nil, 0, err
		}
		q.warnIdle()
		if err := q.supported(next, nil); err != nil {
			return nil, 0, err
		}
		return next, http.StatusCreated, s.write(q, "create", next)
	}
	if err := q.supported(next, live); err != nil {
		return nil, 0, err
	}
	if next.GetResourceVersion() == "" {
		next.SetResourceVersion(live.GetResourceVersion())
	}
	verb := "update"
	if q.subresource != "" {
		verb = q.subresource
	}
	return next, http.StatusOK, s.write(q, verb, next)
}

// patched is live as a JSON, merge or strategic merge patch makes it.
func patched(q *request, language types.PatchType, live client.Object, body []byte) (client.Object, error) {
	before, err := json.Marshal(live)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	after := before
	switch language {
	case types.JSONPatchType:
		patch, err := jsonpatch.DecodePatch(body)
		if err != nil {
			return nil, apierrors.NewBadRequest("decode the JSON patch: " + err.Error())
		}
		if len(patch) > maxPatchOperations {
			return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("a JSON patch may have %d operations", maxPatchOperations))
		}
		if after, err = patch.Apply(before); err != nil {
			return nil, apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "patch", q.row.GroupResource(), q.name, err.Error(), 0, false)
		}
	case types.MergePatchType:
		if after, err = jsonpatch.MergePatch(before, body); err != nil {
			return nil, apierrors.NewBadRequest("merge patch: " + err.Error())
		}
	case types.StrategicMergePatchType:
		if after, err = strategicpatch.StrategicMergePatch(before, body, q.row.New()); err != nil {
			return nil, apierrors.NewBadRequest("strategic merge patch: " + err.Error())
		}
	default:
		return nil, apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, "patch", q.row.GroupResource(), q.name,
			fmt.Sprintf("%s is no patch language; use %s, %s, %s or %s", language,
				types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType, types.ApplyYAMLPatchType), 0, false)
	}
	next := q.row.New()
	if err := q.decode(after, next); err != nil {
		return nil, err
	}
	return next, nil
}

// applied is live with the fields of the body, which its manager owns from now on.
func (s *Server) applied(q *request, live client.Object, body []byte) (client.Object, error) {
	patch := &unstructured.Unstructured{}
	if err := kyaml.Unmarshal(body, &patch.Object); err != nil {
		return nil, apierrors.NewBadRequest("decode the applied object: " + err.Error())
	}
	if patch.GetAPIVersion() != q.row.GroupVersion().String() || patch.GetKind() != q.row.Kind {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the body is a %s of %s, but the path is of %s", patch.GetKind(), patch.GetAPIVersion(), q.row.GroupVersionKind))
	}
	if q.URL.Query().Get("fieldManager") == "" {
		return nil, apierrors.NewBadRequest("an apply must name its fieldManager")
	}
	encoded, err := json.Marshal(patch)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if err := q.decode(encoded, q.row.New()); err != nil {
		return nil, err
	}
	if patch.GetName() == "" {
		patch.SetName(q.name)
	}
	if q.row.Namespaced && patch.GetNamespace() == "" {
		patch.SetNamespace(q.namespace)
	}
	live.GetObjectKind().SetGroupVersionKind(q.row.GroupVersionKind)
	return s.managers.apply(q, live, patch)
}
