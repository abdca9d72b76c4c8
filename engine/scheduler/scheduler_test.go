package scheduler

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// node is a ready node of 2 cores, 2Gi and 3 Pods, unless the YAML says otherwise.
func nodeFrom(t testing.TB, name, text string) *corev1.Node {
	t.Helper()
	n := &corev1.Node{}
	if err := yaml.UnmarshalStrict([]byte(text), n); err != nil {
		t.Fatalf("node %s: %v", name, err)
	}
	n.Name = name
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.Labels[corev1.LabelHostname] = name
	alloc := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("2Gi"), corev1.ResourcePods: resource.MustParse("3")}
	for k, q := range n.Status.Allocatable {
		alloc[k] = q
	}
	n.Status.Allocatable = alloc
	if len(n.Status.Conditions) == 0 {
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	}
	return n
}

func podFrom(t testing.TB, name, text string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
		t.Fatalf("pod %s: %v", name, err)
	}
	p.Name, p.UID = name, types.UID(name)
	if p.Namespace == "" {
		p.Namespace = "default"
	}
	return p
}

// world is a cluster in short: nodes by name, Pods as "name@node", namespaces
// with their labels.
type world struct {
	nodes, pods map[string]string
	namespaces  map[string]map[string]string
}

func (w world) cluster(t testing.TB) *Cluster {
	t.Helper()
	c := New()
	for name, l := range w.namespaces {
		c.SetNamespace(name, l)
	}
	for _, name := range sortedKeys(w.nodes) {
		c.SetNode(nodeFrom(t, name, w.nodes[name]))
	}
	for _, name := range sortedKeys(w.pods) {
		pod, node, _ := strings.Cut(name, "@")
		c.Add(Pod{Pod: podFrom(t, pod, w.pods[name])}, node)
	}
	return c
}

func needs(cpu, memory string) string {
	return fmt.Sprintf("{spec: {containers: [{resources: {requests: {cpu: %s, memory: %s}}}]}}", cpu, memory)
}

func requests(cpu, memory string) string {
	return fmt.Sprintf("containers: [{resources: {requests: {cpu: %s, memory: %s}}}]", cpu, memory)
}

const tainted = "{spec: {taints: [{key: gpu, value: 'yes', effect: NoSchedule}]}}"

