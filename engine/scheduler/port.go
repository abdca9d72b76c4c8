package scheduler

import (
	"cmp"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// port is a port of the node that a Pod takes.
type port struct {
	protocol corev1.Protocol
	number   int32
	// ip is the zero address for all of the node's.
	ip netip.Addr
}

func (p port) String() string {
	if p.ip.IsValid() {
		return fmt.Sprintf("%s/%s", p.protocol, netip.AddrPortFrom(p.ip, uint16(p.number)))
	}
	return fmt.Sprintf("%s/%d", p.protocol, p.number)
}

// clashes: two Pods cannot have both.
func (p port) clashes(o port) bool {
	return p.protocol == o.protocol && p.number == o.number && (p.ip == o.ip || !p.ip.IsValid() || !o.ip.IsValid())
}

// portsOf are the ports of the node that a Pod takes: those of its containers
// and sidecars, and every port in the node's own network.
func portsOf(pod *corev1.Pod) []port {
	var out []port
	add := func(ports []corev1.ContainerPort) {
		for _, p := range ports {
			number := p.HostPort
			if number == 0 && pod.Spec.HostNetwork {
				number = p.ContainerPort
			}
			if number == 0 {
				continue
			}
			ip, _ := netip.ParseAddr(p.HostIP)
			if ip.IsUnspecified() {
				ip = netip.Addr{}
			}
			out = append(out, port{cmp.Or(p.Protocol, corev1.ProtocolTCP), number, ip})
		}
	}
	for i := range pod.Spec.InitContainers {
		if isSidecar(&pod.Spec.InitContainers[i]) {
			add(pod.Spec.InitContainers[i].Ports)
		}
	}
	for i := range pod.Spec.Containers {
		add(pod.Spec.Containers[i].Ports)
	}
	return out
}

func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// portTaken is the first port of a class that is taken on a node.
func (n *node) portTaken(k *class) (port, bool) {
	if len(k.ports) == 0 {
		return port{}, false
	}
	for _, want := range k.ports {
		for have := range n.ports {
			if want.clashes(have) {
				return want, true
			}
		}
		for _, r := range n.reserved {
			if r.against(k) && r.clashes(want) {
				return want, true
			}
		}
	}
	return port{}, false
}
