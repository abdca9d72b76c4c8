package controllers

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/scheduler"
)

// scheduling gives each Pod a node. What it knows of the nodes is kept up to
// date by every event, so that a decision costs no scan of all Pods.
type scheduling struct {
	*cluster
	loop *loop

	mu     sync.Mutex
	placed map[types.NamespacedName]placement
	onNode map[string]*nodeUse
	// waiting are the Pods that fitted nowhere.
	waiting map[types.NamespacedName]bool
}

// placement is what a Pod takes from its node.
type placement struct {
	uid   types.UID
	node  string
	need  scheduler.Requests
	owner types.UID
	ports []string
}

// nodeUse is the sum of the placements on a node.
type nodeUse struct {
	used   scheduler.Requests
	owners map[types.UID]int
	// ports counts the Pods on each host port: a Pod may be bound beside another by hand.
	ports map[string]int
}

func newScheduling(c *cluster) *scheduling {
	s := &scheduling{
		cluster: c,
		placed:  map[types.NamespacedName]placement{}, onNode: map[string]*nodeUse{}, waiting: map[types.NamespacedName]bool{},
	}
	s.loop = newLoop(c, "scheduler", s.reconcile)
	c.Pods.OnChange(s.podChanged)
	c.Nodes.OnChange(func(old, now *corev1.Node) {
		if now != nil && (old == nil || !equality.Semantic.DeepEqual(nodeView(old), nodeView(now))) {
			s.retryWaiting()
		}
	})
	return s
}

// nodeView is what of a node can make a difference to a waiting Pod.
func nodeView(n *corev1.Node) any {
	ready := corev1.ConditionUnknown
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			ready = c.Status
		}
	}
	return []any{n.Labels, n.Spec, n.Status.Allocatable, ready}
}

// Run works until the context ends.
func (s *scheduling) Run(ctx context.Context) error { return s.loop.run(ctx, s.Nodes, s.Pods) }

func (s *scheduling) podChanged(old, now *corev1.Pod) {
	if now != nil && now.Spec.NodeName != "" && !podFinished(now) {
		s.place(now, now.Spec.NodeName)
		return
	}
	pod := now
	if pod == nil {
		pod = old
	}
	if s.remove(pod) {
		s.retryWaiting()
	}
	if now != nil && now.Spec.NodeName == "" && podActive(now) {
		s.loop.add(now)
	}
}

// place counts a Pod on a node; again for the same Pod changes nothing.
func (s *scheduling) place(pod *corev1.Pod, node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.placeLocked(pod, node)
}

func (s *scheduling) placeLocked(pod *corev1.Pod, node string) {
	key := client.Key(pod)
	delete(s.waiting, key)
	if p, ok := s.placed[key]; ok {
		if p.uid == pod.UID && p.node == node {
			return
		}
		s.removeLocked(key)
	}
	p := placement{uid: pod.UID, node: node, need: scheduler.PodRequests(pod), owner: scheduler.Owner(pod), ports: scheduler.HostPorts(pod)}
	s.placed[key] = p
	use := s.onNode[node]
	if use == nil {
		use = &nodeUse{used: scheduler.Requests{}, owners: map[types.UID]int{}, ports: map[string]int{}}
		s.onNode[node] = use
	}
	use.used.Add(p.need)
	use.owners[p.owner]++
	for _, port := range p.ports {
		use.ports[port]++
	}
}

func (s *scheduling) remove(pod *corev1.Pod) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := client.Key(pod)
	delete(s.waiting, key)
	if p, ok := s.placed[key]; !ok || p.uid != pod.UID {
		return false
	}
	return s.removeLocked(key)
}

func (s *scheduling) removeLocked(key types.NamespacedName) bool {
	p := s.placed[key]
	delete(s.placed, key)
	use := s.onNode[p.node]
	use.used.Sub(p.need)
	if use.owners[p.owner]--; use.owners[p.owner] == 0 {
		delete(use.owners, p.owner)
	}
	for _, port := range p.ports {
		if use.ports[port]--; use.ports[port] == 0 {
			delete(use.ports, port)
		}
	}
	return true
}

func (s *scheduling) retryWaiting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.waiting {
		s.loop.queue.Add(key)
	}
}

func (s *scheduling) reconcile(ctx context.Context, key types.NamespacedName) error {
	pod, ok := s.Pods.Get(key)
	if !ok || pod.Spec.NodeName != "" || !podActive(pod) || len(pod.Spec.SchedulingGates) > 0 {
		return nil
	}
	decision := s.decide(pod)
	if decision.Node == "" {
		return s.refuse(ctx, pod, decision.Message)
	}
	err := s.resources.Bind(ctx, key, pod.UID, decision.Node)
	if err != nil {
		s.remove(pod)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	s.events.Normal(ctx, corev1.SchemeGroupVersion.WithKind("Pod"), pod, "Scheduled", "Successfully assigned %s/%s to %s", pod.Namespace, pod.Name, decision.Node)
	return nil
}

// decide picks a node and counts the Pod there at once, so that the next
// decision sees it.
func (s *scheduling) decide(pod *corev1.Pod) scheduler.Decision {
	nodes := s.Nodes.All()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.placed[client.Key(pod)]; ok {
		s.removeLocked(client.Key(pod))
	}
	known := make([]scheduler.Node, 0, len(nodes))
	for _, n := range nodes {
		node := scheduler.Node{Node: n}
		if use := s.onNode[n.Name]; use != nil {
			node.Used, node.Owners, node.HostPorts = use.used, use.owners, use.ports
		}
		known = append(known, node)
	}
	d := scheduler.Place(pod, known)
	if d.Node != "" {
		s.placeLocked(pod, d.Node)
	} else {
		s.waiting[client.Key(pod)] = true
	}
	return d
}

// refuse says on the Pod why it waits.
func (s *scheduling) refuse(ctx context.Context, pod *corev1.Pod, message string) error {
	if c := podCondition(pod, corev1.PodScheduled); c != nil && c.Status == corev1.ConditionFalse && c.Message == message {
		return nil
	}
	next := pod.DeepCopy()
	condition := corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: message,
		LastTransitionTime: metav1.NewTime(s.clock.Now()), ObservedGeneration: pod.Generation,
	}
	if c := podCondition(next, corev1.PodScheduled); c != nil {
		*c = condition
	} else {
		next.Status.Conditions = append(next.Status.Conditions, condition)
	}
	s.events.Warning(ctx, corev1.SchemeGroupVersion.WithKind("Pod"), pod, "FailedScheduling", "%s", message)
	return ignoreNotFound(s.resources.UpdateStatus(ctx, next))
}
