package controllers

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons and messages that a node and its Pods have when its agent is silent,
// as in Kubernetes.
const (
	reasonNodeUnknown  = "NodeStatusUnknown"
	reasonNodeNotReady = "NodeNotReady"
)

// nodeTaints are the keys of the taints that follow from the state of a node.
func nodeTaints() []string {
	return []string{
		corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeUnschedulable,
		corev1.TaintNodeMemoryPressure, corev1.TaintNodeDiskPressure, corev1.TaintNodePIDPressure,
	}
}

// silenced is the status of a node whose agent is silent: nothing is known.
func silenced(n *corev1.Node, grace time.Duration, now time.Time) *corev1.Node {
	out := n.DeepCopy()
	at := metav1.NewTime(now)
	for i := range out.Status.Conditions {
		c := &out.Status.Conditions[i]
		if c.Status == corev1.ConditionUnknown {
			continue
		}
		c.Status, c.LastTransitionTime = corev1.ConditionUnknown, at
		c.Reason, c.Message = reasonNodeUnknown, "the agent has not reported for "+grace.String()
	}
	return out
}

// tainted is a node with the taints that follow from its state. evict: Pods that
// do not tolerate its being not ready are to go.
func tainted(n *corev1.Node, evict bool, now time.Time) *corev1.Node {
	var want []corev1.Taint
	add := func(key string, effect corev1.TaintEffect) {
		want = append(want, corev1.Taint{Key: key, Effect: effect})
	}
	for _, c := range n.Status.Conditions {
		switch {
		case c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue:
			key := corev1.TaintNodeNotReady
			if c.Status == corev1.ConditionUnknown {
				key = corev1.TaintNodeUnreachable
			}
			add(key, corev1.TaintEffectNoSchedule)
			if evict {
				add(key, corev1.TaintEffectNoExecute)
			}
		case c.Status != corev1.ConditionTrue:
		case c.Type == corev1.NodeMemoryPressure:
			add(corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule)
		case c.Type == corev1.NodeDiskPressure:
			add(corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule)
		case c.Type == corev1.NodePIDPressure:
			add(corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule)
		}
	}
	if n.Spec.Unschedulable {
		add(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)
	}
	out := n.DeepCopy()
	out.Spec.Taints = nil
	for _, t := range n.Spec.Taints {
		if !slices.Contains(nodeTaints(), t.Key) || slices.ContainsFunc(want, func(w corev1.Taint) bool { return w.MatchTaint(&t) }) {
			out.Spec.Taints = append(out.Spec.Taints, t)
		}
	}
	for _, w := range want {
		if !slices.ContainsFunc(out.Spec.Taints, func(t corev1.Taint) bool { return t.MatchTaint(&w) }) {
			at := metav1.NewTime(now)
			w.TimeAdded = &at
			out.Spec.Taints = append(out.Spec.Taints, w)
		}
	}
	return out
}

// evicting: the node has the taint that drives Pods away because it is not ready.
func evicting(n *corev1.Node) bool {
	return slices.ContainsFunc(driving(n), ofReadiness)
}

// ofReadiness: the taint says that its node is not ready.
func ofReadiness(t corev1.Taint) bool {
	return t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable
}

// stay is until when a Pod may stay on a node with taints of effect NoExecute
// (k8s.io/api/core/v1, Toleration.TolerationSeconds), or that it may for ever; one
// that it does not tolerate gives it no time. seen is since when the node has had
// each of them. A further taint never puts off what an earlier one asks for.
func stay(p *corev1.Pod, taints []corev1.Taint, seen map[corev1.Taint]time.Time) (until time.Time, forever bool) {
	forever = true
	for i := range taints {
		tolerated := false
		key := taints[i]
		key.TimeAdded = nil
		for j := range p.Spec.Tolerations {
			t := &p.Spec.Tolerations[j]
			if !t.ToleratesTaint(klogger(), &taints[i], false) {
				continue
			}
			tolerated = true
			if t.TolerationSeconds != nil {
				at := seen[key].Add(time.Duration(max(0, *t.TolerationSeconds)) * time.Second)
				if forever || at.Before(until) {
					until, forever = at, false
				}
			}
		}
		if !tolerated {
			return time.Time{}, false
		}
	}
	return until, forever
}

// driving are the taints of a node that drive Pods away.
func driving(n *corev1.Node) []corev1.Taint {
	return slices.DeleteFunc(slices.Clone(n.Spec.Taints), func(t corev1.Taint) bool { return t.Effect != corev1.TaintEffectNoExecute })
}

// notReady is a Pod whose node is silent: nothing says any more that it serves.
func notReady(p *corev1.Pod, now time.Time) (*corev1.Pod, bool) {
	if !podReady(p) {
		return nil, false
	}
	out := p.DeepCopy()
	c := podCondition(out, corev1.PodReady)
	c.Status, c.LastTransitionTime = corev1.ConditionFalse, metav1.NewTime(now)
	c.Reason, c.Message = reasonNodeNotReady, "the node's agent does not report"
	return out, true
}
