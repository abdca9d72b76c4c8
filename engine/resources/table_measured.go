package resources

import (
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// Measured are the kinds that say what Pods and nodes use now.
func Measured() []*Resource {
	return []*Resource{
		{
			GroupVersionKind: kind("metrics.k8s.io", "v1beta1", "NodeMetrics"), Plural: "nodes",
			Measured: true, newObject: newOf[metricsv1beta1.NodeMetrics], newList: listOf[metricsv1beta1.NodeMetricsList],
		},
		{
			GroupVersionKind: kind("metrics.k8s.io", "v1beta1", "PodMetrics"), Plural: "pods",
			Namespaced: true, Measured: true, newObject: newOf[metricsv1beta1.PodMetrics], newList: listOf[metricsv1beta1.PodMetricsList],
		},
	}
}
