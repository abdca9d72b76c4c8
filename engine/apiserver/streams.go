package apiserver

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

const (
	// streamIdle ends a session in which nothing moves.
	streamIdle = 4 * time.Hour
	// streamCreation is how long a client may take to open its streams.
	streamCreation = 30 * time.Second
)

// Terminal is what a person sees and types.
type Terminal struct {
	// TTY says that Stderr is not used and sizes come.
	TTY bool
	// Stdin is nil when there is none.
	Stdin io.Reader
	// Stdout and Stderr are nil when nobody looks.
	Stdout, Stderr io.Writer
	// Resize blocks until the terminal has a new size; false is the last one. It may be nil.
	Resize func() (width, height uint16, ok bool)
}

// Streams connects clients with what runs on nodes.
type Streams interface {
	// Exec runs a command in a container, named as in the Pod's status, until
	// it ends or the context does, and returns its exit code.
	Exec(ctx context.Context, containerID string, command []string, t Terminal) (int, error)
	// Attach connects with a running container until it ends or the context does.
	Attach(ctx context.Context, pod *corev1.Pod, container string, t Terminal) error
	// Dial connects to a port of a Pod.
	Dial(ctx context.Context, pod *corev1.Pod, port int32) (net.Conn, error)
}

func (s *Server) streams() {
	pod := "/api/v1/namespaces/{namespace}/pods/{name}/"
	for _, method := range []string{"GET ", "POST "} {
		s.mux.HandleFunc(method+pod+"attach", s.session(s.attach))
		s.mux.HandleFunc(method+pod+"exec", s.session(s.exec))
		s.mux.HandleFunc(method+pod+"portforward", s.session(s.portForward))
	}
}

// session finds the Pod.
func (s *Server) session(f func(http.ResponseWriter, *http.Request, *corev1.Pod) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var pod corev1.Pod
		err := s.Resources.Get(r.Context(), types.NamespacedName{Namespace: r.PathValue("namespace"), Name: r.PathValue("name")}, &pod)
		if err == nil {
			err = s.reach(&pod)
		}
		if err == nil {
			err = f(w, r, &pod)
		}
		if err != nil {
			s.fail(w, err)
		}
	}
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
	running, err := runningContainer(pod, container)
	if err != nil {
		return err
	}
	o, err := sessionOptions(r, parameter(r, "tty"))
	if err != nil {
		return err
	}
	work := func(ctx context.Context, t Terminal) (int, error) {
		return s.Streams.Exec(ctx, running.ContainerID, command, t)
	}
	if offers(r, channelsV5) {
		overWebSocket(w, r, o, work)
		return nil
	}
	remotecommand.ServeExec(w, r, executor(work), pod.Name, string(pod.UID), container, command, o,
		streamIdle, streamCreation, remotecommand.SupportedStreamingProtocols)
	return nil
}

// attach connects with what a container runs already. Whether there is a
// terminal is the container's word, not the client's.
func (s *Server) attach(w http.ResponseWriter, r *http.Request, pod *corev1.Pod) error {
	container, err := chooseContainer(pod, r.URL.Query().Get("container"))
	if err != nil {
		return err
	}
	if _, err := runningContainer(pod, container); err != nil {
		return err
	}
	o, err := sessionOptions(r, hasTTY(pod, container))
	if err != nil {
		return err
	}
	work := func(ctx context.Context, t Terminal) (int, error) {
		return 0, s.Streams.Attach(ctx, pod, container, t)
	}
	if offers(r, channelsV5) {
		overWebSocket(w, r, o, work)
		return nil
	}
	remotecommand.ServeAttach(w, r, executor(work), pod.Name, string(pod.UID), container, o,
		streamIdle, streamCreation, remotecommand.SupportedStreamingProtocols)
	return nil
}

// sessionOptions are the streams that a client asks for.
func sessionOptions(r *http.Request, tty bool) (*remotecommand.Options, error) {
	o := &remotecommand.Options{
		Stdin: parameter(r, "stdin"), Stdout: parameter(r, "stdout"), Stderr: parameter(r, "stderr") && !tty, TTY: tty,
	}
	if !o.Stdin && !o.Stdout && !o.Stderr {
		return nil, apierrors.NewBadRequest("you must specify at least 1 of stdin, stdout, stderr")
	}
	return o, nil
}

func hasTTY(pod *corev1.Pod, container string) bool {
	for _, c := range containersOf(pod) {
		if c.Name == container {
			return c.TTY
		}
	}
	return false
}

func runningContainer(pod *corev1.Pod, name string) (corev1.ContainerStatus, error) {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for _, c := range list {
			if c.Name == name && c.State.Running != nil && c.ContainerID != "" {
				return c, nil
			}
		}
	}
	return corev1.ContainerStatus{}, apierrors.NewBadRequest(fmt.Sprintf("container %s of pod %s is not running", name, pod.Name))
}

// executor carries out one session; it returns an exit code.
type executor func(ctx context.Context, t Terminal) (int, error)

var (
	_ remotecommand.Executor = executor(nil)
	_ remotecommand.Attacher = executor(nil)
)

// ExecInContainer implements remotecommand.Executor.
func (e executor) ExecInContainer(ctx context.Context, _, _, _ string, _ []string, in io.Reader, out, errs io.WriteCloser, tty bool, sizes <-chan remotecommand.TerminalSize, _ time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := Terminal{TTY: tty}
	if in != nil {
		t.Stdin = in
	}
	if out != nil {
		t.Stdout = &lively{out, cancel}
	}
	if errs != nil {
		t.Stderr = &lively{errs, cancel}
	}
	if tty && sizes != nil {
		t.Resize = func() (uint16, uint16, bool) {
			select {
			case size, ok := <-sizes:
				return size.Width, size.Height, ok
			case <-ctx.Done():
				return 0, 0, false
			}
		}
	}
	code, err := e(ctx, t)
	if err == nil && code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("exit code %d", code), Code: code}
	}
	return err
}

// AttachContainer implements remotecommand.Attacher.
func (e executor) AttachContainer(ctx context.Context, _, _, _ string, in io.Reader, out, errs io.WriteCloser, tty bool, sizes <-chan remotecommand.TerminalSize) error {
	return e.ExecInContainer(ctx, "", "", "", nil, in, out, errs, tty, sizes, 0)
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
