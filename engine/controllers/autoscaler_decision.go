package controllers

import (
	"fmt"
	"slices"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/engine/resources"
)

// scaling is what an autoscaler decides by.
type scaling struct {
	autoscaler *autoscalingv2.HorizontalPodAutoscaler
	target     resources.Scale
	// pods are those of the target, and of no other owner.
	pods []*corev1.Pod
	// usage is nil where nothing measures Pods.
	usage podUsage
	// rivals are all autoscalers of the target if there are several.
	rivals  []string
	history scaleHistory
	now     time.Time
}

// scaleStep is what comes of it.
type scaleStep struct {
	status autoscalingv2.HorizontalPodAutoscalerStatus
	// replicas that the target is to have; nil for no change.
	replicas *int32
	events   []jobEvent
	// history as it is once the step was carried out.
	history scaleHistory
}

// scaleDecision is a step in the making. It is pure.
type scaleDecision struct {
	scaling
	pace pace
	scaleStep
}

// decideScaling says how many Pods a target is to have, by the algorithm of
// Kubernetes (https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/).
func decideScaling(in scaling) scaleStep {
	d := &scaleDecision{scaling: in, pace: paceOf(in.autoscaler.Spec.Behavior)}
	d.status = *in.autoscaler.Status.DeepCopy()
	d.status.ObservedGeneration = &in.autoscaler.Generation
	d.scaleStep.history = in.history.without(in.now)
	current := d.target.Replicas()
	if len(d.scaleStep.history.recommended) == 0 {
		d.recommend(current)
	}
	d.able(true, "SucceededGetScale", "the HPA controller was able to get the target's current scale")
	desired, why := d.desire(current)
	d.status.CurrentReplicas, d.status.DesiredReplicas = d.target.Have, desired
	if desired != current {
		d.rescale(current, desired, why)
	}
	return d.scaleStep
}

