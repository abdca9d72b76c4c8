// Package recovery keeps, in a file beside the store, what is needed to bring a
// cluster back when the store is lost, and does so. It owns that file. It never
// keeps a Secret or a ConfigMap, and never touches what runs: the pods that it
// puts back are the ones that their node runs already.
package recovery

import (
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
)

// keeps tells which kinds are kept: those that say what runs and where. What a
// Source holds besides comes back from its repository.
func keeps(kind string) bool {
	switch kind {
	case "Source", "Namespace", "Node", "ServiceAccount", "Service", "PersistentVolume", "PersistentVolumeClaim",
		"Pod", "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "ControllerRevision", "Job", "CronJob",
		"HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy", "LimitRange", "ResourceQuota", "ReplicationController":
		return true
	}
	return false
}

// kept is what is kept of an object. A status that its owner makes anew is left
// out: it changes often, and an old one would be wrong. Those of Jobs, CronJobs
// and claims are kept, for they say what must not be done again.
func kept(obj client.Object) client.Object {
	obj = obj.DeepCopyObject().(client.Object)
	obj.SetManagedFields(nil)
	obj.SetResourceVersion("")
	switch o := obj.(type) {
	case *v1alpha1.Source:
		o.Status = v1alpha1.SourceStatus{}
	case *corev1.Pod:
		o.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: o.Status.QOSClass}
	case *corev1.Node:
		o.Status = corev1.NodeStatus{}
	case *appsv1.Deployment:
		o.Status = appsv1.DeploymentStatus{CollisionCount: o.Status.CollisionCount}
	case *appsv1.ReplicaSet:
		o.Status = appsv1.ReplicaSetStatus{}
	case *corev1.ReplicationController:
		o.Status = corev1.ReplicationControllerStatus{}
	case *autoscalingv2.HorizontalPodAutoscaler:
		o.Status = autoscalingv2.HorizontalPodAutoscalerStatus{}
	case *policyv1.PodDisruptionBudget:
		o.Status = policyv1.PodDisruptionBudgetStatus{}
	}
	return obj
}

// needed leaves out what the cluster would not miss: a Pod that has ended or is
// not bound, for its controller makes another one, and a ReplicaSet of the past.
func needed(obj client.Object) bool {
	switch o := obj.(type) {
	case *corev1.Pod:
		return o.Spec.NodeName != "" && o.Status.Phase != corev1.PodSucceeded && o.Status.Phase != corev1.PodFailed
	case *appsv1.ReplicaSet:
		return o.Status.Replicas > 0 || o.Spec.Replicas == nil || *o.Spec.Replicas > 0
	}
	return true
}
