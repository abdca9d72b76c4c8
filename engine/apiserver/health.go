package apiserver

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"berth.dev/berth/engine/store"
)

// Cluster is the servers that share a store.
type Cluster interface {
	// Trouble is what is wrong with the store; empty when all is well.
	Trouble() string
	// Leader is the name of the server that leads, empty for none; leads says
	// that it is this one.
	Leader(ctx context.Context) (name string, leads bool)
}

// health adds the checks. A server without its store lives, but is not ready.
func (s *Server) health() {
	for _, path := range []string{"/healthz", "/livez"} {
		s.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	}
	s.mux.HandleFunc("GET /readyz", s.ready)
	if s.Cluster == nil {
		return
	}
	s.metrics.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "berth_leader", Help: "1 for the server that runs the engine, 0 for the others.",
	}, func() float64 {
		if _, leads := s.Cluster.Leader(context.Background()); leads {
			return 1
		}
		return 0
	}), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "berth_store_available", Help: "1 while the store can be read and written, 0 while it cannot.",
	}, func() float64 {
		if s.Cluster.Trouble() == "" {
			return 1
		}
		return 0
	}))
}

// ready says ok, or what is missing; with ?verbose also who leads, as Kubernetes
// writes it.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	trouble, leader := "", ""
	if s.Cluster != nil {
		trouble = s.Cluster.Trouble()
		name, leads := s.Cluster.Leader(r.Context())
		leader = leaderLine(name, leads, trouble != "")
	}
	if trouble != "" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusInternalServerError) // as Kubernetes: kubectl shows the body of no other code
		fmt.Fprintf(w, "[-]store failed: %s\n%sreadyz check failed\n", trouble, leader)
		return
	}
	if !r.URL.Query().Has("verbose") {
		io.WriteString(w, "ok")
		return
	}
	fmt.Fprintf(w, "[+]store ok\n%sreadyz check passed\n", leader)
}

func leaderLine(name string, leads, away bool) string {
	switch {
	case leads:
		return "[+]leader ok: " + name + ", this server\n"
	case away && name != "":
		return "[-]leader not known without the store; the last was " + name + "\n"
	case name != "":
		return "[+]leader ok: " + name + "\n"
	}
	return "[+]leader ok: none yet\n"
}

// ofAnyAge: resourceVersion=0 is what a client says that takes a state of any age.
func ofAnyAge(r *http.Request) *http.Request {
	if r.Method != http.MethodGet || r.URL.Query().Get("resourceVersion") != "0" {
		return r
	}
	return r.WithContext(store.AnyAge(r.Context()))
}

// reach fails for a Pod whose containers this server does not reach.
func (s *Server) reach(pod *corev1.Pod) error {
	if s.Reach == nil {
		return nil
	}
	return s.Reach(pod)
}
