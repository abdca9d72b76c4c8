// Package strategy holds the rules by which a Deployment goes from one template
// to the next: the controller follows them, and a plan foresees them. It is pure.
package strategy

import (
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Limits are how many Pods more than wanted there may be, and how many fewer may
// be available (spec.strategy.rollingUpdate). Of percentages surge is rounded
// up, unavailable down, and when both are zero one Pod may be unavailable.
func Limits(dep *appsv1.Deployment) (surge, unavailable int32) {
	want := int(*dep.Spec.Replicas)
	u := dep.Spec.Strategy.RollingUpdate
	if u == nil {
		return 1, 0
	}
	s, err1 := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(u.MaxSurge, intstr.FromInt32(0)), want, true)
	m, err2 := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(u.MaxUnavailable, intstr.FromInt32(0)), want, false)
	if err1 != nil || err2 != nil || (s == 0 && m == 0) {
		m = 1
	}
	return int32(s), min(int32(m), int32(want))
}

// Recreates reports whether all Pods end before the first new one starts.
func Recreates(dep *appsv1.Deployment) bool {
	return dep.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType
}
