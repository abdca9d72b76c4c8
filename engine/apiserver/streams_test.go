package apiserver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/utils/exec"

	"berth.dev/berth/engine/apiserver"
)

// process stands for what runs in a container: it says hello on both streams,
// repeats what it hears in capitals, tells the sizes of its terminal, and ends
// with the code that its first argument says.
type process struct {
	backend string // of Dial
	gone    chan struct{}
}

func (p *process) Exec(ctx context.Context, id string, command []string, t apiserver.Terminal) (int, error) {
	defer close(p.gone)
	fmt.Fprintf(t.Stdout, "hello from %s\n", id)
	if t.Stderr != nil {
		fmt.Fprintln(t.Stderr, "a problem")
	}
	if t.TTY {
		width, height, ok := t.Resize()
		fmt.Fprintf(t.Stdout, "%dx%d %v\n", width, height, ok)
	}
	if command[0] == "wait" {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	if t.Stdin != nil {
		b, err := io.ReadAll(t.Stdin)
		if err != nil {
			return 0, err
		}
		fmt.Fprintf(t.Stdout, "%s", bytes.ToUpper(b))
	}
	return strconv.Atoi(command[0])
}

func (p *process) Attach(ctx context.Context, pod *corev1.Pod, container string, t apiserver.Terminal) error {
	_, err := p.Exec(ctx, pod.Name+"/"+container, []string{"0"}, t)
	return err
}

func (p *process) Dial(ctx context.Context, _ *corev1.Pod, port int32) (net.Conn, error) {
	if port != 8080 {
		return nil, errors.New("connection refused")
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", p.backend)
}

// serveStreams is a server with a Pod whose container runs.
func serveStreams(t *testing.T, p *process) *server {
	t.Helper()
	p.gone = make(chan struct{})
	s := serve(t, func(o *apiserver.Options) { o.Streams = p })
	web := pod("web", "web", "side")
	web.Annotations = map[string]string{"kubectl.kubernetes.io/default-container": "web"}
	web.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}
	web.Labels = map[string]string{"app": "web"}
	create(t, s, web)
	web.Status.PodIP, web.Status.PodIPs = "10.42.0.9", []corev1.PodIP{{IP: "10.42.0.9"}}
	web.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "web", ContainerID: "containerd://abc", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
	}}
	if err := s.UpdateStatus(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) config() *rest.Config {
	return &rest.Config{Host: s.url, BearerToken: admin, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
}

func TestSessionsInEveryProtocol(t *testing.T) {
	for _, protocol := range []string{"SPDY", "WebSocket v5"} {
		for _, path := range []string{"exec?command=7&", "attach?"} {
			t.Run(protocol+" "+path, func(t *testing.T) {
				s := serveStreams(t, &process{})
				at, err := url.Parse(s.url + "/api/v1/namespaces/default/pods/web/" + path + "stdin=true&stdout=true&stderr=true")
				if err != nil {
					t.Fatal(err)
				}
				e, err := remotecommand.NewSPDYExecutor(s.config(), "POST", at)
				if protocol != "SPDY" {
					e, err = remotecommand.NewWebSocketExecutor(s.config(), "GET", at.String())
				}
				if err != nil {
					t.Fatal(err)
				}
				var out, errs bytes.Buffer
				err = e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("typed\n"), Stdout: &out, Stderr: &errs})
				var exit utilexec.ExitError
				if failed := errors.As(err, &exit) && exit.ExitStatus() == 7; failed != strings.HasPrefix(path, "exec") || !failed && err != nil {
					t.Errorf("it ended with %v", err)
				}
				who := map[bool]string{true: "containerd://abc", false: "web/web"}[strings.HasPrefix(path, "exec")]
				if got, want := out.String(), "hello from "+who+"\nTYPED\n"; got != want {
					t.Errorf("stdout %q, want %q", got, want)
				}
				if errs.String() != "a problem\n" {
					t.Errorf("stderr %q", errs.String())
				}
			})
		}
	}
}

// sizes are those of a terminal, one of them.
type sizes struct{ asked bool }

func (q *sizes) Next() *remotecommand.TerminalSize {
	if q.asked {
		return nil
	}
	q.asked = true
	return &remotecommand.TerminalSize{Width: 77, Height: 33}
}

func TestATerminalHasTheSizeOfTheClients(t *testing.T) {
	s := serveStreams(t, &process{})
	at := s.url + "/api/v1/namespaces/default/pods/web/exec?command=0&stdout=true&stderr=true&tty=true"
	e, err := remotecommand.NewWebSocketExecutor(s.config(), "GET", at)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: &out, Tty: true, TerminalSizeQueue: &sizes{}}); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != "hello from containerd://abc\n77x33 true\n" {
		t.Errorf("stdout %q", got)
	}
}

