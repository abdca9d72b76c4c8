package scheduler

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// ranked is a Pod with a priority, and what else its spec says.
func ranked(priority int, cpu string, more ...string) string {
	return fmt.Sprintf("{metadata: {labels: {app: web}}, spec: {priority: %d, containers: [{resources: {requests: {cpu: %s}}}]%s}}", priority, cpu, strings.Join(more, ""))
}

func started(pod, at string) string {
	return strings.TrimSuffix(pod, "}") + fmt.Sprintf(", status: {startTime: '2026-01-01T00:00:%sZ'}}", at)
}

func ending(pod string) string {
	return strings.Replace(pod, "{metadata: {", "{metadata: {deletionTimestamp: '2026-01-01T00:00:00Z', ", 1)
}

func budget(allowed int32) Budget {
	return Budget{Namespace: "default", Selector: labels.SelectorFromSet(labels.Set{"guarded": "yes"}), Allowed: allowed}
}

func guardedPod(pod string) string {
	return strings.Replace(pod, "app: web", "app: web, guarded: 'yes'", 1)
}

func TestPreempt(t *testing.T) {
	two := map[string]string{"a": "{}", "b": "{}"}
	one := map[string]string{"a": "{}"}
	for name, c := range map[string]struct {
		world   world
		pod     string
		budgets []Budget
		want    string
	}{
		"nobody is of lower priority":                        {world{nodes: one, pods: map[string]string{"p@a": ranked(5, "2")}}, ranked(5, "1"), nil, ""},
		"the lowest priority":                                {world{nodes: two, pods: map[string]string{"p@a": ranked(2, "2"), "q@b": ranked(1, "2")}}, ranked(5, "1"), nil, "b: q"},
		"one of higher priority that ends is not waited for": {world{nodes: two, pods: map[string]string{"p@a": ending(ranked(9, "2")), "q@b": ranked(1, "2")}}, ranked(5, "1"), nil, "b: q"},
		"no more than needed":                                {world{nodes: one, pods: map[string]string{"p@a": ranked(1, "1"), "q@a": ranked(2, "1")}}, ranked(5, "1"), nil, "a: p"},
		"the most important are spared":                      {world{nodes: one, pods: map[string]string{"p@a": ranked(1, "600m"), "q@a": ranked(2, "600m"), "r@a": ranked(3, "600m")}}, ranked(5, "1"), nil, "a: q p"},
		"a smaller sum of priorities":                        {world{nodes: two, pods: map[string]string{"p@a": ranked(3, "1"), "q@a": ranked(2, "1"), "r@b": ranked(3, "1"), "s@b": ranked(1, "1")}}, ranked(5, "2"), nil, "b: r s"},
		"fewer before many":                                  {world{nodes: two, pods: map[string]string{"p@a": ranked(1, "1"), "q@a": ranked(1, "1"), "r@b": ranked(1, "2")}}, ranked(5, "2"), nil, "b: r"},
		"the one that started last":                          {world{nodes: two, pods: map[string]string{"p@a": started(ranked(1, "2"), "01"), "q@b": started(ranked(1, "2"), "02")}}, ranked(5, "1"), nil, "b: q"},
		"of one node the one that is new":                    {world{nodes: one, pods: map[string]string{"p@a": started(ranked(1, "1"), "02"), "q@a": started(ranked(1, "1"), "01")}}, ranked(5, "1"), nil, "a: p"},
		"the first node by name":                             {world{nodes: two, pods: map[string]string{"p@a": ranked(1, "2"), "q@b": ranked(1, "2")}}, ranked(5, "1"), nil, "a: p"},
		"higher ones stay":                                   {world{nodes: one, pods: map[string]string{"p@a": ranked(9, "1500m"), "q@a": ranked(1, "500m")}}, ranked(5, "1"), nil, "preemption would not help: 1 is too full even without pods of lower priority"},
		"a budget goes before priority":                      {world{nodes: two, pods: map[string]string{"p@a": guardedPod(ranked(1, "2")), "q@b": ranked(4, "2")}}, ranked(5, "1"), []Budget{budget(0)}, "b: q"},
		"a budget that allows it":                            {world{nodes: two, pods: map[string]string{"p@a": guardedPod(ranked(1, "2")), "q@b": ranked(4, "2")}}, ranked(5, "1"), []Budget{budget(1)}, "a: p"},
		"a budget that allows one of two":                    {world{nodes: two, pods: map[string]string{"p@a": guardedPod(ranked(1, "1")), "o@a": guardedPod(ranked(1, "1")), "q@b": ranked(4, "2")}}, ranked(5, "2"), []Budget{budget(1)}, "b: q"},
		"a budget is broken as a last resort": {
			world{nodes: one, pods: map[string]string{"p@a": guardedPod(ranked(1, "2"))}}, ranked(5, "1"), []Budget{budget(0)}, "a: p (1 violation)",
		},
		"the guarded are spared first": {world{nodes: one, pods: map[string]string{"p@a": guardedPod(ranked(1, "1")), "q@a": ranked(4, "1")}}, ranked(5, "1"), []Budget{budget(0)}, "a: q"},
		"of another namespace":         {world{nodes: two, pods: map[string]string{"p@a": guardedPod(ranked(1, "2")), "q@b": ranked(4, "2")}}, ranked(5, "1"), []Budget{{Namespace: "other", Selector: labels.Everything()}}, "a: p"},
		"disrupted already":            {world{nodes: two, pods: map[string]string{"p@a": guardedPod(ranked(1, "2")), "q@b": ranked(4, "2")}}, ranked(5, "1"), []Budget{{Namespace: "default", Selector: labels.Everything(), Disrupted: map[string]bool{"p": true}}}, "a: p"},
		"those that end anyway":        {world{nodes: two, pods: map[string]string{"p@a": ranked(1, "2"), "q@b": ending(ranked(1, "2"))}}, ranked(5, "1"), nil, "b:"},
		"what preemption cannot change": {
			world{nodes: map[string]string{"a": "{spec: {unschedulable: true}}", "b": tainted, "c": "{}"}, pods: map[string]string{"p@a": ranked(1, "2"), "q@b": ranked(1, "2"), "r@c": ranked(7, "2")}},
			ranked(5, "1"), nil, "preemption would not help: 1 is without pods of lower priority, 2 are out of the question for other reasons",
		},
		"it may not":        {world{nodes: one, pods: map[string]string{"p@a": ranked(1, "2")}}, ranked(5, "1", ", preemptionPolicy: Never"), nil, "preemption is off for the pod (preemptionPolicy Never)"},
		"a host port":       {world{nodes: one, pods: map[string]string{"p@a": "{spec: {containers: [{ports: [{hostPort: 80}]}]}}", "q@a": "{}"}}, "{spec: {priority: 5, containers: [{ports: [{hostPort: 80}]}]}}", nil, "a: p"},
		"anti-affinity":     {world{nodes: one, pods: map[string]string{"p@a": web, "q@a": db}}, strings.Replace(affine("podAntiAffinity", must(webNode)), "spec: {", "spec: {priority: 5, ", 1), nil, "a: p"},
		"who keeps it away": {world{nodes: one, pods: map[string]string{"p@a": affine("podAntiAffinity", must(webNode)), "q@a": db}}, "{metadata: {labels: {app: web}}, spec: {priority: 5}}", nil, "a: p"},
		"topology spread":   {world{nodes: zones(), pods: map[string]string{"p@a": web, "f@c": "{spec: {priority: 9, containers: [{resources: {requests: {cpu: 2}}}]}}"}}, "{metadata: {labels: {app: web}}, spec: {priority: 5, " + requests("1", "0") + ", topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}]}}", nil, "a: p"},
		"it would lose what it wants to be near": {
			world{nodes: map[string]string{"a": "{metadata: {labels: {zone: x}}}"}, pods: map[string]string{"p@a": "{metadata: {labels: {app: db}}, spec: {" + requests("2", "0") + "}}"}},
			"{spec: {priority: 5, " + requests("1", "0") + ", affinity: {podAffinity: {" + must(toDB) + "}}}}", nil,
			"preemption would not help: 1 is too full even without pods of lower priority",
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := c.world.cluster(t)
			p := Pod{Pod: podFrom(t, "new", c.pod)}
			before := k.Decide(p)
			if before.Node != "" {
				t.Fatalf("it fits on %s", before.Node)
			}
			if got := described(k.Preempt(p, c.budgets)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if after := k.Decide(p); after != before {
				t.Errorf("the cluster has changed: %+v, then %+v", before, after)
			}
		})
	}
}

