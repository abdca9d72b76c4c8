package controllers

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/resources"
)

// maxAddresses is how many an Endpoints object holds at most; one that holds
// less than there are says so in an annotation, as in Kubernetes.
const maxAddresses = 1000

// endpointsOf says in the older kind what slices say: programs that read
// Endpoints go on to work.
func endpointsOf(s *corev1.Service, from []*discoveryv1.EndpointSlice) *corev1.Endpoints {
	l := map[string]string{}
	for k, v := range from[0].Labels {
		if k != discoveryv1.LabelServiceName && k != discoveryv1.LabelManagedBy {
			l[k] = v
		}
	}
	out := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{
		Namespace: s.Namespace, Name: s.Name, Labels: l, OwnerReferences: from[0].OwnerReferences,
	}}
	count := 0
	for _, slice := range from {
		if len(slice.Endpoints) == 0 {
			continue
		}
		subset := corev1.EndpointSubset{Ports: portsOf(slice.Ports)}
		for _, ep := range slice.Endpoints {
			if count++; count > maxAddresses {
				out.Annotations = map[string]string{corev1.EndpointsOverCapacity: "truncated"}
				break
			}
			a := corev1.EndpointAddress{IP: ep.Addresses[0], NodeName: ep.NodeName, TargetRef: ep.TargetRef}
			if ep.Hostname != nil {
				a.Hostname = *ep.Hostname
			}
			if *ep.Conditions.Ready {
				subset.Addresses = append(subset.Addresses, a)
			} else {
				subset.NotReadyAddresses = append(subset.NotReadyAddresses, a)
			}
		}
		out.Subsets = append(out.Subsets, subset)
	}
	return out
}

func portsOf(ports []discoveryv1.EndpointPort) []corev1.EndpointPort {
	var out []corev1.EndpointPort
	for _, p := range ports {
		out = append(out, corev1.EndpointPort{Name: *p.Name, Protocol: *p.Protocol, Port: *p.Port, AppProtocol: p.AppProtocol})
	}
	return out
}

// putEndpoints adds the write of Endpoints to a transaction, if they differ.
func putEndpoints(ctx context.Context, r *resources.Resources, t *resources.Tx, want *corev1.Endpoints) error {
	var have corev1.Endpoints
	err := r.Get(ctx, client.Key(want), &have)
	if apierrors.IsNotFound(err) {
		if err := t.Create(ctx, want); err != nil {
			return fmt.Errorf("create endpoints: %w", err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	next := have.DeepCopy()
	next.Labels, next.Annotations, next.OwnerReferences, next.Subsets = want.Labels, want.Annotations, want.OwnerReferences, want.Subsets
	if equality.Semantic.DeepEqual(next, &have) {
		return nil
	}
	if err := t.Update(ctx, next); err != nil {
		return fmt.Errorf("update endpoints %s: %w", want.Name, err)
	}
	return nil
}
