// Package clients holds what programs that were written for Kubernetes do, with
// the client library that they use: informers, leader election, the dynamic and
// the metadata client, server-side apply.
package clients

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"berth.dev/berth/api/upstream"
	"berth.dev/berth/engine/access"
	"berth.dev/berth/engine/apiserver"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/resources"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// klog flushes for as long as the process lives.
		goleak.IgnoreAnyFunction("k8s.io/klog/v2.(*flushDaemon).run.func1"))
}

// server is the API over a real store.
type server struct {
	*resources.Resources
	config *rest.Config
	// cut decides about each watch: after how many writes its connection ends
	// in the middle of one, 0 for never.
	cut  atomic.Pointer[func(*http.Request) int]
	cuts atomic.Int64
}

func serve(t testing.TB) *server {
	t.Helper()
	up, err := upstream.New()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Resources: enginetest.Resources(t)}
	handler := apiserver.New(apiserver.Options{Resources: s.Resources, Upstream: up, Version: "v0", Log: enginetest.Log(t)})
	h := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.WithContext(access.With(r.Context(), access.User{Name: "ann", Role: access.Admin}))
		if cut := s.cut.Load(); cut != nil && r.URL.Query().Get("watch") != "" {
			w = &severed{ResponseWriter: w, server: s, left: (*cut)(r)}
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { h.CloseClientConnections(); h.Close() })
	s.config = &rest.Config{Host: h.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}, QPS: -1}
	return s
}

// protobuf is how Kubernetes' own programs speak.
func (s *server) protobuf() *rest.Config {
	c := rest.CopyConfig(s.config)
	c.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	c.ContentType = "application/vnd.kubernetes.protobuf"
	return c
}

func clientset(t testing.TB, c *rest.Config) *kubernetes.Clientset {
	t.Helper()
	set, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// severed is a connection that ends in the middle of an event.
type severed struct {
	http.ResponseWriter
	server *server
	left   int
}

// Write implements io.Writer.
func (s *severed) Write(b []byte) (int, error) {
	if s.left--; s.left == 0 {
		_, _ = s.ResponseWriter.Write(b[:len(b)/2])
		_ = http.NewResponseController(s.ResponseWriter).Flush()
		s.server.cuts.Add(1)
		panic(http.ErrAbortHandler)
	}
	return s.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController find what the connection can do.
func (s *severed) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	enginetest.Eventually(t, 20*time.Second, func() string {
		if holds() {
			return ""
		}
		return "not yet: " + what
	})
}
