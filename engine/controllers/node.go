package controllers

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/live"
)

const (
	// DefaultNodeGrace is how long an agent may be silent, as Kubernetes'
	// --node-monitor-grace-period has it for a kubelet.
	DefaultNodeGrace = 40 * time.Second
	// nodePeriod is how often nodes are looked at.
	nodePeriod = 5 * time.Second
	// evictPeriod is the least time between two nodes whose Pods are driven away.
	evictPeriod = 10 * time.Second
	// goneFor is how long the Pods of a Node that was deleted are kept: it may be
	// registered anew.
	goneFor = 40 * time.Second
)

func klogger() klog.Logger { return klog.Background() }

// nodes notices agents that are silent and says so on their Nodes, taints Nodes
// by their state, and drives Pods away from taints that they do not tolerate.
//
// How long an agent is silent is measured by when its Lease was seen to change,
// never by the times that are written in it, and every wait begins anew when the
// engine starts or has stood still: so neither a clock that jumps nor a stopped
// engine drives a Pod away.
type nodes struct {
	*cluster
	grace time.Duration
	// kick wakes the goroutine that looks.
	kick chan struct{}

	// What follows belongs to that goroutine.
	// looked is when the nodes were last looked at.
	looked time.Time
	pulses map[string]*pulse
	// driven is when a node was last given the taint that drives Pods away.
	driven time.Time
	// missing are nodes that Pods are bound to and that are not there, since when.
	missing map[string]time.Time
}

// pulse is what was seen of a node.
type pulse struct {
	lease string
	at    time.Time
	// taints are those that drive Pods away, since when.
	taints map[corev1.Taint]time.Time
}

func newNodes(c *cluster, grace time.Duration) *nodes {
	n := &nodes{cluster: c, grace: cmp.Or(grace, DefaultNodeGrace), kick: make(chan struct{}, 1), pulses: map[string]*pulse{}, missing: map[string]time.Time{}}
	c.Nodes.OnChange(func(old, now *corev1.Node) {
		if now == nil || old == nil || !equality.Semantic.DeepEqual(stateOf(old), stateOf(now)) {
			n.wake()
		}
	})
	c.Pods.OnChange(func(old, now *corev1.Pod) {
		if now == nil || old != nil && old.Spec.NodeName == now.Spec.NodeName || now.Spec.NodeName == "" {
			return
		}
		if node, ok := c.Nodes.Get(types.NamespacedName{Name: now.Spec.NodeName}); !ok || len(driving(node)) > 0 {
			n.wake()
		}
	})
	return n
}

// stateOf is what of a node its taints follow from, and the taints.
func stateOf(n *corev1.Node) any {
	var conditions []corev1.NodeCondition
	for _, c := range n.Status.Conditions {
		conditions = append(conditions, corev1.NodeCondition{Type: c.Type, Status: c.Status})
	}
	return []any{conditions, n.Spec.Unschedulable, n.Spec.Taints}
}

func (n *nodes) wake() {
	select {
	case n.kick <- struct{}{}:
	default:
	}
}

// Run works until the context ends.
func (n *nodes) Run(ctx context.Context) error {
	if !live.Synced(ctx, n.Nodes, n.Pods, n.Leases) {
		return nil
	}
	ticker := n.clock.NewTicker(nodePeriod)
	defer ticker.Stop()
	for {
		n.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		case <-n.kick:
		}
	}
}

// look looks at all nodes once.
func (n *nodes) look(ctx context.Context) {
	now := n.clock.Now()
	stood := n.looked.IsZero() || now.Sub(n.looked) > 4*nodePeriod || now.Before(n.looked)
	n.looked = now
	all := n.Nodes.All()
	slices.SortFunc(all, func(a, b *corev1.Node) int { return cmp.Compare(a.Name, b.Name) })
	if stood {
		clear(n.pulses)
		clear(n.missing)
		n.driven = time.Time{}
	}
	silent := map[string]bool{}
	for _, node := range all {
		if n.silent(node, now) {
			silent[node.Name] = true
		}
	}
	for name := range n.pulses {
		if _, ok := n.Nodes.Get(types.NamespacedName{Name: name}); !ok {
			delete(n.pulses, name)
		}
	}
	// When most are silent, it is rather this server that is cut off.
	most := len(silent)*2 > len(all)
	for _, node := range all {
		if err := n.treat(ctx, node, silent[node.Name], most, now); err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			n.log.Warn("look after a node", "node", node.Name, "err", err)
		}
	}
	n.lookAtPods(ctx, silent, most, now)
}

// silent reports whether the agent of a node has been silent for too long. One
// that never had a Lease is not waited for.
func (n *nodes) silent(node *corev1.Node, now time.Time) bool {
	p := n.pulses[node.Name]
	if p == nil {
		p = &pulse{at: now, taints: map[corev1.Taint]time.Time{}}
		n.pulses[node.Name] = p
	}
	lease, ok := n.Leases.Get(types.NamespacedName{Namespace: corev1.NamespaceNodeLease, Name: node.Name})
	if ok && lease.ResourceVersion != p.lease {
		p.lease, p.at = lease.ResourceVersion, now
	}
	return (ok || p.lease != "") && now.Sub(p.at) > n.grace
}

