package pods

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestExpand(t *testing.T) {
	values := map[string]string{"A": "1", "B": "2"}
	for in, want := range map[string]string{
		"$(A)": "1", "$(A)$(B)": "12", "$$(A)": "$(A)", "$(NO)": "$(NO)", "$A": "$A", "cost $": "cost $", "$(A": "$(A", "$$$(A)": "$1", "a$(A)b": "a1b", "": "",
	} {
		if got := expand(in, values); got != want {
			t.Errorf("expand(%q) = %q, want %q", in, got, want)
		}
	}
}

func list(cpu, memory string) corev1.ResourceList {
	out := corev1.ResourceList{}
	if cpu != "" {
		out[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		out[corev1.ResourceMemory] = resource.MustParse(memory)
	}
	return out
}

func TestResources(t *testing.T) {
	const node = 16 << 30
	for name, test := range map[string]struct {
		requests, limits corev1.ResourceList
		qos              corev1.PodQOSClass
		want             Resources
	}{
		"nothing":                {qos: corev1.PodQOSBestEffort, want: Resources{CPUShares: 2, CPUPeriod: 100000, OOMScoreAdj: 1000}},
		"a request":              {requests: list("250m", "1Gi"), qos: corev1.PodQOSBurstable, want: Resources{CPUShares: 256, CPUPeriod: 100000, OOMScoreAdj: 938}},
		"a limit alone":          {limits: list("1500m", "64Mi"), qos: corev1.PodQOSGuaranteed, want: Resources{CPUShares: 1536, CPUQuota: 150000, CPUPeriod: 100000, MemoryLimit: 64 << 20, OOMScoreAdj: -997}},
		"the least there can be": {requests: list("1m", ""), limits: list("1m", ""), qos: corev1.PodQOSBurstable, want: Resources{CPUShares: 2, CPUQuota: 1000, CPUPeriod: 100000, OOMScoreAdj: 999}},
	} {
		c := &corev1.Container{Resources: corev1.ResourceRequirements{Requests: test.requests, Limits: test.limits}}
		if got := resources(c, test.qos, node); got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

func TestBackoff(t *testing.T) {
	var c containerRecord
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var waits []string
	for range 8 {
		c.ended(at, time.Second)
		waits = append(waits, c.Until.Sub(at).String())
		c.restarting()
	}
	if got, want := strings.Join(waits, " "), "0s 10s 20s 40s 1m20s 2m40s 5m0s 5m0s"; got != want {
		t.Errorf("waits %s, want %s", got, want)
	}
	c.ended(at, 10*time.Minute)
	if c.Until != at {
		t.Errorf("after a run of ten minutes it waits %s", c.Until.Sub(at))
	}
}

func TestResolvConf(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "front"}}
	host := "nameserver 192.0.2.1\nsearch example.org\n"
	dns := netip.MustParseAddr("10.42.0.1")
	two := "2"
	for name, test := range map[string]struct {
		spec corev1.PodSpec
		want string
	}{
		"cluster":      {corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst}, "search shop.svc.cluster.local svc.cluster.local cluster.local example.org\nnameserver 10.42.0.1\noptions ndots:5\n"},
		"default":      {corev1.PodSpec{DNSPolicy: corev1.DNSDefault}, "search example.org\nnameserver 192.0.2.1\n"},
		"host network": {corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst, HostNetwork: true}, "search example.org\nnameserver 192.0.2.1\n"},
		"none": {corev1.PodSpec{DNSPolicy: corev1.DNSNone, DNSConfig: &corev1.PodDNSConfig{Nameservers: []string{"9.9.9.9"}, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &two}}}},
			"nameserver 9.9.9.9\noptions ndots:2\n"},
		"cluster with options": {corev1.PodSpec{DNSConfig: &corev1.PodDNSConfig{Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &two}}}},
			"search shop.svc.cluster.local svc.cluster.local cluster.local example.org\nnameserver 10.42.0.1\noptions ndots:2\n"},
	} {
		pod.Spec = test.spec
		if got := resolvConf(pod, "cluster.local", dns, host); got != test.want {
			t.Errorf("%s:\n%swant\n%s", name, got, test.want)
		}
	}
}

func TestTallyCountsInARow(t *testing.T) {
	c := tally{success: 2, failure: 3}
	var said []bool
	for _, ok := range []bool{true, false, true, true, true, false, false, true, false, false, false, false} {
		said = append(said, c.add(ok))
	}
	want := []bool{false, false, false, true, false, false, false, false, false, false, true, false}
	for i := range want {
		if said[i] != want[i] {
			t.Fatalf("answers %v, want %v", said, want)
		}
	}
}

func TestPullPolicy(t *testing.T) {
	for image, want := range map[string]corev1.PullPolicy{
		"shop": corev1.PullAlways, "shop:latest": corev1.PullAlways, "shop:1": corev1.PullIfNotPresent, "localhost:5000/shop": corev1.PullAlways, "localhost:5000/shop:1": corev1.PullIfNotPresent, "shop@sha256:0123": corev1.PullIfNotPresent,
	} {
		if got := pullPolicy(&corev1.Container{Image: image}); got != want {
			t.Errorf("%s: %s, want %s", image, got, want)
		}
	}
}
