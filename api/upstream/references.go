package upstream

import (
	corev1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

// PodSecrets are the names of the Secrets that a Pod refers to.
func PodSecrets(pod *corev1.Pod) []string {
	var out []string
	podutil.VisitPodSecretNames(pod, func(name string) bool { out = append(out, name); return true })
	return out
}

// PodConfigMaps are the names of the ConfigMaps that a Pod refers to.
func PodConfigMaps(pod *corev1.Pod) []string {
	var out []string
	podutil.VisitPodConfigmapNames(pod, func(name string) bool { out = append(out, name); return true })
	return out
}
