// Package apiserver speaks the Kubernetes REST API over engine/resources:
// discovery, get, list, watch, Table output, plain writes and the logs of Pods.
// It holds no objects. Who a request is from is decided before it comes here
// (engine/access), and engine/authorize decides what they may do.
package apiserver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/upstream"
	"berth.dev/berth/engine/access"
	"berth.dev/berth/engine/authorize"
	"berth.dev/berth/engine/resources"
)

// Logs reads what containers wrote, on whatever node they ran.
type Logs interface {
	Logs(ctx context.Context, namespace, pod, container string, opts *corev1.PodLogOptions, w io.Writer) error
}

// watchWrite is how long a client of a watch may take to receive one event
// before it is cut off.
const watchWrite = 30 * time.Second

// Options are what a Server is made of. All must be set
// but WatchWrite and those that may be nil.
type Options struct {
	Resources *resources.Resources
	Upstream  *upstream.Upstream
	Logs      Logs
	Streams   Streams
	// Usage is nil where nothing is measured.
	Usage Usage
	// Users says whom tokens and names stand for.
	Users Users
	// AccountKeys are the public keys of the service accounts' tokens.
	AccountKeys any
	// Reach fails for a Pod whose containers this server does not reach; nil
	// reaches all.
	Reach func(*corev1.Pod) error
	// Version is Berth's own, such as v0.1.0.
	Version string
	// Cluster is nil for a server that has the store for itself.
	Cluster Cluster
	Log     *slog.Logger
	// WatchWrite is how long a client of a watch may take to receive one event
	// before it is cut off. Default 30 s.
	WatchWrite time.Duration
}

// Server is the handler of /api, /apis, /version and the health checks.
type Server struct {
	Options
	mux      *http.ServeMux
	managers *managers
	frames   *frames
	metrics  *metrics
	turns    *turns
	access   *authorize.Authorizer
}

// New makes the handler.
func New(o Options) *Server {
	o.WatchWrite = cmp.Or(o.WatchWrite, watchWrite)
	s := &Server{Options: o, mux: http.NewServeMux(), managers: newManagers(o.Upstream.Scheme()), frames: newFrames(), metrics: newMetrics(o.Resources), turns: newTurns()}
	s.access = &authorize.Authorizer{Pods: s.podsOn, Volume: s.volume}
	s.health()
	s.mux.HandleFunc("GET /version", s.version)
	s.mux.Handle("GET /metrics", s.metrics.handler())
	s.discovery()
	s.openAPI()
	s.streams()
	s.proxies()
	s.measured()
	s.reviews()
	s.issuer()
	for _, row := range s.Resources.All() {
		s.routes(row)
	}
	s.mux.HandleFunc("GET /api/v1/namespaces/{namespace}/pods/{name}/log", s.logs)
	s.mux.HandleFunc("/api/", s.unknown)
	s.mux.HandleFunc("/apis/", s.unknown)
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !open(r.URL.Path) {
		var err error
		if r, err = s.enter(r); err != nil {
			s.fail(w, err)
			return
		}
	}
	s.mux.ServeHTTP(w, r)
}

// open paths need no credentials.
func open(path string) bool { return path == "/healthz" || path == "/livez" || path == "/readyz" }

func base(row *resources.Resource) string {
	if row.Group == "" {
		return "/api/" + row.Version
	}
	return "/apis/" + row.Group + "/" + row.Version
}

