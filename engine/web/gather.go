package web

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/live"
)

// gather finds in the views what belongs to a Source.
func gather(views *live.Cluster, source string) owned {
	var o owned
	o.Deployments = labelled(views.Deployments.All(), source)
	for _, d := range o.Deployments {
		o.ReplicaSets = append(o.ReplicaSets, views.ReplicaSets.OwnedBy(d.UID)...)
	}
	o.ReplicaSets = append(o.ReplicaSets, roots(labelled(views.ReplicaSets.All(), source))...)
	for _, rs := range o.ReplicaSets {
		o.Pods = append(o.Pods, views.Pods.OwnedBy(rs.UID)...)
	}
	o.Controllers = labelled(views.Controllers.All(), source)
	for _, rc := range o.Controllers {
		o.Pods = append(o.Pods, views.Pods.OwnedBy(rc.UID)...)
	}
	o.StatefulSets = labelled(views.StatefulSets.All(), source)
	for _, s := range o.StatefulSets {
		o.Pods = append(o.Pods, views.Pods.OwnedBy(s.UID)...)
	}
	o.Claims = labelled(views.Claims.All(), source)
	for _, s := range o.StatefulSets {
		o.Claims = append(o.Claims, claimsOf(views, s)...)
	}
	o.DaemonSets = labelled(views.DaemonSets.All(), source)
	for _, d := range o.DaemonSets {
		o.Pods = append(o.Pods, views.Pods.OwnedBy(d.UID)...)
	}
	o.CronJobs = labelled(views.CronJobs.All(), source)
	for _, c := range o.CronJobs {
		o.Jobs = append(o.Jobs, views.Jobs.OwnedBy(c.UID)...)
	}
	o.Jobs = append(o.Jobs, roots(labelled(views.Jobs.All(), source))...)
	for _, j := range o.Jobs {
		o.Pods = append(o.Pods, views.Pods.OwnedBy(j.UID)...)
	}
	o.Pods = append(o.Pods, roots(labelled(views.Pods.All(), source))...)
	o.Services = labelled(views.Services.All(), source)
	for _, s := range o.Services {
		for _, slice := range views.EndpointSlices.InNamespace(s.Namespace) {
			if slice.Labels[discoveryv1.LabelServiceName] == s.Name {
				o.Slices = append(o.Slices, slice)
			}
		}
	}
	o.Autoscalers = labelled(views.Autoscalers.All(), source)
	o.Namespaces = labelled(views.Namespaces.All(), source)
	return o
}

// claimsOf are the claims that a StatefulSet made, by their names.
func claimsOf(views *live.Cluster, s *appsv1.StatefulSet) []*corev1.PersistentVolumeClaim {
	var out []*corev1.PersistentVolumeClaim
	for _, t := range s.Spec.VolumeClaimTemplates {
		for _, c := range views.Claims.InNamespace(s.Namespace) {
			number, ok := strings.CutPrefix(c.Name, t.Name+"-"+s.Name+"-")
			if _, err := strconv.Atoi(number); ok && err == nil && c.Labels[v1alpha1.LabelSource] == "" {
				out = append(out, c)
			}
		}
	}
	return out
}

func labelled[T client.Object](all []T, source string) []T {
	return slices.DeleteFunc(all, func(o T) bool { return o.GetLabels()[v1alpha1.LabelSource] != source })
}

// roots are those that no controller made.
func roots[T client.Object](all []T) []T {
	return slices.DeleteFunc(all, func(o T) bool { return metav1.GetControllerOf(o) != nil })
}

// readStored reads the objects of a Source that are in no view. Values stay
// here: what is returned holds the names of keys at most.
func readStored(ctx context.Context, c client.Client, source string, secretKeys bool) ([]stored, error) {
	opts := client.ListOptions{Labels: labels.SelectorFromSet(labels.Set{v1alpha1.LabelSource: source})}
	var configs corev1.ConfigMapList
	var secrets corev1.SecretList
	var accounts corev1.ServiceAccountList
	for _, list := range []client.ObjectList{&configs, &secrets, &accounts} {
		if err := c.List(ctx, list, opts); err != nil {
			return nil, fmt.Errorf("list what Source %s holds: %w", source, err)
		}
	}
	var out []stored
	for i := range configs.Items {
		o := &configs.Items[i]
		s := storedOf("ConfigMap", o)
		s.Keys = slices.Sorted(maps.Keys(o.Data))
		s.Keys = append(s.Keys, slices.Sorted(maps.Keys(o.BinaryData))...)
		s.Count = len(s.Keys)
		out = append(out, s)
	}
	for i := range secrets.Items {
		o := &secrets.Items[i]
		s := storedOf("Secret", o)
		s.Count, s.Hidden = len(o.Data), !secretKeys
		if secretKeys {
			s.Keys = slices.Sorted(maps.Keys(o.Data))
		}
		out = append(out, s)
	}
	for i := range accounts.Items {
		out = append(out, storedOf("ServiceAccount", &accounts.Items[i]))
	}
	return out, nil
}

func storedOf(kind string, o client.Object) stored {
	return stored{Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(), Origin: o.GetAnnotations()[v1alpha1.AnnotationOrigin]}
}

// readEvents reads all events, slim.
func readEvents(ctx context.Context, c client.Client) ([]said, error) {
	var list corev1.EventList
	if err := c.List(ctx, &list, client.ListOptions{}); err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	out := make([]said, 0, len(list.Items))
	for i := range list.Items {
		out = append(out, saidOf(&list.Items[i]))
	}
	return out, nil
}
