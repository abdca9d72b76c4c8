package scheduler

import (
	"encoding/binary"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// appendKey writes down all of a Pod that the scheduler looks at: Pods of equal
// keys are of one class.
func appendKey(b []byte, pod Pod) []byte {
	s := &pod.Spec
	b = text(b, pod.Namespace)
	b = set(b, pod.Labels)
	b = text(b, string(Owner(pod.Pod)))
	b = number(b, int64(Priority(pod.Pod)))
	if s.PreemptionPolicy != nil {
		b = text(b, string(*s.PreemptionPolicy))
	}
	b = append(b, yes(s.HostNetwork))
	b = containers(b, s.InitContainers)
	b = containers(b, s.Containers)
	b = resources(b, s.Overhead)
	if s.Resources != nil {
		b = resources(b, s.Resources.Requests)
	}
	b = append(b, '|')
	b = set(b, s.NodeSelector)
	if s.Affinity != nil {
		b = part(b, s.Affinity)
	}
	b = append(b, '|')
	for i := range s.Tolerations {
		b = part(b, &s.Tolerations[i])
	}
	b = append(b, '|')
	for i := range s.TopologySpreadConstraints {
		b = part(b, &s.TopologySpreadConstraints[i])
	}
	b = append(b, '|')
	for _, v := range pod.Volumes {
		if b = text(b, v.Claim); v.Nodes != nil {
			b = part(b, v.Nodes)
		}
	}
	return text(b, pod.Blocked)
}

func containers(b []byte, list []corev1.Container) []byte {
	b = number(b, int64(len(list)))
	for i := range list {
		c := &list[i]
		b = text(b, c.Image)
		b = append(b, yes(isSidecar(c)))
		b = resources(b, c.Resources.Requests)
		b = number(b, int64(len(c.Ports)))
		for _, p := range c.Ports {
			b = number(b, int64(p.HostPort))
			b = number(b, int64(p.ContainerPort))
			b = text(b, string(p.Protocol))
			b = text(b, p.HostIP)
		}
	}
	return b
}

func resources(b []byte, list corev1.ResourceList) []byte {
	b = number(b, int64(len(list)))
	left := len(list)
	for _, name := range [...]corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		n := int64(-1)
		if q, ok := list[name]; ok {
			n = amount(name, q)
			left--
		}
		b = number(b, n)
	}
	if left == 0 {
		return b
	}
	for _, name := range sortedKeys(list) {
		b = text(b, string(name))
		b = number(b, amount(name, list[name]))
	}
	return b
}

func set(b []byte, m map[string]string) []byte {
	b = number(b, int64(len(m)))
	if len(m) == 1 {
		for k, v := range m {
			b = text(text(b, k), v)
		}
		return b
	}
	for _, k := range sortedKeys(m) {
		b = text(text(b, k), m[k])
	}
	return b
}

func text(b []byte, s string) []byte { return append(number(b, int64(len(s))), s...) }

func number(b []byte, n int64) []byte { return binary.AppendVarint(b, n) }

// part appends a piece of the API in its stored form, which is the same for
// equal pieces.
func part(b []byte, p interface{ Marshal() ([]byte, error) }) []byte {
	data, _ := p.Marshal() // it writes to memory
	return append(number(b, int64(len(data))), data...)
}

func yes(v bool) byte {
	if v {
		return 1
	}
	return 0
}

func sortedKeys[K ~string, V any](m map[K]V) []K {
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