// routes adds the paths of a kind.
func (s *Server) routes(row *resources.Resource) {
	all := base(row) + "/" + row.Plural
	collection := all
	if row.Namespaced {
		collection = base(row) + "/namespaces/{namespace}/" + row.Plural
		s.mux.HandleFunc("GET "+all, s.handle(row, s.list))
	}
	one := collection + "/{name}"
	if row.Kind == "Namespace" {
		one = all + "/{namespace}"
	}
	s.mux.HandleFunc("GET "+collection, s.handle(row, s.list))
	s.mux.HandleFunc("GET "+one, s.handle(row, s.get))
	s.mux.HandleFunc("POST "+collection, s.handle(row, s.create))
	s.mux.HandleFunc("PUT "+one, s.handle(row, s.update))
	s.mux.HandleFunc("PATCH "+one, s.handle(row, s.patch))
	s.mux.HandleFunc("DELETE "+one, s.handle(row, s.delete))
	s.mux.HandleFunc("DELETE "+collection, s.handle(row, s.deleteCollection))
	if row.Scale {
		s.mux.HandleFunc("GET "+one+"/scale", s.handle(row, s.getScale))
		s.mux.HandleFunc("PUT "+one+"/scale", s.handle(row, s.putScale))
		s.mux.HandleFunc("PATCH "+one+"/scale", s.handle(row, s.putScale))
	}
	if row.Status {
		s.mux.HandleFunc("GET "+one+"/status", s.handle(row, s.get))
		s.mux.HandleFunc("PUT "+one+"/status", s.handle(row, s.updateStatus))
		s.mux.HandleFunc("PATCH "+one+"/status", s.handle(row, s.patch))
	}
	switch row.Kind {
	case "Pod":
		s.mux.HandleFunc("POST "+one+"/binding", s.handle(row, s.bind))
		s.mux.HandleFunc("POST "+one+"/eviction", s.handle(row, s.evict))
		s.mux.HandleFunc("GET "+one+"/"+ephemeralContainers, s.handle(row, s.get))
		s.mux.HandleFunc("PUT "+one+"/"+ephemeralContainers, s.handle(row, s.updateEphemeral))
		s.mux.HandleFunc("PATCH "+one+"/"+ephemeralContainers, s.handle(row, s.patch))
	case "ServiceAccount":
		s.mux.HandleFunc("POST "+one+"/token", s.handle(row, s.requestToken))
	case "Namespace":
		s.mux.HandleFunc("PUT "+one+"/finalize", s.handle(row, s.finalize))
	}
}

// request is one call on a kind.
type request struct {
	*http.Request
	row       *resources.Resource
	user      access.User
	namespace string
	name      string
	// subresource such as status; empty for the object itself.
	subresource string
	accept      accept
	// warnings are sent to the client with the answer.
	warnings []string
}

// handle turns a function with an error into a handler.
func (s *Server) handle(row *resources.Resource, f func(http.ResponseWriter, *request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user, _ := access.From(r.Context())
		r = ofAnyAge(r)
		q := &request{Request: r, row: row, user: user, namespace: r.PathValue("namespace"), name: r.PathValue("name")}
		if row.Kind == "Namespace" {
			q.namespace, q.name = "", q.namespace
		}
		if _, below, ok := strings.Cut(r.Pattern, "}/"+row.Plural+"/{name}/"); ok {
			q.subresource = below
		} else if _, below, ok := strings.Cut(r.Pattern, "/"+row.Plural+"/{"); ok {
			_, q.subresource, _ = strings.Cut(below, "/")
		}
		began, out := time.Now(), &recorder{ResponseWriter: w, code: http.StatusOK}
		w = out
		defer func() { s.metrics.observe(q, out.code, time.Since(began)) }()
		var err error
		q.accept, err = parseAccept(r.Header.Get("Accept"), row)
		if err == nil {
			err = f(w, q)
		}
		if err != nil {
			s.fail(w, err)
		}
	}
}

func (s *Server) version(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{
		"major": "1", "minor": upstream.Minor, "gitVersion": upstream.Version + "+berth-" + s.Version, "platform": runtime.GOOS + "/" + runtime.GOARCH, "goVersion": runtime.Version(),
	})
}

func (s *Server) unknown(w http.ResponseWriter, r *http.Request) {
	s.fail(w, &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
		Message: "the server does not have " + r.Method + " " + r.URL.Path,
	}})
}

// fail writes an error as Kubernetes does.
func (s *Server) fail(w http.ResponseWriter, err error) {
	status := metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError, Message: err.Error()}
	var known apierrors.APIStatus
	if errors.As(err, &known) {
		status = known.Status()
	}
	if status.Code >= http.StatusInternalServerError {
		s.Log.Warn("request failed", "err", err)
	}
	retryAfter(w, err)
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	if status.Code == 0 {
		status.Code = http.StatusInternalServerError
	}
	writeJSON(w, int(status.Code), &status)
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache, private")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client is gone: nobody to tell
}
