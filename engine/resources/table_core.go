package resources

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/upstream"
)

// coreKinds are those of the group without a name.
func coreKinds() []*Resource {
	return []*Resource{
		{
			GroupVersionKind: kind("", "v1", "Namespace"), Plural: "namespaces", Singular: "namespace", ShortNames: []string{"ns"},
			Status:    true,
			newObject: newOf[corev1.Namespace], newList: listOf[corev1.NamespaceList],
			prepareCreate: prepareNamespace,
			prepareUpdate: func(obj, old client.Object) {
				obj.(*corev1.Namespace).Spec.Finalizers = old.(*corev1.Namespace).Spec.Finalizers
			},
			status: statusAt(func(o *corev1.Namespace) *corev1.NamespaceStatus { return &o.Status }),
			fields: func(o client.Object) fields.Set {
				return fields.Set{"status.phase": string(o.(*corev1.Namespace).Status.Phase)}
			},
		},
		{
			GroupVersionKind: kind("", "v1", "Node"), Plural: "nodes", Singular: "node", ShortNames: []string{"no"},
			Status:    true,
			newObject: newOf[corev1.Node], newList: listOf[corev1.NodeList],
			// A node says its status when it joins.
			status: statusAt(func(o *corev1.Node) *corev1.NodeStatus { return &o.Status }).kept(),
			fields: func(o client.Object) fields.Set {
				if o.(*corev1.Node).Spec.Unschedulable {
					return fields.Set{"spec.unschedulable": "true"}
				}
				return fields.Set{"spec.unschedulable": "false"}
			},
		},
		{
			GroupVersionKind: kind("", "v1", "Pod"), Plural: "pods", Singular: "pod", ShortNames: []string{"po"}, Categories: []string{"all"},
			Namespaced: true, Status: true,
			newObject: newOf[corev1.Pod], newList: listOf[corev1.PodList],
			prepareCreate: preparePod,
			prepareUpdate: func(obj, old client.Object) {
				pod, was := obj.(*corev1.Pod), old.(*corev1.Pod)
				pod.Status.QOSClass = was.Status.QOSClass // nobody who writes a Pod says it
				KeepAdmitted(pod, was)
			},
			status: &statusForm{copy: copyPodStatus},
			spec:   func(o client.Object) any { return &o.(*corev1.Pod).Spec },
			fields: podFields,
		},
		{
			GroupVersionKind: kind("", "v1", "Service"), Plural: "services", Singular: "service", ShortNames: []string{"svc"}, Categories: []string{"all"},
			Namespaced: true, Status: true,
			newObject: newOf[corev1.Service], newList: listOf[corev1.ServiceList],
			prepareCreate: prepareService,
			prepareUpdate: keepClusterIP,
			status:        statusAt(func(o *corev1.Service) *corev1.ServiceStatus { return &o.Status }),
			fields: func(o client.Object) fields.Set {
				s := o.(*corev1.Service).Spec
				return fields.Set{"spec.clusterIP": s.ClusterIP, "spec.type": string(s.Type)}
			},
		},
		{
			GroupVersionKind: kind("", "v1", "Endpoints"), Plural: "endpoints", Singular: "endpoints", ShortNames: []string{"ep"},
			Namespaced: true, ReadOnly: true,
			newObject: newOf[corev1.Endpoints], newList: listOf[corev1.EndpointsList],
		},
		{
			GroupVersionKind: kind("", "v1", "ConfigMap"), Plural: "configmaps", Singular: "configmap", ShortNames: []string{"cm"},
			Namespaced: true,
			newObject:  newOf[corev1.ConfigMap], newList: listOf[corev1.ConfigMapList],
		},
		{
			GroupVersionKind: kind("", "v1", "Secret"), Plural: "secrets", Singular: "secret",
			Namespaced: true,
			newObject:  newOf[corev1.Secret], newList: listOf[corev1.SecretList],
			prepareCreate: mergeStringData,
			prepareUpdate: func(obj, _ client.Object) { mergeStringData(obj) },
			fields: func(o client.Object) fields.Set {
				return fields.Set{"type": string(o.(*corev1.Secret).Type)}
			},
		},
		{
			GroupVersionKind: kind("", "v1", "ServiceAccount"), Plural: "serviceaccounts", Singular: "serviceaccount", ShortNames: []string{"sa"},
			Namespaced: true,
			newObject:  newOf[corev1.ServiceAccount], newList: listOf[corev1.ServiceAccountList],
		},
		{
			GroupVersionKind: kind("", "v1", "Event"), Plural: "events", Singular: "event", ShortNames: []string{"ev"},
			Namespaced: true,
			newObject:  newOf[corev1.Event], newList: listOf[corev1.EventList],
			fields: eventFields,
		},
		{
			GroupVersionKind: kind("", "v1", "PersistentVolumeClaim"), Plural: "persistentvolumeclaims", Singular: "persistentvolumeclaim", ShortNames: []string{"pvc"},
			Namespaced: true, Status: true,
			newObject: newOf[corev1.PersistentVolumeClaim], newList: listOf[corev1.PersistentVolumeClaimList],
			status:        statusAt(func(o *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaimStatus { return &o.Status }),
			prepareCreate: protectClaim,
			prepareUpdate: func(obj, old client.Object) { KeepBound(obj, old) },
		},
		{
			GroupVersionKind: kind("", "v1", "PersistentVolume"), Plural: "persistentvolumes", Singular: "persistentvolume", ShortNames: []string{"pv"},
			Status:    true,
			newObject: newOf[corev1.PersistentVolume], newList: listOf[corev1.PersistentVolumeList],
			status:        statusAt(func(o *corev1.PersistentVolume) *corev1.PersistentVolumeStatus { return &o.Status }),
			prepareCreate: protectVolume,
		},
		{
			GroupVersionKind: kind("", "v1", "ReplicationController"), Plural: "replicationcontrollers", Singular: "replicationcontroller", ShortNames: []string{"rc"}, Categories: []string{"all"},
			Namespaced: true, Status: true, Scale: true,
			newObject: newOf[corev1.ReplicationController], newList: listOf[corev1.ReplicationControllerList],
			status: statusAt(func(o *corev1.ReplicationController) *corev1.ReplicationControllerStatus { return &o.Status }),
			spec:   func(o client.Object) any { return &o.(*corev1.ReplicationController).Spec },
			fields: func(o client.Object) fields.Set {
				return fields.Set{"status.replicas": number(o.(*corev1.ReplicationController).Status.Replicas)}
			},
		},
		{
			GroupVersionKind: quotaKind(), Plural: "resourcequotas", Singular: "resourcequota", ShortNames: []string{"quota"},
			Namespaced: true, Status: true,
			newObject: newOf[corev1.ResourceQuota], newList: listOf[corev1.ResourceQuotaList],
			status: statusAt(func(o *corev1.ResourceQuota) *corev1.ResourceQuotaStatus { return &o.Status }),
		},
		{
			GroupVersionKind: kind("", "v1", "LimitRange"), Plural: "limitranges", Singular: "limitrange", ShortNames: []string{"limits"},
			Namespaced: true,
			newObject:  newOf[corev1.LimitRange], newList: listOf[corev1.LimitRangeList],
		},
	}
}

func prepareNamespace(o client.Object) {
	ns := o.(*corev1.Namespace)
	ns.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	ns.Spec.Finalizers = []corev1.FinalizerName{corev1.FinalizerKubernetes}
}

func preparePod(o client.Object) {
	p := o.(*corev1.Pod)
	p.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: upstream.PodQOS(p)}
	if len(p.Spec.SchedulingGates) > 0 { // as k8s.io/kubernetes/pkg/registry/core/pod: until they are gone the scheduler says nothing
		setCondition(p, corev1.PodCondition{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, LastTransitionTime: p.CreationTimestamp,
			Reason: corev1.PodReasonSchedulingGated, Message: "Scheduling is blocked due to non-empty scheduling gates",
		})
	}
}

