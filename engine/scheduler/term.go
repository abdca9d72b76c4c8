package scheduler

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// term is what a Pod says of other Pods: which they are, and how far around
// them it reaches. Equal terms of different classes are one. It counts by the
// values of its topology, as Pods come and go.
type term struct {
	id    string
	match matcher
	topo  *topology
	// spread is set for topology spread, which leaves some nodes and Pods out.
	spread *scope
	// matched are the Pods that it selects; total is their sum.
	matched []int32
	total   int32
	// repels are the Pods that have it as required anti-affinity; pulls are the
	// weights of those that prefer to be near or apart. Each is nil until there is one.
	repels, pulls      []int32
	repelling, pulling int32
	// changed is when a count last did.
	changed uint64
	users   int
}

// scope are the nodes on which topology spread counts
// (TopologySpreadConstraint.nodeAffinityPolicy, nodeTaintsPolicy).
type scope struct {
	keys        []string // of all the Pod's constraints: a node without one does not count
	affinity    *nodeaffinity.RequiredNodeAffinity
	taints      bool
	tolerations []corev1.Toleration
	eligible    []bool // by slot
	// nodes counts the eligible nodes by value; domains the values that have any.
	nodes   []int32
	domains int32
}

// matcher selects Pods: all its parts must.
type matcher struct {
	id    string
	parts []selected
}

// selected is the selector of one term.
type selected struct {
	namespaces []string
	// among selects further namespaces by their labels, nil for none.
	among    labels.Selector
	selector labels.Selector
}

func (m *matcher) selects(c *Cluster, id *identity) bool {
	for i := range m.parts {
		p := &m.parts[i]
		if !slices.Contains(p.namespaces, id.namespace) && (p.among == nil || !p.among.Matches(c.namespaces[id.namespace])) {
			return false
		}
		if !p.selector.Matches(id.labels) {
			return false
		}
	}
	return true
}

// bound are the namespaces outside of which nothing can match; nil for any.
func (m *matcher) bound() []string {
	for i := range m.parts {
		if m.parts[i].among == nil {
			return m.parts[i].namespaces
		}
	}
	return nil
}

func newMatcher(parts []selected) matcher {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(strings.Join(p.namespaces, ","))
		b.WriteByte('|')
		if p.among != nil {
			b.WriteString(p.among.String())
			b.WriteByte('+')
		}
		b.WriteByte('|')
		b.WriteString(p.selector.String())
		if p.selector.Empty() {
			b.WriteByte('*')
		}
		b.WriteByte(0)
	}
	return matcher{b.String(), parts}
}

// term finds or makes a term, and notes that a class uses it.
func (c *Cluster) term(k *class, m matcher, key string, s *scope, scopeID string) *term {
	id := m.id + "\x00" + key + "\x00" + scopeID
	t := c.terms[id]
	if t == nil {
		t = &term{id: id, match: m, topo: c.topologyOf(key), spread: s}
		c.start(t)
	}
	t.users++
	k.uses = append(k.uses, t)
	return t
}

// start lets a term count what is there.
func (c *Cluster) start(t *term) {
	c.terms[t.id] = t
	t.topo.terms = append(t.topo.terms, t)
	t.fit(len(t.topo.nodes))
	if bound := t.match.bound(); bound == nil {
		c.wide = append(c.wide, t)
	} else {
		for _, ns := range bound {
			c.termsOf[ns] = append(c.termsOf[ns], t)
		}
	}
	if t.spread != nil {
		t.spread.eligible = make([]bool, len(c.slots))
		c.spreads[t] = true
		for _, n := range c.inOrder() {
			t.admit(n)
		}
	}
	if !c.tell(t) {
		return
	}
	for _, p := range c.pods {
		if slices.Contains(p.class.identity.terms, t) {
			c.countMatch(t, p, 1)
		}
	}
}

// tell notes a term on the identities that it selects, and reports whether
// there are any.
func (c *Cluster) tell(t *term) bool {
	any := false
	note := func(ids map[string]*identity) {
		for _, id := range ids {
			if t.match.selects(c, id) {
				id.terms = append(id.terms, t)
				any = true
			}
		}
	}
	if bound := t.match.bound(); bound != nil {
		for _, ns := range bound {
			note(c.identities[ns])
		}
		return any
	}
	for _, ids := range c.identities {
		note(ids)
	}
	return any
}

// match finds the terms that select a new identity.
func (c *Cluster) match(id *identity) {
	for _, list := range [][]*term{c.termsOf[id.namespace], c.wide} {
		for _, t := range list {
			if t.match.selects(c, id) {
				id.terms = append(id.terms, t)
			}
		}
	}
}

