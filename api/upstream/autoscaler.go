package upstream

import (
	"fmt"

	asv1 "k8s.io/api/autoscaling/v1"
	asv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	autoscalingv1 "k8s.io/kubernetes/pkg/apis/autoscaling/v1"
	autoscalingv2 "k8s.io/kubernetes/pkg/apis/autoscaling/v2"
)

// AutoscalerV1 is a HorizontalPodAutoscaler in the words of autoscaling/v1. What that
// has no field for is in annotations, as in Kubernetes.
func AutoscalerV1(from *asv2.HorizontalPodAutoscaler) (*asv1.HorizontalPodAutoscaler, error) {
	var between autoscaling.HorizontalPodAutoscaler
	if err := autoscalingv2.Convert_v2_HorizontalPodAutoscaler_To_autoscaling_HorizontalPodAutoscaler(from.DeepCopy(), &between, nil); err != nil {
		return nil, fmt.Errorf("read autoscaling/v2: %w", err)
	}
	out := &asv1.HorizontalPodAutoscaler{}
	if err := autoscalingv1.Convert_autoscaling_HorizontalPodAutoscaler_To_v1_HorizontalPodAutoscaler(&between, out, nil); err != nil {
		return nil, fmt.Errorf("write autoscaling/v1: %w", err)
	}
	return out, nil
}

// AutoscalerV2 is a HorizontalPodAutoscaler of autoscaling/v1 in the words of v2.
func AutoscalerV2(from *asv1.HorizontalPodAutoscaler) (*asv2.HorizontalPodAutoscaler, error) {
	var between autoscaling.HorizontalPodAutoscaler
	if err := autoscalingv1.Convert_v1_HorizontalPodAutoscaler_To_autoscaling_HorizontalPodAutoscaler(from.DeepCopy(), &between, nil); err != nil {
		return nil, fmt.Errorf("read autoscaling/v1: %w", err)
	}
	out := &asv2.HorizontalPodAutoscaler{}
	if err := autoscalingv2.Convert_autoscaling_HorizontalPodAutoscaler_To_v2_HorizontalPodAutoscaler(&between, out, nil); err != nil {
		return nil, fmt.Errorf("write autoscaling/v2: %w", err)
	}
	return out, nil
}
