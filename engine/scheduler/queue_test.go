package scheduler

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

// run decides on all that is in line, as the controller does, and says what
// became of it: "p@node" or "p!" for one that was decided on and refused.
func run(q *Queue, c *Cluster) string {
	var out []string
	for {
		p, refused, ok := q.Next()
		if !ok {
			return strings.Join(out, " ")
		}
		if refused != nil {
			continue
		}
		d := c.Decide(p)
		if d.Node == "" {
			q.Park(p.UID, d)
			out = append(out, p.Name+"!")
			continue
		}
		c.Add(p, d.Node)
		q.Remove(p.UID)
		out = append(out, p.Name+"@"+d.Node)
	}
}

func enqueue(t *testing.T, q *Queue, name, text string) {
	t.Helper()
	q.Add(Pod{Pod: podFrom(t, name, text)})
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestQueueOrder(t *testing.T) {
	c := world{nodes: map[string]string{"a": "{status: {allocatable: {pods: 10}}}"}}.cluster(t)
	q := NewQueue(c)
	enqueue(t, q, "z", "{metadata: {creationTimestamp: '2026-01-01T00:00:00Z'}}")
	enqueue(t, q, "y", "{metadata: {creationTimestamp: '2026-01-02T00:00:00Z'}}")
	enqueue(t, q, "x", "{metadata: {creationTimestamp: '2026-01-03T00:00:00Z'}, spec: {priority: 1}}")
	enqueue(t, q, "w", "{metadata: {creationTimestamp: '2026-01-02T00:00:00Z'}}")
	expect(t, "priority, age, name", run(q, c), "x@a z@a w@a y@a")
}

func TestEqualsOfARefusedPodAreNotDecidedOnAgain(t *testing.T) {
	c := world{nodes: map[string]string{"a": "{}"}, pods: map[string]string{"full@a": needs("2", "1Gi"), "rest@a": "{}"}}.cluster(t)
	q := NewQueue(c)
	for i := range 5 {
		enqueue(t, q, fmt.Sprint("p", i), needs("2", "1Gi"))
	}
	expect(t, "all", run(q, c), "p0!")
	enqueue(t, q, "p5", needs("2", "1Gi"))
	expect(t, "one more", run(q, c), "")
	if q.Len() != 6 {
		t.Errorf("%d wait, want 6", q.Len())
	}
	c.Remove("full")
	expect(t, "room for one", run(q, c), "p0@a")
	c.Remove("rest")
	expect(t, "a pod that took none of what they lack", run(q, c), "")
	c.SetNode(nodeFrom(t, "b", "{status: {allocatable: {cpu: 8, memory: 8Gi}}}"))
	expect(t, "a node for three", run(q, c), "p1@b p2@b p3@b")
}

func TestWhatHelpsWakes(t *testing.T) {
	const nodeLabels = "{metadata: {labels: {zone: x}}}"
	for name, c := range map[string]struct {
		world world
		pod   string
		idle  func(*testing.T, *Cluster)
		help  func(*testing.T, *Cluster)
	}{
		"a node that is uncordoned": {
			world{nodes: map[string]string{"a": "{spec: {unschedulable: true}}"}}, "{}",
			func(t *testing.T, c *Cluster) {
				c.SetNode(nodeFrom(t, "a", "{metadata: {labels: {q: r}}, spec: {unschedulable: true}}"))
			},
			func(t *testing.T, c *Cluster) { c.SetNode(nodeFrom(t, "a", "{}")) },
		},
		"a label": {
			world{nodes: map[string]string{"a": "{}"}}, "{spec: {nodeSelector: {disk: ssd}}}",
			func(t *testing.T, c *Cluster) { c.SetNode(nodeFrom(t, "a", "{metadata: {labels: {disk: hdd}}}")) },
			func(t *testing.T, c *Cluster) { c.SetNode(nodeFrom(t, "a", "{metadata: {labels: {disk: ssd}}}")) },
		},
		"a taint that goes": {
			world{nodes: map[string]string{"a": tainted}}, "{}",
			func(t *testing.T, c *Cluster) { c.SetNode(nodeFrom(t, "b", tainted)) },
			func(t *testing.T, c *Cluster) { c.SetNode(nodeFrom(t, "a", "{}")) },
		},
		"a pod to be near": {
			world{nodes: map[string]string{"a": nodeLabels}}, affine("podAffinity", must(toDB)),
			func(t *testing.T, c *Cluster) { c.Add(Pod{Pod: podFrom(t, "other", web)}, "a") },
			func(t *testing.T, c *Cluster) { c.Add(Pod{Pod: podFrom(t, "db", db)}, "a") },
		},
		"a pod to be near that gets its label": {
			world{nodes: map[string]string{"a": nodeLabels}, pods: map[string]string{"db@a": web}}, affine("podAffinity", must(toDB)),
			func(t *testing.T, c *Cluster) { c.Add(Pod{Pod: podFrom(t, "other", web)}, "a") },
			func(t *testing.T, c *Cluster) { c.Add(Pod{Pod: podFrom(t, "db", db)}, "a") },
		},
		"a pod to be away from that goes": {
			world{nodes: map[string]string{"a": "{}"}, pods: map[string]string{"w@a": web, "o@a": db}}, affine("podAntiAffinity", must(webNode)),
			func(t *testing.T, c *Cluster) { c.Remove("o") },
			func(t *testing.T, c *Cluster) { c.Remove("w") },
		},
		"a pod elsewhere that evens the spread": {
			world{nodes: with(zones(), "c", "{metadata: {labels: {zone: y}}, spec: {unschedulable: true}}"), pods: map[string]string{"w@a": web}},
			spreadOver("{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}"),
			func(t *testing.T, c *Cluster) { c.Add(Pod{Pod: podFrom(t, "d", db)}, "c") },
			func(t *testing.T, c *Cluster) { c.Add(Pod{Pod: podFrom(t, "w2", web)}, "c") },
		},
		"a zone that goes": {
			world{nodes: with(zones(), "c", "{metadata: {labels: {zone: y}}, spec: {unschedulable: true}}"), pods: map[string]string{"w@a": web}},
			spreadOver("{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}"),
			func(t *testing.T, c *Cluster) { c.Add(Pod{Pod: podFrom(t, "d", db)}, "c") },
			func(t *testing.T, c *Cluster) { c.RemoveNode("c") },
		},
		"the labels of a namespace": {
			world{nodes: map[string]string{"a": nodeLabels}, pods: map[string]string{"db@a": "{metadata: {namespace: other, labels: {app: db}}}"}},
			affine("podAffinity", must(strings.Replace(toDB, "{", "{namespaceSelector: {matchLabels: {team: t}}, ", 1))),
			func(t *testing.T, c *Cluster) { c.SetNamespace("third", map[string]string{"team": "t"}) },
			func(t *testing.T, c *Cluster) { c.SetNamespace("other", map[string]string{"team": "t"}) },
		},
		"room for one that may preempt": {
			world{nodes: map[string]string{"a": "{}"}, pods: map[string]string{"eq@a": ranked(5, "1"), "low@a": ranked(1, "1"), "o@b": ranked(1, "1")}}, ranked(5, "2"),
			func(t *testing.T, c *Cluster) { c.Remove("o") },
			func(t *testing.T, c *Cluster) { c.Remove("eq"); c.Remove("low") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := c.world.cluster(t)
			q := NewQueue(k)
			enqueue(t, q, "new", c.pod)
			expect(t, "at first", run(q, k), "new!")
			c.idle(t, k)
			expect(t, "after what does not help", run(q, k), "")
			c.help(t, k)
			if got := run(q, k); !strings.HasPrefix(got, "new@") {
				t.Errorf("after what helps: %q", got)
			}
		})
	}
}

// TestAnEqualThatGoesLetsOnePreempt: it still does not fit, but with what it may
// take from lower ones it does.
func TestAnEqualThatGoesLetsOnePreempt(t *testing.T) {
	c := world{nodes: map[string]string{"a": "{}"}, pods: map[string]string{"eq@a": ranked(5, "1"), "low@a": ranked(1, "1")}}.cluster(t)
	q := NewQueue(c)
	enqueue(t, q, "new", ranked(5, "2"))
	expect(t, "at first", run(q, c), "new!")
	c.Remove("eq")
	expect(t, "then", run(q, c), "new!")
	if p := c.Preempt(Pod{Pod: podFrom(t, "new", ranked(5, "2"))}, nil); p.Node != "a" {
		t.Errorf("%+v", p)
	}
}

func TestNominatedPodsWaitForTheirNode(t *testing.T) {
	c := world{nodes: map[string]string{"a": "{}", "b": "{}"}, pods: map[string]string{"p@a": ranked(1, "2"), "q@b": ranked(9, "2")}}.cluster(t)
	q := NewQueue(c)
	enqueue(t, q, "big", ranked(5, "2"))
	p, _, _ := q.Next()
	c.Reserve(p, "a")
	q.Nominate(p.UID)
	enqueue(t, q, "small", ranked(1, "1"))
	expect(t, "nothing is free", run(q, c), "small!")
	c.Add(Pod{Pod: podFrom(t, "p", ending(ranked(1, "2")))}, "a")
	expect(t, "the victim is ending", run(q, c), "")
	c.Remove("p")
	expect(t, "the victim is gone", run(q, c), "big@a")
	c.Unreserve(types.UID("big"))
	c.Remove("q")
	expect(t, "another node is free", run(q, c), "small@b")
}

func TestTheWholeCrowdIsToldOfAnotherReason(t *testing.T) {
	c := New()
	q := NewQueue(c)
	for i := range 3 {
		enqueue(t, q, fmt.Sprint("p", i), needs("4", "1Gi"))
	}
	p, _, _ := q.Next()
	if told := q.Park(p.UID, c.Decide(p)); len(told) != 1 {
		t.Errorf("%d are told of the first refusal by Park, want 1: the others are by Next", len(told))
	}
	for range 2 {
		if _, refused, ok := q.Next(); !ok || refused == nil {
			t.Error("an equal is not refused at once")
		}
	}
	c.SetNode(nodeFrom(t, "a", "{}"))
	p, _, _ = q.Next()
	if told := q.Park(p.UID, c.Decide(p)); len(told) != 3 {
		t.Errorf("%d are told that the reason is another one, want 3", len(told))
	}
}

// TestALargePodThatIsOlderHasTheFirstWordOnRoom: when room appears, a large Pod
// that has waited is decided on before younger small ones of its priority, and
// takes all of it if it fits.
func TestALargePodThatIsOlderHasTheFirstWordOnRoom(t *testing.T) {
	const node = "{status: {allocatable: {cpu: 4, memory: 8Gi, pods: 10}}}"
	c := world{nodes: map[string]string{"a": node}, pods: map[string]string{"first@a": needs("2", "1Gi"), "second@a": needs("2", "1Gi")}}.cluster(t)
	q := NewQueue(c)
	at := func(second int, need string) string {
		return strings.TrimSuffix(need, "}") + fmt.Sprintf(", metadata: {creationTimestamp: '2026-01-01T00:00:%02dZ'}}", second)
	}
	enqueue(t, q, "large", at(1, needs("4", "1Gi")))
	for i := range 4 {
		enqueue(t, q, fmt.Sprint("small", i), at(2+i, needs("1", "1Gi")))
	}
	expect(t, "no room", run(q, c), "large! small0!")
	// Too little for the large one: it does not keep the small ones waiting.
	c.Remove("first")
	expect(t, "room for two small ones", run(q, c), "small0@a small1@a")
	for _, id := range []types.UID{"second", "small0", "small1"} {
		c.Remove(id)
	}
	expect(t, "room for all that it needs", run(q, c), "large@a")
}

// TestTheWholeCrowdIsToldOnceInAWhile: as WakeAll is called, of other numbers too.
func TestTheWholeCrowdIsToldOnceInAWhile(t *testing.T) {
	c := world{nodes: map[string]string{"a": "{}"}}.cluster(t)
	q := NewQueue(c)
	told := map[types.UID]string{}
	round := func() {
		for {
			p, refused, ok := q.Next()
			if !ok {
				return
			}
			if refused != nil {
				told[p.UID] = refused.Message
				continue
			}
			d := c.Decide(p)
			for _, other := range q.Park(p.UID, d) {
				told[other.UID] = d.Message
			}
		}
	}
	for i := range 3 {
		enqueue(t, q, fmt.Sprint("p", i), needs("8", "1Gi"))
	}
	round()
	c.SetNode(nodeFrom(t, "b", "{}"))
	q.WakeAll()
	round()
	for i := range 3 {
		expect(t, fmt.Sprint("p", i), told[types.UID(fmt.Sprint("p", i))], "0/2 nodes fit: 2 lack cpu (need 8, free 2)")
	}
}