func TestDecideByNode(t *testing.T) {
	two := map[string]string{"a": "{}", "b": "{}"}
	for name, c := range map[string]struct {
		world world
		pod   string
		want  string
	}{
		"no node":                {world{}, needs("1", "1Gi"), "0/0 nodes fit: the cluster has no node yet"},
		"a node only Pods name":  {world{pods: map[string]string{"p@a": needs("1", "1Gi")}}, needs("1", "1Gi"), "0/0 nodes fit: the cluster has no node yet"},
		"equal nodes: the first": {world{nodes: map[string]string{"b": "{}", "a": "{}"}}, needs("1", "1Gi"), "a"},
		"each reason is counted": {
			world{nodes: map[string]string{"a": "{status: {allocatable: {memory: 1Gi}}}", "b": "{status: {allocatable: {memory: 1Gi}}}", "c": "{spec: {unschedulable: true}}"}},
			needs("1", "2Gi"), "0/3 nodes fit: 2 lack memory (need 2Gi, free 1Gi), 1 is cordoned",
		},
		"different amounts are one reason": {
			world{nodes: map[string]string{"a": "{status: {allocatable: {memory: 1Gi}}}", "b": "{status: {allocatable: {memory: 512Mi}}}"}},
			needs("1", "2Gi"), "0/2 nodes fit: 2 lack memory (need 2Gi, most free 1Gi)",
		},
		"several reasons of one node are all named": {
			world{nodes: map[string]string{"a": "{spec: {taints: [{key: gpu, value: 'yes', effect: NoSchedule}]}, status: {allocatable: {memory: 1Gi}, conditions: [{type: Ready, status: Unknown}]}}"}},
			needs("3", "2Gi"),
			"0/1 nodes fit: 1 has a taint that the pod does not tolerate (gpu=yes:NoSchedule), 1 is not ready, 1 lacks cpu (need 3, free 2), 1 lacks memory (need 2Gi, free 1Gi)",
		},
		"a node that is not ready takes what tolerates that": {
			world{nodes: map[string]string{"a": "{spec: {taints: [{key: node.kubernetes.io/unreachable, effect: NoExecute}]}, status: {conditions: [{type: Ready, status: Unknown}]}}"}},
			"{spec: {tolerations: [{operator: Exists}]}}", "a",
		},
		"not what is only to stay there for a time": {
			world{nodes: map[string]string{"a": "{status: {conditions: [{type: Ready, status: 'False'}]}}"}},
			"{spec: {tolerations: [{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 300}]}}", "0/1 nodes fit: 1 is not ready",
		},
		"a toleration opens a tainted node": {
			world{nodes: map[string]string{"a": tainted}}, "{spec: {tolerations: [{key: gpu, operator: Exists}]}}", "a",
		},
		"NoExecute keeps away, too": {
			world{nodes: map[string]string{"a": "{spec: {taints: [{key: x, effect: NoExecute}]}}"}}, "{}",
			"0/1 nodes fit: 1 has a taint that the pod does not tolerate (x:NoExecute)",
		},
		"a cordon can be tolerated": {
			world{nodes: map[string]string{"a": "{spec: {unschedulable: true}}"}},
			"{spec: {tolerations: [{key: node.kubernetes.io/unschedulable, operator: Exists}]}}", "a",
		},
		"PreferNoSchedule is the last choice": {
			world{nodes: map[string]string{"a": "{spec: {taints: [{key: x, effect: PreferNoSchedule}]}}", "b": "{}"}, pods: map[string]string{"p@b": needs("1500m", "1Gi")}},
			needs("100m", "1Mi"), "b",
		},
		"PreferNoSchedule that is tolerated does not count": {
			world{nodes: map[string]string{"a": "{spec: {taints: [{key: x, effect: PreferNoSchedule}]}}", "b": "{}"}},
			"{spec: {tolerations: [{key: x, operator: Exists}]}}", "a",
		},
		"what is used counts, to the last unit": {
			world{nodes: two, pods: map[string]string{"p@a": needs("1501m", "0"), "q@b": needs("1500m", "0")}}, needs("500m", "1Gi"), "b",
		},
		"the emptier node wins":            {world{nodes: two, pods: map[string]string{"p@a": needs("1", "1Mi")}}, needs("100m", "1Mi"), "b"},
		"a resource that no node has":      {world{nodes: two}, "{spec: {containers: [{resources: {requests: {example.org/gpu: 1}}}]}}", "0/2 nodes fit: 2 lack example.org/gpu (need 1, free 0)"},
		"a resource that one node has":     {world{nodes: map[string]string{"a": "{}", "b": "{status: {allocatable: {example.org/gpu: 2}}}"}}, "{spec: {containers: [{resources: {requests: {example.org/gpu: 1}}}]}}", "b"},
		"nothing needed fits on overfull":  {world{nodes: map[string]string{"a": "{}"}, pods: map[string]string{"p@a": needs("5", "9Gi")}}, "{}", "a"},
		"the number of pods":               {world{nodes: map[string]string{"a": "{status: {allocatable: {pods: 1}}}"}, pods: map[string]string{"p@a": "{}"}}, "{}", "0/1 nodes fit: 1 lacks room for one more pod (limit 1)"},
		"node selector":                    {world{nodes: two}, "{spec: {nodeSelector: {disk: ssd}}}", "0/2 nodes fit: 2 do not match the pod's node selector or node affinity"},
		"pods of one controller spread":    {world{nodes: two, pods: map[string]string{"p@a": "{metadata: {ownerReferences: [{uid: rs, controller: true, name: r, kind: R, apiVersion: v1}]}}", "q@b": needs("1", "1Gi")}}, "{metadata: {ownerReferences: [{uid: rs, controller: true, name: r, kind: R, apiVersion: v1}]}}", "b"},
		"an image that is there":           {world{nodes: map[string]string{"a": "{}", "b": "{status: {images: [{names: ['docker.io/library/web:latest'], sizeBytes: 900000000}]}}"}}, "{spec: {containers: [{image: web}]}}", "b"},
		"a small image does not count":     {world{nodes: map[string]string{"a": "{}", "b": "{status: {images: [{names: [web], sizeBytes: 1000000}]}}"}}, "{spec: {containers: [{image: web}]}}", "a"},
		"an image does not fill a node":    {world{nodes: map[string]string{"a": "{}", "b": "{status: {images: [{names: [web], sizeBytes: 900000000}]}}"}, pods: map[string]string{"p@b": needs("1", "0")}}, "{spec: {containers: [{image: web}]}}", "a"},
		"host port":                        {world{nodes: map[string]string{"a": "{}"}, pods: map[string]string{"p@a": "{spec: {containers: [{ports: [{hostPort: 80}]}]}}"}}, "{spec: {containers: [{ports: [{hostPort: 80}]}]}}", "0/1 nodes fit: 1 has host port TCP/80 taken"},
		"host port of another protocol":    {world{nodes: map[string]string{"a": "{}"}, pods: map[string]string{"p@a": "{spec: {containers: [{ports: [{hostPort: 80, protocol: UDP}]}]}}"}}, "{spec: {containers: [{ports: [{hostPort: 80}]}]}}", "a"},
		"host ports of two addresses":      {world{nodes: map[string]string{"a": "{}"}, pods: map[string]string{"p@a": "{spec: {containers: [{ports: [{hostPort: 80, hostIP: 10.0.0.1}]}]}}"}}, "{spec: {containers: [{ports: [{hostPort: 80, hostIP: 10.0.0.2}]}]}}", "a"},
		"host port of all and one address": {world{nodes: map[string]string{"a": "{}"}, pods: map[string]string{"p@a": "{spec: {containers: [{ports: [{hostPort: 80, hostIP: 10.0.0.1}]}]}}"}}, "{spec: {containers: [{ports: [{hostPort: 80, hostIP: 0.0.0.0}]}]}}", "0/1 nodes fit: 1 has host port TCP/80 taken"},
		"host port of a sidecar":           {world{nodes: map[string]string{"a": "{}"}, pods: map[string]string{"p@a": "{spec: {initContainers: [{restartPolicy: Always, ports: [{hostPort: 80}]}]}}"}}, "{spec: {containers: [{ports: [{hostPort: 80}]}]}}", "0/1 nodes fit: 1 has host port TCP/80 taken"},
		"a port in the node's network":     {world{nodes: map[string]string{"a": "{}"}, pods: map[string]string{"p@a": "{spec: {hostNetwork: true, containers: [{ports: [{containerPort: 80}]}]}}"}}, "{spec: {containers: [{ports: [{hostPort: 80}]}]}}", "0/1 nodes fit: 1 has host port TCP/80 taken"},
	} {
		t.Run(name, func(t *testing.T) { checkDecision(t, c.world.cluster(t), podFrom(t, "new", c.pod), c.want) })
	}
}

