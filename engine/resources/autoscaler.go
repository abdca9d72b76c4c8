package resources

import (
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/upstream"
)

// newAutoscalerForm is the HorizontalPodAutoscaler of autoscaling/v1, which knows the
// use of CPU alone, and has the rest of v2 in annotations.
func newAutoscalerForm() *storedForm {
	return &storedForm{
		group: "autoscaling", plural: "horizontalpodautoscalers", newStored: newOf[autoscalingv2.HorizontalPodAutoscaler],
		load: func(o client.Object) (client.Object, error) {
			return upstream.AutoscalerV1(o.(*autoscalingv2.HorizontalPodAutoscaler))
		},
		save: func(o client.Object) (client.Object, error) {
			return upstream.AutoscalerV2(o.(*autoscalingv1.HorizontalPodAutoscaler))
		},
	}
}
