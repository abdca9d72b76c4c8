package nodeagent

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"berth.dev/berth/nodeagent/usage"
)

// Usage is what this node and the Pods on it use, as of the last 15 s. Pods and
// nodes of which nothing is known yet are not in it.
func (a *Agent) Usage() ([]metricsv1beta1.NodeMetrics, []metricsv1beta1.PodMetrics) {
	select {
	case <-a.ready:
	default:
		return nil, nil
	}
	containers, node := a.usage.Last()
	var nodes []metricsv1beta1.NodeMetrics
	if !node.At.IsZero() {
		nodes = append(nodes, metricsv1beta1.NodeMetrics{
			ObjectMeta: metav1.ObjectMeta{Name: a.opts.NodeName}, Timestamp: metav1.NewTime(node.At),
			Window: metav1.Duration{Duration: node.Window}, Usage: resources(node),
		})
	}
	byPod := map[types.UID]*metricsv1beta1.PodMetrics{}
	for _, c := range containers {
		p := byPod[c.PodUID]
		if p == nil {
			p = &metricsv1beta1.PodMetrics{
				ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: c.PodName, UID: c.PodUID},
				Timestamp:  metav1.NewTime(c.At), Window: metav1.Duration{Duration: c.Window},
			}
			byPod[c.PodUID] = p
		}
		p.Containers = append(p.Containers, metricsv1beta1.ContainerMetrics{Name: c.Name, Usage: resources(c.Used)})
	}
	out := make([]metricsv1beta1.PodMetrics, 0, len(byPod))
	for _, p := range byPod {
		out = append(out, *p)
	}
	return nodes, out
}

func resources(u usage.Used) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewScaledQuantity(u.NanoCores, resource.Nano),
		corev1.ResourceMemory: *resource.NewQuantity(u.Memory, resource.BinarySI),
	}
}
