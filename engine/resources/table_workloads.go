package resources

import (
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/upstream"
)

// workloadKinds are what makes Pods.
func workloadKinds() []*Resource {
	return []*Resource{
		{
			GroupVersionKind: kind("apps", "v1", "Deployment"), Plural: "deployments", Singular: "deployment", ShortNames: []string{"deploy"}, Categories: []string{"all"},
			Namespaced: true, Status: true, Scale: true,
			newObject: newOf[appsv1.Deployment], newList: listOf[appsv1.DeploymentList],
			status: statusAt(func(o *appsv1.Deployment) *appsv1.DeploymentStatus { return &o.Status }),
			// Annotations count, for they are copied to the ReplicaSets.
			spec: func(o client.Object) any {
				d := o.(*appsv1.Deployment)
				return []any{&d.Spec, withoutBerth(d.Annotations)}
			},
		},
		{
			GroupVersionKind: kind("apps", "v1", "ReplicaSet"), Plural: "replicasets", Singular: "replicaset", ShortNames: []string{"rs"}, Categories: []string{"all"},
			Namespaced: true, Status: true, Scale: true,
			newObject: newOf[appsv1.ReplicaSet], newList: listOf[appsv1.ReplicaSetList],
			status: statusAt(func(o *appsv1.ReplicaSet) *appsv1.ReplicaSetStatus { return &o.Status }),
			spec:   func(o client.Object) any { return &o.(*appsv1.ReplicaSet).Spec },
			fields: func(o client.Object) fields.Set {
				return fields.Set{"status.replicas": number(o.(*appsv1.ReplicaSet).Status.Replicas)}
			},
		},
		{
			GroupVersionKind: kind("apps", "v1", "StatefulSet"), Plural: "statefulsets", Singular: "statefulset", ShortNames: []string{"sts"}, Categories: []string{"all"},
			Namespaced: true, Status: true, Scale: true,
			newObject: newOf[appsv1.StatefulSet], newList: listOf[appsv1.StatefulSetList],
			status: statusAt(func(o *appsv1.StatefulSet) *appsv1.StatefulSetStatus { return &o.Status }),
			spec:   func(o client.Object) any { return &o.(*appsv1.StatefulSet).Spec },
		},
		{
			GroupVersionKind: kind("apps", "v1", "DaemonSet"), Plural: "daemonsets", Singular: "daemonset", ShortNames: []string{"ds"}, Categories: []string{"all"},
			Namespaced: true, Status: true,
			newObject: newOf[appsv1.DaemonSet], newList: listOf[appsv1.DaemonSetList],
			status: statusAt(func(o *appsv1.DaemonSet) *appsv1.DaemonSetStatus { return &o.Status }),
			spec:   func(o client.Object) any { return &o.(*appsv1.DaemonSet).Spec },
		},
		{
			GroupVersionKind: kind("apps", "v1", "ControllerRevision"), Plural: "controllerrevisions", Singular: "controllerrevision",
			Namespaced: true,
			newObject:  newOf[appsv1.ControllerRevision], newList: listOf[appsv1.ControllerRevisionList],
		},
		{
			GroupVersionKind: kind("batch", "v1", "Job"), Plural: "jobs", Singular: "job", Categories: []string{"all"},
			Namespaced: true, Status: true,
			newObject: newOf[batchv1.Job], newList: listOf[batchv1.JobList],
			status:        statusAt(func(o *batchv1.Job) *batchv1.JobStatus { return &o.Status }),
			spec:          func(o client.Object) any { return &o.(*batchv1.Job).Spec },
			prepareCreate: func(o client.Object) { upstream.SelectOwnPods(o.(*batchv1.Job)) },
			forget:        func(o client.Object, was types.UID) { upstream.ForgetOwnPods(o.(*batchv1.Job), was) },
			// It cannot be changed, so leaving it out means no change.
			prepareUpdate: func(o, _ client.Object) { upstream.SelectOwnPods(o.(*batchv1.Job)) },
			fields: func(o client.Object) fields.Set {
				return fields.Set{"status.successful": number(o.(*batchv1.Job).Status.Succeeded)}
			},
		},
		{
			GroupVersionKind: kind("batch", "v1", "CronJob"), Plural: "cronjobs", Singular: "cronjob", ShortNames: []string{"cj"}, Categories: []string{"all"},
			Namespaced: true, Status: true,
			newObject: newOf[batchv1.CronJob], newList: listOf[batchv1.CronJobList],
			status: statusAt(func(o *batchv1.CronJob) *batchv1.CronJobStatus { return &o.Status }),
			spec:   func(o client.Object) any { return &o.(*batchv1.CronJob).Spec },
		},
		{
			GroupVersionKind: kind("autoscaling", "v2", "HorizontalPodAutoscaler"), Plural: "horizontalpodautoscalers", Singular: "horizontalpodautoscaler", ShortNames: []string{"hpa"}, Categories: []string{"all"},
			Namespaced: true, Status: true,
			newObject: newOf[autoscalingv2.HorizontalPodAutoscaler], newList: listOf[autoscalingv2.HorizontalPodAutoscalerList],
			status: statusAt(func(o *autoscalingv2.HorizontalPodAutoscaler) *autoscalingv2.HorizontalPodAutoscalerStatus {
				return &o.Status
			}),
			spec: func(o client.Object) any { return &o.(*autoscalingv2.HorizontalPodAutoscaler).Spec },
		},
		{
			GroupVersionKind: kind("autoscaling", "v1", "HorizontalPodAutoscaler"), Plural: "horizontalpodautoscalers", Singular: "horizontalpodautoscaler", ShortNames: []string{"hpa"}, Categories: []string{"all"},
			Namespaced: true, Status: true,
			newObject: newOf[autoscalingv1.HorizontalPodAutoscaler], newList: listOf[autoscalingv1.HorizontalPodAutoscalerList],
			stored: newAutoscalerForm(),
			status: statusAt(func(o *autoscalingv1.HorizontalPodAutoscaler) *autoscalingv1.HorizontalPodAutoscalerStatus {
				return &o.Status
			}),
			spec: func(o client.Object) any { return &o.(*autoscalingv1.HorizontalPodAutoscaler).Spec },
		},
	}
}