func copyPodStatus(dst, src client.Object) {
	to, from := dst.(*corev1.Pod), src.(*corev1.Pod)
	class := to.Status.QOSClass
	to.Status = *from.Status.DeepCopy()
	to.Status.QOSClass = class
}

func podFields(o client.Object) fields.Set {
	p := o.(*corev1.Pod)
	set := fields.Set{
		"spec.nodeName":            p.Spec.NodeName,
		"spec.restartPolicy":       string(p.Spec.RestartPolicy),
		"spec.schedulerName":       p.Spec.SchedulerName,
		"spec.serviceAccountName":  p.Spec.ServiceAccountName,
		"spec.hostNetwork":         "false",
		"status.phase":             string(p.Status.Phase),
		"status.podIP":             p.Status.PodIP,
		"status.nominatedNodeName": p.Status.NominatedNodeName,
	}
	if p.Spec.HostNetwork {
		set["spec.hostNetwork"] = "true"
	}
	return set
}

func eventFields(o client.Object) fields.Set {
	e := o.(*corev1.Event)
	return fields.Set{
		"involvedObject.kind":            e.InvolvedObject.Kind,
		"involvedObject.namespace":       e.InvolvedObject.Namespace,
		"involvedObject.name":            e.InvolvedObject.Name,
		"involvedObject.uid":             string(e.InvolvedObject.UID),
		"involvedObject.apiVersion":      e.InvolvedObject.APIVersion,
		"involvedObject.resourceVersion": e.InvolvedObject.ResourceVersion,
		"involvedObject.fieldPath":       e.InvolvedObject.FieldPath,
		"reason":                         e.Reason,
		"reportingComponent":             e.ReportingController,
		"source":                         e.Source.Component,
		"type":                           e.Type,
	}
}

// mergeStringData moves what was written in plain text to where it is stored.
func mergeStringData(o client.Object) {
	s := o.(*corev1.Secret)
	for k, v := range s.StringData {
		if s.Data == nil {
			s.Data = map[string][]byte{}
		}
		s.Data[k] = []byte(v)
	}
	s.StringData = nil
}

func number(n int32) string { return strconv.Itoa(int(n)) }