// dial opens a WebSocket as programs in other languages do.
func (s *server) dial(t *testing.T, query string, protocols ...string) (*websocket.Conn, error) {
	t.Helper()
	c, err := websocket.NewConfig("wss"+strings.TrimPrefix(s.url, "https")+"/api/v1/namespaces/default/pods/web/"+query, s.url)
	if err != nil {
		t.Fatal(err)
	}
	c.Protocol, c.Header = protocols, http.Header{"Authorization": {"Bearer " + admin}}
	c.TlsConfig = s.client.Transport.(*http.Transport).TLSClientConfig.Clone()
	c.TlsConfig.NextProtos = nil
	return c.DialContext(t.Context())
}

func TestOlderWebSocketClients(t *testing.T) {
	s := serveStreams(t, &process{})
	ws, err := s.dial(t, "exec?command=0&stdout=true&stderr=true", "v4.channel.k8s.io")
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	var seen []string
	for {
		var frame []byte
		if err := websocket.Message.Receive(ws, &frame); err != nil {
			break
		}
		if len(frame) > 1 {
			seen = append(seen, fmt.Sprintf("%d:%s", frame[0], strings.TrimSpace(string(frame[1:]))))
		}
	}
	if got := strings.Join(seen, "|"); !strings.HasPrefix(got, "1:hello from containerd://abc|2:a problem|3:") || !strings.Contains(got, `"status":"Success"`) {
		t.Errorf("the frames are %s", got)
	}
	if _, err := s.dial(t, "exec?command=0&stdout=true", "v9.channel.k8s.io"); err == nil {
		t.Error("a protocol that is not spoken was accepted")
	}
}

// TestASessionEndsWithItsClient: the process says nothing and hears nothing, so
// that only the connection tells.
func TestASessionEndsWithItsClient(t *testing.T) {
	p := &process{}
	s := serveStreams(t, p)
	ws, err := s.dial(t, "exec?command=wait&stdout=true", "v5.channel.k8s.io")
	if err != nil {
		t.Fatal(err)
	}
	var frame []byte
	if err := websocket.Message.Receive(ws, &frame); err != nil || !strings.Contains(string(frame), "hello") {
		t.Fatalf("%q %v", frame, err)
	}
	ws.Close()
	select {
	case <-p.gone:
	case <-time.After(10 * time.Second):
		t.Error("the client is gone and the process runs")
	}
}

func TestSessionsAskForWhatTheyNeed(t *testing.T) {
	s := serveStreams(t, &process{})
	at := "/api/v1/namespaces/default/pods/web/"
	for path, want := range map[string]string{
		"exec?stdout=true":                  "at least one command",
		"exec?command=a":                    "at least 1 of stdin, stdout, stderr",
		"attach":                            "at least 1 of stdin, stdout, stderr",
		"attach?stdout=true&container=side": "container side of pod web is not running",
		"exec?stdout=true&command=a&container=nobody":     "choose one of: [web side]",
		"attach?stdout=true&container=nobody&stdin=false": "choose one of: [web side]",
	} {
		if got := s.status(t, admin, "POST", at+path, ""); got.Code != http.StatusBadRequest || !strings.Contains(got.Message, want) {
			t.Errorf("%s: %d %s, want %q", path, got.Code, got.Message, want)
		}
	}
	for _, path := range []string{"exec?stdout=true&command=a", "attach?stdout=true", "portforward", "proxy/"} {
		if got := s.status(t, viewer, "GET", at+path, ""); got.Code != http.StatusForbidden {
			t.Errorf("a viewer at %s: %d", path, got.Code)
		}
	}
}

