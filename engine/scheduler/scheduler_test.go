package scheduler

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func node(name, cpu, memory string, change ...func(*Node)) Node {
	n := Node{Node: &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}},
		Status: corev1.NodeStatus{
			Allocatable: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory), corev1.ResourcePods: resource.MustParse("3"),
			},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}, Used: Requests{}, Owners: map[types.UID]int{}, HostPorts: map[string]int{}}
	for _, f := range change {
		f(&n)
	}
	return n
}

func pod(cpu, memory string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)},
	}}}}}
	for _, f := range change {
		f(p)
	}
	return p
}

func TestPlace(t *testing.T) {
	cordoned := func(n *Node) { n.Node.Spec.Unschedulable = true }
	notReady := func(n *Node) { n.Node.Status.Conditions[0].Status = corev1.ConditionUnknown }
	tainted := func(n *Node) {
		n.Node.Spec.Taints = []corev1.Taint{{Key: "gpu", Value: "yes", Effect: corev1.TaintEffectNoSchedule}}
	}
	used := func(r Requests) func(*Node) { return func(n *Node) { n.Used = r } }
	owned := func(p *corev1.Pod) {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{UID: "rs", Controller: &yes}}
	}
	for name, c := range map[string]struct {
		pod   *corev1.Pod
		nodes []Node
		want  Decision
	}{
		"no node": {pod("1", "1Gi"), nil, Decision{Message: "0/0 nodes fit: the cluster has no node yet"}},
		"each reason is counted": {
			pod("1", "2Gi"),
			[]Node{node("a", "2", "1Gi"), node("b", "2", "1Gi"), node("c", "2", "4Gi", cordoned)},
			Decision{Message: "0/3 nodes fit: 2 lack memory (need 2Gi, free 1Gi), 1 is cordoned"},
		},
		"several reasons of one node are all named": {
			pod("3", "2Gi"),
			[]Node{node("a", "2", "1Gi", notReady, tainted)},
			Decision{Message: "0/1 nodes fit: 1 has a taint that the pod does not tolerate (gpu=yes:NoSchedule), 1 is not ready, 1 lacks cpu (need 3, free 2), 1 lacks memory (need 2Gi, free 1Gi)"},
		},
		"a toleration opens a tainted node": {
			pod("1", "1Gi", func(p *corev1.Pod) {
				p.Spec.Tolerations = []corev1.Toleration{{Key: "gpu", Operator: corev1.TolerationOpExists}}
			}),
			[]Node{node("a", "2", "2Gi", tainted)}, Decision{Node: "a"},
		},
		"what is used counts, to the last unit": {
			pod("500m", "1Gi"),
			[]Node{node("a", "2", "2Gi", used(Requests{corev1.ResourceCPU: 1501})), node("b", "2", "2Gi", used(Requests{corev1.ResourceCPU: 1500}))},
			Decision{Node: "b"},
		},
		"the emptier node wins": {
			pod("100m", "1Mi"), []Node{node("a", "2", "2Gi", used(Requests{corev1.ResourceCPU: 1000})), node("b", "2", "2Gi")}, Decision{Node: "b"},
		},
		"pods of one controller spread before room counts": {
			pod("100m", "1Mi", owned),
			[]Node{node("a", "2", "2Gi", used(Requests{corev1.ResourceCPU: 1000})), node("b", "2", "2Gi", func(n *Node) { n.Owners["rs"] = 1 })},
			Decision{Node: "a"},
		},
		"equal nodes: the first by name": {pod("1", "1Gi"), []Node{node("b", "2", "2Gi"), node("a", "2", "2Gi")}, Decision{Node: "a"}},
		"node selector": {
			pod("1", "1Gi", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }),
			[]Node{node("a", "2", "2Gi"), node("b", "2", "2Gi")},
			Decision{Message: "0/2 nodes fit: 2 do not match the pod's node selector or node affinity"},
		},
		"host port": {
			pod("1", "1Gi", func(p *corev1.Pod) { p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80}} }),
			[]Node{node("a", "2", "2Gi", func(n *Node) { n.HostPorts["TCP/80"] = 1 })},
			Decision{Message: "0/1 nodes fit: 1 has host port TCP/80 taken"},
		},
		"number of pods": {
			pod("0", "0"), []Node{node("a", "2", "2Gi", used(Requests{corev1.ResourcePods: 3}))},
			Decision{Message: "0/1 nodes fit: 1 lacks room for one more pod (limit 3)"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Place(c.pod, c.nodes); got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestPodRequestsTakesThePeakOfInitContainers(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	container := func(cpu string, policy *corev1.ContainerRestartPolicy) corev1.Container {
		return corev1.Container{RestartPolicy: policy, Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}}}
	}
	p := &corev1.Pod{Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{container("100m", &always), container("1", nil)},
		Containers:     []corev1.Container{container("300m", nil), container("400m", nil)},
	}}
	if got := PodRequests(p)[corev1.ResourceCPU]; got != 1100 {
		t.Errorf("an init container of 1 beside a sidecar of 100m: %dm, want 1100m", got)
	}
	p.Spec.InitContainers[1] = container("200m", nil)
	if got := PodRequests(p)[corev1.ResourceCPU]; got != 800 {
		t.Errorf("two containers and a sidecar: %dm, want 800m", got)
	}
}
