package nodeagent_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"berth.dev/berth/nodeagent/testhost"
)

func service(name, ip string, port int32) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.ServiceSpec{
		ClusterIP: ip, Type: corev1.ServiceTypeClusterIP, Ports: []corev1.ServicePort{{Name: "http", Port: port, Protocol: corev1.ProtocolTCP}},
	}}
}

func slice(name string, port int32, ips ...string) *discoveryv1.EndpointSlice {
	portName, tcp := "http", corev1.ProtocolTCP
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: name + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &portName, Port: &port, Protocol: &tcp}},
	}
	for _, ip := range ips {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{ip}})
	}
	return s
}

// TestServicesFromPodsAndHost covers the whole way: names, variables, rules,
// spreading, hairpin, and refusal without endpoints.
func TestServicesFromPodsAndHost(t *testing.T) {
	n := newNode(t)
	n.create(service("web", "10.43.0.10", 80), service("empty", "10.43.0.11", 80))
	server := func(name string) *corev1.Pod {
		c := sh("main", `exec tool serve :8080 $HOSTNAME`)
		c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}}}
		return pod(name, c)
	}
	n.create(server("s1"), server("s2"))
	var ips []string
	for _, name := range []string{"s1", "s2"} {
		ips = append(ips, n.await(name, "ready", ready).Status.PodIP)
	}
	n.create(slice("web", 8080, ips...))

	seen := map[string]int{}
	deadline := time.Now().Add(5 * time.Second)
	for i := 0; i < 40 && time.Now().Before(deadline); {
		if body, err := fetch("http://10.43.0.10/"); err == nil {
			seen[strings.TrimSpace(body)]++
			i++
		} else if i > 0 {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	if seen["s1"] < 5 || seen["s2"] < 5 {
		t.Errorf("40 requests from the node were answered by %v", seen)
	}
	if _, err := net.DialTimeout("tcp", "10.43.0.11:80", time.Second); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a Service without endpoints: %v, want a refusal at once", err)
	}
	front := server("s3")
	front.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 8080, HostPort: 8888, Protocol: corev1.ProtocolTCP}}
	n.create(front)
	n.await("s3", "ready", ready)
	if body, err := fetch("http://" + testhost.NodeIP + ":8888/"); err != nil || body != "s3\n" {
		t.Errorf("hostPort: %q %v", body, err)
	}
	client := pod("client", sh("main", fmt.Sprintf(`
		echo env $WEB_SERVICE_HOST $WEB_SERVICE_PORT_HTTP
		tool get http://web/ http://web/ http://web.default/ http://web/ http://web/ http://web.default.svc.cluster.local/ http://web/ http://web/
		tool get http://%s:8080/ http://10.43.0.11:80/ http://10.43.0.10:81/
		tool get http://nosuch.default.svc.cluster.local/
		echo done; sleep 1000`, ips[0])))
	n.create(client)
	n.await("client", "ready", ready)
	text := n.logs("client", "main", "done\n")
	for _, want := range []string{"env 10.43.0.10 80\n", "s1\n", "s2\n", "10.43.0.11:80: connect: connection refused", "10.43.0.10:81: connect: connection refused", "no such host"} {
		if !strings.Contains(text, want) {
			t.Errorf("the pod's view lacks %q:\n%s", want, text)
		}
	}
	if got := strings.Count(text, "s1\n") + strings.Count(text, "s2\n"); got != 9 {
		t.Errorf("%d of 9 requests were answered:\n%s", got, text)
	}
}

func fetch(url string) (string, error) {
	c := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return string(body), err
}

// TestPodReachesItselfThroughItsService holds with bridge netfilter turned on
// and off: it decides whether the kernel sees switched packets.
func TestPodReachesItselfThroughItsService(t *testing.T) {
	for name, filter := range map[string]string{"bridge netfilter on": "1", "bridge netfilter off": "0"} {
		t.Run(name, func(t *testing.T) {
			const setting = "/proc/sys/net/bridge/bridge-nf-call-iptables"
			if err := os.WriteFile(setting, []byte(filter), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			n := newNode(t)
			n.create(service("self", "10.43.0.20", 80))
			n.create(pod("self", sh("main", `tool serve :8080 self & for i in 1 2 3 4 5 6 7 8 9; do tool get http://10.43.0.20/; sleep 0.2; done; sleep 1000`)))
			p := n.await("self", "ready", ready)
			n.create(slice("self", 8080, p.Status.PodIP))
			n.logs("self", "main", "self\n")
		})
	}
}

// server is a pod that answers over HTTP and says so by a probe.
func server(name string) *corev1.Pod {
	c := sh("main", "")
	c.Command = []string{"/bin/tool", "serve", ":8080", "x"}
	c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(8080)}}}
	return pod(name, c)
}
