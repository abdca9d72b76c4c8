package apiserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/resources"
)

// watchLife is how long a watch lasts when the client does not say.
const watchLife = 45 * time.Minute

// watchRequest reads what a watch asks for.
func (q *request) watchRequest() (resources.WatchRequest, error) {
	sel, err := q.selection()
	if err != nil {
		return resources.WatchRequest{}, err
	}
	query := q.URL.Query()
	r := resources.WatchRequest{
		Namespace: q.namespace, Labels: sel.labels, Fields: sel.fields,
		Bookmarks: query.Get("allowWatchBookmarks") == "true",
	}
	if err := streamingList(query, &r); err != nil {
		return r, err
	}
	switch version := query.Get("resourceVersion"); version {
	case "", "0":
		// Kubernetes begins such a watch with what exists.
		r.Existing = true
	default:
		if r.After, err = strconv.ParseInt(version, 10, 64); err != nil || r.After < 0 {
			return r, apierrors.NewBadRequest(fmt.Sprintf("resourceVersion %q is not a number", version))
		}
	}
	return r, nil
}

// streamingList: a client that wants a list as a watch says so in two
// parameters, and both or none must be there (KEP-3157).
func streamingList(query url.Values, r *resources.WatchRequest) error {
	match := query.Get("resourceVersionMatch")
	switch query.Get("sendInitialEvents") {
	case "":
		if match != "" {
			return apierrors.NewBadRequest("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
		}
		return nil
	case "true", "false":
		if match != string(metav1.ResourceVersionMatchNotOlderThan) {
			return apierrors.NewBadRequest("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
		}
		r.Initial = query.Get("sendInitialEvents") == "true"
		return nil
	}
	return apierrors.NewBadRequest("sendInitialEvents is true or false")
}

func (s *Server) watch(w http.ResponseWriter, q *request) error {
	request, err := q.watchRequest()
	if err != nil {
		return err
	}
	life := watchLife
	if seconds, err := strconv.Atoi(q.URL.Query().Get("timeoutSeconds")); err == nil && seconds > 0 {
		life = time.Duration(seconds) * time.Second
	}
	ctx, cancel := context.WithTimeout(q.Context(), life)
	defer cancel()
	changes, err := s.Resources.Changes(ctx, q.row, request)
	if err != nil {
		return err
	}
	defer changes.Stop()
	open := s.metrics.watches.WithLabelValues("watch", q.row.Group, q.row.Version, q.row.Plural)
	open.Inc()
	defer open.Dec()
	s.stream(w, q, changes.ResultChan())
	return nil
}

// stream writes events as they come, until the watch or the client ends.
// Events that wait already are sent together.
func (s *Server) stream(w http.ResponseWriter, q *request, events <-chan watch.Event) {
	contentType := q.accept.media
	if contentType == runtime.ContentTypeProtobuf {
		contentType += ";stream=watch"
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-cache, private")
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	_ = control.Flush() // tried again with the first event
	for e := range events {
		_ = control.SetWriteDeadline(time.Now().Add(s.WatchWrite)) // not supported: no deadline
		frame, err := s.frame(q, e)
		if err != nil {
			s.Log.Warn("render watch event", "err", err)
			return
		}
		if _, err := w.Write(frame); err != nil {
			return
		}
		if len(events) > 0 {
			continue
		}
		if control.Flush() != nil {
			return
		}
	}
}

// frame is an event as it is sent. All watchers that want the same get the
// same bytes.
func (s *Server) frame(q *request, e watch.Event) ([]byte, error) {
	obj, shareable := e.Object.(client.Object)
	if !shareable || e.Type == watch.Bookmark || e.Type == watch.Error {
		return s.makeFrame(q, e)
	}
	key := frameKey{
		row: q.row, kind: e.Type, accept: q.accept, namespace: obj.GetNamespace(), name: obj.GetName(), version: obj.GetResourceVersion(),
	}
	if q.accept.form == formTable {
		key.include = q.URL.Query().Get("includeObject")
	}
	return s.frames.get(key, func() ([]byte, error) { return s.makeFrame(q, e) })
}

func (s *Server) makeFrame(q *request, e watch.Event) ([]byte, error) {
	obj, err := s.renderEvent(q, e)
	if err != nil {
		return nil, err
	}
	var body bytes.Buffer
	if q.accept.media != runtime.ContentTypeProtobuf {
		err := json.NewEncoder(&body).Encode(struct {
			Type   watch.EventType `json:"type"`
			Object any             `json:"object"`
		}{e.Type, obj})
		return body.Bytes(), err
	}
	if err := encode(&body, runtime.ContentTypeProtobuf, obj); err != nil {
		return nil, err
	}
	// Each message follows its length in four bytes (k8s.io/apimachinery,
	// serializer/protobuf, LengthDelimitedFramer).
	message, err := (&metav1.WatchEvent{Type: string(e.Type), Object: runtime.RawExtension{Raw: body.Bytes()}}).Marshal()
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...), err
}

func (s *Server) renderEvent(q *request, e watch.Event) (any, error) {
	if status, ok := e.Object.(*metav1.Status); ok {
		out := *status
		out.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
		return &out, nil
	}
	if e.Type == watch.Bookmark && q.accept.form != formPartial {
		return e.Object, nil
	}
	return s.render(q, e.Object)
}

// frameKey is what two watchers must have in common to be sent the same bytes.
type frameKey struct {
	row                               *resources.Resource
	kind                              watch.EventType
	accept                            accept
	namespace, name, version, include string
}

// framesKept and frameBytes bound the cache of frames; a frame larger than
// frameLargest is made for each watcher.
const (
	framesKept   = 512
	frameBytes   = 8 << 20
	frameLargest = 256 << 10
)

// frames keeps the last events in the forms that were asked for.
type frames struct {
	mu    sync.Mutex
	byKey map[frameKey]*sharedFrame
	order []frameKey
	bytes int
}

// sharedFrame is made once, however many ask for it at a time.
type sharedFrame struct {
	once  sync.Once
	bytes []byte
	err   error
	// counted is what it adds to frames.bytes, under its lock.
	counted int
}

func newFrames() *frames { return &frames{byKey: map[frameKey]*sharedFrame{}} }

func (f *frames) get(key frameKey, make func() ([]byte, error)) ([]byte, error) {
	f.mu.Lock()
	s := f.byKey[key]
	if s == nil {
		s = &sharedFrame{}
		f.byKey[key] = s
		f.order = append(f.order, key)
		f.trim()
	}
	f.mu.Unlock()
	s.once.Do(func() {
		s.bytes, s.err = make()
		f.made(key, s)
	})
	return s.bytes, s.err
}

// made counts what a frame takes, if it is still kept.
func (f *frames) made(key frameKey, s *sharedFrame) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byKey[key] != s {
		return
	}
	if s.err != nil || len(s.bytes) > frameLargest {
		f.order = slices.DeleteFunc(f.order, func(k frameKey) bool { return k == key })
		delete(f.byKey, key)
		return
	}
	s.counted = len(s.bytes)
	f.bytes += s.counted
	f.trim()
}

// trim drops the oldest frames. The caller holds mu.
func (f *frames) trim() {
	for len(f.order) > framesKept || (f.bytes > frameBytes && len(f.order) > 1) {
		oldest := f.order[0]
		f.bytes -= f.byKey[oldest].counted
		delete(f.byKey, oldest)
		f.order = f.order[1:]
	}
}
