package dns_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/clienttest"
	"berth.dev/berth/nodeagent/dns"
	"berth.dev/berth/nodeagent/services"
)

// server answers on loopback about a Service, a headless one with n endpoints,
// and a name elsewhere.
func server(t *testing.T, n int) string {
	t.Helper()
	api := clienttest.NewMemory()
	create := func(name, ip string, kind corev1.ServiceType) {
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: corev1.ServiceSpec{ClusterIP: ip, Type: kind, ExternalName: "example.org", Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}}}}
		if err := api.Create(t.Context(), svc); err != nil {
			t.Fatal(err)
		}
	}
	create("web", "10.43.0.10", corev1.ServiceTypeClusterIP)
	create("db", corev1.ClusterIPNone, corev1.ServiceTypeClusterIP)
	create("out", "", corev1.ServiceTypeExternalName)
	name, port, tcp, no := "http", int32(8080), corev1.ProtocolTCP, false
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db-1", Labels: map[string]string{discoveryv1.LabelServiceName: "db"}}, AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &tcp}}}
	for i := range n {
		host := fmt.Sprintf("db-%d", i)
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.42.0.%d", 2+i)}, Hostname: &host})
	}
	slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{"10.42.0.250"}, Conditions: discoveryv1.EndpointConditions{Ready: &no}})
	if err := api.Create(t.Context(), slice); err != nil {
		t.Fatal(err)
	}
	index := services.New(api)
	listen := netip.MustParseAddrPort("127.0.0.1:15353")
	s := dns.New(dns.Options{Services: index, Domain: "cluster.local", Listen: listen, Upstream: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- index.Run(ctx) }()
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; <-done })
	<-index.Synced()
	for range 100 {
		if _, err := mdns.Exchange(question("web.shop.svc.cluster.local.", mdns.TypeA), listen.String()); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return listen.String()
}

func question(name string, kind uint16) *mdns.Msg { return new(mdns.Msg).SetQuestion(name, kind) }

func TestAnswers(t *testing.T) {
	at := server(t, 2)
	for _, test := range []struct {
		name, want string
		kind       uint16
	}{
		{"web.shop.svc.cluster.local.", "NOERROR A 10.43.0.10", mdns.TypeA},
		{"WEB.Shop.svc.cluster.local.", "NOERROR A 10.43.0.10", mdns.TypeA},
		{"web.shop.svc.cluster.local.", "NOERROR", mdns.TypeAAAA},
		{"db.shop.svc.cluster.local.", "NOERROR A 10.42.0.2 A 10.42.0.3", mdns.TypeA},
		{"db-1.db.shop.svc.cluster.local.", "NOERROR A 10.42.0.3", mdns.TypeA},
		{"db-9.db.shop.svc.cluster.local.", "NXDOMAIN", mdns.TypeA},
		{"_http._tcp.db.shop.svc.cluster.local.", "NOERROR SRV 0 100 8080 db-0.db.shop.svc.cluster.local. SRV 0 100 8080 db-1.db.shop.svc.cluster.local.", mdns.TypeSRV},
		{"_http._tcp.web.shop.svc.cluster.local.", "NOERROR SRV 0 100 80 web.shop.svc.cluster.local.", mdns.TypeSRV},
		{"out.shop.svc.cluster.local.", "NOERROR CNAME example.org.", mdns.TypeA},
		{"none.shop.svc.cluster.local.", "NXDOMAIN", mdns.TypeA},
		{"shop.svc.cluster.local.", "NOERROR", mdns.TypeA},
		{"10-42-0-7.shop.pod.cluster.local.", "NOERROR A 10.42.0.7", mdns.TypeA},
		{"10.0.43.10.in-addr.arpa.", "NOERROR PTR web.shop.svc.cluster.local.", mdns.TypePTR},
		{"11.0.43.10.in-addr.arpa.", "SERVFAIL", mdns.TypePTR}, // nobody's: asked for elsewhere
		{"example.org.", "SERVFAIL", mdns.TypeA},               // the upstream of this test is away
	} {
		reply, err := mdns.Exchange(question(test.name, test.kind), at)
		if err != nil {
			t.Fatal(err)
		}
		got := mdns.RcodeToString[reply.Rcode]
		for _, r := range reply.Answer {
			got += " " + mdns.TypeToString[r.Header().Rrtype] + " " + strings.TrimPrefix(r.String(), r.Header().String())
		}
		if got != test.want {
			t.Errorf("%s %s: %s, want %s", test.name, mdns.TypeToString[test.kind], got, test.want)
		}
	}
}

func TestManyEndpoints(t *testing.T) {
	at := server(t, 60)
	q := question("db.shop.svc.cluster.local.", mdns.TypeA)
	reply, err := mdns.Exchange(q, at)
	if err != nil || !reply.Truncated {
		t.Errorf("UDP: truncated %v, %v", reply.Truncated, err)
	}
	tcp := &mdns.Client{Net: "tcp"}
	if reply, _, err = tcp.Exchange(q, at); err != nil || len(reply.Answer) != 60 || reply.Truncated {
		t.Errorf("TCP: %d answers, %v", len(reply.Answer), err)
	}
	q.SetEdns0(4096, false)
	udp := &mdns.Client{UDPSize: 4096}
	if reply, _, err = udp.Exchange(q, at); err != nil || len(reply.Answer) != 60 || reply.Truncated {
		t.Errorf("EDNS: %d answers, truncated %v, %v", len(reply.Answer), reply.Truncated, err)
	}
}