func described(p Preemption) string {
	if p.Node == "" {
		return p.Message
	}
	out := p.Node + ":"
	for _, v := range p.Victims {
		out += " " + v.Name
	}
	if p.Violations > 0 {
		out += fmt.Sprintf(" (%d violation)", p.Violations)
	}
	return out
}

func TestRoomIsHeldAgainstLowerPriorities(t *testing.T) {
	c := world{nodes: map[string]string{"a": "{}"}, pods: map[string]string{"p@a": ranked(1, "1")}}.cluster(t)
	nominated := Pod{Pod: podFrom(t, "big", ranked(5, "2"))}
	c.Reserve(nominated, "a")
	c.Remove("p")
	checkDecision(t, c, podFrom(t, "lower", ranked(1, "100m")), "0/1 nodes fit: 1 lacks cpu (need 100m, free 0)")
	checkDecision(t, c, podFrom(t, "equal", ranked(5, "100m")), "0/1 nodes fit: 1 lacks cpu (need 100m, free 0)")
	checkDecision(t, c, podFrom(t, "higher", ranked(6, "100m")), "a")
	checkDecision(t, c, nominated.Pod, "a")
	checkDecision(t, c, podFrom(t, "its like", ranked(5, "2")), "0/1 nodes fit: 1 lacks cpu (need 2, free 0)")
	c.Unreserve("big")
	checkDecision(t, c, podFrom(t, "lower", ranked(1, "100m")), "a")
}

