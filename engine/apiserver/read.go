package apiserver

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/engine/resources"
)

func (s *Server) get(w http.ResponseWriter, q *request) error {
	obj := q.row.New()
	if err := s.Resources.Get(q.Context(), types.NamespacedName{Namespace: q.namespace, Name: q.name}, obj); err != nil {
		return err
	}
	return s.answer(w, q, http.StatusOK, obj)
}

// selection is what list and watch have in common.
type selection struct {
	labels labels.Selector
	fields fields.Selector
}

func (q *request) selection() (selection, error) {
	query := q.URL.Query()
	l, err := labels.Parse(query.Get("labelSelector"))
	if err != nil {
		return selection{}, apierrors.NewBadRequest("labelSelector: " + err.Error())
	}
	f, err := fields.ParseSelector(query.Get("fieldSelector"))
	if err != nil {
		return selection{}, apierrors.NewBadRequest("fieldSelector: " + err.Error())
	}
	known := q.row.Fields(q.row.New())
	for _, r := range f.Requirements() {
		if !known.Has(r.Field) {
			return selection{}, apierrors.NewBadRequest(fmt.Sprintf("field label not supported: %s; %s supports %s", r.Field, q.row.Plural, strings.Join(keys(known), ", ")))
		}
	}
	return selection{l, f}, nil
}

func (s *Server) list(w http.ResponseWriter, q *request) error {
	query := q.URL.Query()
	if query.Get("watch") == "true" || query.Get("watch") == "1" {
		return s.watch(w, q)
	}
	sel, err := q.selection()
	if err != nil {
		return err
	}
	request := resources.ListRequest{Namespace: q.namespace, Labels: sel.labels, Fields: sel.fields}
	if err := page(query.Get("limit"), query.Get("continue"), &request); err != nil {
		return err
	}
	turn, err := s.turn(q, request.Limit)
	if err != nil {
		return err
	}
	defer turn.end()
	result, err := s.Resources.Objects(q.Context(), q.row, request)
	if err != nil {
		return err
	}
	body, err := s.listBody(q, result)
	if err != nil {
		return err
	}
	turn.compute()
	s.send(w, q, http.StatusOK, body...)
	return nil
}

func (s *Server) listBody(q *request, result resources.ListResult) ([][]byte, error) {
	m := metav1.ListMeta{ResourceVersion: strconv.FormatInt(result.Revision, 10)}
	if result.Next != "" {
		m.Continue = token(result)
	}
	if q.accept.form == formObject && q.accept.media == runtime.ContentTypeJSON {
		body, err := listJSON(q.row, m, result.Objects)
		if err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		return body, nil
	}
	list := q.row.NewList()
	items := make([]runtime.Object, len(result.Objects))
	for i, obj := range result.Objects {
		obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		items[i] = obj
	}
	if err := meta.SetList(list, items); err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	list.SetResourceVersion(m.ResourceVersion)
	list.SetContinue(m.Continue)
	list.GetObjectKind().SetGroupVersionKind(q.row.GroupVersion().WithKind(q.row.Kind + "List"))
	body, err := s.body(q, list)
	return [][]byte{body}, err
}

// continuation is what a continue token holds.
type continuation struct {
	Revision int64  `json:"rv"`
	From     string `json:"from"`
}

func token(r resources.ListResult) string {
	b, _ := json.Marshal(continuation{r.Revision, r.Next}) // two plain fields always encode
	return base64.RawURLEncoding.EncodeToString(b)
}

func page(limit, next string, r *resources.ListRequest) error {
	if limit != "" {
		n, err := strconv.Atoi(limit)
		if err != nil || n < 0 {
			return apierrors.NewBadRequest(fmt.Sprintf("limit %q is not a number", limit))
		}
		r.Limit = n
	}
	if next == "" {
		return nil
	}
	var c continuation
	b, err := base64.RawURLEncoding.DecodeString(next)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		return apierrors.NewBadRequest("continue is not a token of this server; list again from the start")
	}
	r.At, r.From = c.Revision, c.From
	return nil
}
