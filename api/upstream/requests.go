package upstream

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"
)

// PodRequests is what a Pod asks for at its peak: its containers and sidecars, or
// an init container if that is more, and its overhead.
func PodRequests(p *corev1.Pod) corev1.ResourceList {
	return resource.PodRequests(p, resource.PodResourcesOptions{})
}

// PodLimits is what a Pod may use, by the same rule.
func PodLimits(p *corev1.Pod) corev1.ResourceList {
	return resource.PodLimits(p, resource.PodResourcesOptions{})
}
