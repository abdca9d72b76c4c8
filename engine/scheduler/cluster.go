package scheduler

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// Cluster is what is known of nodes and of the Pods on them.
type Cluster struct {
	nodes map[string]*node
	// slots numbers the nodes, so that what is kept per node is an array.
	slots    []*node
	unused   []int32
	sorted   []*node
	unsorted bool

	pods       map[types.UID]*placed
	reserved   map[types.UID]*reservation
	namespaces map[string]labels.Set

	classes  map[string]*class
	live     int // classes that were in use at the last sweep
	key      []byte
	caches   []*cache
	used     uint64
	resource names

	topologies map[string]*topology
	// zones are those of nodes, which are always kept, and inZones counts the Pods
	// of a controller in them.
	zones      *topology
	inZones    map[types.UID]*zoned
	terms      map[string]*term
	spreads    map[*term]bool
	termsOf    map[string][]*term
	wide       []*term
	identities map[string]map[string]*identity

	generation uint32
	// now counts the changes of terms.
	now uint64
	// touched are the nodes on which something changed for the better since
	// the Queue last asked.
	touched []*node
	// priorities counts the Pods on nodes by priority.
	priorities map[int32]int
	// trying: Pods are moved to see what would be, and nothing has changed.
	trying  bool
	scratch scratch
}

// placed is a Pod on a node.
type placed struct {
	pod         *corev1.Pod
	id          types.UID
	class       *class
	node        *node
	index       int
	terminating bool
}

// zoned are the Pods of a controller, by the zones that they are in.
type zoned struct {
	pods   int32
	counts []int32
}

// New makes a Cluster without nodes.
func New() *Cluster {
	c := &Cluster{
		nodes: map[string]*node{}, pods: map[types.UID]*placed{}, reserved: map[types.UID]*reservation{}, namespaces: map[string]labels.Set{},
		priorities: map[int32]int{},
		classes:    map[string]*class{}, resource: newNames(),
		topologies: map[string]*topology{}, terms: map[string]*term{}, spreads: map[*term]bool{}, termsOf: map[string][]*term{},
		identities: map[string]map[string]*identity{}, inZones: map[types.UID]*zoned{},
	}
	c.zones = c.topologyOf(corev1.LabelTopologyZone)
	return c
}

// countInZone counts a Pod in the zone of its node, or takes it off with -1.
func (c *Cluster) countInZone(p *placed, sign int32) {
	owner := p.class.owner
	if owner == "" {
		return
	}
	z := c.inZones[owner]
	if z == nil {
		z = &zoned{}
		c.inZones[owner] = z
	}
	if z.pods += sign; z.pods == 0 {
		delete(c.inZones, owner)
		return
	}
	if id := c.zones.of[p.node.slot]; id >= 0 {
		z.counts = sized(z.counts, int(id)+1)
		z.counts[id] += sign
	}
}

// inZone is how many Pods of a controller are in the zone of a node.
func (c *Cluster) inZone(z *zoned, n *node) int32 {
	if z == nil {
		return 0
	}
	if id := c.zones.of[n.slot]; id >= 0 && int(id) < len(z.counts) {
		return z.counts[id]
	}
	return 0
}

// Add counts a Pod on a node, which need not be known yet. A Pod that is there
// already is moved, or taken over as it is now.
func (c *Cluster) Add(pod Pod, nodeName string) {
	id := identityOf(pod.Pod)
	terminating := pod.DeletionTimestamp != nil
	k := c.classOf(pod)
	if p := c.pods[id]; p != nil {
		if p.class == k && p.node.name == nodeName && p.terminating == terminating {
			p.pod = pod.Pod
			return
		}
		c.Remove(id)
	}
	k.refs++
	p := &placed{pod: pod.Pod, id: id, class: k, node: c.nodeOf(nodeName), terminating: terminating}
	c.pods[id] = p
	p.index = len(p.node.pods)
	p.node.pods = append(p.node.pods, p)
	c.priorities[k.priority]++
	c.drop(p)
}

// Remove takes a Pod off its node, and reports whether it was on one.
func (c *Cluster) Remove(id types.UID) bool {
	p := c.pods[id]
	if p == nil {
		return false
	}
	delete(c.pods, id)
	c.lift(p)
	n := p.node
	last := n.pods[len(n.pods)-1]
	n.pods[p.index], last.index = last, p.index
	n.pods[len(n.pods)-1] = nil
	n.pods = n.pods[:len(n.pods)-1]
	c.touch(n)
	if c.priorities[p.class.priority]--; c.priorities[p.class.priority] == 0 {
		delete(c.priorities, p.class.priority)
	}
	p.class.refs--
	c.forget(n)
	return true
}

// drop counts what a Pod takes and means where it is; lift takes that back.
func (c *Cluster) drop(p *placed) { c.weigh(p, 1) }
func (c *Cluster) lift(p *placed) { c.weigh(p, -1) }

func (c *Cluster) weigh(p *placed, sign int32) {
	n, k := p.node, p.class
	n.take(k, int64(sign))
	n.gen = c.next()
	c.count(p, sign)
}

// next is a new generation.
func (c *Cluster) next() uint32 {
	c.generation++
	return c.generation
}

// touch notes that a node may take Pods now that it did not take before.
func (c *Cluster) touch(n *node) {
	if !n.touched {
		n.touched = true
		c.touched = append(c.touched, n)
	}
}

// inOrder are the nodes that are known, by name.
func (c *Cluster) inOrder() []*node {
	if c.unsorted {
		c.unsorted = false
		c.sorted = c.sorted[:0]
		for _, n := range c.nodes {
			if n.node != nil {
				c.sorted = append(c.sorted, n)
			}
		}
		slices.SortFunc(c.sorted, func(a, b *node) int { return cmp.Compare(a.name, b.name) })
	}
	return c.sorted
}

// Nodes is how many nodes are known.
func (c *Cluster) Nodes() int { return len(c.inOrder()) }

// SetNamespace takes over the labels of a Namespace, which pod affinity may ask for.
func (c *Cluster) SetNamespace(name string, l map[string]string) {
	was, known := c.namespaces[name]
	if known && labels.Equals(was, l) {
		return
	}
	c.namespaces[name] = l
	c.relabelled(name)
}

// RemoveNamespace forgets a Namespace.
func (c *Cluster) RemoveNamespace(name string) {
	delete(c.namespaces, name)
	c.relabelled(name)
}
