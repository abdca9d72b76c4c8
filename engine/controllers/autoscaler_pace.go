package controllers

import (
	"math"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

const (
	// autoscaleTolerance (--horizontal-pod-autoscaler-tolerance).
	autoscaleTolerance = 0.1
	// stabilizeDown (--horizontal-pod-autoscaler-downscale-stabilization), in seconds.
	stabilizeDown = 300
	// maxPolicyPeriod is the longest period of a policy
	// (HPAScalingPolicy.PeriodSeconds), maxStabilization the longest window
	// (HPAScalingRules.StabilizationWindowSeconds).
	maxPolicyPeriod  = 30 * time.Minute
	maxStabilization = time.Hour
)

// sized is a number of Pods at a time: a recommendation, or by how many the
// target was changed.
type sized struct {
	at time.Time
	n  int32
}

// scaleHistory is what an autoscaler remembers. One that has just begun knows
// nothing, and takes the size that it finds for its first recommendation: it does
// not scale down before the window has passed anew.
type scaleHistory struct {
	recommended []sized
	up, down    []sized
}

// without drops what no rule looks at any more.
func (h scaleHistory) without(now time.Time) scaleHistory {
	young := func(list []sized, span time.Duration) []sized {
		return slices.DeleteFunc(slices.Clone(list), func(s sized) bool { return now.Sub(s.at) > span })
	}
	return scaleHistory{young(h.recommended, maxStabilization), young(h.up, maxPolicyPeriod), young(h.down, maxPolicyPeriod)}
}

// pace is how fast the number of Pods may change.
type pace struct {
	up, down autoscalingv2.HPAScalingRules
}

// paceOf fills in what a spec leaves out (HorizontalPodAutoscalerBehavior).
func paceOf(b *autoscalingv2.HorizontalPodAutoscalerBehavior) pace {
	most := autoscalingv2.MaxChangePolicySelect
	p := pace{
		up: autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: new(int32), SelectPolicy: &most, Policies: []autoscalingv2.HPAScalingPolicy{
			{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15},
			{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15},
		}},
		down: autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: new(int32), SelectPolicy: &most, Policies: []autoscalingv2.HPAScalingPolicy{
			{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15},
		}},
	}
	*p.down.StabilizationWindowSeconds = stabilizeDown
	if b != nil {
		fill(&p.up, b.ScaleUp)
		fill(&p.down, b.ScaleDown)
	}
	return p
}

func fill(rules, said *autoscalingv2.HPAScalingRules) {
	if said == nil {
		return
	}
	if said.StabilizationWindowSeconds != nil {
		rules.StabilizationWindowSeconds = said.StabilizationWindowSeconds
	}
	if said.SelectPolicy != nil {
		rules.SelectPolicy = said.SelectPolicy
	}
	if said.Policies != nil {
		rules.Policies = said.Policies
	}
	rules.Tolerance = said.Tolerance
}

func (p pace) tolerance() tolerance {
	t := tolerance{autoscaleTolerance, autoscaleTolerance}
	if q := p.down.Tolerance; q != nil {
		t.down = q.AsApproximateFloat64()
	}
	if q := p.up.Tolerance; q != nil {
		t.up = q.AsApproximateFloat64()
	}
	return t
}

// stabilize takes the most cautious of the recommendations of each window: the
// lowest one to grow, the highest one to shrink.
func (p pace) stabilize(current, want int32, recommended []sized, now time.Time) int32 {
	grow, shrink := want, want
	for _, r := range recommended {
		if r.at.After(now.Add(-window(p.up))) {
			grow = min(grow, r.n)
		}
		if r.at.After(now.Add(-window(p.down))) {
			shrink = max(shrink, r.n)
		}
	}
	return min(max(current, grow), shrink)
}

func window(r autoscalingv2.HPAScalingRules) time.Duration {
	return time.Duration(*r.StabilizationWindowSeconds) * time.Second
}

// most is the largest number of Pods that the policies allow now.
func (p pace) most(current int32, h scaleHistory, now time.Time) int32 {
	if *p.up.SelectPolicy == autoscalingv2.DisabledPolicySelect {
		return current
	}
	var limits []int32
	for _, policy := range p.up.Policies {
		start := float64(atStart(policy, current, h, now))
		limit := start + float64(policy.Value)
		if policy.Type == autoscalingv2.PercentScalingPolicy {
			limit = math.Ceil(start * (1 + float64(policy.Value)/100))
		}
		limits = append(limits, ceil(limit))
	}
	if *p.up.SelectPolicy == autoscalingv2.MinChangePolicySelect {
		return max(current, slices.Min(limits))
	}
	return max(current, slices.Max(limits))
}

// least is the smallest number of Pods that the policies allow now.
func (p pace) least(current int32, h scaleHistory, now time.Time) int32 {
	if *p.down.SelectPolicy == autoscalingv2.DisabledPolicySelect {
		return current
	}
	var limits []int32
	for _, policy := range p.down.Policies {
		start := atStart(policy, current, h, now)
		limit := start - policy.Value
		if policy.Type == autoscalingv2.PercentScalingPolicy {
			limit = int32(float64(start) * (1 - float64(policy.Value)/100))
		}
		limits = append(limits, limit)
	}
	if *p.down.SelectPolicy == autoscalingv2.MinChangePolicySelect {
		return min(current, slices.Max(limits))
	}
	return min(current, slices.Min(limits))
}

// atStart is how many Pods there were when the period of a policy began.
func atStart(policy autoscalingv2.HPAScalingPolicy, current int32, h scaleHistory, now time.Time) int32 {
	since := now.Add(-time.Duration(policy.PeriodSeconds) * time.Second)
	start := current
	for _, e := range h.up {
		if e.at.After(since) {
			start -= e.n
		}
	}
	for _, e := range h.down {
		if e.at.After(since) {
			start += e.n
		}
	}
	return start
}
