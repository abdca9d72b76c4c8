package apiserver

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/resources"
)

const (
	// watchWrite is how long a client may take to receive one event before it
	// is cut off.
	watchWrite = 30 * time.Second
	// watchLife is how long a watch lasts when the client does not say.
	watchLife = 45 * time.Minute
)

func writeBody(w io.Writer, v any) {
	_ = json.NewEncoder(w).Encode(v) // the client is gone: nobody to tell
}

func (s *Server) get(w http.ResponseWriter, q *request) error {
	obj := q.row.New()
	if err := s.Resources.Get(q.Context(), types.NamespacedName{Namespace: q.namespace, Name: q.name}, obj); err != nil {
		return err
	}
	return s.answer(w, q, http.StatusOK, obj)
}

// answer writes an object in the form that the client asked for.
func (s *Server) answer(w http.ResponseWriter, q *request, code int, obj runtime.Object) error {
	out, err := s.render(q, obj)
	if err != nil {
		return err
	}
	for _, text := range q.warnings {
		w.Header().Add("Warning", `299 - `+strconv.Quote(text))
	}
	writeJSON(w, code, out)
	return nil
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
	result, err := s.Resources.Objects(q.Context(), q.row, request)
	if err != nil {
		return err
	}
	list := q.row.NewList()
	items := make([]runtime.Object, len(result.Objects))
	for i, obj := range result.Objects {
		// The list says the kind once.
		obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		items[i] = obj
	}
	if err := meta.SetList(list, items); err != nil {
		return apierrors.NewInternalError(err)
	}
	list.SetResourceVersion(strconv.FormatInt(result.Revision, 10))
	if result.Next != "" {
		list.SetContinue(token(result))
	}
	list.GetObjectKind().SetGroupVersionKind(q.row.GroupVersion().WithKind(q.row.Kind + "List"))
	return s.answer(w, q, http.StatusOK, list)
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

func (s *Server) watch(w http.ResponseWriter, q *request) error {
	sel, err := q.selection()
	if err != nil {
		return err
	}
	query := q.URL.Query()
	request := resources.WatchRequest{
		Namespace: q.namespace, Labels: sel.labels, Fields: sel.fields,
		Bookmarks: query.Get("allowWatchBookmarks") == "true",
		Initial:   query.Get("sendInitialEvents") == "true",
	}
	life := watchLife
	if seconds, err := strconv.Atoi(query.Get("timeoutSeconds")); err == nil && seconds > 0 {
		life = time.Duration(seconds) * time.Second
	}
	ctx, cancel := context.WithTimeout(q.Context(), life)
	defer cancel()
	version := query.Get("resourceVersion")
	if version == "" || version == "0" {
		// Kubernetes begins such a watch with what exists.
		if !request.Initial {
			return s.watchFromNow(ctx, w, q, request)
		}
	} else if request.After, err = strconv.ParseInt(version, 10, 64); err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("resourceVersion %q is not a number", version))
	}
	changes, err := s.Resources.Changes(ctx, q.row, request)
	if err != nil {
		return err
	}
	defer changes.Stop()
	s.stream(w, q, nil, changes.ResultChan())
	return nil
}

// watchFromNow reports what exists as added, then the changes.
func (s *Server) watchFromNow(ctx context.Context, w http.ResponseWriter, q *request, r resources.WatchRequest) error {
	now, err := s.Resources.Objects(ctx, q.row, resources.ListRequest{Namespace: r.Namespace, Labels: r.Labels, Fields: r.Fields})
	if err != nil {
		return err
	}
	r.After = now.Revision
	changes, err := s.Resources.Changes(ctx, q.row, r)
	if err != nil {
		return err
	}
	defer changes.Stop()
	s.stream(w, q, now.Objects, changes.ResultChan())
	return nil
}

// stream writes events as they come, until the watch or the client ends.
func (s *Server) stream(w http.ResponseWriter, q *request, first []client.Object, events <-chan watch.Event) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache, private")
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	_ = control.Flush() // tried again with the first event
	send := func(e watch.Event) bool {
		obj, err := s.renderEvent(q, e)
		if err != nil {
			s.Log.Warn("render watch event", "err", err)
			return false
		}
		_ = control.SetWriteDeadline(time.Now().Add(watchWrite)) // not supported: no deadline
		err = json.NewEncoder(w).Encode(struct {
			Type   watch.EventType `json:"type"`
			Object any             `json:"object"`
		}{e.Type, obj})
		return err == nil && control.Flush() == nil
	}
	for _, obj := range first {
		if !send(watch.Event{Type: watch.Added, Object: obj}) {
			return
		}
	}
	for e := range events {
		if !send(e) {
			return
		}
	}
}

func (s *Server) renderEvent(q *request, e watch.Event) (any, error) {
	if status, ok := e.Object.(*metav1.Status); ok {
		out := *status
		out.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
		return &out, nil
	}
	if e.Type == watch.Bookmark {
		return e.Object, nil
	}
	return s.render(q, e.Object)
}
