package scheduler

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Requests are amounts of resources: CPU in thousandths of a core, all else in
// its own unit. Every Pod counts as one of "pods".
type Requests map[corev1.ResourceName]int64

// PodRequests is what a Pod needs at its peak: the sum of its containers and
// sidecars, or what an init container needs beside the sidecars started before
// it, whichever is more (KEP-753), and the overhead.
func PodRequests(pod *corev1.Pod) Requests {
	running, peak := Requests{}, Requests{}
	for _, c := range pod.Spec.InitContainers {
		if isSidecar(&c) {
			running.Add(amounts(c.Resources.Requests))
			peak.atLeast(running)
			continue
		}
		step := Requests{}
		step.Add(running)
		step.Add(amounts(c.Resources.Requests))
		peak.atLeast(step)
	}
	for _, c := range pod.Spec.Containers {
		running.Add(amounts(c.Resources.Requests))
	}
	peak.atLeast(running)
	if pod.Spec.Resources != nil {
		for name, n := range amounts(pod.Spec.Resources.Requests) {
			peak[name] = n
		}
	}
	peak.Add(amounts(pod.Spec.Overhead))
	peak[corev1.ResourcePods] = 1
	return peak
}

// What a container counts for, when nodes are compared, that requests no CPU or no
// memory: as in kube-scheduler, or such Pods would all be put on one node.
const (
	smallCPU    = 100
	smallMemory = 200 << 20
)

// weightOf is the CPU and the memory that a Pod counts for when nodes are compared.
func weightOf(pod *corev1.Pod) [2]int64 {
	counted := &corev1.Pod{Spec: corev1.PodSpec{Overhead: pod.Spec.Overhead, Resources: pod.Spec.Resources}}
	fill := func(from []corev1.Container) []corev1.Container {
		out := make([]corev1.Container, len(from))
		for i := range from {
			r := corev1.ResourceList{
				corev1.ResourceCPU: *resource.NewMilliQuantity(smallCPU, resource.DecimalSI), corev1.ResourceMemory: *resource.NewQuantity(smallMemory, resource.BinarySI),
			}
			maps.Copy(r, from[i].Resources.Requests)
			out[i] = corev1.Container{RestartPolicy: from[i].RestartPolicy, Resources: corev1.ResourceRequirements{Requests: r}}
		}
		return out
	}
	counted.Spec.InitContainers, counted.Spec.Containers = fill(pod.Spec.InitContainers), fill(pod.Spec.Containers)
	sum := PodRequests(counted)
	return [2]int64{sum[corev1.ResourceCPU], sum[corev1.ResourceMemory]}
}

func amounts(list corev1.ResourceList) Requests {
	r := Requests{}
	for name, q := range list {
		r[name] = amount(name, q)
	}
	return r
}

func amount(name corev1.ResourceName, q resource.Quantity) int64 {
	if name == corev1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

// Add raises r by other.
func (r Requests) Add(other Requests) {
	for name, n := range other {
		r[name] += n
	}
}

// Sub lowers r by other.
func (r Requests) Sub(other Requests) {
	for name, n := range other {
		r[name] -= n
	}
}

func (r Requests) atLeast(other Requests) {
	for name, n := range other {
		r[name] = max(r[name], n)
	}
}

func quantity(name corev1.ResourceName, n int64) string {
	switch name {
	case corev1.ResourceCPU:
		return resource.NewMilliQuantity(n, resource.DecimalSI).String()
	case corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
		return resource.NewQuantity(n, resource.BinarySI).String()
	}
	return resource.NewQuantity(n, resource.DecimalSI).String()
}
