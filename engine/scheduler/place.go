package scheduler

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// scratch is room for one decision, kept for the next.
type scratch struct {
	checks []check
	pulls  []pull
	crowds []pull
	fits   []candidate
}

// candidate is a node that fits.
type candidate struct {
	node       *node
	verdict    verdict
	near, crow int64
	zone       int32
}

// cache is what was found out about a class, by the slots of nodes.
type cache struct {
	class    *class
	verdicts []verdict
	used     uint64
}

// maxCaches bounds the memory of verdicts: 24 bytes per class and node.
const maxCaches = 256

// cacheOf is the cache of a class, in the place of the one that was not used for longest.
func (c *Cluster) cacheOf(k *class) []verdict {
	c.used++
	if ca := k.cache; ca != nil && ca.class == k {
		ca.used = c.used
		ca.verdicts = sized(ca.verdicts, len(c.slots))
		return ca.verdicts
	}
	var oldest *cache
	for _, ca := range c.caches {
		if oldest == nil || ca.class == nil || ca.used < oldest.used {
			oldest = ca
		}
	}
	if oldest == nil || (oldest.class != nil && len(c.caches) < maxCaches) {
		oldest = &cache{}
		c.caches = append(c.caches, oldest)
	}
	oldest.class, oldest.used, k.cache = k, c.used, oldest
	if cap(oldest.verdicts) < len(c.slots) {
		oldest.verdicts = make([]verdict, len(c.slots), len(c.slots)+len(c.slots)/4)
	} else {
		oldest.verdicts = oldest.verdicts[:len(c.slots)]
		clear(oldest.verdicts)
	}
	return oldest.verdicts
}

// Decide picks the node for a Pod, or says why none fits: the one on which room
// is held for it, if it fits there by now. It changes nothing that shows.
func (c *Cluster) Decide(pod Pod) Decision {
	k := c.classOf(pod)
	if n, fits := c.claims(identityOf(pod.Pod), k); fits {
		return Decision{Node: n.name}
	}
	held := c.heldAgainst(k, identityOf(pod.Pod))
	if k.blocked == "" {
		if n := c.pick(k, held); n != nil {
			return Decision{Node: n.name}
		}
	}
	return c.refuse(k, held)
}

// pick is the best node for a class, or nil. The Pod must be able to be beside
// those for which room is held, and without them.
func (c *Cluster) pick(k *class, held []*placed) *node {
	s := &c.scratch
	s.checks = c.checks(k, s.checks[:0])
	s.pulls = c.pulls(k, s.pulls[:0])
	var same int64
	s.crowds, same = k.crowding(s.crowds[:0])
	nodes, cached := c.inOrder(), k.only == nil
	var verdicts []verdict
	if cached {
		verdicts = c.cacheOf(k)
	} else {
		nodes = c.named(k)
	}
	var best *node
	var bestTotal int64
	simple := len(s.pulls) == 0 && len(s.crowds) == 0 && len(held) == 0 && k.preferred == nil
	var zoned *zoned
	if k.owner != "" && len(k.hard)+len(k.soft) == 0 {
		zoned = c.inZones[k.owner]
	}
	s.fits = s.fits[:0]
	for _, n := range nodes {
		var v verdict
		if !cached {
			v = k.judge(n)
		} else {
			if verdicts[n.slot].gen != n.gen {
				verdicts[n.slot] = k.judge(n)
			}
			v = verdicts[n.slot]
		}
		if v.why != 0 || !passes(s.checks, n.slot) {
			continue
		}
		if !simple {
			s.fits = append(s.fits, candidate{n, v, sum(s.pulls, n.slot), crowded(s.crowds, same, n.slot), c.inZone(zoned, n)})
		} else if t := v.total(0, c.inZone(zoned, n)); best == nil || t > bestTotal {
			best, bestTotal = n, t
		}
	}
	if len(held) > 0 {
		c.beside(held, func() {
			checks := c.checks(k, nil)
			s.fits = slices.DeleteFunc(s.fits, func(f candidate) bool { return !passes(checks, f.node.slot) })
		})
	}
	if !simple {
		best = s.best()
	}
	return best
}

// best of the candidates, whose sums are put on one scale first.
func (s *scratch) best() *node {
	var near, crowd extent
	prefer := int32(0)
	for i := range s.fits {
		prefer = max(prefer, s.fits[i].verdict.prefer)
		near.take(s.fits[i].near)
		if s.fits[i].crow != unplaced {
			crowd.take(s.fits[i].crow)
		}
	}
	var best *node
	var bestTotal int64
	for i := range s.fits {
		f := &s.fits[i]
		wish := podsWeight * near.nearness(f.near)
		if prefer > 0 {
			wish += affinityWeight * (100 * int64(f.verdict.prefer) / int64(prefer))
		}
		if len(s.crowds) > 0 {
			wish += spreadWeight * crowd.spaciousness(f.crow)
		}
		if t := f.verdict.total(wish, f.zone); best == nil || t > bestTotal {
			best, bestTotal = f.node, t
		}
	}
	return best
}

// named are the nodes that a class names one by one, as far as they are known.
func (c *Cluster) named(k *class) []*node {
	var out []*node
	for _, name := range k.only {
		if n := c.nodes[name]; n != nil && n.node != nil {
			out = append(out, n)
		}
	}
	return out
}

// fitsOn reports whether a class, or its Pod own, fits on one node.
func (c *Cluster) fitsOn(k *class, n *node, own types.UID) bool { return c.against(k, n, own) == 0 }

// against is why a class does not fit on one node, or 0: what the node itself
// says, or else what Pods around it do, those for which room is held among them,
// but for its own Pod.
func (c *Cluster) against(k *class, n *node, own types.UID) Reasons {
	if n.node == nil || k.blocked != "" {
		return Blocked
	}
	if v := k.judge(n); v.why != 0 {
		return v.why
	}
	var why Reasons
	c.scratch.checks = c.checks(k, c.scratch.checks[:0])
	for i := range c.scratch.checks {
		why |= c.scratch.checks[i].fails(n.slot)
	}
	if why == 0 && !c.passesBeside(c.heldAgainst(k, own), k, n) {
		why = Held
	}
	return why
}
