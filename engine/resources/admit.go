package resources

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
)

// admit fills in what a new object takes from others.
func (t *Tx) admit(ctx context.Context, obj client.Object) error {
	if c, ok := obj.(*corev1.PersistentVolumeClaim); ok {
		if err := t.classify(ctx, c); err != nil {
			return err
		}
		return t.rangeClaim(ctx, c)
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return nil
	}
	if err := t.r.Prioritize(ctx, pod); err != nil {
		return err
	}
	tolerateNodes(pod)
	if err := t.rangePod(ctx, pod); err != nil {
		return err
	}
	return t.account(ctx, pod)
}

// Prioritize gives a Pod the priority of its class, as Kubernetes' admission
// does; a Pod without one has that of the cluster's default class, or 0.
func (r *Resources) Prioritize(ctx context.Context, pod *corev1.Pod) error {
	class, err := r.priorityClass(ctx, pod.Spec.PriorityClassName)
	if apierrors.IsNotFound(err) {
		return apierrors.NewForbidden(corev1.Resource("pods"), pod.Name, fmt.Errorf("no PriorityClass with name %s was found", pod.Spec.PriorityClassName))
	}
	if err != nil {
		return err
	}
	if class == nil {
		class = &schedulingv1.PriorityClass{}
	}
	if pod.Spec.Priority != nil && *pod.Spec.Priority != class.Value {
		return apierrors.NewForbidden(corev1.Resource("pods"), pod.Name, fmt.Errorf(
			"the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *pod.Spec.Priority, class.Value))
	}
	value, policy := class.Value, corev1.PreemptLowerPriority
	if class.PreemptionPolicy != nil {
		policy = *class.PreemptionPolicy
	}
	if pod.Spec.PreemptionPolicy != nil && *pod.Spec.PreemptionPolicy != policy {
		return apierrors.NewForbidden(corev1.Resource("pods"), pod.Name, fmt.Errorf(
			"the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *pod.Spec.PreemptionPolicy, policy))
	}
	pod.Spec.PriorityClassName, pod.Spec.Priority, pod.Spec.PreemptionPolicy = class.Name, &value, &policy
	return nil
}

// SystemPriorities are the classes that every cluster has
// (https://kubernetes.io/docs/tasks/administer-cluster/guaranteed-scheduling-critical-addon-pods/).
func SystemPriorities() map[string]int32 {
	return map[string]int32{"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
}

// priorityClass finds a class, or the default one when name is empty; nil when
// there is none.
func (r *Resources) priorityClass(ctx context.Context, name string) (*schedulingv1.PriorityClass, error) {
	if name != "" {
		class := &schedulingv1.PriorityClass{}
		err := r.Get(ctx, types.NamespacedName{Name: name}, class)
		if value, ok := SystemPriorities()[name]; ok && apierrors.IsNotFound(err) { // it was deleted
			class.Name, class.Value, err = name, value, nil
		}
		return class, err
	}
	var all schedulingv1.PriorityClassList
	if err := r.List(ctx, &all, client.ListOptions{}); err != nil {
		return nil, err
	}
	var found *schedulingv1.PriorityClass
	for i := range all.Items {
		c := &all.Items[i]
		// Of several defaults the lowest counts (PriorityClass.GlobalDefault).
		if c.GlobalDefault && (found == nil || c.Value < found.Value) {
			found = c
		}
	}
	return found, nil
}

// KeepAdmitted takes over into pod what the cluster filled in on old and what
// pod leaves out: that is no change.
func KeepAdmitted(pod, old *corev1.Pod) {
	s, was := &pod.Spec, &old.Spec
	if s.EphemeralContainers == nil { // written by the subresource alone
		s.EphemeralContainers = was.EphemeralContainers
	}
	if s.PriorityClassName == "" {
		s.PriorityClassName = was.PriorityClassName
	}
	if s.Priority == nil && s.PriorityClassName == was.PriorityClassName {
		s.Priority = was.Priority
	}
	if s.PreemptionPolicy == nil {
		s.PreemptionPolicy = was.PreemptionPolicy
	}
	keepRanged(pod, old)
	keepTolerations(s, was)
	keepAccount(s, was)
}
