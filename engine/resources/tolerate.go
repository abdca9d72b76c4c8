package resources

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// nodeSeconds is how long a Pod stays on a node that is not ready unless it says
// otherwise, as Kubernetes' admission DefaultTolerationSeconds has it.
const nodeSeconds = 300

// tolerateNodes lets a new Pod stay for a while on a node that is not ready.
func tolerateNodes(pod *corev1.Pod) {
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		if slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool {
			return (t.Key == key || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "")
		}) {
			continue
		}
		seconds := int64(nodeSeconds)
		pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
			Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds,
		})
	}
}

// keepTolerations takes over into s those that were filled in on was.
func keepTolerations(s, was *corev1.PodSpec) {
	for _, t := range was.Tolerations {
		filled := (t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable) && t.Effect == corev1.TaintEffectNoExecute
		if filled && !slices.ContainsFunc(s.Tolerations, func(o corev1.Toleration) bool { return o.Key == t.Key && o.Effect == t.Effect }) {
			s.Tolerations = append(s.Tolerations, t)
		}
	}
}
