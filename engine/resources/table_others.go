package resources

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
)

// otherKinds are those that describe how Pods are reached, kept and scheduled,
// and Berth's own.
func otherKinds() []*Resource {
	return []*Resource{
		{
			GroupVersionKind: kind("discovery.k8s.io", "v1", "EndpointSlice"), Plural: "endpointslices", Singular: "endpointslice",
			Namespaced: true,
			newObject:  newOf[discoveryv1.EndpointSlice], newList: listOf[discoveryv1.EndpointSliceList],
			spec: func(o client.Object) any {
				s := o.(*discoveryv1.EndpointSlice)
				return []any{s.Endpoints, s.Ports, s.Labels}
			},
		},
		{
			GroupVersionKind: kind("coordination.k8s.io", "v1", "Lease"), Plural: "leases", Singular: "lease",
			Namespaced: true,
			newObject:  newOf[coordinationv1.Lease], newList: listOf[coordinationv1.LeaseList],
		},
		{
			GroupVersionKind: kind("events.k8s.io", "v1", "Event"), Plural: "events", Singular: "event", ShortNames: []string{"ev"},
			Namespaced: true,
			newObject:  newOf[eventsv1.Event], newList: listOf[eventsv1.EventList],
			stored: newEventForm(),
			fields: newEventFields,
		},
		{
			GroupVersionKind: kind("networking.k8s.io", "v1", "NetworkPolicy"), Plural: "networkpolicies", Singular: "networkpolicy", ShortNames: []string{"netpol"},
			Namespaced: true, Idle: true,
			newObject: newOf[networkingv1.NetworkPolicy], newList: listOf[networkingv1.NetworkPolicyList],
			spec: func(o client.Object) any { return &o.(*networkingv1.NetworkPolicy).Spec },
		},
		{
			GroupVersionKind: kind("policy", "v1", "PodDisruptionBudget"), Plural: "poddisruptionbudgets", Singular: "poddisruptionbudget", ShortNames: []string{"pdb"},
			Namespaced: true, Status: true,
			newObject: newOf[policyv1.PodDisruptionBudget], newList: listOf[policyv1.PodDisruptionBudgetList],
			status: statusAt(func(o *policyv1.PodDisruptionBudget) *policyv1.PodDisruptionBudgetStatus { return &o.Status }),
			spec:   func(o client.Object) any { return &o.(*policyv1.PodDisruptionBudget).Spec },
		},
		{
			GroupVersionKind: kind("scheduling.k8s.io", "v1", "PriorityClass"), Plural: "priorityclasses", Singular: "priorityclass", ShortNames: []string{"pc"},
			newObject: newOf[schedulingv1.PriorityClass], newList: listOf[schedulingv1.PriorityClassList],
			prepareCreate: func(o client.Object) { o.SetGeneration(1) },
		},
		{
			GroupVersionKind: kind("storage.k8s.io", "v1", "StorageClass"), Plural: "storageclasses", Singular: "storageclass", ShortNames: []string{"sc"},
			newObject: newOf[storagev1.StorageClass], newList: listOf[storagev1.StorageClassList],
		},
		{
			GroupVersionKind: kind("berth.dev", "v1alpha1", "Source"), Plural: "sources", Singular: "source", Categories: []string{"berth"},
			Status:    true,
			newObject: newOf[v1alpha1.Source], newList: listOf[v1alpha1.SourceList],
			status: statusAt(func(o *v1alpha1.Source) *v1alpha1.SourceStatus { return &o.Status }),
			spec:   func(o client.Object) any { return &o.(*v1alpha1.Source).Spec },
		},
	}
}
