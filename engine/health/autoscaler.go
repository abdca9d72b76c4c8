package health

import (
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
)

// Autoscaler is healthy when it has its target, or is switched off by one without
// replicas. That nothing was measured yet, or cannot be, is said and not waited
// for: the workload is what it was. kstatus, too, calls any autoscaler current.
func Autoscaler(a *autoscalingv2.HorizontalPodAutoscaler) Health {
	if a.Status.ObservedGeneration == nil || *a.Status.ObservedGeneration < a.Generation {
		return Health{Progressing, "waits for its controller"}
	}
	for _, c := range a.Status.Conditions {
		switch {
		case c.Status != corev1.ConditionFalse:
		case c.Reason == "ScalingDisabled":
			return Health{Healthy, "is off: its target has no replicas"}
		case c.Type == autoscalingv2.AbleToScale:
			return Health{Progressing, c.Message}
		case c.Type == autoscalingv2.ScalingActive:
			return Health{Healthy, "does not scale: " + c.Message}
		}
	}
	return Health{State: Healthy}
}