// treat writes the conditions and the taints of a node.
func (n *nodes) treat(ctx context.Context, node *corev1.Node, silent, most bool, now time.Time) error {
	if silent {
		next := silenced(node, n.grace, now)
		if !equality.Semantic.DeepEqual(next.Status, node.Status) {
			n.log.Warn("a node's agent is silent", "node", node.Name, "for", n.grace)
			n.events.Warning(ctx, corev1.SchemeGroupVersion.WithKind("Node"), node, reasonNodeNotReady, "Node %s is not ready: its agent has not reported for %s", node.Name, n.grace)
			if err := n.resources.UpdateStatus(ctx, next); err != nil {
				return fmt.Errorf("say that the node is not known of: %w", err)
			}
			node = next
		}
	}
	evict := evicting(node) && !most
	if !evict && !most && now.Sub(n.driven) >= evictPeriod && slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue
	}) {
		evict, n.driven = true, now
	}
	next := tainted(node, evict, now)
	if equality.Semantic.DeepEqual(next.Spec.Taints, node.Spec.Taints) {
		return nil
	}
	return n.resources.Update(ctx, next)
}

// lookAtPods looks at the Pods of nodes that are silent, tainted or gone.
func (n *nodes) lookAtPods(ctx context.Context, silent map[string]bool, most bool, now time.Time) {
	taints := map[string][]corev1.Taint{}
	for _, node := range n.Nodes.All() {
		if list := n.observe(node, most, now); len(list) > 0 {
			taints[node.Name] = list
		}
	}
	here := map[string]bool{}
	for _, p := range n.Pods.All() {
		name := p.Spec.NodeName
		if name == "" {
			continue
		}
		if err := n.lookAtPod(ctx, p, silent[name], taints[name], here, now); err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			n.log.Warn("look after a pod of a node", "pod", client.Key(p).String(), "node", name, "err", err)
		}
	}
	for name := range n.missing {
		if !here[name] {
			delete(n.missing, name)
		}
	}
}

// observe notes since when a node has had the taints that drive Pods away. Those of
// a node that is not ready do not count while most are silent.
func (n *nodes) observe(node *corev1.Node, most bool, now time.Time) []corev1.Taint {
	list := slices.DeleteFunc(driving(node), func(t corev1.Taint) bool { return most && ofReadiness(t) })
	p := n.pulses[node.Name]
	if p == nil {
		return nil // it has just come
	}
	known := map[corev1.Taint]bool{}
	for _, t := range list {
		t.TimeAdded = nil
		known[t] = true
		if _, ok := p.taints[t]; !ok {
			p.taints[t] = now
		}
	}
	for t := range p.taints {
		if !known[t] {
			delete(p.taints, t)
		}
	}
	return list
}

func (n *nodes) lookAtPod(ctx context.Context, p *corev1.Pod, silent bool, taints []corev1.Taint, here map[string]bool, now time.Time) error {
	node := p.Spec.NodeName
	if _, ok := n.Nodes.Get(types.NamespacedName{Name: node}); !ok {
		here[node] = true
		return n.abandoned(ctx, p, now)
	}
	if silent {
		if next, ok := notReady(p, now); ok {
			if err := n.resources.UpdateStatus(ctx, next); err != nil {
				return fmt.Errorf("say that it is not ready: %w", err)
			}
		}
	}
	if len(taints) == 0 || !podActive(p) {
		return nil
	}
	until, forever := stay(p, taints, n.pulses[node].taints)
	if forever || now.Before(until) {
		return nil
	}
	text := taints[0].ToString()
	n.events.Normal(ctx, corev1.SchemeGroupVersion.WithKind("Pod"), p, "TaintManagerEviction", "Marking for deletion Pod %s/%s: it does not tolerate %s of node %s", p.Namespace, p.Name, text, node)
	return n.resources.Disrupt(ctx, client.Key(p), p.UID, "DeletionByTaintManager", "the pod does not tolerate the taint "+text+" of its node")
}

// abandoned removes the Pod of a node that was deleted and does not come back.
func (n *nodes) abandoned(ctx context.Context, p *corev1.Pod, now time.Time) error {
	name := p.Spec.NodeName
	since, ok := n.missing[name]
	if !ok {
		n.missing[name] = now
		return nil
	}
	if now.Sub(since) < goneFor {
		return nil
	}
	var node corev1.Node
	err := n.resources.Get(ctx, types.NamespacedName{Name: name}, &node)
	if !apierrors.IsNotFound(err) {
		return err
	}
	if !podFinished(p) {
		next := p.DeepCopy()
		next.Status.Phase, next.Status.Reason, next.Status.Message = corev1.PodFailed, "NodeLost", "node "+name+" is not there any more"
		if err := n.resources.UpdateStatus(ctx, next); err != nil {
			return err
		}
	}
	if p.DeletionTimestamp == nil && podFinished(p) && controllerOf(p) == nil {
		return nil // it has ended; who made it by hand may want to see it
	}
	zero := int64(0)
	return n.resources.Delete(ctx, p.DeepCopy(), client.DeleteOptions{UID: p.UID, GracePeriodSeconds: &zero})
}
