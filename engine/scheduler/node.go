package scheduler

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
)

// node is a node with the sums of what is on it.
type node struct {
	name string
	slot int32
	// node is nil for a name that only Pods speak of.
	node     *corev1.Node
	ready    bool
	prefers  bool // it has taints of effect PreferNoSchedule
	alloc    []int64
	free     []int64  // alloc without what its Pods take; may be below 0
	weight   [2]int64 // of CPU and memory, what its Pods count for when nodes are compared
	pods     []*placed
	owners   map[types.UID]int32
	ports    map[port]int32
	images   map[string]int64
	reserved []*reservation
	// gen changes whenever an answer about the node may.
	gen     uint32
	touched bool
}

// names numbers the kinds of resources.
type names struct {
	list []corev1.ResourceName
	ids  map[corev1.ResourceName]int
}

// The first numbers.
const (
	cpu = iota
	memory
	ephemeral
	podCount
)

func newNames() names {
	n := names{ids: map[corev1.ResourceName]int{}}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, corev1.ResourcePods} {
		n.id(name)
	}
	return n
}

func (n *names) id(name corev1.ResourceName) int {
	id, ok := n.ids[name]
	if !ok {
		id = len(n.list)
		n.ids[name] = id
		n.list = append(n.list, name)
	}
	return id
}

func at(list []int64, id int) int64 {
	if id < len(list) {
		return list[id]
	}
	return 0
}

// take counts a Pod of a class onto the node, or off it with -1.
func (n *node) take(k *class, sign int64) {
	for _, need := range k.need {
		n.free = sized(n.free, need.id+1)
		n.free[need.id] -= sign * need.n
	}
	for id := range n.weight {
		n.weight[id] += sign * k.weight[id]
	}
	if k.owner != "" {
		if n.owners[k.owner] += int32(sign); n.owners[k.owner] == 0 {
			delete(n.owners, k.owner)
		}
	}
	for _, p := range k.ports {
		if n.ports[p] += int32(sign); n.ports[p] == 0 {
			delete(n.ports, p)
		}
	}
}

func sized[T any](list []T, n int) []T {
	for len(list) < n {
		var zero T
		list = append(list, zero)
	}
	return list
}

func (c *Cluster) nodeOf(name string) *node {
	if n := c.nodes[name]; n != nil {
		return n
	}
	n := &node{name: name, owners: map[types.UID]int32{}, ports: map[port]int32{}}
	if last := len(c.unused) - 1; last >= 0 {
		n.slot = c.unused[last]
		c.unused = c.unused[:last]
		c.slots[n.slot] = n
	} else {
		n.slot = int32(len(c.slots))
		c.slots = append(c.slots, n)
		for _, t := range c.topologies {
			t.of = append(t.of, -1)
		}
		for t := range c.spreads {
			t.spread.eligible = append(t.spread.eligible, false)
		}
	}
	n.gen = c.next()
	c.nodes[name] = n
	return n
}

// forget drops a node that neither exists nor has Pods.
func (c *Cluster) forget(n *node) {
	if n.node == nil && len(n.pods) == 0 && len(n.reserved) == 0 && c.nodes[n.name] == n {
		delete(c.nodes, n.name)
		c.slots[n.slot] = nil
		c.unused = append(c.unused, n.slot)
	}
}

// SetNode takes over a node that is new or has changed.
func (c *Cluster) SetNode(now *corev1.Node) {
	n := c.nodeOf(now.Name)
	was := n.node
	if was != nil && !changed(was, now) {
		n.node = now
		return
	}
	if was == nil || !maps.Equal(was.Labels, now.Labels) || !equality.Semantic.DeepEqual(was.Spec.Taints, now.Spec.Taints) ||
		was.Spec.Unschedulable != now.Spec.Unschedulable || n.ready != isReady(now) {
		c.replace(n, now)
	}
	c.unsorted = c.unsorted || was == nil
	n.node, n.ready = now, isReady(now)
	n.prefers = slices.ContainsFunc(now.Spec.Taints, func(t corev1.Taint) bool { return t.Effect == corev1.TaintEffectPreferNoSchedule })
	n.images = imagesOf(now)
	alloc := make([]int64, 0, podCount+1)
	for name, q := range now.Status.Allocatable {
		id := c.resource.id(name)
		alloc = sized(alloc, id+1)
		alloc[id] = amount(name, q)
	}
	n.free = sized(n.free, max(len(alloc), len(n.alloc)))
	for id := range n.free {
		n.free[id] += at(alloc, id) - at(n.alloc, id)
	}
	n.alloc = alloc
	n.gen = c.next()
	c.touch(n)
}

// RemoveNode forgets a node. The Pods on it are counted until they are removed.
func (c *Cluster) RemoveNode(name string) {
	n := c.nodes[name]
	if n == nil || n.node == nil {
		return
	}
	c.replace(n, nil)
	for id := range n.free {
		n.free[id] -= at(n.alloc, id)
	}
	n.node, n.alloc, n.images, n.ready, n.prefers = nil, nil, nil, false, false
	n.gen = c.next()
	c.unsorted = true
	for _, r := range slices.Clone(n.reserved) {
		c.Unreserve(r.id)
	}
	c.forget(n)
}

// replace exchanges what counts for topologies: the labels and taints of a node,
// and what it gets taints for.
func (c *Cluster) replace(n *node, now *corev1.Node) {
	for _, p := range n.pods {
		c.count(p, -1)
	}
	c.leave(n)
	if n.node = now; now != nil {
		c.enter(n)
	}
	for _, p := range n.pods {
		c.count(p, 1)
	}
}

// changed: what of a node can make a difference to where Pods go.
func changed(a, b *corev1.Node) bool {
	return !maps.Equal(a.Labels, b.Labels) || a.Spec.Unschedulable != b.Spec.Unschedulable || isReady(a) != isReady(b) ||
		!equality.Semantic.DeepEqual(a.Spec.Taints, b.Spec.Taints) ||
		!equality.Semantic.DeepEqual(a.Status.Allocatable, b.Status.Allocatable) ||
		!maps.Equal(imagesOf(a), imagesOf(b))
}

func isReady(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func imagesOf(n *corev1.Node) map[string]int64 {
	if len(n.Status.Images) == 0 {
		return nil
	}
	out := map[string]int64{}
	for _, i := range n.Status.Images {
		for _, name := range i.Names {
			out[fullImage(name)] = i.SizeBytes
		}
	}
	return out
}

// fullImage gives the name of an image the tag that it has without one, and
// leaves out what Docker Hub's short names leave out.
func fullImage(name string) string {
	name = strings.TrimPrefix(strings.TrimPrefix(name, "docker.io/"), "library/")
	if strings.LastIndex(name, ":") <= strings.LastIndex(name, "/") && !strings.Contains(name, "@") {
		name += ":latest"
	}
	return name
}
