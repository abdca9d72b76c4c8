package controllers

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"berth.dev/berth/engine/resources"
)

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func utilization(name corev1.ResourceName, percent int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
		Name: name, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent},
	}}
}

func averageValue(name corev1.ResourceName, value string) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
		Name: name, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: new(resource.MustParse(value))},
	}}
}

func ofContainer(name corev1.ResourceName, container string, percent int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ContainerResourceMetricSourceType, ContainerResource: &autoscalingv2.ContainerResourceMetricSource{
		Name: name, Container: container, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent},
	}}
}

// crowd is the Pods of a target that have run for an hour, and what they use.
type crowd struct {
	pods  []*corev1.Pod
	usage podUsage
}

// add gives the crowd Pods with one container that asks for 100m and 100Mi and
// uses as many percent of it; less than 0 means that they are not measured.
func (c *crowd) add(n, percent int) *crowd {
	for range n {
		name := fmt.Sprintf("p%d", len(c.pods))
		ago := metav1.NewTime(noon.Add(-time.Hour))
		c.pods = append(c.pods, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{asking("c", "100m", "100Mi")}},
			Status: corev1.PodStatus{
				Phase: corev1.PodRunning, StartTime: &ago,
				Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: ago}},
			},
		})
		if percent >= 0 {
			c.usage[types.UID(name)] = &metricsv1beta1.PodMetrics{
				Timestamp: metav1.NewTime(noon), Window: metav1.Duration{Duration: 15 * time.Second},
				Containers: []metricsv1beta1.ContainerMetrics{using("c", percent)},
			}
		}
	}
	return c
}

func asking(name, cpu, memory string) corev1.Container {
	return corev1.Container{Name: name, Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory),
	}}}
}

// using is a container that uses percent of 100m and of 100Mi.
func using(name string, percent int) metricsv1beta1.ContainerMetrics {
	return metricsv1beta1.ContainerMetrics{Name: name, Usage: corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(int64(percent), resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(int64(percent)<<20, resource.BinarySI),
	}}
}

func newCrowd() *crowd { return &crowd{usage: podUsage{}} }

// of is a scaling with as many replicas as there are Pods, between 1 and 100,
// that may shrink at once.
func of(c *crowd, metrics ...autoscalingv2.MetricSpec) scaling {
	return scaling{
		autoscaler: &autoscalingv2.HorizontalPodAutoscaler{Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			MinReplicas: new(int32(1)), MaxReplicas: 100, Metrics: metrics,
			Behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleDown: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: new(int32)}},
		}},
		target: resources.Scale{Want: new(new(int32(len(c.pods)))), Have: int32(len(c.pods))},
		pods:   c.pods, usage: c.usage, now: noon,
	}
}

func (s scaling) want() int32 {
	if step := decideScaling(s); step.replicas != nil {
		return *step.replicas
	}
	return s.target.Replicas()
}

func TestUsageDecidesTheReplicas(t *testing.T) {
	cpu := utilization(corev1.ResourceCPU, 50)
	for _, c := range []struct {
		name string
		in   scaling
		want int32
	}{
		{"8% above the target is within the tolerance", of(newCrowd().add(10, 54), cpu), 10},
		{"12% above it is not", of(newCrowd().add(10, 56), cpu), 12},
		{"8% below is within", of(newCrowd().add(10, 46), cpu), 10},
		{"half of it needs half the pods", of(newCrowd().add(10, 25), cpu), 5},
		{"a pod without metrics counts as 100% when fewer seem enough", of(newCrowd().add(3, 10).add(1, -1), cpu), 3},
		{"and as 0% when more seem needed", of(newCrowd().add(3, 100).add(1, -1), cpu), 6},
		{"an average of memory", of(newCrowd().add(4, 100), averageValue(corev1.ResourceMemory, "50Mi")), 8},
		{"the largest of the metrics counts", of(newCrowd().add(4, 100), averageValue(corev1.ResourceMemory, "80Mi"), cpu), 8},
		{"one container of a pod", of(newCrowd().add(4, 100), ofContainer(corev1.ResourceCPU, "c", 50)), 8},
		{"never more than max", func() scaling {
			s := of(newCrowd().add(4, 100), cpu)
			s.autoscaler.Spec.MaxReplicas = 6
			return s
		}(), 6},
		{"never fewer than min", func() scaling {
			s := of(newCrowd().add(4, 1), cpu)
			s.autoscaler.Spec.MinReplicas = new(int32(3))
			return s
		}(), 3},
		{"min raises without any metric", func() scaling {
			s := of(newCrowd().add(1, -1), cpu)
			s.autoscaler.Spec.MinReplicas = new(int32(3))
			return s
		}(), 3},
		{"a tolerance of its own to grow", func() scaling {
			s := of(newCrowd().add(10, 54), cpu)
			s.autoscaler.Spec.Behavior.ScaleUp = &autoscalingv2.HPAScalingRules{Tolerance: new(resource.MustParse("0.05"))}
			return s
		}(), 11},
		{"zero replicas are left alone", func() scaling {
			s := of(newCrowd(), cpu)
			return s
		}(), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.in.want(); got != c.want {
				t.Errorf("%d replicas, want %d: %v", got, c.want, decideScaling(c.in).status.Conditions)
			}
		})
	}
}

