package apiserver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	kjson "sigs.k8s.io/json"
	kyaml "sigs.k8s.io/yaml"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/access"
	"berth.dev/berth/engine/resources"
)

// maxBody is the largest object that a client may send, as in Kubernetes.
const maxBody = 3 << 20

// read decodes the object in a request's body.
func (q *request) read(into any) error {
	body, err := io.ReadAll(http.MaxBytesReader(nil, q.Body, maxBody))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("the limit is %d bytes", maxBody))
	}
	if err != nil {
		return apierrors.NewBadRequest("read the body: " + err.Error())
	}
	if len(body) == 0 {
		return nil
	}
	if q.Header.Get("Content-Type") == runtime.ContentTypeProtobuf {
		if err := unmarshalProtobuf(body, into); err != nil {
			return apierrors.NewBadRequest("decode the body: " + err.Error())
		}
		return nil
	}
	if q.Header.Get("Content-Type") == "application/yaml" {
		if body, err = kyaml.YAMLToJSONStrict(body); err != nil {
			return apierrors.NewBadRequest("decode the body: " + err.Error())
		}
	}
	return q.decode(body, into)
}

// decode reads JSON. What the type does not have is an error or a warning, as
// the client asks (fieldValidation; Kubernetes' default is Warn).
func (q *request) decode(body []byte, into any) error {
	if err := tinyJSON(body, into); err != nil {
		return apierrors.NewBadRequest("decode the body: " + err.Error())
	}
	unknown, err := kjson.UnmarshalStrict(body, into)
	if err != nil {
		return apierrors.NewBadRequest("decode the body: " + err.Error())
	}
	if len(unknown) == 0 {
		return nil
	}
	words := make([]string, len(unknown))
	for i, u := range unknown {
		words[i] = u.Error()
	}
	switch q.URL.Query().Get("fieldValidation") {
	case metav1.FieldValidationStrict:
		return apierrors.NewBadRequest("strict decoding error: " + strings.Join(words, ", "))
	case metav1.FieldValidationIgnore:
	default:
		for _, text := range words {
			q.warn(text)
		}
	}
	return nil
}

// unmarshalProtobuf decodes Kubernetes' protobuf form: four bytes that mark it,
// and an envelope that holds the object (k8s.io/apimachinery, serializer/protobuf).
func unmarshalProtobuf(body []byte, into any) error {
	envelope, marked := bytes.CutPrefix(body, []byte("k8s\x00"))
	message, ok := into.(interface{ Unmarshal([]byte) error })
	if !marked || !ok {
		return errors.New("the body is not protobuf, or the kind has no such form")
	}
	var unknown runtime.Unknown
	if err := unknown.Unmarshal(envelope); err != nil {
		return err
	}
	if err := tinyProtobuf(unknown.Raw); err != nil {
		return err
	}
	return message.Unmarshal(unknown.Raw)
}

// object reads the object of a request and checks that it is the one of the path.
func (q *request) object() (client.Object, error) {
	obj := q.row.New()
	if err := q.read(obj); err != nil {
		return nil, err
	}
	if k := obj.GetObjectKind().GroupVersionKind(); !k.Empty() && k != q.row.GroupVersionKind {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the body is a %s, but the path is of %s", k, q.row.GroupVersionKind))
	}
	if q.row.Namespaced && obj.GetNamespace() == "" {
		obj.SetNamespace(q.namespace)
	}
	if obj.GetNamespace() != q.namespace {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the body is of namespace %q, but the path is of %q", obj.GetNamespace(), q.namespace))
	}
	if q.name != "" && obj.GetName() != q.name {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the body is named %q, but the path says %q", obj.GetName(), q.name))
	}
	return obj, nil
}

// writable refuses what only Berth or only Git writes.
func (s *Server) writable(q *request) error {
	if q.row.ReadOnly {
		return apierrors.NewMethodNotSupported(q.row.GroupResource(), q.Method)
	}
	if q.name == "" {
		return nil
	}
	live := q.row.New()
	if err := s.Resources.Get(q.Context(), types.NamespacedName{Namespace: q.namespace, Name: q.name}, live); err != nil {
		return err
	}
	return s.unowned(q, live)
}

// unowned refuses what a Source owns. A node is let through: it ends its Pods
// as a part of Berth.
func (s *Server) unowned(q *request, live client.Object) error {
	if q.user.Role == access.Node {
		return nil
	}
	if source, ok := resources.Managed(live); ok && s.sourceExists(q, source) {
		return apierrors.NewForbidden(q.row.GroupResource(), q.name, fmt.Errorf(
			"it is managed by Source %s: edit %s in its repository and push", source, live.GetAnnotations()[v1alpha1.AnnotationOrigin]))
	}
	return nil
}

// incoming is the object of a request that may be written.
func (s *Server) incoming(q *request) (client.Object, error) {
	refused := s.writable(q)
	if refused != nil && !(q.row.Kind == "Source" && apierrors.IsForbidden(refused)) {
		return nil, refused
	}
	obj, err := q.object()
	if err != nil {
		return nil, err
	}
	if refused == nil {
		return obj, s.unmanaged(obj, q)
	}
	live := &v1alpha1.Source{}
	if err := s.Resources.Get(q.Context(), types.NamespacedName{Name: q.name}, live); err != nil {
		return nil, err
	}
	if !asks(live, obj) {
		return nil, refused
	}
	return obj, nil
}

