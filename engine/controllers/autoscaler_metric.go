package controllers

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

const (
	// cpuInitialization is how long after its start the CPU of a Pod counts only
	// while it is ready (--horizontal-pod-autoscaler-cpu-initialization-period).
	cpuInitialization = 5 * time.Minute
	// initialReadiness is how long after its start a Pod that becomes unready is
	// one that never was ready (--horizontal-pod-autoscaler-initial-readiness-delay).
	initialReadiness = 30 * time.Second
)

// podUsage is what Pods use, by their UID.
type podUsage map[types.UID]*metricsv1beta1.PodMetrics

// tolerance is how far the ratio of what is used to the target may be off
// without a change, below and above.
type tolerance struct{ down, up float64 }

func (t tolerance) covers(ratio float64) bool { return 1-t.down <= ratio && ratio <= 1+t.up }

// resourceMetric is a metric of the type Resource or ContainerResource.
type resourceMetric struct {
	name corev1.ResourceName
	// container whose usage counts; empty for the whole Pod.
	container string
	target    autoscalingv2.MetricTarget
}

// resourceMetricOf is false for the types that need a metrics API which is not
// there (api/support refuses them).
func resourceMetricOf(m *autoscalingv2.MetricSpec) (resourceMetric, bool) {
	switch {
	case m.Type == autoscalingv2.ResourceMetricSourceType && m.Resource != nil:
		return resourceMetric{name: m.Resource.Name, target: m.Resource.Target}, true
	case m.Type == autoscalingv2.ContainerResourceMetricSourceType && m.ContainerResource != nil:
		return resourceMetric{m.ContainerResource.Name, m.ContainerResource.Container, m.ContainerResource.Target}, true
	}
	return resourceMetric{}, false
}

// reason is that of a failure, as Kubernetes names it.
func (m resourceMetric) reason() string {
	if m.container != "" {
		return "FailedGetContainerResourceMetric"
	}
	return "FailedGetResourceMetric"
}

func (m resourceMetric) String() string {
	s := string(m.name)
	if m.container != "" {
		s += " container"
	}
	s += " resource"
	if m.byRequest() {
		s += " utilization (percentage of request)"
	}
	return s
}

func (m resourceMetric) byRequest() bool { return m.target.Type == autoscalingv2.UtilizationMetricType }

// amount is a quantity as a number: of CPU in thousandths of a core.
func amount(name corev1.ResourceName, q resource.Quantity) int64 {
	if name == corev1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

// sample is what is known of the Pods of a target.
type sample struct {
	metric resourceMetric
	// used is that of Pods that count, requests what each of them asks for.
	used, requests map[types.UID]int64
	// missing are Pods without a measurement, unready those whose CPU says
	// nothing yet.
	missing, unready []types.UID
	ready            int
}

// take sorts the Pods of a target, as Kubernetes does
// (k8s.io/kubernetes/pkg/controller/podautoscaler, groupPods).
func (m resourceMetric) take(pods []*corev1.Pod, usage podUsage, now time.Time) (*sample, error) {
	s := &sample{metric: m, used: map[types.UID]int64{}, requests: map[types.UID]int64{}}
	pods = slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool { return !podActive(p) })
	if len(pods) == 0 {
		return nil, errors.New("no pods returned by selector while calculating replica count")
	}
	for _, p := range pods {
		if m.byRequest() {
			request, err := requestOf(p, m.name, m.container)
			if err != nil {
				return nil, err
			}
			s.requests[p.UID] = request
		}
		used, ok := usedBy(usage[p.UID], p, m.name, m.container)
		switch {
		case p.Status.Phase == corev1.PodPending:
			s.unready = append(s.unready, p.UID)
		case !ok:
			s.missing = append(s.missing, p.UID)
		case m.name == corev1.ResourceCPU && starts(p, usage[p.UID], now):
			s.unready = append(s.unready, p.UID)
		default:
			s.used[p.UID] = used
			s.ready++
		}
	}
	if len(s.used) == 0 {
		return nil, errors.New("did not receive metrics for targeted pods (pods might be unready)")
	}
	return s, nil
}

// starts: what the Pod uses of CPU is what its start takes, and says nothing of
// the load.
func starts(p *corev1.Pod, m *metricsv1beta1.PodMetrics, now time.Time) bool {
	ready := podCondition(p, corev1.PodReady)
	if ready == nil || p.Status.StartTime == nil {
		return true
	}
	since := ready.LastTransitionTime.Time
	if p.Status.StartTime.Add(cpuInitialization).After(now) {
		return ready.Status == corev1.ConditionFalse || m.Timestamp.Time.Before(since.Add(m.Window.Duration))
	}
	return ready.Status == corev1.ConditionFalse && p.Status.StartTime.Add(initialReadiness).After(since)
}

// lasting are the containers of a Pod that run all the time: sidecars among
// them, plain init containers not.
func lasting(p *corev1.Pod) []corev1.Container {
	out := slices.Clone(p.Spec.Containers)
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			out = append(out, c)
		}
	}
	return out
}

