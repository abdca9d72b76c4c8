package probe_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"

	"berth.dev/berth/nodeagent/probe"
)

func listen(t *testing.T) (net.Listener, int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, int32(l.Addr().(*net.TCPAddr).Port)
}

func serveGRPC(t *testing.T, register func(*grpc.Server)) int32 {
	t.Helper()
	l, port := listen(t)
	s := grpc.NewServer()
	register(s)
	go s.Serve(l) // it ends with Stop
	t.Cleanup(s.Stop)
	return port
}

func TestGRPC(t *testing.T) {
	state := health.NewServer()
	state.SetServingStatus("", grpc_health_v1.HealthCheckResponse_SERVING)
	state.SetServingStatus("store", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	healthy := serveGRPC(t, func(s *grpc.Server) { grpc_health_v1.RegisterHealthServer(s, state) })
	without := serveGRPC(t, func(*grpc.Server) {})
	_, silent := listen(t) // it takes the connection and says nothing
	closed, nobody := listen(t)
	closed.Close()
	name := func(s string) *string { return &s }
	for _, c := range []struct {
		what    string
		port    int32
		service *string
		ok      bool
		message string
	}{
		{"the server itself", healthy, nil, true, "SERVING"},
		{"a service that is not ready", healthy, name("store"), false, `service "store" of`},
		{"a service that is not known", healthy, name("other"), false, `knows no service "other"`},
		{"no health service", without, nil, false, "has no health service"},
		{"nothing listens", nobody, nil, false, "connection refused"},
		{"no answer", silent, nil, false, "no answer within 300ms"},
	} {
		h := corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: c.port, Service: c.service}}
		began := time.Now()
		ok, message := probe.Check(t.Context(), h, probe.Target{IP: "127.0.0.1"}, 300*time.Millisecond)
		if ok != c.ok || !strings.Contains(message, c.message) {
			t.Errorf("%s: %v %q, want %v %q", c.what, ok, message, c.ok, c.message)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s: it took %v", c.what, took)
		}
	}
}
