package resources

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/client"
)

// terminate marks an object as being deleted and reports true, or false when
// it can be removed at once.
func (r *Resources) terminate(obj client.Object, opts client.DeleteOptions) bool {
	propagate(obj, opts.Propagation)
	grace := gracePeriod(obj, opts)
	if ns, ok := obj.(*corev1.Namespace); ok && len(ns.Spec.Finalizers) > 0 {
		ns.Status.Phase = corev1.NamespaceTerminating
	} else if grace == 0 && len(obj.GetFinalizers()) == 0 {
		return false
	}
	if at := obj.GetDeletionTimestamp(); at == nil || grace < *graceOf(obj) {
		when := metav1.NewTime(r.clock.Now().Add(time.Duration(grace) * time.Second))
		obj.SetDeletionTimestamp(&when)
		obj.SetDeletionGracePeriodSeconds(&grace)
		if obj.GetGeneration() > 0 {
			obj.SetGeneration(obj.GetGeneration() + 1)
		}
	}
	return true
}

// propagate notes what becomes of what an object owns. Who says it anew, while the
// object is being deleted already, changes it.
func propagate(obj client.Object, how metav1.DeletionPropagation) {
	if how == "" {
		return
	}
	finalizers := slices.DeleteFunc(slices.Clone(obj.GetFinalizers()), func(f string) bool {
		return f == metav1.FinalizerDeleteDependents || f == metav1.FinalizerOrphanDependents
	})
	switch how {
	case metav1.DeletePropagationForeground:
		finalizers = append(finalizers, metav1.FinalizerDeleteDependents)
	case metav1.DeletePropagationOrphan:
		finalizers = append(finalizers, metav1.FinalizerOrphanDependents)
	}
	obj.SetFinalizers(finalizers)
}

func graceOf(obj client.Object) *int64 {
	if g := obj.GetDeletionGracePeriodSeconds(); g != nil {
		return g
	}
	zero := int64(0)
	return &zero
}

// gracePeriod in seconds: only a Pod that a node has taken has one. A deletion
// that is under way can be made shorter, not longer.
func gracePeriod(obj client.Object, opts client.DeleteOptions) int64 {
	pod, ok := obj.(*corev1.Pod)
	if !ok || pod.Spec.NodeName == "" || finished(pod) {
		return 0
	}
	grace := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if pod.Spec.TerminationGracePeriodSeconds != nil {
		grace = *pod.Spec.TerminationGracePeriodSeconds
	}
	if opts.GracePeriodSeconds != nil {
		return max(0, *opts.GracePeriodSeconds)
	}
	// A Pod whose own grace period is 0 still has to be stopped by its node.
	return max(1, grace)
}

func finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// graceOver reports whether nothing but finalizers kept the object.
func graceOver(obj client.Object) bool {
	if ns, ok := obj.(*corev1.Namespace); ok {
		return len(ns.Spec.Finalizers) == 0
	}
	return obj.GetDeletionGracePeriodSeconds() == nil || *obj.GetDeletionGracePeriodSeconds() == 0
}