func TestVictimsOnTheirWayAreWaitedFor(t *testing.T) {
	c := world{nodes: map[string]string{"a": "{}", "b": "{}"}, pods: map[string]string{"p@a": ending(ranked(1, "2")), "q@b": ranked(0, "2")}}.cluster(t)
	p := Pod{Pod: podFrom(t, "new", ranked(5, "2"))}
	c.Reserve(p, "a")
	if got := c.Preempt(p, nil); got.Node != "a" || len(got.Victims) > 0 {
		t.Errorf("%+v, want to wait for a", got)
	}
}

// TestAPreemptorKeepsToItsNode: what was begun is not begun elsewhere, too.
func TestAPreemptorKeepsToItsNode(t *testing.T) {
	c := world{nodes: map[string]string{"a": "{}", "b": "{}"}, pods: map[string]string{"p@a": ranked(3, "2"), "q@b": ranked(0, "2")}}.cluster(t)
	p := Pod{Pod: podFrom(t, "new", ranked(5, "2"))}
	c.Reserve(p, "a")
	expect(t, "though there is a cheaper one", described(c.Preempt(p, nil)), "a: p")
	c.SetNode(nodeFrom(t, "a", "{spec: {unschedulable: true}}"))
	expect(t, "until that does not do", described(c.Preempt(p, nil)), "b: q")
}

// TestAPodOfHigherPriorityOutbidsAReservation also says whose.
func TestAPodOfHigherPriorityOutbidsAReservation(t *testing.T) {
	c := world{nodes: map[string]string{"a": "{}"}}.cluster(t)
	low, high := Pod{Pod: podFrom(t, "low", ranked(3, "2"))}, Pod{Pod: podFrom(t, "high", ranked(5, "2"))}
	c.Reserve(low, "a")
	c.Reserve(high, "a")
	if got := c.Outbid("high"); len(got) != 1 || got[0] != "low" {
		t.Errorf("outbid %v, want low", got)
	}
	if got := c.Outbid("low"); len(got) > 0 {
		t.Errorf("outbid %v by the lower one", got)
	}
}

// BenchmarkPreempt5000: one Pod that fits nowhere, on 5,000 nodes of 30 Pods. It is decided
// while all others wait.
func BenchmarkPreempt5000(b *testing.B) {
	c := nodesOf(5000)
	for i, p := range crowdOf(150000, func(_ string, p *corev1.Pod) { p.CreationTimestamp = metav1.Time{} }) {
		c.Add(p, fmt.Sprintf("node-%05d", i%5000))
	}
	big := podFrom(b, "big", "{spec: {priority: 5, containers: [{resources: {requests: {cpu: 6, memory: 1Gi}}}]}}")
	for b.Loop() {
		if p := c.Preempt(Pod{Pod: big}, nil); p.Node == "" {
			b.Fatal(p.Message)
		}
	}
}
