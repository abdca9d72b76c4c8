package scheduler

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
)

// verdict is what a class has on one node, as far as that node alone decides
// it. It holds as long as the node's generation does.
type verdict struct {
	gen uint32
	why Reasons
	// prefer is what the node scores by preferred node affinity.
	prefer int32
	wish   int32
	owners int32
	local  int32
}

func (k *class) judge(n *node) verdict {
	v := verdict{gen: n.gen, why: k.standing(n)}
	if k.lacks(n) {
		v.why |= Resources
	}
	if _, taken := n.portTaken(k); taken {
		v.why |= HostPorts
	}
	if v.why == 0 {
		v.wish, v.owners, v.local = k.wish(n), n.owners[k.owner], k.local(n)
		if k.preferred != nil {
			v.prefer = int32(k.preferred.Score(n.node))
		}
	}
	return v
}

// standing are the reasons against a node whatever runs on it.
func (k *class) standing(n *node) Reasons {
	var why Reasons
	if n.node.Spec.Unschedulable && !toleratesCordon(k.tolerations) {
		why |= Cordoned
	}
	if !n.ready && !toleratesUnready(n.node, k.tolerations) {
		why |= NotReady
	}
	if len(n.node.Spec.Taints) > 0 {
		if _, bad := untolerated(n.node, k.tolerations); bad {
			why |= Tainted
		}
	}
	if !k.selectsNode(n) {
		why |= NodeAffinity
	}
	for _, v := range k.volumes {
		if !v.reaches(n) {
			why |= VolumeAffinity
		}
	}
	return why
}

func (k *class) selectsNode(n *node) bool {
	if !k.selects {
		return true
	}
	match, err := k.required.Match(n.node)
	return err == nil && match
}

func (v *volume) reaches(n *node) bool {
	match, err := v.nodes.Match(n.node)
	return err == nil && match
}

func (k *class) lacks(n *node) bool {
	if len(n.reserved) > 0 {
		for _, need := range k.need {
			if at(n.free, need.id)-n.held(k, need.id) < need.n {
				return true
			}
		}
		return false
	}
	for _, need := range k.need {
		if at(n.free, need.id) < need.n {
			return true
		}
	}
	return false
}

func toleratesCordon(tolerations []corev1.Toleration) bool {
	taint := corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}
	return corev1helpers.TolerationsTolerateTaint(klog.Background(), tolerations, &taint, false)
}

// toleratesUnready: the taints that follow from a Ready condition that is not True
// are tolerated, those that the node has and the one it is about to get.
func toleratesUnready(node *corev1.Node, tolerations []corev1.Toleration) bool {
	taint := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionUnknown {
			taint.Key = corev1.TaintNodeUnreachable
		}
	}
	_, bad := corev1helpers.FindMatchingUntoleratedTaint(klog.Background(), append(slices.Clone(node.Spec.Taints), taint), tolerations, func(t *corev1.Taint) bool {
		return t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable
	}, false)
	return !bad
}

// toleratesAll: a Pod with these tolerations could be on the node, by its taints
// and by what it is about to get some for.
func toleratesAll(n *corev1.Node, tolerations []corev1.Toleration) bool {
	if n.Spec.Unschedulable && !toleratesCordon(tolerations) || !isReady(n) && !toleratesUnready(n, tolerations) {
		return false
	}
	_, bad := untolerated(n, tolerations)
	return !bad
}

func untolerated(node *corev1.Node, tolerations []corev1.Toleration) (corev1.Taint, bool) {
	return corev1helpers.FindMatchingUntoleratedTaint(klog.Background(), node.Spec.Taints, tolerations, func(t *corev1.Taint) bool {
		switch t.Key {
		case corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeUnschedulable:
			return false // what they follow from is looked at itself
		}
		return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
	}, false)
}

// check is a bound on the count of the value that a node has in a topology.
type check struct {
	of, counts []int32
	lo, hi     int32
	// labelled: a node without a value fails.
	labelled bool
	why      Reasons
	topology string
	maxSkew  int32
}

const most = 1<<31 - 1

// checks are what the Pods that run demand of the node, and the Pod of them.
func (c *Cluster) checks(k *class, out []check) []check {
	if len(k.near) > 0 {
		lo := int32(1)
		if k.selfNear && !slices.ContainsFunc(k.near, func(t *term) bool { return t.total > 0 }) {
			lo = 0 // the first of a group that wants to be together may go anywhere
		}
		for _, t := range k.near {
			out = append(out, check{of: t.topo.of, counts: t.matched, lo: lo, hi: most, labelled: true, why: PodAffinity, topology: t.topo.key})
		}
	}
	for _, t := range k.apart {
		out = append(out, check{of: t.topo.of, counts: t.matched, why: PodAntiAffinity, topology: t.topo.key})
	}
	for _, t := range k.identity.terms {
		if t.repelling > 0 {
			out = append(out, check{of: t.topo.of, counts: t.repels, why: Repelled, topology: t.topo.key})
		}
	}
	for _, s := range k.hard {
		hi := s.maxSkew - s.self + s.least(s.minDomains)
		out = append(out, check{of: s.topo.of, counts: s.matched, lo: -most, hi: hi, labelled: true, why: TopologySpread, topology: s.topo.key, maxSkew: s.maxSkew})
	}
	return out
}

// fails is the reason against a node, or 0.
func (ck *check) fails(slot int32) Reasons {
	id := ck.of[slot]
	if id < 0 {
		if ck.labelled {
			return Unlabelled
		}
		return 0
	}
	if n := ck.counts[id]; n < ck.lo || n > ck.hi {
		return ck.why
	}
	return 0
}

func passes(checks []check, slot int32) bool {
	for i := range checks {
		if checks[i].fails(slot) != 0 {
			return false
		}
	}
	return true
}
