package plan

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
)

// workload is an object that has Pods: what they are made from, and how many
// are to run at a time.
type workload struct {
	template corev1.PodTemplateSpec
	pods     int
}

// workloadOf looks at an object that has Pods; false for any other object, and
// for none. How many a DaemonSet has is for the nodes to say, and a CronJob runs
// none by itself.
func workloadOf(obj client.Object) (workload, bool) {
	switch o := obj.(type) {
	case *appsv1.Deployment:
		return workload{o.Spec.Template, number(o.Spec.Replicas)}, true
	case *appsv1.ReplicaSet:
		return workload{o.Spec.Template, number(o.Spec.Replicas)}, true
	case *corev1.ReplicationController:
		if o.Spec.Template == nil {
			return workload{}, false
		}
		return workload{*o.Spec.Template, number(o.Spec.Replicas)}, true
	case *appsv1.StatefulSet:
		return workload{o.Spec.Template, number(o.Spec.Replicas)}, true
	case *appsv1.DaemonSet:
		return workload{o.Spec.Template, 0}, true
	case *batchv1.CronJob:
		return workload{o.Spec.JobTemplate.Spec.Template, 0}, true
	case *batchv1.Job:
		n := number(o.Spec.Parallelism)
		if o.Spec.Completions != nil {
			n = min(n, int(*o.Spec.Completions))
		}
		if o.Spec.Suspend != nil && *o.Spec.Suspend {
			n = 0
		}
		return workload{o.Spec.Template, n}, true
	case *corev1.Pod:
		return workload{corev1.PodTemplateSpec{ObjectMeta: o.ObjectMeta, Spec: o.Spec}, 1}, true
	}
	return workload{}, false
}

// number of Pods that a field asks for; the default of all of them is 1.
func number(n *int32) int {
	if n == nil {
		return 1
	}
	return int(*n)
}

// pod is one that would be made for the object of a step, not yet on a node.
func (w workload) pod(k Key) *corev1.Pod {
	yes := true
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: k.Namespace, Name: k.Name, Labels: w.template.Labels, Annotations: w.template.Annotations,
			OwnerReferences: []metav1.OwnerReference{{Kind: k.Kind, Name: k.Name, UID: types.UID("new " + k.String()), Controller: &yes}},
		},
		Spec: *w.template.Spec.DeepCopy(),
	}
	return p
}

func countPods(n int) string {
	if n == 1 {
		return "1 pod"
	}
	return fmt.Sprintf("%d pods", n)
}
