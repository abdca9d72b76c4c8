package upstream

import (
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
)

// Limits of a HorizontalPodAutoscaler's behavior, in seconds (k8s.io/api/autoscaling/v2).
const (
	maxPolicyPeriod        = 1800
	maxStabilizationWindow = 3600
)

// autoscalerRules are our own: Kubernetes' validation of this one kind needs
// its whole API server (5 MB). What is generated from the types, such as the
// target's name and kind, is checked by the scheme.
func autoscalerRules() rules {
	name := apivalidation.NameIsDNSSubdomain
	return rulesOf(
		func(a *autoscaling.HorizontalPodAutoscaler) field.ErrorList {
			errs := corevalidation.ValidateObjectMeta(&a.ObjectMeta, true, corevalidation.ValidateNameFunc(name), field.NewPath("metadata"))
			return append(errs, autoscalerSpec(&a.Spec)...)
		},
		func(a, old *autoscaling.HorizontalPodAutoscaler) field.ErrorList {
			errs := corevalidation.ValidateObjectMetaUpdate(&a.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			return append(errs, autoscalerSpec(&a.Spec)...)
		}, nil)
}

func autoscalerSpec(s *autoscaling.HorizontalPodAutoscalerSpec) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if s.MaxReplicas < 1 {
		errs = append(errs, field.Invalid(path.Child("maxReplicas"), s.MaxReplicas, "must be greater than 0"))
	}
	if s.MinReplicas != nil && *s.MinReplicas < 0 {
		errs = append(errs, field.Invalid(path.Child("minReplicas"), *s.MinReplicas, "must be greater than or equal to 0"))
	}
	if s.MinReplicas != nil && s.MaxReplicas < *s.MinReplicas {
		errs = append(errs, field.Invalid(path.Child("maxReplicas"), s.MaxReplicas, "must be greater than or equal to `minReplicas`"))
	}
	outside := false
	for i := range s.Metrics {
		outside = outside || s.Metrics[i].Type == autoscaling.ObjectMetricSourceType || s.Metrics[i].Type == autoscaling.ExternalMetricSourceType
		errs = append(errs, metric(&s.Metrics[i], path.Child("metrics").Index(i))...)
	}
	if s.MinReplicas != nil && *s.MinReplicas == 0 && !outside {
		errs = append(errs, field.Forbidden(path.Child("metrics"), "must specify at least one Object or External metric to support scaling to zero replicas"))
	}
	if s.Behavior != nil {
		errs = append(errs, scalingRules(s.Behavior.ScaleUp, path.Child("behavior", "scaleUp"))...)
		errs = append(errs, scalingRules(s.Behavior.ScaleDown, path.Child("behavior", "scaleDown"))...)
	}
	return errs
}

// metric wants the one source that its type names.
func metric(m *autoscaling.MetricSpec, path *field.Path) field.ErrorList {
	type source struct {
		kind   autoscaling.MetricSourceType
		field  string
		set    bool
		target *autoscaling.MetricTarget
		// allowed are the types of target that make sense.
		allowed []autoscaling.MetricTargetType
	}
	value, average, utilization := autoscaling.ValueMetricType, autoscaling.AverageValueMetricType, autoscaling.UtilizationMetricType
	list := []source{
		{kind: autoscaling.ObjectMetricSourceType, field: "object", set: m.Object != nil, allowed: []autoscaling.MetricTargetType{value, average}},
		{kind: autoscaling.PodsMetricSourceType, field: "pods", set: m.Pods != nil, allowed: []autoscaling.MetricTargetType{average}},
		{kind: autoscaling.ResourceMetricSourceType, field: "resource", set: m.Resource != nil, allowed: []autoscaling.MetricTargetType{utilization, average}},
		{kind: autoscaling.ContainerResourceMetricSourceType, field: "containerResource", set: m.ContainerResource != nil, allowed: []autoscaling.MetricTargetType{utilization, average}},
		{kind: autoscaling.ExternalMetricSourceType, field: "external", set: m.External != nil, allowed: []autoscaling.MetricTargetType{value, average}},
	}
	for i, t := range []func() *autoscaling.MetricTarget{
		func() *autoscaling.MetricTarget { return &m.Object.Target },
		func() *autoscaling.MetricTarget { return &m.Pods.Target },
		func() *autoscaling.MetricTarget { return &m.Resource.Target },
		func() *autoscaling.MetricTarget { return &m.ContainerResource.Target },
		func() *autoscaling.MetricTarget { return &m.External.Target },
	} {
		if list[i].set {
			list[i].target = t()
		}
	}
	var errs field.ErrorList
	var types []autoscaling.MetricSourceType
	known := false
	for _, s := range list {
		types = append(types, s.kind)
		if s.kind != m.Type {
			if s.set {
				errs = append(errs, field.Forbidden(path.Child(s.field), "must be empty when type is "+string(m.Type)))
			}
			continue
		}
		known = true
		if !s.set {
			errs = append(errs, field.Required(path.Child(s.field), "must be set when type is "+string(m.Type)))
			continue
		}
		errs = append(errs, target(s.target, s.allowed, path.Child(s.field, "target"))...)
	}
	if !known {
		errs = append(errs, field.NotSupported(path.Child("type"), m.Type, types))
	}
	return errs
}

