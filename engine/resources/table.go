package resources

import (
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/upstream"
	"berth.dev/berth/api/v1alpha1"
)

func kind(group, version, name string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: group, Version: version, Kind: name}
}

func newOf[T any, P interface {
	*T
	client.Object
}]() client.Object {
	return P(new(T))
}

func listOf[T any, P interface {
	*T
	client.ObjectList
}]() client.ObjectList {
	return P(new(T))
}

// Table is every kind that the cluster stores, in the order of discovery. The
// short names and categories are those of Kubernetes.
func Table() []*Resource {
	return []*Resource{
		{
			GroupVersionKind: kind("", "v1", "Namespace"), Plural: "namespaces", Singular: "namespace", ShortNames: []string{"ns"},
			Status:    true,
			newObject: newOf[corev1.Namespace], newList: listOf[corev1.NamespaceList],
			prepareCreate: prepareNamespace,
			prepareUpdate: func(obj, old client.Object) {
				obj.(*corev1.Namespace).Spec.Finalizers = old.(*corev1.Namespace).Spec.Finalizers
			},
			copyStatus: func(dst, src client.Object) {
				dst.(*corev1.Namespace).Status = *src.(*corev1.Namespace).Status.DeepCopy()
			},
			fields: func(o client.Object) fields.Set {
				return fields.Set{"status.phase": string(o.(*corev1.Namespace).Status.Phase)}
			},
		},
		{
			GroupVersionKind: kind("", "v1", "Node"), Plural: "nodes", Singular: "node", ShortNames: []string{"no"},
			Status:    true,
			newObject: newOf[corev1.Node], newList: listOf[corev1.NodeList],
			copyStatus: func(dst, src client.Object) {
				dst.(*corev1.Node).Status = *src.(*corev1.Node).Status.DeepCopy()
			},
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
			copyStatus:    copyPodStatus,
			spec:          func(o client.Object) any { return &o.(*corev1.Pod).Spec },
			fields:        podFields,
		},
		{
			GroupVersionKind: kind("", "v1", "Service"), Plural: "services", Singular: "service", ShortNames: []string{"svc"}, Categories: []string{"all"},
			Namespaced: true, Status: true,
			newObject: newOf[corev1.Service], newList: listOf[corev1.ServiceList],
			prepareCreate: prepareService,
			prepareUpdate: keepClusterIP,
			copyStatus: func(dst, src client.Object) {
				dst.(*corev1.Service).Status = *src.(*corev1.Service).Status.DeepCopy()
			},
			fields: func(o client.Object) fields.Set {
				s := o.(*corev1.Service).Spec
				return fields.Set{"spec.clusterIP": s.ClusterIP, "spec.type": string(s.Type)}
			},
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
			GroupVersionKind: kind("apps", "v1", "Deployment"), Plural: "deployments", Singular: "deployment", ShortNames: []string{"deploy"}, Categories: []string{"all"},
			Namespaced: true, Status: true, Scale: true,
			newObject: newOf[appsv1.Deployment], newList: listOf[appsv1.DeploymentList],
			prepareCreate: func(o client.Object) { o.(*appsv1.Deployment).Status = appsv1.DeploymentStatus{} },
			copyStatus: func(dst, src client.Object) {
				dst.(*appsv1.Deployment).Status = *src.(*appsv1.Deployment).Status.DeepCopy()
			},
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
			prepareCreate: func(o client.Object) { o.(*appsv1.ReplicaSet).Status = appsv1.ReplicaSetStatus{} },
			copyStatus: func(dst, src client.Object) {
				dst.(*appsv1.ReplicaSet).Status = *src.(*appsv1.ReplicaSet).Status.DeepCopy()
			},
			spec: func(o client.Object) any { return &o.(*appsv1.ReplicaSet).Spec },
		},
		{
			GroupVersionKind: kind("discovery.k8s.io", "v1", "EndpointSlice"), Plural: "endpointslices", Singular: "endpointslice",
			Namespaced: true, ReadOnly: true,
			newObject: newOf[discoveryv1.EndpointSlice], newList: listOf[discoveryv1.EndpointSliceList],
			prepareCreate: func(o client.Object) { o.SetGeneration(1) },
		},
		{
			GroupVersionKind: kind("coordination.k8s.io", "v1", "Lease"), Plural: "leases", Singular: "lease",
			Namespaced: true,
			newObject:  newOf[coordinationv1.Lease], newList: listOf[coordinationv1.LeaseList],
		},
		{
			GroupVersionKind: kind("berth.dev", "v1alpha1", "Source"), Plural: "sources", Singular: "source", Categories: []string{"berth"},
			Status:    true,
			newObject: newOf[v1alpha1.Source], newList: listOf[v1alpha1.SourceList],
			prepareCreate: func(o client.Object) { o.(*v1alpha1.Source).Status = v1alpha1.SourceStatus{} },
			copyStatus: func(dst, src client.Object) {
				dst.(*v1alpha1.Source).Status = *src.(*v1alpha1.Source).Status.DeepCopy()
			},
			spec: func(o client.Object) any { return &o.(*v1alpha1.Source).Spec },
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

// withoutBerth leaves out the annotations that say where an object is from:
// they are no change of it.
func withoutBerth(annotations map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range annotations {
		if k != v1alpha1.AnnotationOrigin && k != v1alpha1.AnnotationRevision {
			out[k] = v
		}
	}
	return out
}
