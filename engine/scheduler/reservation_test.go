package scheduler

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestANominatedPodLeavesANodeThatTakesItNoMore: it is tried again when its node
// falls silent, and goes elsewhere.
func TestANominatedPodLeavesANodeThatTakesItNoMore(t *testing.T) {
	now := metav1.Now()
	for name, node := range map[string]string{
		"silent":   "{spec: {taints: [{key: node.kubernetes.io/unreachable, effect: NoExecute}]}, status: {conditions: [{type: Ready, status: Unknown}]}}",
		"cordoned": "{spec: {unschedulable: true}}",
		"tainted":  "{spec: {taints: [{key: mine, effect: NoSchedule}]}}",
	} {
		c := world{nodes: map[string]string{"a": "{}", "b": "{}"}, pods: map[string]string{"l@a": needs("2", "1Gi"), "m@b": needs("2", "1Gi")}}.cluster(t)
		high := Pod{Pod: podFrom(t, "high", "{spec: {priority: 100, "+requests("2", "1Gi")+"}}")}
		q := NewQueue(c)
		q.Add(high)
		q.Next()
		p := c.Preempt(high, nil)
		c.Reserve(high, p.Node)
		q.Nominate("high")
		victim := p.Victims[0].DeepCopy()
		victim.DeletionTimestamp = &now
		c.Add(Pod{Pod: victim}, p.Node)
		if _, _, ok := q.Next(); ok {
			t.Errorf("%s: it is tried again while its victim ends", name)
			q.Nominate("high")
		}
		c.SetNode(nodeFrom(t, p.Node, node))
		if _, _, ok := q.Next(); !ok {
			t.Errorf("%s: it is not tried again", name)
		}
		c.Decide(high)
		if other := c.Preempt(high, nil); other.Node != "b" {
			t.Errorf("%s: room is made on %q", name, other.Node)
		}
	}
}

// TestANominatedPodGoesWhereItFitsSooner: by what happens on other nodes, too.
func TestANominatedPodGoesWhereItFitsSooner(t *testing.T) {
	nodes := zones()
	c := world{nodes: nodes, pods: map[string]string{"low@a": needs("4", "1Gi"), "db@a": db}}.cluster(t)
	high := Pod{Pod: podFrom(t, "high", "{spec: {priority: 100, "+requests("2", "1Gi")+", affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone, labelSelector: {matchLabels: {app: db}}}]}}}}")}
	q := NewQueue(c)
	q.Add(high)
	q.Next()
	c.Reserve(high, "a")
	q.Nominate("high")
	for q.wake(); len(q.active.items) > 0; {
		q.Next()
		q.Nominate("high")
	}
	c.Add(Pod{Pod: podFrom(t, "db2", db)}, "c")
	if _, _, ok := q.Next(); !ok {
		t.Error("it is not tried again when a Pod that it wants to be near starts elsewhere")
	}
}

// TestHeldRoomCountsForPodsOnOtherNodes: what a Pod for which room is held will mean
// to others, it means already. So the replacement of a victim does not take its
// place again and again.
func TestHeldRoomCountsForPodsOnOtherNodes(t *testing.T) {
	now := metav1.Now()
	c := world{nodes: map[string]string{"a": "{status: {allocatable: {cpu: 4, pods: 10}}}"}, pods: map[string]string{"web0@a": web}}.cluster(t)
	high := Pod{Pod: podFrom(t, "high", "{spec: {priority: 100, "+requests("2", "1Gi")+", affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: web}}}]}}}}")}
	for round := range 50 {
		if c.Decide(high).Node != "" {
			return
		}
		p := c.Preempt(high, nil)
		c.Reserve(high, p.Node)
		for _, v := range p.Victims { // told to end; their ReplicaSet replaces them at once
			going := v.DeepCopy()
			going.DeletionTimestamp = &now
			c.Add(Pod{Pod: going}, p.Node)
		}
		next := Pod{Pod: podFrom(t, fmt.Sprint("web", round+1), web)}
		d := c.Decide(next)
		if d.Node != "" {
			c.Add(next, d.Node)
		} else if want := "0/1 nodes fit: 1 has room held for a pod of the same or a higher priority that the pod cannot be beside"; round > 0 && d.Message != want {
			t.Errorf("got %q, want %q", d.Message, want)
		}
		for _, v := range p.Victims {
			c.Remove(v.UID)
		}
	}
	t.Error("50 Pods were preempted, and the Pod of priority 100 has no node")
}

// TestHeldRoomAndPodsOfOthers: anti-affinity and spread in both directions, and no
// affinity to a Pod that may never come.
func TestHeldRoomAndPodsOfOthers(t *testing.T) {
	apart, near := affine("podAntiAffinity", must(toWeb)), affine("podAffinity", must(toDB))
	for name, c := range map[string]struct {
		held, pod string
		want      bool
	}{
		"the Pod keeps away from it":  {web, apart, false},
		"it keeps the Pod away":       {apart, web, false},
		"the Pod wants to be near it": {db, near, false},
		"nothing between them":        {db, web, true},
		"spread":                      {web, spreadOver("{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}"), false},
	} {
		// What is held on a, which has no room for more, concerns b.
		w := world{nodes: map[string]string{"a": "{metadata: {labels: {zone: x}}, status: {allocatable: {cpu: 4, pods: 1}}}", "b": "{metadata: {labels: {zone: x}}}", "c": "{metadata: {labels: {zone: y}}, spec: {unschedulable: true}}"},
			pods: map[string]string{"full@a": "{}"}}
		cl := w.cluster(t)
		held := Pod{Pod: podFrom(t, "held", c.held)}
		pod := Pod{Pod: podFrom(t, "pod", c.pod)}
		q := NewQueue(cl)
		cl.Reserve(held, "a")
		if d := cl.Decide(pod); (d.Node != "") != c.want {
			t.Errorf("%s: %+v", name, d)
		}
		if c.want || name == "the Pod wants to be near it" {
			continue
		}
		q.Add(pod)
		q.Next()
		q.Park(pod.UID, cl.Decide(pod))
		if _, _, ok := q.Next(); ok {
			t.Errorf("%s: tried again, and nothing has changed", name)
		}
		cl.Unreserve(held.UID)
		if _, _, ok := q.Next(); !ok {
			t.Errorf("%s: not tried again when the room is held no longer", name)
		}
		if d := cl.Decide(pod); d.Node == "" {
			t.Errorf("%s: %+v, once the room is held no longer", name, d)
		}
	}
}

// TestAGroupGathersWhereRoomIsHeldForItsFirst: if it may go anywhere.
func TestAGroupGathersWhereRoomIsHeldForItsFirst(t *testing.T) {
	together := affine("podAffinity", must(toWeb))
	c := world{nodes: zones()}.cluster(t)
	c.Reserve(Pod{Pod: podFrom(t, "first", together)}, "c")
	checkDecision(t, c, podFrom(t, "second", together), "c")
}