// unuse forgets a term with its last class.
func (c *Cluster) unuse(t *term) {
	if t.users--; t.users > 0 {
		return
	}
	is := func(o *term) bool { return o == t }
	delete(c.terms, t.id)
	delete(c.spreads, t)
	if t.topo.terms = slices.DeleteFunc(t.topo.terms, is); len(t.topo.terms) == 0 && t.topo != c.zones {
		delete(c.topologies, t.topo.key)
	}
	bound := t.match.bound()
	if bound == nil {
		c.wide = slices.DeleteFunc(c.wide, is)
	}
	for _, ns := range bound {
		if c.termsOf[ns] = slices.DeleteFunc(c.termsOf[ns], is); len(c.termsOf[ns]) == 0 {
			delete(c.termsOf, ns)
		}
	}
	for ns, ids := range c.identities {
		if bound != nil && !slices.Contains(bound, ns) {
			continue
		}
		for _, id := range ids {
			id.terms = slices.DeleteFunc(id.terms, is)
		}
	}
}

// relabelled looks anew which Pods of a namespace the terms select that go by
// the labels of namespaces.
func (c *Cluster) relabelled(ns string) {
	ids := c.identities[ns]
	if len(c.wide) == 0 || len(ids) == 0 {
		return
	}
	var here []*placed
	for _, p := range c.pods {
		if p.class.identity.namespace == ns {
			here = append(here, p)
		}
	}
	for _, p := range here {
		c.count(p, -1)
	}
	c.now++
	for _, id := range ids {
		id.terms, id.changed = nil, c.now
		c.match(id)
	}
	for _, k := range c.classes {
		if k.identity.namespace == ns && len(k.near) > 0 {
			k.selfNear = k.near[0].match.selects(c, k.identity)
		}
	}
	for _, p := range here {
		c.count(p, 1)
	}
}

// fit makes place for n values of the topology.
func (t *term) fit(n int) {
	t.matched = sized(t.matched, n)
	if t.repels != nil {
		t.repels = sized(t.repels, n)
	}
	if t.pulls != nil {
		t.pulls = sized(t.pulls, n)
	}
	if t.spread != nil {
		t.spread.nodes = sized(t.spread.nodes, n)
	}
}

// admit lets a node count for topology spread if it may; expel ends that.
func (t *term) admit(n *node) {
	if !t.spread.admits(n.node) {
		return
	}
	t.spread.eligible[n.slot] = true
	id := t.topo.of[n.slot]
	if t.spread.nodes[id]++; t.spread.nodes[id] == 1 {
		t.spread.domains++
	}
}

func (t *term) expel(n *node) {
	if !t.spread.eligible[n.slot] {
		return
	}
	t.spread.eligible[n.slot] = false
	id := t.topo.of[n.slot]
	if t.spread.nodes[id]--; t.spread.nodes[id] == 0 {
		t.spread.domains--
	}
}

func (s *scope) admits(n *corev1.Node) bool {
	for _, key := range s.keys {
		if _, ok := n.Labels[key]; !ok {
			return false
		}
	}
	if s.affinity != nil {
		if match, err := s.affinity.Match(n); err != nil || !match {
			return false
		}
	}
	return !s.taints || toleratesAll(n, s.tolerations)
}

// least is the smallest count of a value that has eligible nodes, and 0 while
// there are fewer values than wanted.
func (t *term) least(minDomains int32) int32 {
	if t.spread.domains < minDomains || t.spread.domains == 0 {
		return 0
	}
	least := int32(1<<31 - 1)
	for id, n := range t.matched {
		if n < least && t.spread.nodes[id] > 0 {
			least = n
		}
	}
	return least
}

// count adds a Pod to all terms that it is in, or takes it off with -1.
func (c *Cluster) count(p *placed, sign int32) {
	for _, t := range p.class.identity.terms {
		c.countMatch(t, p, sign)
	}
	slot := p.node.slot
	for _, t := range p.class.apart {
		t.repelling += sign
		c.add(t, &t.repels, slot, sign)
	}
	for _, t := range p.class.draws {
		t.pulling += sign
		c.add(t, &t.pulls, slot, sign)
	}
	for _, f := range p.class.prefers {
		f.pulling += sign
		c.add(f.term, &f.pulls, slot, sign*f.weight)
	}
	c.countInZone(p, sign)
}

func (c *Cluster) countMatch(t *term, p *placed, sign int32) {
	slot := p.node.slot
	if t.spread != nil && (p.terminating || !t.spread.eligible[slot]) {
		return
	}
	if c.add(t, &t.matched, slot, sign) {
		t.total += sign
	}
}

func (c *Cluster) add(t *term, counts *[]int32, slot, n int32) bool {
	if *counts == nil {
		*counts = make([]int32, len(t.topo.nodes))
	}
	id := t.topo.of[slot]
	if id < 0 {
		return false
	}
	(*counts)[id] += n
	if !c.trying {
		c.mark(t)
	}
	return true
}

// mark notes that what a term says has changed.
func (c *Cluster) mark(t *term) {
	c.now++
	t.changed = c.now
}