func TestWhichPodsAndContainersCount(t *testing.T) {
	cpu := utilization(corev1.ResourceCPU, 50)
	always := corev1.ContainerRestartPolicyAlways
	sidecar := asking("proxy", "100m", "100Mi")
	sidecar.RestartPolicy = &always
	young := metav1.NewTime(noon.Add(-time.Minute))
	for _, c := range []struct {
		name string
		edit func(*crowd)
		want int32
	}{
		{"a sidecar with a request", func(c *crowd) {
			for _, p := range c.pods { // 200m asked for, 100m used
				p.Spec.InitContainers = []corev1.Container{sidecar}
				c.usage[p.UID].Containers = append(c.usage[p.UID].Containers, using("proxy", 0))
			}
		}, 4},
		{"a plain init container does not", func(c *crowd) {
			for _, p := range c.pods {
				p.Spec.InitContainers = []corev1.Container{{Name: "init"}}
			}
		}, 8},
		{"a pod in its initial period that is not ready", func(c *crowd) {
			for _, p := range c.pods[2:] { // 2 at 100%, 2 at 0%
				p.Status.StartTime = &young
				p.Status.Conditions[0].Status, p.Status.Conditions[0].LastTransitionTime = corev1.ConditionFalse, young
			}
		}, 4},
		{"one that is ready for a window", func(c *crowd) {
			for _, p := range c.pods {
				p.Status.StartTime, p.Status.Conditions[0].LastTransitionTime = &young, young
			}
		}, 8},
		{"one that became unready later", func(c *crowd) {
			for _, p := range c.pods {
				p.Status.Conditions[0].Status, p.Status.Conditions[0].LastTransitionTime = corev1.ConditionFalse, young
			}
		}, 8},
		{"a pod that is going does not", func(c *crowd) {
			for _, p := range c.pods[2:] {
				p.DeletionTimestamp = &young
			}
		}, 4},
		{"a pending pod uses nothing yet", func(c *crowd) { c.pods[3].Status.Phase = corev1.PodPending }, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := newCrowd().add(4, 100)
			c.edit(all)
			if got := of(all, cpu).want(); got != c.want {
				t.Errorf("%d replicas, want %d: %v", got, c.want, decideScaling(of(all, cpu)).status.Conditions)
			}
		})
	}
}

