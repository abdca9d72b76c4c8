package apiserver

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/resources"
)

func asScale(obj client.Object) (*autoscalingv1.Scale, error) {
	s, ok := resources.ScaleOf(obj)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%T has no scale", obj))
	}
	selector, err := metav1.LabelSelectorAsSelector(s.Selector)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	out := &autoscalingv1.Scale{
		TypeMeta: metav1.TypeMeta{Kind: "Scale", APIVersion: "autoscaling/v1"},
		ObjectMeta: metav1.ObjectMeta{
			Name: obj.GetName(), Namespace: obj.GetNamespace(), UID: obj.GetUID(),
			ResourceVersion: obj.GetResourceVersion(), CreationTimestamp: obj.GetCreationTimestamp(),
		},
		Status: autoscalingv1.ScaleStatus{Replicas: s.Have, Selector: selector.String()},
	}
	if *s.Want != nil {
		out.Spec.Replicas = **s.Want
	}
	return out, nil
}

func (s *Server) getScale(w http.ResponseWriter, q *request) error {
	obj := q.row.New()
	if err := s.Resources.Get(q.Context(), types.NamespacedName{Namespace: q.namespace, Name: q.name}, obj); err != nil {
		return err
	}
	scale, err := asScale(obj)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, scale)
	return nil
}

// putScale sets the replicas, by a whole Scale or by a merge or JSON patch of one.
func (s *Server) putScale(w http.ResponseWriter, q *request) error {
	if err := s.writable(q); err != nil {
		return err
	}
	obj := q.row.New()
	if err := s.Resources.Get(q.Context(), types.NamespacedName{Namespace: q.namespace, Name: q.name}, obj); err != nil {
		return err
	}
	live := obj.DeepCopyObject().(client.Object)
	scale, err := asScale(obj)
	if err != nil {
		return err
	}
	if err := q.readScale(scale); err != nil {
		return err
	}
	target, _ := resources.ScaleOf(obj)
	*target.Want = &scale.Spec.Replicas
	obj.SetResourceVersion(scale.ResourceVersion)
	if err := s.managers.note(q, live, obj); err != nil {
		return err
	}
	if err := s.write(q, "update", obj); err != nil {
		return err
	}
	if scale, err = asScale(obj); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, scale)
	return nil
}

// readScale takes a request's body over what the scale is.
func (q *request) readScale(scale *autoscalingv1.Scale) error {
	if q.Method == http.MethodPut {
		*scale = autoscalingv1.Scale{}
		return q.read(scale)
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, q.Body, maxBody))
	if err != nil {
		return apierrors.NewBadRequest("read the body: " + err.Error())
	}
	before, err := json.Marshal(scale)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	var after []byte
	if types.PatchType(q.Header.Get("Content-Type")) == types.JSONPatchType {
		patch, decodeErr := jsonpatch.DecodePatch(body)
		if decodeErr != nil {
			return apierrors.NewBadRequest("decode the JSON patch: " + decodeErr.Error())
		}
		after, err = patch.Apply(before)
	} else {
		after, err = jsonpatch.MergePatch(before, body)
	}
	if err != nil {
		return apierrors.NewBadRequest("patch the scale: " + err.Error())
	}
	return q.decode(after, scale)
}