// requestOf is what a Pod, or one container of it, asks for. An error names the
// container that asks for nothing.
func requestOf(p *corev1.Pod, name corev1.ResourceName, container string) (int64, error) {
	if r := p.Spec.Resources; r != nil && container == "" {
		if q, ok := r.Requests[name]; ok && !q.IsZero() {
			return amount(name, q), nil
		}
	}
	var sum int64
	found := false
	for _, c := range lasting(p) {
		if container != "" && c.Name != container {
			continue
		}
		q, ok := c.Resources.Requests[name]
		if !ok || q.IsZero() {
			return 0, fmt.Errorf("missing request for %s in container %s of Pod %s", name, c.Name, p.Name)
		}
		sum, found = sum+amount(name, q), true
	}
	if !found {
		return 0, fmt.Errorf("container %s is not in Pod %s", container, p.Name)
	}
	return sum, nil
}

// usedBy is what a Pod, or one container of it, uses; false when a container
// that counts was not measured.
func usedBy(m *metricsv1beta1.PodMetrics, p *corev1.Pod, name corev1.ResourceName, container string) (int64, bool) {
	if m == nil {
		return 0, false
	}
	var sum int64
	found := false
	for _, c := range lasting(p) {
		if container != "" && c.Name != container {
			continue
		}
		at := slices.IndexFunc(m.Containers, func(m metricsv1beta1.ContainerMetrics) bool { return m.Name == c.Name })
		if at < 0 {
			return 0, false
		}
		q, ok := m.Containers[at].Usage[name]
		if !ok {
			return 0, false
		}
		sum, found = sum+amount(name, q), true
	}
	return sum, found
}

// level is how the Pods that count stand to the target.
type level struct {
	// ratio is 1 at the target.
	ratio float64
	// average per Pod, and in percent of what is asked for.
	average int64
	percent int32
}

func (s *sample) level(used map[types.UID]int64) level {
	var total, requested int64
	for uid, u := range used {
		total += u
		requested += s.requests[uid]
	}
	l := level{average: total / int64(len(used))}
	if !s.metric.byRequest() {
		l.ratio = float64(l.average) / float64(amount(s.metric.name, *s.metric.target.AverageValue))
		return l
	}
	l.percent = int32(total * 100 / requested)
	l.ratio = float64(l.percent) / float64(*s.metric.target.AverageUtilization)
	return l
}

// replicas is how many Pods bring the usage to the target. Whatever is not known
// is taken so that it dampens the change: a Pod that was not measured uses all it
// asks for when fewer seem enough, and nothing when more seem needed; one that
// starts uses nothing then.
func (s *sample) replicas(current int32, t tolerance) (int32, level) {
	now := s.level(s.used)
	starting := len(s.unready) > 0 && now.ratio > 1
	if !starting && len(s.missing) == 0 {
		if t.covers(now.ratio) {
			return current, now
		}
		return ceil(now.ratio * float64(s.ready)), now
	}
	used := map[types.UID]int64{}
	for uid, u := range s.used {
		used[uid] = u
	}
	for _, uid := range s.missing {
		switch {
		case now.ratio < 1:
			used[uid] = s.fallback(uid)
		case now.ratio > 1:
			used[uid] = 0
		}
	}
	if starting {
		for _, uid := range s.unready {
			used[uid] = 0
		}
	}
	then := s.level(used)
	if t.covers(then.ratio) || now.ratio < 1 && then.ratio > 1 || now.ratio > 1 && then.ratio < 1 {
		return current, now
	}
	want := ceil(then.ratio * float64(len(used)))
	if then.ratio < 1 && want > current || then.ratio > 1 && want < current {
		return current, now // never against the direction of the usage
	}
	return want, now
}

// fallback is what a Pod that was not measured is taken to use at the most.
func (s *sample) fallback(uid types.UID) int64 {
	if s.metric.byRequest() {
		return s.requests[uid] * int64(max(100, *s.metric.target.AverageUtilization)) / 100
	}
	return amount(s.metric.name, *s.metric.target.AverageValue)
}

func ceil(f float64) int32 { return int32(min(math.Ceil(f), math.MaxInt32)) }

// status is what the autoscaler shows of the metric.
func (m resourceMetric) status(l level) autoscalingv2.MetricStatus {
	value := autoscalingv2.MetricValueStatus{AverageValue: resource.NewQuantity(l.average, resource.BinarySI)}
	if m.name == corev1.ResourceCPU {
		value.AverageValue = resource.NewMilliQuantity(l.average, resource.DecimalSI)
	}
	if m.byRequest() {
		value.AverageUtilization = &l.percent
	}
	if m.container != "" {
		return autoscalingv2.MetricStatus{
			Type:              autoscalingv2.ContainerResourceMetricSourceType,
			ContainerResource: &autoscalingv2.ContainerResourceMetricStatus{Name: m.name, Container: m.container, Current: value},
		}
	}
	return autoscalingv2.MetricStatus{
		Type:     autoscalingv2.ResourceMetricSourceType,
		Resource: &autoscalingv2.ResourceMetricStatus{Name: m.name, Current: value},
	}
}