func TestWhatKeepsAnAutoscalerFromScalingIsSaid(t *testing.T) {
	cpu := utilization(corev1.ResourceCPU, 50)
	for _, c := range []struct {
		name string
		in   scaling
		kind autoscalingv2.HorizontalPodAutoscalerConditionType
		want string
	}{
		{"a missing request", func() scaling {
			all := newCrowd().add(2, 100)
			all.pods[0].Spec.Containers = append(all.pods[0].Spec.Containers, corev1.Container{Name: "log"})
			return of(all, cpu)
		}(), autoscalingv2.ScalingActive, "False FailedGetResourceMetric: the HPA was unable to compute the replica count: failed to get cpu usage: missing request for cpu in container log of Pod p0"},
		{"a container that is not there", of(newCrowd().add(2, 100), ofContainer(corev1.ResourceCPU, "x", 50)), autoscalingv2.ScalingActive,
			"False FailedGetContainerResourceMetric: the HPA was unable to compute the replica count: failed to get cpu usage: container x is not in Pod p0"},
		{"nothing measures", func() scaling {
			s := of(newCrowd().add(2, 100), cpu)
			s.usage = nil
			return s
		}(), autoscalingv2.ScalingActive, "False FailedGetResourceMetric: the HPA was unable to compute the replica count: unable to get metrics for resource cpu: nothing measures Pods in this cluster"},
		{"nothing was measured", of(newCrowd().add(2, -1), cpu), autoscalingv2.ScalingActive,
			"False FailedGetResourceMetric: the HPA was unable to compute the replica count: failed to get cpu usage: did not receive metrics for targeted pods (pods might be unready)"},
		{"zero replicas", of(newCrowd(), cpu), autoscalingv2.ScalingActive, "False ScalingDisabled: scaling is disabled since the replica count of the target is zero"},
		{"several for one target", func() scaling {
			s := of(newCrowd().add(2, 100), cpu)
			s.rivals = []string{"a", "b"}
			return s
		}(), autoscalingv2.ScalingActive, "False AmbiguousSelector: the HPA was unable to compute the replica count: the target is controlled by multiple HPAs: a, b"},
		{"too many", func() scaling {
			s := of(newCrowd().add(4, 100), cpu)
			s.autoscaler.Spec.MaxReplicas = 5
			return s
		}(), autoscalingv2.ScalingLimited, "True TooManyReplicas: the desired replica count is more than the maximum replica count"},
		{"too few", func() scaling {
			s := of(newCrowd().add(4, 1), cpu)
			s.autoscaler.Spec.MinReplicas = new(int32(2))
			return s
		}(), autoscalingv2.ScalingLimited, "True TooFewReplicas: the desired replica count is less than the minimum replica count"},
		{"too fast", of(newCrowd().add(1, 1000), cpu), autoscalingv2.ScalingLimited, "True ScaleUpLimit: the desired replica count is increasing faster than the maximum scale rate"},
		{"as it should be", of(newCrowd().add(4, 50), cpu), autoscalingv2.ScalingActive,
			"True ValidMetricFound: the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			step := decideScaling(c.in)
			if got := said(step.status, c.kind); got != c.want {
				t.Errorf("%s is\n%s, want\n%s", c.kind, got, c.want)
			}
		})
	}
}

func said(s autoscalingv2.HorizontalPodAutoscalerStatus, kind autoscalingv2.HorizontalPodAutoscalerConditionType) string {
	for _, c := range s.Conditions {
		if c.Type == kind {
			return fmt.Sprintf("%s %s: %s", c.Status, c.Reason, c.Message)
		}
	}
	return "nothing"
}

func TestOneUnknownMetricTakesNothingAway(t *testing.T) {
	all := newCrowd().add(4, 10)
	in := of(all, utilization(corev1.ResourceCPU, 50), ofContainer(corev1.ResourceCPU, "x", 50))
	if got := in.want(); got != 4 {
		t.Errorf("%d replicas while a metric is unknown, want 4", got)
	}
	all = newCrowd().add(4, 100)
	in = of(all, utilization(corev1.ResourceCPU, 50), ofContainer(corev1.ResourceCPU, "x", 50))
	if got := in.want(); got != 8 {
		t.Errorf("%d replicas though a known metric wants 8", got)
	}
}

// pass decides again and again, at one time after the other, as the target is
// scaled to what was decided.
func pass(s *scaling, percent int, after time.Duration) scaleStep {
	s.now = s.now.Add(after)
	n := int(s.target.Replicas())
	all := newCrowd().add(n, percent)
	for _, m := range all.usage {
		m.Timestamp = metav1.NewTime(s.now)
	}
	s.pods, s.usage, s.target.Have = all.pods, all.usage, int32(n)
	step := decideScaling(*s)
	s.history = step.history
	s.autoscaler.Status = step.status
	if step.replicas != nil {
		*s.target.Want = step.replicas
	}
	return step
}

func TestShrinkingWaitsForTheWindow(t *testing.T) {
	s := of(newCrowd().add(10, 50), utilization(corev1.ResourceCPU, 50))
	s.autoscaler.Spec.Behavior = nil
	pass(&s, 50, 0)
	for range 19 {
		if step := pass(&s, 10, 15*time.Second); step.replicas != nil {
			t.Fatalf("to %d replicas %s after the load fell", *step.replicas, s.now.Sub(noon))
		}
	}
	if got := said(s.autoscaler.Status, autoscalingv2.AbleToScale); !strings.HasPrefix(got, "True ScaleDownStabilized") {
		t.Errorf("AbleToScale is %s", got)
	}
	if step := pass(&s, 10, 15*time.Second); step.replicas == nil || *step.replicas != 2 {
		t.Fatalf("%v replicas after the window of 300 s, want 2", step.replicas)
	}
}