func checkDecision(t *testing.T, c *Cluster, pod *corev1.Pod, want string) {
	t.Helper()
	d := c.Decide(Pod{Pod: pod})
	got := d.Node
	if got == "" {
		got = d.Message
	}
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if (d.Node == "") != (d.Reasons != 0) {
		t.Errorf("node %q with reasons %b", d.Node, d.Reasons)
	}
}

func TestNodeAffinity(t *testing.T) {
	nodes := map[string]string{"a": "{metadata: {labels: {zone: x, cores: '4'}}}", "b": "{metadata: {labels: {zone: y, cores: '16'}}}", "c": "{}"}
	required := func(terms string) string {
		return "{spec: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: " + terms + "}}}}}"
	}
	const none = "0/3 nodes fit: 3 do not match the pod's node selector or node affinity"
	for name, c := range map[string]struct{ pod, want string }{
		"In":                                  {required("[{matchExpressions: [{key: zone, operator: In, values: [y, z]}]}]"), "b"},
		"NotIn takes nodes without the label": {required("[{matchExpressions: [{key: zone, operator: NotIn, values: [x, y]}]}]"), "c"},
		"Exists":                              {required("[{matchExpressions: [{key: zone, operator: Exists}]}]"), "a"},
		"DoesNotExist":                        {required("[{matchExpressions: [{key: zone, operator: DoesNotExist}]}]"), "c"},
		"Gt":                                  {required("[{matchExpressions: [{key: cores, operator: Gt, values: ['4']}]}]"), "b"},
		"Lt":                                  {required("[{matchExpressions: [{key: cores, operator: Lt, values: ['16']}]}]"), "a"},
		"matchFields":                         {required("[{matchFields: [{key: metadata.name, operator: In, values: [c]}]}]"), "c"},
		"matchFields of no node":              {required("[{matchFields: [{key: metadata.name, operator: In, values: [d]}]}]"), none},
		"fields and expressions":              {required("[{matchFields: [{key: metadata.name, operator: In, values: [c]}], matchExpressions: [{key: zone, operator: Exists}]}]"), none},
		"one of the terms is enough":          {required("[{matchExpressions: [{key: zone, operator: In, values: [q]}]}, {matchFields: [{key: metadata.name, operator: In, values: [c]}]}]"), "c"},
		"an empty term matches nothing":       {required("[{}]"), none},
		"preferred": {"{spec: {affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [" +
			"{weight: 10, preference: {matchExpressions: [{key: zone, operator: In, values: [x]}]}}, {weight: 50, preference: {matchExpressions: [{key: zone, operator: In, values: [y]}]}}]}}}}", "b"},
	} {
		t.Run(name, func(t *testing.T) { checkDecision(t, world{nodes: nodes}.cluster(t), podFrom(t, "new", c.pod), c.want) })
	}
}

