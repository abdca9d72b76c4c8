package scheduler

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// reservation is the room that is held on a node for a Pod whose victims are
// still ending there (status.nominatedNodeName). Pods of a higher priority do
// not see it.
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
	return r.node, c.fitsOn(k, r.node)
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
