package scheduler

import (
	"slices"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// trial takes Pods off nodes to see what fits then, and puts them back.
type trial struct {
	c       *Cluster
	k       *class
	alone   bool
	budgets map[string][]Budget
	below   []*placed
	// checks are those before anything is moved; after is room for those then.
	checks, after []check
	// held are Pods for which room is held, beside which the class must be able to be.
	held []*placed
}

// try is a trial for a class, or for its Pod own for which room is held.
func (c *Cluster) try(k *class, own types.UID) *trial {
	held := c.heldAgainst(k, own)
	return &trial{c: c, k: k, alone: c.alone(k) && len(held) == 0, budgets: map[string][]Budget{}, checks: c.checks(k, nil), held: held}
}

// on is what it takes to make room on a node; nil, with the reason, when
// nothing would.
func (t *trial) on(n *node) (*offer, string) {
	if !t.open(n) {
		return nil, outOfQuestion
	}
	t.below = t.below[:0]
	for _, p := range n.pods {
		if p.class.priority < t.k.priority {
			t.below = append(t.below, p)
		}
	}
	if len(t.below) == 0 {
		return nil, noneBelow
	}
	t.c.trying = true
	defer func() { t.c.trying = false }()
	for _, p := range t.below {
		t.move(p, -1)
	}
	if !t.fits(n) {
		for _, p := range t.below {
			t.move(p, 1)
		}
		return nil, tooFull
	}
	return t.reprieve(n), ""
}

// open: nothing stands against a node but Pods that could go.
func (t *trial) open(n *node) bool {
	return n.node != nil && t.k.standing(n)&lasting == 0 &&
		!slices.ContainsFunc(t.checks, func(ck check) bool { return ck.fails(n.slot)&(Unlabelled|PodAffinity) != 0 })
}

// reprieve puts back as many Pods as there is room for: first those that
// budgets protect, the most important ones first.
func (t *trial) reprieve(n *node) *offer {
	slices.SortFunc(t.below, byImportance)
	o := &offer{node: n, highest: -1 << 40}
	guarded := t.guarded()
	for _, first := range []bool{true, false} {
		for i, p := range t.below {
			if p.terminating || guarded[i] != first {
				continue
			}
			t.move(p, 1)
			if t.fits(n) {
				continue
			}
			t.move(p, -1)
			o.victims = append(o.victims, p)
			o.highest = max(o.highest, int64(p.class.priority))
			o.sum += int64(p.class.priority) + 1<<31
			if first {
				o.violations++
			}
		}
	}
	for _, p := range o.victims {
		t.move(p, 1)
	}
	for _, p := range t.below {
		if p.terminating {
			t.move(p, 1)
		}
	}
	return o
}

// guarded are the Pods that their budgets no longer give up once those before
// them are gone.
func (t *trial) guarded() []bool {
	out := make([]bool, len(t.below))
	spent := map[*Budget]int32{}
	for i, p := range t.below {
		list := t.budgets[p.pod.Namespace]
		for j := range list {
			b := &list[j]
			if p.terminating || b.Disrupted[p.pod.Name] || !b.Selector.Matches(labels.Set(p.pod.Labels)) {
				continue
			}
			if spent[b]++; spent[b] > b.Allowed {
				out[i] = true
			}
		}
	}
	return out
}

// move takes a Pod off its node with -1, and puts it back with 1, as far as the
// class of the trial can notice.
func (t *trial) move(p *placed, sign int64) {
	n := p.node
	for _, need := range p.class.need {
		n.free[need.id] -= sign * need.n
	}
	if len(t.k.ports) > 0 {
		for _, port := range p.class.ports {
			if n.ports[port] += int32(sign); n.ports[port] == 0 {
				delete(n.ports, port)
			}
		}
	}
	if !t.alone {
		t.c.count(p, int32(sign))
	}
}

// fits reports whether nothing that Pods do is in the way now.
func (t *trial) fits(n *node) bool {
	if t.k.lacks(n) {
		return false
	}
	if _, taken := n.portTaken(t.k); taken {
		return false
	}
	if t.alone {
		return true
	}
	t.after = t.c.checks(t.k, t.after[:0])
	return passes(t.after, n.slot) && t.c.passesBeside(t.held, t.k, n)
}

// yields reports whether a class fits on a node once all Pods of a lower
// priority are gone.
func (c *Cluster) yields(k *class, n *node) bool {
	if n.node == nil || k.never || k.blocked != "" {
		return false
	}
	o, _ := c.try(k, "").on(n)
	return o != nil
}