func TestPolicies(t *testing.T) {
	pods := func(n, period int32) autoscalingv2.HPAScalingPolicy {
		return autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PodsScalingPolicy, Value: n, PeriodSeconds: period}
	}
	percent := func(n, period int32) autoscalingv2.HPAScalingPolicy {
		return autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PercentScalingPolicy, Value: n, PeriodSeconds: period}
	}
	rules := func(choice autoscalingv2.ScalingPolicySelect, p ...autoscalingv2.HPAScalingPolicy) *autoscalingv2.HPAScalingRules {
		return &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: new(int32), SelectPolicy: &choice, Policies: p}
	}
	for _, c := range []struct {
		name     string
		up, down *autoscalingv2.HPAScalingRules
		load     int
		// want after each of the passes, which are 15 s apart.
		want []int32
	}{
		{"4 pods or double, whichever is more", nil, nil, 1000, []int32{20, 40, 80, 100}},
		{"pods in a minute", rules("Max", pods(3, 60)), nil, 1000, []int32{13, 13, 13, 13, 16}},
		{"the lesser of two", rules("Min", pods(2, 15), percent(50, 15)), nil, 1000, []int32{12, 14, 16}},
		{"the greater of two", rules("Max", pods(2, 15), percent(50, 15)), nil, 1000, []int32{15, 23}},
		{"disabled", rules("Disabled", pods(2, 15)), nil, 1000, []int32{10, 10}},
		{"down by pods", nil, rules("Max", pods(2, 30)), 1, []int32{8, 8, 6}},
		{"down by the lesser", nil, rules("Min", pods(4, 15), percent(10, 15)), 1, []int32{9, 8}},
		{"down disabled", nil, rules("Disabled", pods(4, 15)), 1, []int32{10}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := of(newCrowd().add(10, 50), utilization(corev1.ResourceCPU, 50))
			s.autoscaler.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: c.up, ScaleDown: c.down}
			var got []int32
			for range c.want {
				pass(&s, c.load, 15*time.Second)
				got = append(got, s.target.Replicas())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("replicas %v, want %v", got, c.want)
			}
		})
	}
}

// From any load, with restarts of the engine in between: never out of bounds,
// never fewer than the load of the window needed, and steady when the load is.
func TestAutoscalerOnAnyLoad(t *testing.T) {
	for seed := range uint64(60) {
		d := dice{rand.New(rand.NewPCG(seed, 7))}
		s := of(newCrowd().add(1+d.IntN(20), 50), utilization(corev1.ResourceCPU, 50))
		least := int32(1 + d.IntN(5))
		s.autoscaler.Spec.MinReplicas, s.autoscaler.Spec.MaxReplicas = &least, least+int32(d.IntN(30))
		s.autoscaler.Spec.Behavior = nil
		var lastUp time.Time
		total := 0
		for range 200 {
			if d.oneIn(10) {
				total = d.IntN(3000) // of the load, in percent of one pod's request
			}
			if d.oneIn(30) {
				s.history = scaleHistory{}
			}
			before := s.target.Replicas()
			step := pass(&s, total/int(before), 15*time.Second)
			now := s.target.Replicas()
			if now < least || now > s.autoscaler.Spec.MaxReplicas {
				t.Fatalf("seed %d: %d replicas, the bounds are %d and %d", seed, now, least, s.autoscaler.Spec.MaxReplicas)
			}
			if now > before {
				lastUp = s.now
			}
			if now < before && before <= s.autoscaler.Spec.MaxReplicas && s.now.Sub(lastUp) < stabilizeDown*time.Second {
				t.Fatalf("seed %d: from %d to %d replicas %s after it grew", seed, before, now, s.now.Sub(lastUp))
			}
			if step.replicas == nil != (now == before) {
				t.Fatalf("seed %d: a step from %d to %d", seed, before, now)
			}
		}
		for range 60 {
			pass(&s, total/int(s.target.Replicas()), 15*time.Second)
		}
		steady := s.target.Replicas()
		for range 30 {
			if pass(&s, total/int(s.target.Replicas()), 15*time.Second); s.target.Replicas() != steady {
				t.Fatalf("seed %d: %d replicas and then %d under one load", seed, steady, s.target.Replicas())
			}
		}
		if used := total / int(steady); used > 55 && steady < s.autoscaler.Spec.MaxReplicas {
			t.Fatalf("seed %d: %d replicas at %d%% of 50%%", seed, steady, used)
		}
	}
}
