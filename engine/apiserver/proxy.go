package apiserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/access"
)

// sandbox keeps a page that comes from a Pod from acting in the name of whoever
// is logged in here: it gets an origin of its own.
const sandbox = "sandbox allow-downloads allow-forms allow-modals allow-popups allow-scripts"

// backend is where a proxied request goes.
type backend struct {
	scheme string
	pod    *corev1.Pod
	port   int32
}

// proxies adds the paths below Pods and Services that lead to what runs in them.
func (s *Server) proxies() {
	for plural, find := range map[string]func(*http.Request) (backend, error){"pods": s.podBackend, "services": s.serviceBackend} {
		at := "/api/v1/namespaces/{namespace}/" + plural + "/{name}/proxy"
		s.mux.HandleFunc(at, s.proxied(find))
		s.mux.HandleFunc(at+"/{path...}", s.proxied(find))
	}
}

func (s *Server) proxied(find func(*http.Request) (backend, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b, err := find(r)
		if err != nil {
			s.fail(w, err)
			return
		}
		prefix := r.URL.Path
		if inner := r.PathValue("path"); inner != "" || strings.HasSuffix(prefix, "/") {
			prefix = strings.TrimSuffix(prefix, "/"+inner)
		} else if r.Method == http.MethodGet {
			// Relative links of a page need the slash.
			http.Redirect(w, r, (&url.URL{Path: prefix + "/", RawQuery: r.URL.RawQuery}).String(), http.StatusMovedPermanently)
			return
		}
		if err := s.reach(b.pod); err != nil {
			s.fail(w, err)
			return
		}
		s.forward(b, prefix).ServeHTTP(w, r)
	}
}

// forward sends requests below prefix to a Pod.
func (s *Server) forward(b backend, prefix string) http.Handler {
	host := net.JoinHostPort(b.pod.Status.PodIP, strconv.Itoa(int(b.port)))
	return &httputil.ReverseProxy{
		FlushInterval: -1, // what comes in pieces is seen in pieces
		ErrorLog:      slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = b.scheme, host
			p.Out.Host = ""
			p.Out.URL.RawPath = below(p.In.URL.EscapedPath())
			p.Out.URL.Path, _ = url.PathUnescape(p.Out.URL.RawPath) // it was parsed before
			p.SetXForwarded()
			access.Withhold(p.Out.Header)
		},
		ModifyResponse: func(r *http.Response) error {
			if to, err := url.Parse(r.Header.Get("Location")); err == nil && (to.Host == host || to.Host == "" && strings.HasPrefix(to.Path, "/")) {
				r.Header.Set("Location", (&url.URL{Path: path.Join(prefix, to.Path), RawQuery: to.RawQuery, Fragment: to.Fragment}).String())
			}
			access.KeepOut(r.Header)
			r.Header.Add("Content-Security-Policy", sandbox)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			s.fail(w, apierrors.NewServiceUnavailable(fmt.Sprintf("error trying to reach port %d of pod %s: %s", b.port, b.pod.Name, err)))
		},
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return s.Streams.Dial(ctx, b.pod, b.port) },
			// As Kubernetes does: certificates of Pods are known to nobody here.
			TLSClientConfig:    &tls.Config{InsecureSkipVerify: true}, //nolint:gosec
			DisableKeepAlives:  true,
			DisableCompression: true,
		},
	}
}

// below is what follows /api/v1/namespaces/N/pods/N/proxy in a path, as it was
// written.
func below(escaped string) string {
	parts := strings.SplitN(escaped, "/", 9)
	if len(parts) < 9 {
		return "/"
	}
	return "/" + parts[8]
}

// target splits [scheme:]name[:port] as clients write it.
func target(r *http.Request) (scheme, name, port string, err error) {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(r.PathValue("name"))
	if !ok {
		return "", "", "", apierrors.NewBadRequest(fmt.Sprintf("%q is not [http|https:]name[:port]", r.PathValue("name")))
	}
	if scheme == "" {
		scheme = "http"
	}
	return scheme, name, port, nil
}