// desire is the number of Pods within all limits, and the reason for a change.
func (d *scaleDecision) desire(current int32) (desired int32, why string) {
	least, most := minReplicas(d.autoscaler), d.autoscaler.Spec.MaxReplicas
	switch {
	case len(d.rivals) > 0:
		message := "the HPA was unable to compute the replica count: the target is controlled by multiple HPAs: " + strings.Join(d.rivals, ", ")
		d.warn("AmbiguousSelector", message)
		d.condition(autoscalingv2.ScalingActive, false, "AmbiguousSelector", message)
		return current, ""
	case current == 0 && least != 0:
		d.condition(autoscalingv2.ScalingActive, false, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero")
		return 0, ""
	case current > most:
		return most, "Current number of replicas above Spec.MaxReplicas"
	case current < least:
		return least, "Current number of replicas below Spec.MinReplicas"
	}
	want, metric, ok := d.measure(current)
	if !ok {
		return current, ""
	}
	desired = d.limit(current, d.settle(current, want), least, most)
	if desired > current {
		return desired, metric + " above target"
	}
	return desired, "All metrics below target"
}

func minReplicas(a *autoscalingv2.HorizontalPodAutoscaler) int32 {
	if a.Spec.MinReplicas == nil {
		return 1
	}
	return *a.Spec.MinReplicas
}

// measure asks each metric; the one that wants most Pods decides. While one of
// them is not known, nothing is taken away.
func (d *scaleDecision) measure(current int32) (want int32, metric string, ok bool) {
	d.status.CurrentMetrics = nil
	var first error
	var reason string
	failed := 0
	for i := range d.autoscaler.Spec.Metrics {
		m, known := resourceMetricOf(&d.autoscaler.Spec.Metrics[i])
		n, err := int32(0), fmt.Errorf("metrics of the type %s need a metrics API that this cluster does not have", d.autoscaler.Spec.Metrics[i].Type)
		why := "InvalidMetricSourceType"
		if known {
			why = m.reason()
			n, err = d.ask(m, current)
		}
		if err != nil {
			d.warn(why, err.Error())
			if failed++; first == nil {
				first, reason = err, why
			}
			continue
		}
		if metric == "" || n > want {
			want, metric = n, m.String()
		}
	}
	if failed > 0 && (metric == "" || want < current) {
		message := fmt.Sprintf("invalid metrics (%d invalid out of %d), first error is: %v", failed, len(d.autoscaler.Spec.Metrics), first)
		d.warn("FailedComputeMetricsReplicas", message)
		d.condition(autoscalingv2.ScalingActive, false, reason, "the HPA was unable to compute the replica count: "+first.Error())
		return 0, "", false
	}
	d.condition(autoscalingv2.ScalingActive, true, "ValidMetricFound", "the HPA was able to successfully calculate a replica count from "+metric)
	return want, metric, true
}

func (d *scaleDecision) ask(m resourceMetric, current int32) (int32, error) {
	if d.usage == nil {
		return 0, fmt.Errorf("unable to get metrics for resource %s: nothing measures Pods in this cluster", m.name)
	}
	s, err := m.take(d.pods, d.usage, d.now)
	if err != nil {
		return 0, fmt.Errorf("failed to get %s usage: %w", m.name, err)
	}
	n, l := s.replicas(current, d.pace.tolerance())
	d.status.CurrentMetrics = append(d.status.CurrentMetrics, m.status(l))
	return n, nil
}

// settle holds a change against the recommendations of a while.
func (d *scaleDecision) settle(current, want int32) int32 {
	stable := d.pace.stabilize(current, want, d.scaleStep.history.recommended, d.now)
	d.recommend(want)
	switch {
	case stable == want:
		d.able(true, "ReadyForNewScale", "recommended size matches current size")
	case want > stable:
		d.able(true, "ScaleUpStabilized", "recent recommendations were lower than current one, applying the lowest recent recommendation")
	default:
		d.able(true, "ScaleDownStabilized", "recent recommendations were higher than current one, applying the highest recent recommendation")
	}
	return stable
}

// limit keeps a change within the policies and the bounds.
func (d *scaleDecision) limit(current, want, least, most int32) int32 {
	limited := func(n int32, reason, message string) int32 {
		d.condition(autoscalingv2.ScalingLimited, true, reason, message)
		return n
	}
	if fast := d.pace.most(current, d.scaleStep.history, d.now); want > current && want > min(fast, most) {
		if fast < most {
			return limited(fast, "ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
		}
		return limited(most, "TooManyReplicas", "the desired replica count is more than the maximum replica count")
	}
	if fast := d.pace.least(current, d.scaleStep.history, d.now); want < current && want < max(fast, least) {
		if fast > least {
			return limited(fast, "ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")
		}
		return limited(least, "TooFewReplicas", "the desired replica count is less than the minimum replica count")
	}
	d.condition(autoscalingv2.ScalingLimited, false, "DesiredWithinRange", "the desired count is within the acceptable range")
	return want
}

func (d *scaleDecision) recommend(n int32) {
	d.scaleStep.history.recommended = append(d.scaleStep.history.recommended, sized{d.now, n})
}

func (d *scaleDecision) rescale(current, desired int32, why string) {
	d.replicas = &desired
	d.status.LastScaleTime = &metav1.Time{Time: d.now}
	d.able(true, "SucceededRescale", fmt.Sprintf("the HPA controller was able to update the target scale to %d", desired))
	d.events = append(d.events, jobEvent{corev1.EventTypeNormal, "SuccessfulRescale", fmt.Sprintf("New size: %d; reason: %s", desired, why)})
	h := &d.scaleStep.history
	if desired > current {
		h.up = append(h.up, sized{d.now, desired - current})
	} else {
		h.down = append(h.down, sized{d.now, current - desired})
	}
}

func (d *scaleDecision) warn(reason, message string) {
	d.events = append(d.events, jobEvent{corev1.EventTypeWarning, reason, message})
}

func (d *scaleDecision) able(yes bool, reason, message string) {
	d.condition(autoscalingv2.AbleToScale, yes, reason, message)
}

func (d *scaleDecision) condition(kind autoscalingv2.HorizontalPodAutoscalerConditionType, yes bool, reason, message string) {
	setScaleCondition(&d.status, kind, yes, reason, message, d.now)
}

func setScaleCondition(s *autoscalingv2.HorizontalPodAutoscalerStatus, kind autoscalingv2.HorizontalPodAutoscalerConditionType, yes bool, reason, message string, now time.Time) {
	status := corev1.ConditionFalse
	if yes {
		status = corev1.ConditionTrue
	}
	next := autoscalingv2.HorizontalPodAutoscalerCondition{
		Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(now),
	}
	at := slices.IndexFunc(s.Conditions, func(c autoscalingv2.HorizontalPodAutoscalerCondition) bool { return c.Type == kind })
	if at < 0 {
		s.Conditions = append(s.Conditions, next)
		return
	}
	if s.Conditions[at].Status == status {
		next.LastTransitionTime = s.Conditions[at].LastTransitionTime
	}
	s.Conditions[at] = next
}
