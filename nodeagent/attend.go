package nodeagent

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"berth.dev/berth/nodeagent/containerd"
	"berth.dev/berth/nodeagent/pods"
)

// Process is a further process in a container, with a person at its other end.
type Process = containerd.Process

// Terminal is what a person sees and types.
type Terminal = containerd.Terminal

// Exec runs a process in a running container, named as in the Pod's status
// (containerd://…), until it ends, and returns its exit code.
func (a *Agent) Exec(ctx context.Context, containerID string, p Process) (int, error) {
	if err := a.wait(ctx); err != nil {
		return 0, err
	}
	return a.runtime.Attend(ctx, strings.TrimPrefix(containerID, "containerd://"), p)
}

// Attach shows what a running container writes from now on and hands it what
// is typed, until it ends or the context does. A container without stdin gets nothing.
func (a *Agent) Attach(ctx context.Context, namespace, pod, container string, t Terminal) error {
	if err := a.wait(ctx); err != nil {
		return err
	}
	select {
	case <-a.runner.Adopted():
	case <-ctx.Done():
		return ctx.Err()
	}
	at, err := a.runner.Attachable(namespace, pod, container)
	if err != nil {
		return err
	}
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	if t.Stdin != nil && at.Stdin != "" {
		in, err := os.OpenFile(at.Stdin, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open the input of container %s: %w", container, err)
		}
		context.AfterFunc(ctx, func() { _ = in.Close() })
		go a.feed(in, at, t.Stdin)
	}
	if t.Resize != nil && at.TTY {
		go a.runtime.Resize(ctx, at.ID, t.Resize)
	}
	if at.TTY {
		t.Stderr = nil
	}
	return a.logs.Attach(ctx, at.Instance, t.Stdout, t.Stderr)
}

// feed hands a container what is typed.
func (a *Agent) feed(in *os.File, at pods.Attachable, from io.Reader) {
	_, _ = io.Copy(in, from) // one side is gone
	_ = in.Close()           // it may be closed
	if !at.CloseStdin {
		return
	}
	if err := a.runtime.CloseStdin(at.ID); err != nil {
		a.opts.Log.Warn("end a container's input", "err", err)
	}
}

// Dial connects to a port of a Pod's own address, from this node.
func (a *Agent) Dial(ctx context.Context, podIP string, port int32) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", net.JoinHostPort(podIP, strconv.Itoa(int(port))))
}
