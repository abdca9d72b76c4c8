package web

import (
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"

	"berth.dev/berth/engine/health"
)

func autoscalerItem(a *autoscalingv2.HorizontalPodAutoscaler) item {
	i := itemOf("HorizontalPodAutoscaler", a)
	i.fact("scales", a.Spec.ScaleTargetRef.Kind+" "+a.Spec.ScaleTargetRef.Name)
	i.fact("replicas", fmt.Sprintf("%d, between %d and %d", a.Status.DesiredReplicas, replicas(a.Spec.MinReplicas), a.Spec.MaxReplicas))
	for _, m := range a.Spec.Metrics {
		switch {
		case m.Resource != nil:
			i.fact(string(m.Resource.Name), usedOf(a, m.Resource.Name, "", m.Resource.Target))
		case m.ContainerResource != nil:
			c := m.ContainerResource
			i.fact(fmt.Sprintf("%s of container %s", c.Name, c.Container), usedOf(a, c.Name, c.Container, c.Target))
		}
	}
	return i.with(health.Autoscaler(a))
}

// usedOf is the present value of a metric and its target.
func usedOf(a *autoscalingv2.HorizontalPodAutoscaler, name corev1.ResourceName, container string, target autoscalingv2.MetricTarget) string {
	now := "unknown"
	for _, m := range a.Status.CurrentMetrics {
		var value *autoscalingv2.MetricValueStatus
		switch {
		case m.Resource != nil && container == "" && m.Resource.Name == name:
			value = &m.Resource.Current
		case m.ContainerResource != nil && m.ContainerResource.Container == container && m.ContainerResource.Name == name:
			value = &m.ContainerResource.Current
		}
		switch {
		case value == nil:
		case target.AverageUtilization != nil && value.AverageUtilization != nil:
			now = fmt.Sprintf("%d%%", *value.AverageUtilization)
		case value.AverageValue != nil:
			now = value.AverageValue.String()
		}
	}
	switch {
	case target.AverageUtilization != nil:
		return fmt.Sprintf("%s, target %d%%", now, *target.AverageUtilization)
	case target.AverageValue != nil:
		return now + ", target " + target.AverageValue.String()
	}
	return now
}
