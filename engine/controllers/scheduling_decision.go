package controllers

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/scheduler"
)

// refusal is what a Pod that waits is told.
type refusal struct {
	message string
	// nominated is the node on which Pods make room for it.
	nominated string
	victims   []*corev1.Pod
	// blocked: the message is of what the Pod waits for that is no node's.
	blocked bool
}

// decide decides on the next Pod, and reports false when none waits for it.
func (s *scheduling) decide() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookAtClaims()
	pod, refused, ok := s.queue.Next()
	switch {
	case !ok:
		return false
	case refused != nil:
		s.tell(pod.Pod, refusal{message: refused.Message, blocked: refused.Reasons == scheduler.Blocked})
		return true
	}
	d := s.known.Decide(pod)
	if d.Node == "" {
		s.makeRoom(pod, d)
		return true
	}
	s.place(pod.Pod, d.Node)
	key := client.Key(pod)
	s.assumed[key] = assumption{pod.UID, d.Node}
	delete(s.refused, key)
	s.binds.queue.Add(key)
	return true
}

// makeRoom lets Pods of a lower priority make room for one that fits nowhere,
// or lets it wait.
func (s *scheduling) makeRoom(pod scheduler.Pod, d scheduler.Decision) {
	if s.budgets == nil {
		s.budgets = scheduler.Budgets(s.Budgets.All())
	}
	p := s.known.Preempt(pod, s.budgets)
	if p.Node == "" {
		if p.Message != "" {
			d.Message += "; " + p.Message
		}
		s.known.Unreserve(pod.UID)
		for _, told := range s.queue.Park(pod.UID, d) {
			s.tell(told.Pod, refusal{message: d.Message, blocked: d.Reasons == scheduler.Blocked})
		}
		return
	}
	s.known.Reserve(pod, p.Node)
	for _, id := range s.known.Outbid(pod.UID) {
		s.known.Unreserve(id)
		s.queue.Retry(id)
	}
	s.queue.Nominate(pod.UID)
	message := fmt.Sprintf("%s; room is being made on %s", d.Message, p.Node)
	switch n := len(p.Victims); {
	case n == 1:
		message += ", where 1 pod of lower priority ends"
	case n > 1:
		message += fmt.Sprintf(", where %d pods of lower priority end", n)
	}
	s.tell(pod.Pod, refusal{message: message, nominated: p.Node, victims: p.Victims})
}

// tell has a refusal written.
func (s *scheduling) tell(pod *corev1.Pod, r refusal) {
	key := client.Key(pod)
	s.refused[key] = r
	s.refusals.queue.Add(key)
}

// bind writes a decision down. When that fails, the Pod is decided on anew after
// a while, which grows: what is wrong may last.
func (s *scheduling) bind(ctx context.Context, key types.NamespacedName) error {
	s.mu.Lock()
	a, ok := s.assumed[key]
	s.mu.Unlock()
	if !ok {
		s.change(func() { s.takeUp(key) })
		return nil
	}
	pod, exists := s.Pods.Get(key)
	exists = exists && pod.UID == a.uid
	var err error
	if exists {
		err = s.bindClaims(ctx, pod, a.node)
	}
	if err == nil {
		err = s.resources.Bind(ctx, key, a.uid, a.node)
		if apierrors.IsNotFound(err) {
			s.giveUp(key, a, nil)
			return nil
		}
	}
	if err == nil {
		s.failures.Forget(a.uid)
		if exists {
			s.events.Normal(ctx, corev1.SchemeGroupVersion.WithKind("Pod"), pod, "Scheduled", "Successfully assigned %s/%s to %s", key.Namespace, key.Name, a.node)
		}
		return nil
	}
	s.giveUp(key, a, err)
	if exists && !apierrors.IsConflict(err) {
		s.events.Warning(ctx, corev1.SchemeGroupVersion.WithKind("Pod"), pod, "FailedScheduling", "cannot be bound to %s: %s", a.node, err.Error())
	}
	s.binds.queue.AddAfter(key, s.failures.When(a.uid))
	return nil
}

// takeUp has a Pod decided on anew. It is looked up under the lock: a Pod that goes
// meanwhile would be in line, and nothing would take it out again.
func (s *scheduling) takeUp(key types.NamespacedName) {
	if pod, ok := s.Pods.Get(key); ok {
		s.podChanged(pod, pod)
	}
}

// giveUp takes a decision back that could not be written down.
func (s *scheduling) giveUp(key types.NamespacedName, a assumption, why error) {
	s.change(func() {
		if s.assumed[key] != a { // the view has shown otherwise meanwhile
			return
		}
		delete(s.assumed, key)
		s.known.Remove(a.uid)
		if none := (*noVolumeError)(nil); errors.As(why, &none) {
			if s.unbindable[key] == nil {
				s.unbindable[key] = map[string]bool{}
			}
			s.unbindable[key][a.node] = true
		}
		s.handedOn(s.holders.remove(a.uid))
	})
}

// refuse says on a Pod why it waits, once its victims are told to end.
func (s *scheduling) refuse(ctx context.Context, key types.NamespacedName) error {
	s.mu.Lock()
	r, ok := s.refused[key]
	s.mu.Unlock()
	pod, exists := s.Pods.Get(key)
	if !ok || !exists || pod.Spec.NodeName != "" || !podActive(pod) {
		return nil
	}
	for _, victim := range r.victims {
		if err := s.preempt(ctx, victim, pod, r.nominated); err != nil {
			return err
		}
	}
	if r.blocked {
		if passed, err := s.passed(ctx, pod, r.message); passed || err != nil {
			return err
		}
	}
	return s.explain(ctx, pod, r)
}

func (s *scheduling) preempt(ctx context.Context, victim, by *corev1.Pod, node string) error {
	err := s.resources.Preempt(ctx, client.Key(victim), victim.UID)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("preempt pod %s/%s: %w", victim.Namespace, victim.Name, err)
	}
	s.events.Normal(ctx, corev1.SchemeGroupVersion.WithKind("Pod"), victim, "Preempted", "Preempted by pod %s/%s on node %s", by.Namespace, by.Name, node)
	return nil
}

// explain writes a refusal into the status of a Pod and as an event.
func (s *scheduling) explain(ctx context.Context, pod *corev1.Pod, r refusal) error {
	c := podCondition(pod, corev1.PodScheduled)
	if c != nil && c.Status == corev1.ConditionFalse && c.Message == r.message && pod.Status.NominatedNodeName == r.nominated {
		return nil
	}
	next := pod.DeepCopy()
	condition := corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: r.message,
		LastTransitionTime: metav1.NewTime(s.clock.Now()), ObservedGeneration: pod.Generation,
	}
	if c := podCondition(next, corev1.PodScheduled); c != nil {
		*c = condition
	} else {
		next.Status.Conditions = append(next.Status.Conditions, condition)
	}
	next.Status.NominatedNodeName = r.nominated
	s.events.Warning(ctx, corev1.SchemeGroupVersion.WithKind("Pod"), pod, "FailedScheduling", "%s", r.message)
	return ignoreNotFound(s.resources.UpdateStatus(ctx, next))
}
