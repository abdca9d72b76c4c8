package scheduler

// topology is the division of the nodes by the values of one label.
type topology struct {
	key string
	// ids numbers the values.
	ids    map[string]int32
	unused []int32
	// nodes counts the nodes of each value.
	nodes []int32
	// of is the value of each node by its slot, or -1.
	of    []int32
	terms []*term
}

func (c *Cluster) topologyOf(key string) *topology {
	t := c.topologies[key]
	if t != nil {
		return t
	}
	t = &topology{key: key, ids: map[string]int32{}, of: make([]int32, len(c.slots))}
	for slot := range t.of {
		t.of[slot] = -1
	}
	for _, n := range c.slots {
		if n != nil && n.node != nil {
			t.enter(n)
		}
	}
	c.topologies[key] = t
	return t
}

func (t *topology) enter(n *node) {
	value, ok := n.node.Labels[t.key]
	if !ok {
		return
	}
	id, ok := t.ids[value]
	if !ok {
		if last := len(t.unused) - 1; last >= 0 {
			id = t.unused[last]
			t.unused = t.unused[:last]
		} else {
			id = int32(len(t.nodes))
			t.nodes = append(t.nodes, 0)
			for _, term := range t.terms {
				term.fit(len(t.nodes))
			}
		}
		t.ids[value] = id
	}
	t.nodes[id]++
	t.of[n.slot] = id
}

func (t *topology) leave(n *node) {
	id := t.of[n.slot]
	if id < 0 {
		return
	}
	t.of[n.slot] = -1
	if t.nodes[id]--; t.nodes[id] == 0 {
		// No Pod is counted there any more, so the number can be used again.
		delete(t.ids, n.node.Labels[t.key])
		t.unused = append(t.unused, id)
	}
}

// enter puts a node into its places; leave takes it out. No Pod of it may be
// counted at that moment.
func (c *Cluster) enter(n *node) {
	for _, t := range c.topologies {
		t.enter(n)
	}
	for t := range c.spreads {
		t.admit(n)
		c.mark(t)
	}
}

func (c *Cluster) leave(n *node) {
	for t := range c.spreads {
		t.expel(n)
		c.mark(t)
	}
	for _, t := range c.topologies {
		t.leave(n)
	}
}
