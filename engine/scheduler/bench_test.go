package scheduler

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// crowdOf is n Pods of 10 Deployments.
func crowdOf(n int, change func(app string, p *corev1.Pod)) []Pod {
	yes := true
	out := make([]Pod, n)
	for i := range out {
		app := fmt.Sprintf("app-%d", i*10/n)
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: fmt.Sprintf("%s-%05d", app, i), UID: types.UID(fmt.Sprint(i)), Labels: map[string]string{"app": app, "pod-template-hash": "5d4f8"},
			OwnerReferences: []metav1.OwnerReference{{UID: types.UID(app), Controller: &yes}},
		}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Image: "app:1", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")},
		}}}}}
		if change != nil {
			change(app, p)
		}
		out[i] = Pod{Pod: p}
	}
	return out
}

func nodesOf(n int) *Cluster {
	c := New()
	for i := range n {
		c.SetNode(&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%05d", i), Labels: map[string]string{
				corev1.LabelHostname: fmt.Sprintf("node-%05d", i), corev1.LabelTopologyZone: fmt.Sprintf("zone-%d", i%3),
			}},
			Status: corev1.NodeStatus{
				Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("32Gi"), corev1.ResourcePods: resource.MustParse("110")},
				Conditions:  []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			},
		})
	}
	return c
}

// benchmark places 10,000 Pods on 5,000 nodes, by the queue as the controller does.
func benchmark(b *testing.B, change func(app string, p *corev1.Pod)) {
	const nodes, pods = 5000, 10000
	for b.Loop() {
		b.StopTimer()
		c := nodesOf(nodes)
		q := NewQueue(c)
		waiting := crowdOf(pods, change)
		b.StartTimer()
		for _, p := range waiting {
			q.Add(p)
		}
		for {
			p, _, ok := q.Next()
			if !ok {
				break
			}
			d := c.Decide(p)
			if d.Node == "" {
				b.Fatal(d.Message)
			}
			c.Add(p, d.Node)
			q.Remove(p.UID)
		}
	}
	b.ReportMetric(float64(pods*b.N)/b.Elapsed().Seconds(), "pods/s")
}

func BenchmarkPlain5000(b *testing.B) { benchmark(b, nil) }

// BenchmarkSpread5000: over zones, and softly over nodes.
func BenchmarkSpread5000(b *testing.B) {
	benchmark(b, func(app string, p *corev1.Pod) {
		own := &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{
			{MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: own},
			{MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: own},
			{MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: own},
		}
	})
}

// BenchmarkAffinity5000: each Pod apart from its own kind by node, near another
// by zone, and preferably apart from all.
func BenchmarkAffinity5000(b *testing.B) {
	benchmark(b, func(app string, p *corev1.Pod) {
		own := &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
		all := &metav1.LabelSelector{MatchLabels: map[string]string{"pod-template-hash": "5d4f8"}}
		p.Spec.Affinity = &corev1.Affinity{
			PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: corev1.LabelTopologyZone, LabelSelector: all}}},
			PodAntiAffinity: &corev1.PodAntiAffinity{
				RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: corev1.LabelHostname, LabelSelector: own}},
				PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{
					{Weight: 100, PodAffinityTerm: corev1.PodAffinityTerm{TopologyKey: corev1.LabelHostname, LabelSelector: all}},
				},
			},
		}
	})
}

// BenchmarkWake10000: a Pod ends while 10,000 wait, each of a class of its own,
// and one of them fits.
func BenchmarkWake10000(b *testing.B) {
	c := nodesOf(5000)
	q := NewQueue(c)
	resident := crowdOf(5000, func(_ string, p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("8")
	})
	for i, p := range resident {
		c.Add(p, fmt.Sprintf("node-%05d", i))
	}
	for i, p := range crowdOf(10000, nil) {
		p.UID = types.UID(fmt.Sprint("waiting-", i))
		p.Labels = map[string]string{"n": fmt.Sprint(i)}
		p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("8")
		q.Add(p)
	}
	settle := func() (placed []Pod) {
		for {
			p, refused, ok := q.Next()
			if !ok {
				return placed
			}
			if refused != nil {
				continue
			}
			if d := c.Decide(p); d.Node == "" {
				q.Park(p.UID, d)
			} else {
				c.Add(p, d.Node)
				q.Remove(p.UID)
				placed = append(placed, p)
			}
		}
	}
	settle()
	i := 0
	for b.Loop() {
		c.Remove(resident[i%len(resident)].UID)
		placed := settle()
		if len(placed) != 1 {
			b.Fatalf("%d are placed", len(placed))
		}
		resident[i%len(resident)] = placed[0]
		again := placed[0].DeepCopy() // its like waits in its stead
		again.UID = types.UID(fmt.Sprint("again-", i))
		q.Add(Pod{Pod: again})
		i++
	}
}
