package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Preemption is how room can be made for a Pod that fits nowhere.
type Preemption struct {
	// Node is where it will fit; empty when preemption does not help.
	Node string
	// Victims are the Pods to evict, the most important first. There are none
	// when Pods that end anyway make the room.
	Victims []*corev1.Pod
	// Violations is how many of them their budgets protect.
	Violations int
	// Message says why preemption does not help; empty when no Pod is of a
	// lower priority and nobody will expect it to.
	Message string
}

// Preempt looks for the node on which the least important Pods have to make room
// for a Pod: those with the fewest violations of budgets, then with the lowest
// highest priority, the smallest sum of priorities, the fewest, and those that
// started last; then the first node by name. It changes nothing.
func (c *Cluster) Preempt(pod Pod, budgets []Budget) Preemption {
	k := c.classOf(pod)
	if k.blocked != "" || !c.anyBelow(k.priority) {
		return Preemption{}
	}
	if k.never {
		return Preemption{Message: "preemption is off for the pod (preemptionPolicy Never)"}
	}
	id := identityOf(pod.Pod)
	t := c.try(k, id)
	if r := c.reserved[id]; r != nil && r.awaits() && t.open(r.node) {
		return Preemption{Node: r.node.name} // it is being made
	}
	defer c.disregard(id)()
	for _, b := range budgets {
		t.budgets[b.Namespace] = append(t.budgets[b.Namespace], b)
	}
	if r := c.reserved[id]; r != nil && r.node.node != nil {
		if o, _ := t.on(r.node); o != nil {
			return o.preemption() // its victims are being told already
		}
	}
	return c.preempt(t)
}

func (c *Cluster) preempt(t *trial) Preemption {
	nodes := c.inOrder()
	if t.k.only != nil {
		nodes = c.named(t.k)
	}
	var best *offer
	offers, count := 0, map[string]int{}
	for _, n := range nodes {
		if !t.alone && offers == maxOffers {
			break
		}
		o, why := t.on(n)
		if o == nil {
			count[why]++
			continue
		}
		if offers++; best == nil || o.better(best) {
			best = o
		}
	}
	if best != nil {
		return best.preemption()
	}
	count[outOfQuestion] += c.Nodes() - len(nodes)
	return Preemption{Message: "preemption would not help: " + unhelpful(count)}
}

// maxOffers is how many nodes are compared for a Pod that goes by the Pods on
// other nodes, too: each of them takes as long as a decision.
const maxOffers = 200

// What stands against preemption on a node.
const (
	outOfQuestion = "out of the question for other reasons"
	noneBelow     = "without pods of lower priority"
	tooFull       = "too full even without pods of lower priority"
)

func unhelpful(count map[string]int) string {
	var words []string
	for _, why := range []string{noneBelow, tooFull, outOfQuestion} {
		switch n := count[why]; {
		case n == 1:
			words = append(words, "1 is "+why)
		case n > 1:
			words = append(words, fmt.Sprintf("%d are %s", n, why))
		}
	}
	return strings.Join(words, ", ")
}

// anyBelow reports whether a Pod of a lower priority is anywhere.
func (c *Cluster) anyBelow(priority int32) bool {
	for p := range c.priorities {
		if p < priority {
			return true
		}
	}
	return false
}

// alone: nothing but the node itself and what runs on it decides where a class fits.
func (c *Cluster) alone(k *class) bool {
	return len(k.near) == 0 && len(k.apart) == 0 && len(k.hard) == 0 &&
		!slices.ContainsFunc(k.identity.terms, func(t *term) bool { return t.repelling > 0 })
}

// offer is what it takes to make room on a node.
type offer struct {
	node       *node
	victims    []*placed
	violations int
	// Of the victims: the highest priority, and the sum of all, each raised so
	// that fewer victims sum to less.
	highest, sum int64
}

func (o *offer) better(than *offer) bool {
	return cmp.Or(
		cmp.Compare(o.violations, than.violations),
		cmp.Compare(o.highest, than.highest),
		cmp.Compare(o.sum, than.sum),
		cmp.Compare(len(o.victims), len(than.victims)),
		cmp.Compare(than.started(), o.started()),
	) < 0
}

// started is when the first of the most important victims did, in seconds.
func (o *offer) started() int64 {
	first := int64(1<<63 - 1)
	for _, p := range o.victims {
		if int64(p.class.priority) == o.highest {
			first = min(first, startOf(p.pod))
		}
	}
	return first
}

// startOf is when a Pod started, in seconds; one that has not comes after all others.
func startOf(p *corev1.Pod) int64 {
	if p.Status.StartTime == nil {
		return 1<<63 - 1
	}
	return p.Status.StartTime.Unix()
}

func (o *offer) preemption() Preemption {
	out := Preemption{Node: o.node.name, Violations: o.violations}
	slices.SortFunc(o.victims, byImportance)
	for _, p := range o.victims {
		out.Victims = append(out.Victims, p.pod)
	}
	return out
}

func byImportance(a, b *placed) int {
	return cmp.Or(
		cmp.Compare(b.class.priority, a.class.priority),
		cmp.Compare(startOf(a.pod), startOf(b.pod)),
		cmp.Compare(a.pod.Namespace, b.pod.Namespace),
		cmp.Compare(a.pod.Name, b.pod.Name),
	)
}