func TestProxy(t *testing.T) {
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "berth_token", Value: "stolen"})
		http.SetCookie(w, &http.Cookie{Name: "mine", Value: "kept"})
		switch r.URL.Path {
		case "/moved":
			w.Header().Set("Location", "/there?x=1")
			w.WriteHeader(http.StatusFound)
			return
		case "/slow":
			for range 3 {
				fmt.Fprintln(w, "piece")
				w.(http.Flusher).Flush()
			}
			return
		}
		fmt.Fprintf(w, "%s %s auth=%q cookie=%q host=%s", r.Method, r.RequestURI, r.Header.Get("Authorization"), r.Header.Get("Cookie"), r.Host)
	}))
	defer inside.Close()
	s := serveStreams(t, &process{backend: inside.Listener.Addr().String()})
	port, name, yes := int32(8080), "http", true
	create(t, s,
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: name, Port: 80}}}},
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "empty"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}},
		&discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
			AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.42.0.9"}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "web"}}},
		})
	base := "/api/v1/namespaces/default/"
	for _, c := range []struct{ method, path, want string }{
		{"GET", "pods/web/proxy/", `GET / auth="" cookie="a=b" host=10.42.0.9:8080`},
		{"GET", "pods/web:8080/proxy/a%2Fb/c?d=e%20f", `GET /a%2Fb/c?d=e%20f auth="" cookie="a=b" host=10.42.0.9:8080`},
		{"POST", "pods/http:web:http/proxy", `POST / auth="" cookie="a=b" host=10.42.0.9:8080`},
		{"DELETE", "services/web/proxy/x", `DELETE /x auth="" cookie="a=b" host=10.42.0.9:8080`},
		{"GET", "services/web:80/proxy/slow", "piece\npiece\npiece\n"},
	} {
		if code, body := s.do(t, admin, c.method, base+c.path, "", "Cookie", "berth_token=secret; a=b"); code != http.StatusOK || body != c.want {
			t.Errorf("%s %s: %d %s\nwant %s", c.method, c.path, code, body, c.want)
		}
	}
	for path, want := range map[string]string{
		"pods/web:81/proxy/":          "error trying to reach port 81 of pod web",
		"pods/web:nothing/proxy/":     "neither a port number nor the name of a port",
		"services/web:nothing/proxy/": `has no port "nothing"`,
		"services/empty/proxy/":       "no pod that is ready",
		"services/nobody/proxy/":      "not found",
	} {
		if got := s.status(t, admin, "GET", base+path, ""); !strings.Contains(got.Message, want) {
			t.Errorf("%s: %s, want %q", path, got.Message, want)
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.url+base+"pods/web/proxy/moved", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+admin)
	answer, err := s.client.Transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if got := answer.Header.Get("Location"); got != base+"pods/web/proxy/there?x=1" {
		t.Errorf("a redirect within the pod goes to %s", got)
	}
	if got := strings.Join(answer.Header.Values("Set-Cookie"), "; "); got != "mine=kept" {
		t.Errorf("the pod sets the cookies %s", got)
	}
	if got := answer.Header.Get("Content-Security-Policy"); !strings.HasPrefix(got, "sandbox") || strings.Contains(got, "same-origin") {
		t.Errorf("what comes from a pod has the policy %q", got)
	}
}

func TestEphemeralContainers(t *testing.T) {
	s := serveStreams(t, &process{})
	at := "/api/v1/namespaces/default/pods/web/ephemeralcontainers"
	add := `{"spec":{"ephemeralContainers":[{"name":"look","image":"busybox:1","stdin":true}]}}`
	code, body := s.do(t, admin, "PATCH", at, add, "Content-Type", "application/strategic-merge-patch+json")
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	got := get[corev1.Pod](t, s, at)
	if len(got.Spec.EphemeralContainers) != 1 || got.Spec.EphemeralContainers[0].TerminationMessagePath == "" || got.Generation != 2 {
		t.Errorf("it has %+v, generation %d", got.Spec.EphemeralContainers, got.Generation)
	}
	for patch, want := range map[string]string{
		`{"spec":{"ephemeralContainers":[{"name":"look","image":"other:1"}]}}`: "may not be changed",
		`{"spec":{"ephemeralContainers":null}}`:                                "may not be removed",
		`{"spec":{"ephemeralContainers":[{"name":"web","image":"a"}]}}`:        "Duplicate value",
	} {
		code, body := s.do(t, admin, "PATCH", at, patch, "Content-Type", "application/merge-patch+json")
		if code != http.StatusUnprocessableEntity || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s, want %q", patch, code, body, want)
		}
	}
	// Nothing else goes in by this door, and what is there is not lost by another.
	got.Spec.EphemeralContainers[0].Name = "look"
	got.Spec.Containers[0].Image = "smuggled:1"
	if err := s.UpdateEphemeralContainers(t.Context(), got.DeepCopy(), false); err != nil {
		t.Fatal(err)
	}
	live := get[corev1.Pod](t, s, "/api/v1/namespaces/default/pods/web")
	if live.Spec.Containers[0].Image == "smuggled:1" {
		t.Error("the image of a container was changed by way of the ephemeral ones")
	}
	live.Spec.EphemeralContainers, live.Labels = nil, map[string]string{"new": "label"}
	if err := s.Update(t.Context(), &live); err != nil || len(live.Spec.EphemeralContainers) != 1 {
		t.Errorf("an update without ephemeral containers left %d: %v", len(live.Spec.EphemeralContainers), err)
	}
}
