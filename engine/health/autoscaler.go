package health

import (
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
)

// Autoscaler is healthy when it can scale its target, or is switched off by a
// target without replicas. What keeps it from that may pass, such as pods that
// were not measured yet, so it never is Degraded.
func Autoscaler(a *autoscalingv2.HorizontalPodAutoscaler) Health {
	if a.Status.ObservedGeneration == nil || *a.Status.ObservedGeneration < a.Generation {
		return Health{Progressing, "waits for its controller"}
	}
	for _, c := range a.Status.Conditions {
		switch {
		case c.Status != corev1.ConditionFalse:
		case c.Reason == "ScalingDisabled":
			return Health{Healthy, "is off: its target has no replicas"}
		case c.Type == autoscalingv2.AbleToScale, c.Type == autoscalingv2.ScalingActive:
			return Health{Progressing, c.Message}
		}
	}
	return Health{State: Healthy}
}
