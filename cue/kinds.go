package cue

import (
	"fmt"
	"sort"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"berth.dev/berth/api/upstream"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/cue/check"
)

// kind is one kind of object that the compiler knows.
type kind struct {
	schema.GroupVersionKind
	namespaced bool
	// pod is the way to the kind's pod template; nil if it has none.
	pod []string
	// typed makes an empty object of the Go type.
	typed func() runtime.Object
	// definition is the schema's, and rules are Kubernetes' own; set by New.
	definition *check.Type
	rules      *upstream.Upstream
}

// kindTable lists every kind that a repository may hold.
func kindTable() []kind {
	core := schema.GroupVersion{Version: "v1"}
	apps := appsv1.SchemeGroupVersion
	batch := batchv1.SchemeGroupVersion
	template := []string{"spec", "template", "spec"}
	return []kind{
		known(core.WithKind("Namespace"), false, nil, &corev1.Namespace{}),
		known(core.WithKind("Pod"), true, []string{"spec"}, &corev1.Pod{}),
		known(core.WithKind("Service"), true, nil, &corev1.Service{}),
		known(core.WithKind("ConfigMap"), true, nil, &corev1.ConfigMap{}),
		known(core.WithKind("Secret"), true, nil, &corev1.Secret{}),
		known(core.WithKind("ServiceAccount"), true, nil, &corev1.ServiceAccount{}),
		known(core.WithKind("PersistentVolumeClaim"), true, nil, &corev1.PersistentVolumeClaim{}),
		known(core.WithKind("ResourceQuota"), true, nil, &corev1.ResourceQuota{}),
		known(core.WithKind("LimitRange"), true, nil, &corev1.LimitRange{}),
		known(apps.WithKind("Deployment"), true, template, &appsv1.Deployment{}),
		known(apps.WithKind("ReplicaSet"), true, template, &appsv1.ReplicaSet{}),
		known(apps.WithKind("StatefulSet"), true, template, &appsv1.StatefulSet{}),
		known(apps.WithKind("DaemonSet"), true, template, &appsv1.DaemonSet{}),
		known(batch.WithKind("Job"), true, template, &batchv1.Job{}),
		known(batch.WithKind("CronJob"), true, append([]string{"spec", "jobTemplate"}, template...), &batchv1.CronJob{}),
		known(autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"), true, nil, &autoscalingv2.HorizontalPodAutoscaler{}),
		known(policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget"), true, nil, &policyv1.PodDisruptionBudget{}),
		known(schedulingv1.SchemeGroupVersion.WithKind("PriorityClass"), false, nil, &schedulingv1.PriorityClass{}),
		known(networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"), true, nil, &networkingv1.NetworkPolicy{}),
		known(core.WithKind("ReplicationController"), true, template, &corev1.ReplicationController{}),
		known(core.WithKind("PersistentVolume"), false, nil, &corev1.PersistentVolume{}),
		known(storagev1.SchemeGroupVersion.WithKind("StorageClass"), false, nil, &storagev1.StorageClass{}),
		known(discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), true, nil, &discoveryv1.EndpointSlice{}),
		known(v1alpha1.GroupVersion.WithKind("Source"), false, nil, &v1alpha1.Source{}),
	}
}

func known(gvk schema.GroupVersionKind, namespaced bool, pod []string, empty runtime.Object) kind {
	return kind{GroupVersionKind: gvk, namespaced: namespaced, pod: pod, typed: empty.DeepCopyObject}
}

// kinds finds a kind by its apiVersion and name.
type kinds map[schema.GroupVersionKind]*kind

func newKinds(s *check.Schema) (kinds, error) {
	rules, err := upstream.New()
	if err != nil {
		return nil, err
	}
	out := kinds{}
	for _, k := range kindTable() {
		k.definition = s.Definition("#" + k.Kind)
		if k.definition == nil {
			return nil, fmt.Errorf("the schema lacks #%s", k.Kind)
		}
		k.rules = rules
		out[k.GroupVersionKind] = &k
	}
	return out, nil
}

// find returns the kind, or words that say why there is none.
func (ks kinds) find(apiVersion, name string) (*kind, string) {
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return nil, fmt.Sprintf("apiVersion %q is malformed; must be like v1 or apps/v1", apiVersion)
	}
	if k := ks[gv.WithKind(name)]; k != nil {
		return k, ""
	}
	return nil, ks.unknown(gv, name)
}

// KindSet is what a cluster carries out.
type KindSet map[schema.GroupKind]bool

func (s KindSet) String() string {
	names := make([]string, 0, len(s))
	for gk, ok := range s {
		if ok {
			names = append(names, gk.Kind)
		}
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}
