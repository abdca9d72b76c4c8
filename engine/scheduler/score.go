package scheduler

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
)

// Of the nodes that fit, the best is the one that meets the Pod's wishes best
// (preferences and soft constraints, with the weights of kube-scheduler's
// plugins); among equals the one in whose zone the fewest Pods of the same
// controller are, if the Pod says nothing of topology spread itself; then the one
// with the fewest of them; then the one with the most room, to which an image that
// is there adds; then the first by name.
const (
	affinityWeight = 2 // of preferred node affinity
	podsWeight     = 2 // of preferred affinity between Pods
	spreadWeight   = 2
	taintWeight    = 300 // for each taint PreferNoSchedule: 3 times the most that a preference is worth
	// imageWeight is the most that an image adds to the room, in thousandths: a
	// node that has it is not filled while others are empty.
	imageWeight = 200
	// Images up to imageLeast bytes do not count; those of imageMost count in full.
	imageLeast, imageMost = 23 << 20, 1000 << 20
)

// wish is what the taints of the node mean to the Pod.
func (k *class) wish(n *node) int32 {
	var wish int64
	if n.prefers {
		for i := range n.node.Spec.Taints {
			t := &n.node.Spec.Taints[i]
			if t.Effect == corev1.TaintEffectPreferNoSchedule && !corev1helpers.TolerationsTolerateTaint(klog.Background(), k.tolerations, t, false) {
				wish -= taintWeight
			}
		}
	}
	return int32(wish)
}

// local is the share of CPU and memory that is left once the Pod is there, in
// thousandths, the smaller of the two, where a container that requests nothing
// counts as a small one; and what its images are worth.
func (k *class) local(n *node) int32 {
	room := int64(1000)
	for id := cpu; id <= memory; id++ {
		if have := at(n.alloc, id); have > 0 {
			room = min(room, (have-n.weight[id]-k.weight[id])*1000/have)
		}
	}
	if len(n.images) > 0 {
		var size int64
		for _, name := range k.images {
			size += n.images[name]
		}
		size = min(size, imageMost) - imageLeast
		room += max(0, size) * imageWeight / (imageMost - imageLeast)
	}
	return int32(max(room, -1000))
}

// pull is a count by a topology that speaks for a node, times a weight.
type pull struct {
	of, counts []int32
	weight     int64
}

// pulls are those of preferred affinity: what the Pod wants, and what the Pods
// that run want of it.
func (c *Cluster) pulls(k *class, out []pull) []pull {
	for _, p := range k.prefers {
		if p.total > 0 {
			out = append(out, pull{p.topo.of, p.matched, int64(p.weight)})
		}
	}
	for _, t := range k.identity.terms {
		if t.pulling > 0 {
			out = append(out, pull{t.topo.of, t.pulls, 1})
		}
	}
	return out
}

func sum(pulls []pull, slot int32) int64 {
	var s int64
	for i := range pulls {
		if id := pulls[i].of[slot]; id >= 0 {
			s += pulls[i].weight * int64(pulls[i].counts[id])
		}
	}
	return s
}

// crowding are the counts of soft spread constraints, weighted so that one of
// few values says as much as one of many; and the part that is the same for all.
func (k *class) crowding(out []pull) ([]pull, int64) {
	var same int64
	for _, s := range k.soft {
		out = append(out, pull{s.topo.of, s.matched, int64(math.Round(1024 * math.Log(float64(s.spread.domains+2))))})
		same += int64(s.maxSkew-1) * 1024
	}
	return out, same
}

// unplaced marks a node that lacks a label of a soft constraint.
const unplaced = -1

func crowded(pulls []pull, same int64, slot int32) int64 {
	for i := range pulls {
		if pulls[i].of[slot] < 0 {
			return unplaced
		}
	}
	return sum(pulls, slot) + same
}

// extent is the smallest and the largest of values.
type extent struct {
	min, max int64
	any      bool
}

func (e *extent) take(v int64) {
	if !e.any {
		*e = extent{v, v, true}
		return
	}
	e.min, e.max = min(e.min, v), max(e.max, v)
}

// nearness puts a sum of pulls on the scale from 0 to 100.
func (e *extent) nearness(v int64) int64 {
	if e.max == e.min {
		return 0
	}
	return 100 * (v - e.min) / (e.max - e.min)
}

// spaciousness puts a crowd on the scale from 0 to 100: the more, the emptier.
func (e *extent) spaciousness(v int64) int64 {
	switch {
	case v == unplaced:
		return 0
	case e.max == 0:
		return 100
	}
	return 100 * (e.max + e.min - v) / e.max
}

// total orders nodes: wishes first, then the fewest of the same controller in the
// zone, then on the node, then room.
func (v *verdict) total(wish int64, zone int32) int64 {
	return (int64(v.wish)+wish)<<42 - min(int64(zone), 1<<14-1)<<28 - min(int64(v.owners), 1<<12-1)<<16 + int64(v.local)
}
