package probe

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
)

// callGRPC asks the health service of a container (the gRPC Health Checking
// Protocol, without TLS, as Kubernetes does): it has to answer SERVING.
func callGRPC(ctx context.Context, h *corev1.GRPCAction, t Target) (string, error) {
	address := net.JoinHostPort(t.IP, strconv.Itoa(int(h.Port)))
	service := ""
	if h.Service != nil {
		service = *h.Service
	}
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUserAgent("berth-probe"),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address) // no proxy lies between a node and its pods
		}))
	if err != nil {
		return "", fmt.Errorf("ask %s over gRPC: %w", address, err)
	}
	defer conn.Close()
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
	switch status.Code(err) {
	case codes.OK:
	case codes.Unimplemented:
		return "", fmt.Errorf("%s has no health service (grpc.health.v1.Health)", address)
	case codes.NotFound:
		return "", fmt.Errorf("%s knows no service %q", address, service)
	case codes.DeadlineExceeded:
		return "", context.DeadlineExceeded
	default:
		return "", fmt.Errorf("ask %s over gRPC: %s", address, status.Convert(err).Message())
	}
	if answer.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return "", fmt.Errorf("service %q of %s is %s", service, address, answer.Status)
	}
	return answer.Status.String(), nil
}
