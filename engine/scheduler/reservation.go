package scheduler

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// reservation is the room that is held on a node for a Pod whose victims are
// still ending there (status.nominatedNodeName). Pods of a higher priority do
// not see it. To all others the Pod means already what it will mean: its
// anti-affinity keeps them away, theirs keeps away from it, and it counts for
// topology spread. But it may never come, so nobody can rely on being near it.
type reservation struct {
	id    types.UID
	class *class
	node  *node
}

// against: the reservation stands in the way of a class.
func (r *reservation) against(k *class) bool { return r.class.priority >= k.priority }

func (r *reservation) clashes(p port) bool {
	return slices.ContainsFunc(r.class.ports, p.clashes)
}

// awaits reports whether Pods are ending that the room is taken from.
func (r *reservation) awaits() bool {
	return slices.ContainsFunc(r.node.pods, func(p *placed) bool { return p.terminating && p.class.priority < r.class.priority })
}

// held is how much of a resource is reserved against a class.
func (n *node) held(k *class, id int) int64 {
	var sum int64
	for _, r := range n.reserved {
		if !r.against(k) {
			continue
		}
		for _, need := range r.class.need {
			if need.id == id {
				sum += need.n
			}
		}
	}
	return sum
}

// meets: what the Pod for which room is held means to others concerns a class.
func (r *reservation) meets(k *class) bool {
	for _, t := range r.class.identity.terms {
		if slices.Contains(k.near, t) || slices.Contains(k.apart, t) || slices.ContainsFunc(k.hard, func(s constraint) bool { return s.term == t }) {
			return true
		}
	}
	return slices.ContainsFunc(r.class.apart, func(t *term) bool { return slices.Contains(k.identity.terms, t) })
}

// heldAgainst are the Pods for which room is held that a class must be able to be
// beside, but for its own one.
func (c *Cluster) heldAgainst(k *class, own types.UID) []*placed {
	var out []*placed
	for id, r := range c.reserved {
		if id != own && r.against(k) && r.node.node != nil && r.meets(k) {
			out = append(out, &placed{class: r.class, node: r.node})
		}
	}
	return out
}

// beside calls a function while some Pods are counted as if they ran.
func (c *Cluster) beside(held []*placed, f func()) {
	was := c.trying
	c.trying = true
	for _, p := range held {
		c.count(p, 1)
	}
	f()
	for _, p := range held {
		c.count(p, -1)
	}
	c.trying = was
}

// passesBeside reports whether a class can be on a node beside the Pods for which
// room is held.
func (c *Cluster) passesBeside(held []*placed, k *class, n *node) bool {
	ok := true
	if len(held) > 0 {
		c.beside(held, func() { ok = passes(c.checks(k, nil), n.slot) })
	}
	return ok
}

// Reserve holds room for a Pod on a node, instead of where it was held before.
func (c *Cluster) Reserve(pod Pod, nodeName string) {
	id := identityOf(pod.Pod)
	k := c.classOf(pod)
	if r := c.reserved[id]; r != nil && r.class == k && r.node.name == nodeName {
		return
	}
	k.refs++
	c.Unreserve(id)
	r := &reservation{id: id, class: k, node: c.nodeOf(nodeName)}
	c.reserved[id] = r
	r.node.reserved = append(r.node.reserved, r)
	r.node.gen = c.next()
}

// Unreserve gives the room that is held for a Pod to everybody.
func (c *Cluster) Unreserve(id types.UID) {
	r := c.reserved[id]
	if r == nil {
		return
	}
	delete(c.reserved, id)
	n := r.node
	n.reserved = slices.DeleteFunc(n.reserved, func(o *reservation) bool { return o == r })
	n.gen = c.next()
	for _, list := range [][]*term{r.class.identity.terms, r.class.apart} {
		for _, t := range list {
			c.mark(t) // it stands in nobody's way any more
		}
	}
	r.class.refs--
	c.touch(n)
	c.forget(n)
}

// claims reports whether a Pod fits where room is held for it.
func (c *Cluster) claims(id types.UID, k *class) (*node, bool) {
	r := c.reserved[id]
	if r == nil || r.node.node == nil {
		return nil, false
	}
	defer c.disregard(id)()
	return r.node, c.fitsOn(k, r.node, id)
}

// disregard lets the room that is held for a Pod stand in nobody's way, until
// the function that it returns is called.
func (c *Cluster) disregard(id types.UID) (restore func()) {
	r := c.reserved[id]
	if r == nil {
		return func() {}
	}
	own := r.class
	r.class = &class{priority: -most}
	return func() { r.class = own }
}

// Outbid are the Pods of lower priority than a Pod for which room is held on
// the same node: it may be gone once that Pod is there.
func (c *Cluster) Outbid(id types.UID) []types.UID {
	own := c.reserved[id]
	if own == nil {
		return nil
	}
	var out []types.UID
	for _, r := range own.node.reserved {
		if r.class.priority < own.class.priority {
			out = append(out, r.id)
		}
	}
	return out
}
