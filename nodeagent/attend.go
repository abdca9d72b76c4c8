package nodeagent

import (
	"context"
	"net"
	"strconv"
	"strings"

	"berth.dev/berth/nodeagent/containerd"
)

// Process is a further process in a container, with a person at its other end.
type Process = containerd.Process

// Exec runs a process in a running container, named as in the Pod's status
// (containerd://…), until it ends, and returns its exit code.
func (a *Agent) Exec(ctx context.Context, containerID string, p Process) (int, error) {
	if err := a.wait(ctx); err != nil {
		return 0, err
	}
	return a.runtime.Attend(ctx, strings.TrimPrefix(containerID, "containerd://"), p)
}

// Dial connects to a port of a Pod's own address, from this node.
func (a *Agent) Dial(ctx context.Context, podIP string, port int32) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", net.JoinHostPort(podIP, strconv.Itoa(int(port))))
}
