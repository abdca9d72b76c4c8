package apiserver

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

const (
	// channelsV5 is the protocol of sessions over a WebSocket in which one
	// stream can end before the others (KEP-4006).
	channelsV5 = "v5.channel.k8s.io"
	// tunnelProtocol carries the SPDY of a port-forward in a WebSocket (KEP-4006).
	tunnelProtocol = portforward.WebsocketsSPDYTunnelingPrefix + portforward.ProtocolV1Name
)

// The channels of a session, by number.
const (
	stdinChannel = iota
	stdoutChannel
	stderrChannel
	errorChannel
	resizeChannel
)

// offers tells whether a request wants a protocol over a WebSocket.
func offers(r *http.Request, protocol string) bool {
	if !wsstream.IsWebSocketRequest(r) {
		return false
	}
	for _, p := range strings.Split(strings.Join(r.Header.Values("Sec-WebSocket-Protocol"), ","), ",") {
		if strings.TrimSpace(p) == protocol {
			return true
		}
	}
	return false
}

// overWebSocket carries out a session with a client of channelsV5. Older
// protocols, and SPDY, are the library's.
func overWebSocket(w http.ResponseWriter, r *http.Request, o *remotecommand.Options, work func(context.Context, Terminal) (int, error)) {
	channels := make([]wsstream.ChannelType, resizeChannel+1)
	for channel, wanted := range map[int]bool{stdoutChannel: o.Stdout, stderrChannel: o.Stderr, errorChannel: true} {
		channels[channel] = wsstream.IgnoreChannel
		if wanted {
			channels[channel] = wsstream.WriteChannel
		}
	}
	// Always read: their end is the only sign that the client is gone.
	channels[stdinChannel], channels[resizeChannel] = wsstream.ReadChannel, wsstream.ReadChannel
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{channelsV5: {Binary: true, Channels: channels}})
	conn.SetIdleTimeout(streamIdle)
	_, streams, err := conn.Open(w, r)
	if err != nil {
		return // the library has answered
	}
	defer conn.Close()
	ctx, gone := context.WithCancel(r.Context())
	defer gone()
	sizes := make(chan remotecommand.TerminalSize)
	go func() {
		defer gone()
		readSizes(ctx, streams[resizeChannel], sizes)
	}()
	t := Terminal{TTY: o.TTY}
	if o.Stdin {
		t.Stdin = streams[stdinChannel]
	} else {
		go func() { _, _ = io.Copy(io.Discard, streams[stdinChannel]) }() // nobody reads it
	}
	if o.Stdout {
		t.Stdout = &lively{streams[stdoutChannel], gone}
	}
	if o.Stderr {
		t.Stderr = &lively{streams[stderrChannel], gone}
	}
	if o.TTY {
		t.Resize = func() (uint16, uint16, bool) {
			select {
			case size := <-sizes:
				return size.Width, size.Height, true
			case <-ctx.Done():
				return 0, 0, false
			}
		}
	}
	code, err := work(ctx, t)
	_ = json.NewEncoder(streams[errorChannel]).Encode(ending(code, err)) // the client may be gone
}

// readSizes hands on the sizes of a client's terminal until the client is gone.
func readSizes(ctx context.Context, from io.Reader, to chan<- remotecommand.TerminalSize) {
	for d := json.NewDecoder(from); ; {
		var size remotecommand.TerminalSize
		if d.Decode(&size) != nil {
			return
		}
		select {
		case to <- size:
		case <-ctx.Done():
			return
		}
	}
}

// ending says how a session ended, as clients of exec read it.
func ending(code int, err error) *metav1.Status {
	switch {
	case err != nil:
		return &metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError, Message: err.Error()}
	case code != 0:
		return &metav1.Status{
			Status: metav1.StatusFailure, Reason: metav1.StatusReason(remotecommand.NonZeroExitCodeReason),
			Message: fmt.Sprintf("command terminated with non-zero exit code: %d", code),
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: metav1.CauseType(remotecommand.ExitCodeCauseType), Message: strconv.Itoa(code)}}},
		}
	}
	return &metav1.Status{Status: metav1.StatusSuccess}
}

// tunnel serves SPDY within a WebSocket.
func tunnel(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
	server := websocket.Server{
		Handshake: func(c *websocket.Config, _ *http.Request) error {
			if !slices.Contains(c.Protocol, tunnelProtocol) {
				return websocket.ErrBadWebSocketProtocol
			}
			c.Protocol = []string{tunnelProtocol}
			return nil
		},
		Handler: func(ws *websocket.Conn) {
			ws.PayloadType = websocket.BinaryFrame
			inner := r.Clone(r.Context())
			inner.Method, inner.Body = http.MethodPost, http.NoBody
			inner.Header = http.Header{}
			inner.Header.Set("Connection", "Upgrade")
			inner.Header.Set("Upgrade", "SPDY/3.1")
			inner.Header.Set("X-Stream-Protocol-Version", portforward.ProtocolV1Name)
			serve(&tunnelled{header: http.Header{}, conn: tunnelConn{ws, r}}, inner)
		},
	}
	server.ServeHTTP(w, r)
}

// tunnelled is the answer to a request within a WebSocket: nothing but its connection.
type tunnelled struct {
	header http.Header
	conn   net.Conn
}

// Header implements http.ResponseWriter.
func (t *tunnelled) Header() http.Header { return t.header }

// WriteHeader implements http.ResponseWriter: the WebSocket's answer has been sent.
func (t *tunnelled) WriteHeader(int) {}

// Write implements http.ResponseWriter.
func (t *tunnelled) Write(b []byte) (int, error) { return len(b), nil }

// Hijack implements http.Hijacker.
func (t *tunnelled) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return t.conn, bufio.NewReadWriter(bufio.NewReader(t.conn), bufio.NewWriter(t.conn)), nil
}

// tunnelConn has the addresses of the connection beneath it: a WebSocket's own
// are its Origin, which clients need not send.
type tunnelConn struct {
	*websocket.Conn
	r *http.Request
}

// LocalAddr implements net.Conn.
func (c tunnelConn) LocalAddr() net.Addr {
	addr, _ := c.r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return addr
}

// RemoteAddr implements net.Conn.
func (c tunnelConn) RemoteAddr() net.Addr {
	at, err := net.ResolveTCPAddr("tcp", c.r.RemoteAddr)
	if err != nil {
		return &net.TCPAddr{}
	}
	return at
}