func (s *Server) create(w http.ResponseWriter, q *request) error {
	obj, err := s.incoming(q)
	if err != nil {
		return err
	}
	if err := s.nameAllowed(q, obj); err != nil {
		return err
	}
	if err := s.openNamespace(q, obj); err != nil {
		return err
	}
	if err := s.managers.note(q, q.row.New(), obj); err != nil {
		return err
	}
	obj.SetResourceVersion("")
	q.warnIdle()
	if err := q.supported(obj, nil); err != nil {
		return err
	}
	if err := s.write(q, "create", obj); err != nil {
		return err
	}
	return s.answer(w, q, http.StatusCreated, obj)
}

// openNamespace refuses to add to a Namespace that a Source owns: Git is the
// only writer there. What programs note, Events and Leases, is let in, and so is
// the Job of a CronJob that somebody starts by hand: what it runs is in Git.
func (s *Server) openNamespace(q *request, obj client.Object) error {
	if !q.row.Namespaced || q.row.Kind == "Event" || q.row.Kind == "Lease" || s.ofCronJob(q, obj) {
		return nil
	}
	var ns corev1.Namespace
	if err := s.Resources.Get(q.Context(), types.NamespacedName{Name: q.namespace}, &ns); err != nil {
		return err
	}
	if source, ok := resources.Managed(&ns); ok && s.sourceExists(q, source) {
		return apierrors.NewForbidden(q.row.GroupResource(), q.name, fmt.Errorf(
			"namespace %s is managed by Source %s: add the object to its repository and push, or use another namespace", ns.Name, source))
	}
	return nil
}

// ofCronJob: the object is a Job that is what a CronJob would start, as kubectl
// create job --from=cronjob/NAME makes it.
func (s *Server) ofCronJob(q *request, obj client.Object) bool {
	job, ok := obj.(*batchv1.Job)
	if !ok {
		return false
	}
	ref := metav1.GetControllerOf(job)
	if ref == nil || ref.Kind != "CronJob" {
		return false
	}
	var c batchv1.CronJob
	if err := s.Resources.Get(q.Context(), types.NamespacedName{Namespace: job.Namespace, Name: ref.Name}, &c); err != nil {
		return false
	}
	return c.UID == ref.UID && equality.Semantic.DeepEqual(c.Spec.JobTemplate.Spec, job.Spec)
}

// warnIdle tells who writes an object of a kind that nothing acts on.
func (q *request) warnIdle() {
	if q.row.Idle {
		q.warn(fmt.Sprintf("%s is kept, but this version of Berth does not act on it yet", q.row.Kind))
	}
}

// write carries out one change, or only checks it when the request is a dry run.
func (s *Server) write(q *request, verb string, obj client.Object) error {
	if verb == ephemeralContainers {
		return s.Resources.UpdateEphemeralContainers(q.Context(), obj.(*corev1.Pod), q.dryRun())
	}
	if q.dryRun() {
		t := s.Resources.Begin()
		switch verb {
		case "create":
			if err := s.Resources.Get(q.Context(), client.Key(obj), q.row.New()); err == nil {
				return apierrors.NewAlreadyExists(q.row.GroupResource(), obj.GetName())
			}
			return t.Create(q.Context(), obj)
		case "status":
			return t.UpdateStatus(q.Context(), obj)
		}
		return t.Update(q.Context(), obj)
	}
	switch verb {
	case "create":
		return s.Resources.Create(q.Context(), obj)
	case "status":
		return s.Resources.UpdateStatus(q.Context(), obj)
	}
	return s.Resources.Update(q.Context(), obj)
}

// sourceExists: what a Source that was removed has left behind belongs to nobody.
func (s *Server) sourceExists(q *request, name string) bool {
	err := s.Resources.Get(q.Context(), types.NamespacedName{Name: name}, &v1alpha1.Source{})
	return !apierrors.IsNotFound(err)
}

// unmanaged refuses an object that claims to come from Git.
func (s *Server) unmanaged(obj client.Object, q *request) error {
	if source, claimed := obj.GetLabels()[v1alpha1.LabelSource]; claimed && (q.name == "" || s.sourceExists(q, source)) {
		return apierrors.NewForbidden(q.row.GroupResource(), obj.GetName(), fmt.Errorf("the label %s is written by Berth alone", v1alpha1.LabelSource))
	}
	return nil
}

func (s *Server) update(w http.ResponseWriter, q *request) error {
	obj, err := s.incoming(q)
	if err != nil {
		return err
	}
	return s.replace(w, q, "update", obj)
}

// replace writes an object in the place of the one that is there.
func (s *Server) replace(w http.ResponseWriter, q *request, verb string, obj client.Object) error {
	live := q.row.New()
	if err := s.Resources.Get(q.Context(), client.Key(obj), live); err != nil {
		return err
	}
	if err := q.supported(obj, live); err != nil {
		return err
	}
	if err := s.managers.note(q, live, obj); err != nil {
		return err
	}
	if err := s.write(q, verb, obj); err != nil {
		return err
	}
	return s.answer(w, q, http.StatusOK, obj)
}

func (s *Server) updateStatus(w http.ResponseWriter, q *request) error {
	obj, err := q.object()
	if err != nil {
		return err
	}
	if err := s.write(q, "status", obj); err != nil {
		return err
	}
	return s.answer(w, q, http.StatusOK, obj)
}