// podBackend finds the Pod that a path names; without a port it is its first.
func (s *Server) podBackend(r *http.Request) (backend, error) {
	scheme, name, port, err := target(r)
	if err != nil {
		return backend{}, err
	}
	b := backend{scheme: scheme, pod: &corev1.Pod{}}
	if err := s.Resources.Get(r.Context(), types.NamespacedName{Namespace: r.PathValue("namespace"), Name: name}, b.pod); err != nil {
		return backend{}, err
	}
	if b.port, err = podPort(b.pod, port); err != nil {
		return backend{}, err
	}
	return b, reachable(b.pod)
}

func podPort(pod *corev1.Pod, port string) (int32, error) {
	if n, err := strconv.ParseUint(port, 10, 16); err == nil && n > 0 {
		return int32(n), nil
	}
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if port == "" || p.Name == port {
				return p.ContainerPort, nil
			}
		}
	}
	if port == "" {
		return 80, nil
	}
	return 0, apierrors.NewBadRequest(fmt.Sprintf("%q is neither a port number nor the name of a port of pod %s", port, pod.Name))
}

func reachable(pod *corev1.Pod) error {
	if pod.Status.PodIP == "" {
		return apierrors.NewServiceUnavailable(fmt.Sprintf("pod %s has no address yet", pod.Name))
	}
	return nil
}

// serviceBackend chooses one of the ready Pods of the Service that a path names.
func (s *Server) serviceBackend(r *http.Request) (backend, error) {
	scheme, name, port, err := target(r)
	if err != nil {
		return backend{}, err
	}
	namespace := r.PathValue("namespace")
	var svc corev1.Service
	if err := s.Resources.Get(r.Context(), types.NamespacedName{Namespace: namespace, Name: name}, &svc); err != nil {
		return backend{}, err
	}
	portName, err := servicePort(&svc, port)
	if err != nil {
		return backend{}, err
	}
	var slices discoveryv1.EndpointSliceList
	err = s.Resources.List(r.Context(), &slices, client.ListOptions{
		Namespace: namespace, Labels: labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: name}),
	})
	if err != nil {
		return backend{}, err
	}
	var ready []backend
	for i := range slices.Items {
		ready = append(ready, readyBackends(&slices.Items[i], portName)...)
	}
	if len(ready) == 0 {
		return backend{}, apierrors.NewServiceUnavailable(fmt.Sprintf("service %s has no pod that is ready", name))
	}
	b := ready[rand.IntN(len(ready))] //nolint:gosec
	b.scheme = scheme
	key := types.NamespacedName{Namespace: namespace, Name: b.pod.Name}
	if err := s.Resources.Get(r.Context(), key, b.pod); err != nil {
		return backend{}, err
	}
	return b, reachable(b.pod)
}

// servicePort is the name of the port that is meant, by its name or number.
func servicePort(svc *corev1.Service, port string) (string, error) {
	for _, p := range svc.Spec.Ports {
		if port == "" && len(svc.Spec.Ports) == 1 || p.Name == port || strconv.Itoa(int(p.Port)) == port {
			return p.Name, nil
		}
	}
	return "", apierrors.NewServiceUnavailable(fmt.Sprintf("service %s has no port %q", svc.Name, port))
}

// readyBackends are the Pods of a slice that serve a port.
func readyBackends(slice *discoveryv1.EndpointSlice, portName string) []backend {
	var port int32
	for _, p := range slice.Ports {
		if p.Port != nil && (p.Name == nil && portName == "" || p.Name != nil && *p.Name == portName) {
			port = *p.Port
		}
	}
	var out []backend
	for _, e := range slice.Endpoints {
		ready := e.Conditions.Ready == nil || *e.Conditions.Ready
		if port != 0 && ready && e.TargetRef != nil && e.TargetRef.Kind == "Pod" {
			out = append(out, backend{pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: e.TargetRef.Name}}, port: port})
		}
	}
	return out
}