func target(t *autoscaling.MetricTarget, allowed []autoscaling.MetricTargetType, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	found := false
	for _, a := range allowed {
		found = found || a == t.Type
	}
	if !found {
		errs = append(errs, field.NotSupported(path.Child("type"), t.Type, allowed))
	}
	switch {
	case t.Value != nil && t.Value.Sign() <= 0:
		errs = append(errs, field.Invalid(path.Child("value"), t.Value.String(), "must be positive"))
	case t.AverageValue != nil && t.AverageValue.Sign() <= 0:
		errs = append(errs, field.Invalid(path.Child("averageValue"), t.AverageValue.String(), "must be positive"))
	case t.AverageUtilization != nil && *t.AverageUtilization < 1:
		errs = append(errs, field.Invalid(path.Child("averageUtilization"), *t.AverageUtilization, "must be greater than 0"))
	}
	switch {
	case t.Type == autoscaling.ValueMetricType && t.Value == nil:
		errs = append(errs, field.Required(path.Child("value"), "must be set when type is Value"))
	case t.Type == autoscaling.AverageValueMetricType && t.AverageValue == nil:
		errs = append(errs, field.Required(path.Child("averageValue"), "must be set when type is AverageValue"))
	case t.Type == autoscaling.UtilizationMetricType && t.AverageUtilization == nil:
		errs = append(errs, field.Required(path.Child("averageUtilization"), "must be set when type is Utilization"))
	}
	return errs
}

func scalingRules(r *autoscaling.HPAScalingRules, path *field.Path) field.ErrorList {
	if r == nil {
		return nil
	}
	var errs field.ErrorList
	if w := r.StabilizationWindowSeconds; w != nil && (*w < 0 || *w > maxStabilizationWindow) {
		errs = append(errs, field.Invalid(path.Child("stabilizationWindowSeconds"), *w, "must be between 0 and 3600"))
	}
	selects := []autoscaling.ScalingPolicySelect{autoscaling.MaxPolicySelect, autoscaling.MinPolicySelect, autoscaling.DisabledPolicySelect}
	if p := r.SelectPolicy; p != nil && *p != selects[0] && *p != selects[1] && *p != selects[2] {
		errs = append(errs, field.NotSupported(path.Child("selectPolicy"), *p, selects))
	}
	if len(r.Policies) == 0 {
		errs = append(errs, field.Required(path.Child("policies"), "must specify at least one policy"))
	}
	for i, p := range r.Policies {
		at := path.Child("policies").Index(i)
		if p.Type != autoscaling.PodsScalingPolicy && p.Type != autoscaling.PercentScalingPolicy {
			errs = append(errs, field.NotSupported(at.Child("type"), p.Type, []autoscaling.HPAScalingPolicyType{autoscaling.PodsScalingPolicy, autoscaling.PercentScalingPolicy}))
		}
		if p.Value <= 0 {
			errs = append(errs, field.Invalid(at.Child("value"), p.Value, "must be greater than zero"))
		}
		if p.PeriodSeconds <= 0 || p.PeriodSeconds > maxPolicyPeriod {
			errs = append(errs, field.Invalid(at.Child("periodSeconds"), p.PeriodSeconds, "must be between 1 and 1800"))
		}
	}
	return errs
}
