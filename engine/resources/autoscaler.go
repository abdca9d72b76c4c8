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
		load: func(o client.Object) client.Object {
			out, err := upstream.AutoscalerV1(o.(*autoscalingv2.HorizontalPodAutoscaler))
			if err != nil { // its conversions fail for no object
				return &autoscalingv1.HorizontalPodAutoscaler{ObjectMeta: o.(*autoscalingv2.HorizontalPodAutoscaler).ObjectMeta}
			}
			return out
		},
		save: func(o client.Object) client.Object {
			out, err := upstream.AutoscalerV2(o.(*autoscalingv1.HorizontalPodAutoscaler))
			if err != nil { // nor do these
				return &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: o.(*autoscalingv1.HorizontalPodAutoscaler).ObjectMeta}
			}
			return out
		},
	}
}
