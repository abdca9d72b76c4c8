package resources

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/client"
)

// Scale is what of an object its subresource scale shows.
type Scale struct {
	// Want is where the object says how many Pods it is to have.
	Want     **int32
	Have     int32
	Selector *metav1.LabelSelector
}

// Replicas are those that are wanted; who says none wants one.
func (s Scale) Replicas() int32 {
	if *s.Want == nil {
		return 1
	}
	return **s.Want
}

// ScaleOf looks at an object of a kind that has a scale; false for any other.
func ScaleOf(obj client.Object) (Scale, bool) {
	switch o := obj.(type) {
	case *appsv1.Deployment:
		return Scale{&o.Spec.Replicas, o.Status.Replicas, o.Spec.Selector}, true
	case *appsv1.StatefulSet:
		return Scale{&o.Spec.Replicas, o.Status.Replicas, o.Spec.Selector}, true
	case *appsv1.ReplicaSet:
		return Scale{&o.Spec.Replicas, o.Status.Replicas, o.Spec.Selector}, true
	case *corev1.ReplicationController:
		return Scale{&o.Spec.Replicas, o.Status.Replicas, &metav1.LabelSelector{MatchLabels: o.Spec.Selector}}, true
	}
	return Scale{}, false
}
