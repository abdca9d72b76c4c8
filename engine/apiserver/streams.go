package apiserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"berth.dev/berth/engine/access"
)

const (
	// streamIdle ends a session in which nothing moves.
	streamIdle = 4 * time.Hour
	// streamCreation is how long a client may take to open its streams.
	streamCreation = 30 * time.Second
)

// Command is a process that somebody runs in a container.
type Command struct {
	// ContainerID as in the Pod's status.
	ContainerID string
	Args        []string
	TTY         bool
	// Stdin is nil when there is none.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Resize blocks until the terminal has a new size; false is the last one.
	Resize func() (width, height uint16, ok bool)
}

// Streams connects clients with what runs on nodes.
type Streams interface {
	// Exec runs a command until it ends or the context does, and returns its exit code.
	Exec(ctx context.Context, c Command) (int, error)
	// Dial connects to a port of a Pod.
	Dial(ctx context.Context, pod *corev1.Pod, port int32) (net.Conn, error)
}

func (s *Server) streams() {
	pod := "/api/v1/namespaces/{namespace}/pods/{name}/"
	for _, method := range []string{"GET ", "POST "} {
		s.mux.HandleFunc(method+pod+"exec", s.session(s.exec))
		s.mux.HandleFunc(method+pod+"portforward", s.session(s.portForward))
	}
}

// session finds the Pod; only an administrator may enter it.
func (s *Server) session(f func(http.ResponseWriter, *http.Request, *corev1.Pod) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var pod corev1.Pod
		user, _ := access.From(r.Context())
		err := error(nil)
		if user.Role != access.Admin {
			err = apierrors.NewForbidden(corev1.Resource("pods"), r.PathValue("name"),
				fmt.Errorf("user %s has the role %s, which does not allow it", user.Name, user.Role))
		}
		if err == nil {
			err = s.Resources.Get(r.Context(), types.NamespacedName{Namespace: r.PathValue("namespace"), Name: r.PathValue("name")}, &pod)
		}
		if err == nil {
			err = s.reach(&pod)
		}
		if err == nil && newerWebSocket(r) {
			err = apierrors.NewBadRequest("this WebSocket protocol is not spoken; upgrade to SPDY/3.1")
		}
		if err == nil {
			err = f(w, r, &pod)
		}
		if err != nil {
			s.fail(w, err)
		}
	}
}

// newerWebSocket: the client offers only protocols over WebSockets that are not
// spoken here (v5, and SPDY in a tunnel). It then goes on with SPDY.
func newerWebSocket(r *http.Request) bool {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return false
	}
	for _, p := range strings.Split(strings.Join(r.Header.Values("Sec-WebSocket-Protocol"), ","), ",") {
		p = strings.TrimSpace(p)
		if p != remotecommand.StreamProtocolV5Name && !strings.HasPrefix(p, portforward.WebsocketsSPDYTunnelingPrefix) {
			return false
		}
	}
	return true
}

// parameter reads a boolean of the query, as kubectl (true) and the older form (1) write it.
func parameter(r *http.Request, name string) bool {
	b, err := strconv.ParseBool(r.URL.Query().Get(name))
	return err == nil && b
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request, pod *corev1.Pod) error {
	container, err := chooseContainer(pod, r.URL.Query().Get("container"))
	if err != nil {
		return err
	}
	command := r.URL.Query()["command"]
	if len(command) == 0 {
		return apierrors.NewBadRequest("you must specify at least one command for the container")
	}
	id, err := runningContainer(pod, container)
	if err != nil {
		return err
	}
	o := &remotecommand.Options{
		Stdin: parameter(r, "stdin"), Stdout: parameter(r, "stdout"), Stderr: parameter(r, "stderr"), TTY: parameter(r, "tty"),
	}
	if o.TTY {
		o.Stderr = false
	}
	if !o.Stdin && !o.Stdout && !o.Stderr {
		return apierrors.NewBadRequest("you must specify at least 1 of stdin, stdout, stderr")
	}
	remotecommand.ServeExec(w, r, &executor{s.Streams, id}, pod.Name, string(pod.UID), container, command, o,
		streamIdle, streamCreation, remotecommand.SupportedStreamingProtocols)
	return nil
}

func runningContainer(pod *corev1.Pod, name string) (string, error) {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for _, c := range list {
			if c.Name == name && c.State.Running != nil && c.ContainerID != "" {
				return c.ContainerID, nil
			}
		}
	}
	return "", apierrors.NewBadRequest(fmt.Sprintf("container %s of pod %s is not running", name, pod.Name))
}

// executor carries out one session.
type executor struct {
	streams Streams
	id      string
}

var _ remotecommand.Executor = (*executor)(nil)

// ExecInContainer implements remotecommand.Executor.
func (e *executor) ExecInContainer(ctx context.Context, _, _, _ string, command []string, in io.Reader, out, errs io.WriteCloser, tty bool, sizes <-chan remotecommand.TerminalSize, _ time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := Command{ContainerID: e.id, Args: command, TTY: tty, Stdout: io.Discard, Stderr: io.Discard}
	if in != nil {
		c.Stdin = in
	}
	if out != nil {
		c.Stdout = &lively{out, cancel}
	}
	if errs != nil {
		c.Stderr = &lively{errs, cancel}
	}
	if tty && sizes != nil {
		c.Resize = func() (uint16, uint16, bool) {
			select {
			case size, ok := <-sizes:
				return size.Width, size.Height, ok
			case <-ctx.Done():
				return 0, 0, false
			}
		}
	}
	code, err := e.streams.Exec(ctx, c)
	if err == nil && code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("exit code %d", code), Code: code}
	}
	return err
}

// lively ends the session when its client can no longer be written to.
type lively struct {
	io.Writer
	gone context.CancelFunc
}

// Write implements io.Writer.
func (l *lively) Write(b []byte) (int, error) {
	n, err := l.Writer.Write(b)
	if err != nil {
		l.gone()
	}
	return n, err
}

func (s *Server) portForward(w http.ResponseWriter, r *http.Request, pod *corev1.Pod) error {
	if pod.Status.PodIP == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("pod %s has no address yet", pod.Name))
	}
	o, err := portforward.NewV4Options(r)
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	portforward.ServePortForward(w, r, &forwarder{s.Streams, pod}, pod.Name, string(pod.UID), o, streamIdle, streamCreation, portforward.SupportedProtocols)
	return nil
}

// forwarder carries the connections of one session.
type forwarder struct {
	streams Streams
	pod     *corev1.Pod
}

var _ portforward.PortForwarder = (*forwarder)(nil)

// PortForward implements portforward.PortForwarder.
func (f *forwarder) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	conn, err := f.streams.Dial(ctx, f.pod, port)
	if err != nil {
		return fmt.Errorf("connect to port %d of pod %s: %w", port, f.pod.Name, err)
	}
	defer conn.Close()
	defer stream.Close()
	done := make(chan error, 2)
	go func() {
		_, err := io.Copy(conn, stream)
		if half, ok := conn.(*net.TCPConn); ok {
			_ = half.CloseWrite() // the other side may have closed
		}
		done <- err
	}()
	go func() {
		_, err := io.Copy(stream, conn)
		done <- err
		done <- nil // the answer is complete: do not wait for the client
	}()
	for range 2 {
		select {
		case err := <-done:
			if err != nil && !errors.Is(err, net.ErrClosed) {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}
