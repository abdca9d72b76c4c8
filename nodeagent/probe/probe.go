// Package probe asks a container whether it is well: by a request over HTTP or
// gRPC, a TCP connection, or a command inside it. It holds no state and decides nothing.
package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// answerLimit is how much of an answer is kept for the message, in bytes.
const answerLimit = 400

// Target is the container that is asked.
type Target struct {
	// IP is the pod's address.
	IP    string
	Ports []corev1.ContainerPort
	// Exec runs a command in the container.
	Exec func(ctx context.Context, command []string, out io.Writer) (int, error)
}

// Check asks once. ok is the answer and message what it said.
func Check(ctx context.Context, h corev1.ProbeHandler, t Target, timeout time.Duration) (ok bool, message string) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var err error
	switch {
	case h.Exec != nil:
		message, err = command(ctx, h.Exec.Command, t)
	case h.HTTPGet != nil:
		message, err = httpGet(ctx, h.HTTPGet, t)
	case h.TCPSocket != nil:
		message, err = tcp(ctx, h.TCPSocket, t)
	case h.GRPC != nil:
		message, err = callGRPC(ctx, h.GRPC, t)
	default:
		err = errors.New("the probe asks nothing")
	}
	if err == nil {
		return true, message
	}
	if errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return false, fmt.Sprintf("no answer within %s", timeout)
	}
	return false, err.Error()
}

func command(ctx context.Context, argv []string, t Target) (string, error) {
	var out strings.Builder
	code, err := t.Exec(ctx, argv, &limited{&out, answerLimit})
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(out.String())
	switch {
	case code != 0 && text == "":
		return "", fmt.Errorf("command ended with %d", code)
	case code != 0:
		return "", fmt.Errorf("command ended with %d: %s", code, text)
	}
	return text, nil
}

func httpGet(ctx context.Context, h *corev1.HTTPGetAction, t Target) (string, error) {
	port, err := Port(h.Port, t.Ports)
	if err != nil {
		return "", err
	}
	host := h.Host
	if host == "" {
		host = t.IP
	}
	u, err := url.Parse(h.Path)
	if err != nil {
		return "", fmt.Errorf("path %q: %w", h.Path, err)
	}
	u.Scheme, u.Host = "http", net.JoinHostPort(host, strconv.Itoa(port))
	if strings.EqualFold(string(h.Scheme), "https") {
		u.Scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("User-Agent", "berth-probe")
	req.Header.Set("Accept", "*/*")
	for _, header := range h.HTTPHeaders {
		if strings.EqualFold(header.Name, "host") {
			req.Host = header.Value
		} else {
			req.Header.Add(header.Name, header.Value)
		}
	}
	return roundTrip(req)
}

func roundTrip(req *http.Request) (string, error) {
	transport := &http.Transport{
		DisableKeepAlives: true, DisableCompression: true, Proxy: nil,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // a probe asks whether it answers, not who it is
	}
	c := http.Client{Transport: transport, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		if next.URL.Hostname() != via[0].URL.Hostname() || len(via) >= 10 {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	res, err := c.Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return "", fmt.Errorf("GET %s: %w", req.URL.Redacted(), err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, answerLimit))
	if res.StatusCode >= 200 && res.StatusCode < 400 {
		return res.Status, nil
	}
	return "", fmt.Errorf("GET %s: %s: %s", req.URL.Redacted(), res.Status, strings.TrimSpace(string(body)))
}

func tcp(ctx context.Context, h *corev1.TCPSocketAction, t Target) (string, error) {
	port, err := Port(h.Port, t.Ports)
	if err != nil {
		return "", err
	}
	host := h.Host
	if host == "" {
		host = t.IP
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return "", err
	}
	return "connected", conn.Close()
}

// Port resolves a number or a name of one of the container's ports.
func Port(p intstr.IntOrString, ports []corev1.ContainerPort) (int, error) {
	if p.Type == intstr.Int {
		return p.IntValue(), nil
	}
	for _, have := range ports {
		if have.Name == p.StrVal {
			return int(have.ContainerPort), nil
		}
	}
	if n, err := strconv.Atoi(p.StrVal); err == nil {
		return n, nil
	}
	return 0, fmt.Errorf("the container has no port named %q", p.StrVal)
}

// limited keeps the first bytes and drops the rest.
type limited struct {
	w    *strings.Builder
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(l.left, len(p))
	l.w.Write(p[:n])
	l.left -= n
	return len(p), nil
}
