package apiserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
)

func (s *Server) portForward(w http.ResponseWriter, r *http.Request, pod *corev1.Pod) error {
	if pod.Status.PodIP == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("pod %s has no address yet", pod.Name))
	}
	o, err := portforward.NewV4Options(r)
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	serve := func(w http.ResponseWriter, r *http.Request) {
		portforward.ServePortForward(w, r, &forwarder{s.Streams, pod}, pod.Name, string(pod.UID), o, streamIdle, streamCreation, portforward.SupportedProtocols)
	}
	if offers(r, tunnelProtocol) {
		tunnel(w, r, serve)
		return nil
	}
	serve(w, r)
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