func TestVolumesDecideWhereAPodCanGo(t *testing.T) {
	c := world{nodes: map[string]string{"a": "{}", "b": "{}"}}.cluster(t)
	on := func(name string) *corev1.NodeSelector {
		return &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
			{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{name}}}}}}
	}
	p := podFrom(t, "new", "{}")
	if d := c.Decide(Pod{Pod: p, Volumes: []Volume{{"data", on("b")}}}); d.Node != "b" {
		t.Errorf("%+v, want node b", d)
	}
	d := c.Decide(Pod{Pod: p, Volumes: []Volume{{"data", on("b")}, {"logs", on("a")}}})
	if want := "0/2 nodes fit: 1 cannot reach the volume of claim data, 1 cannot reach the volume of claim logs"; d.Message != want || d.Reasons != VolumeAffinity {
		t.Errorf("got %+v, want %s", d, want)
	}
	if d := c.Decide(Pod{Pod: p, Blocked: "waits for claim data, which does not exist"}); d.Node != "" || d.Reasons != Blocked || d.Message != "waits for claim data, which does not exist" {
		t.Errorf("blocked: %+v", d)
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

func TestAClusterForgetsWhatIsGone(t *testing.T) {
	c := New()
	for i := range 3 * sweepAt {
		p := podFrom(t, fmt.Sprint("p", i), fmt.Sprintf("{metadata: {labels: {n: '%d'}}, spec: {affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {n: '%d'}}}]}}}}", i, i))
		n := nodeFrom(t, fmt.Sprint("n", i), "{}")
		c.SetNode(n)
		if d := c.Decide(Pod{Pod: p}); d.Node != n.Name {
			t.Fatalf("%+v", d)
		}
		c.Add(Pod{Pod: p}, n.Name)
		c.Remove(p.UID)
		c.RemoveNode(n.Name)
	}
	if n := len(c.classes) + len(c.terms) + len(c.identities["default"]); n > 4*sweepAt {
		t.Errorf("%d classes, terms and identities are kept", n)
	}
	if n := len(c.slots) + len(c.topologies[corev1.LabelHostname].nodes) + len(c.nodes); n > 3 {
		t.Errorf("%d nodes are kept", n)
	}
}

// TestPodsWithoutRequestsAreSpread: each counts as a small one when nodes are compared.
func TestPodsWithoutRequestsAreSpread(t *testing.T) {
	c := New()
	for _, n := range []string{"a", "b", "c"} {
		c.SetNode(nodeFrom(t, n, "{status: {allocatable: {cpu: 8, memory: 32Gi, pods: 110}}}"))
	}
	count := map[string]int{}
	for i := range 60 { // of 60 controllers
		p := Pod{Pod: podFrom(t, fmt.Sprint("p", i), fmt.Sprintf("{metadata: {ownerReferences: [{uid: rs%d, controller: true, name: r, kind: R, apiVersion: v1}]}, spec: {containers: [{image: web}]}}", i))}
		d := c.Decide(p)
		count[d.Node]++
		c.Add(p, d.Node)
	}
	if fmt.Sprint(count) != "map[a:20 b:20 c:20]" {
		t.Error(count)
	}
}

// TestReplicasAreSpreadOverZones: the nodes of the first zone come first by name.
func TestReplicasAreSpreadOverZones(t *testing.T) {
	c := New()
	for i, n := range []string{"a1", "a2", "a3", "b1", "b2", "b3"} {
		c.SetNode(nodeFrom(t, n, fmt.Sprintf("{metadata: {labels: {topology.kubernetes.io/zone: z%d}}}", i/3)))
	}
	const of = "{metadata: {ownerReferences: [{uid: rs, controller: true, name: r, kind: R, apiVersion: v1}]}, spec: {containers: [{resources: {requests: {cpu: 100m, memory: 64Mi}}}]%s}}"
	place := func(name, more string) string {
		p := Pod{Pod: podFrom(t, name, fmt.Sprintf(of, more))}
		d := c.Decide(p)
		c.Add(p, d.Node)
		return d.Node
	}
	var got []string
	for i := range 4 {
		got = append(got, place(fmt.Sprint("p", i), ""))
	}
	if fmt.Sprint(got) != "[a1 b1 a2 b2]" {
		t.Error(got)
	}
	// Who says it with constraints knows better.
	if n := place("own", ", topologySpreadConstraints: [{maxSkew: 9, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {}}]"); n != "a3" {
		t.Errorf("%s, want a3", n)
	}
	c.Remove("p1")
	if n := place("again", ""); n != "b1" {
		t.Errorf("once one of b has gone: %s", n)
	}
}

// TestPreferencesAreComparedBetweenNodes: one that some node fulfils counts in full,
// however many no node does.
func TestPreferencesAreComparedBetweenNodes(t *testing.T) {
	c := world{nodes: map[string]string{"a": "{}", "b": "{metadata: {labels: {z: 'yes'}}}"}}.cluster(t)
	one := func(weight int, key string) string {
		return fmt.Sprintf("{weight: %d, preference: {matchExpressions: [{key: %s, operator: Exists}]}}", weight, key)
	}
	checkDecision(t, c, podFrom(t, "new", "{spec: {affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: ["+one(100, "x")+","+one(100, "y")+","+one(1, "z")+"]}}}}"), "b")
}

// TestTopologiesAreForgotten: of a Pod that is gone nothing stays.
func TestTopologiesAreForgotten(t *testing.T) {
	c := nodesOf(10)
	before := len(c.topologies)
	for i := range 50 {
		c.Decide(Pod{Pod: podFrom(t, "p", fmt.Sprintf("{spec: {affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, podAffinityTerm: {topologyKey: 'example.org/k%d', labelSelector: {}}}]}}}}", i))})
	}
	c.sweep()
	if len(c.topologies) != before || len(c.terms) != 0 {
		t.Errorf("%d topologies, %d before; %d terms", len(c.topologies), before, len(c.terms))
	}
}
