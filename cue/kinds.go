package cue

import (
	"fmt"
	"sort"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

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
	typed func() any
	// definition is the schema's; set by New.
	definition *check.Type
}

// kindTable lists every kind that a repository may hold.
func kindTable() []kind {
	core := schema.GroupVersion{Version: "v1"}
	apps := appsv1.SchemeGroupVersion
	batch := batchv1.SchemeGroupVersion
	template := []string{"spec", "template", "spec"}
	return []kind{
		{core.WithKind("Namespace"), false, nil, func() any { return &corev1.Namespace{} }, nil},
		{core.WithKind("Pod"), true, []string{"spec"}, func() any { return &corev1.Pod{} }, nil},
		{core.WithKind("Service"), true, nil, func() any { return &corev1.Service{} }, nil},
		{core.WithKind("ConfigMap"), true, nil, func() any { return &corev1.ConfigMap{} }, nil},
		{core.WithKind("Secret"), true, nil, func() any { return &corev1.Secret{} }, nil},
		{core.WithKind("ServiceAccount"), true, nil, func() any { return &corev1.ServiceAccount{} }, nil},
		{core.WithKind("PersistentVolumeClaim"), true, nil, func() any { return &corev1.PersistentVolumeClaim{} }, nil},
		{apps.WithKind("Deployment"), true, template, func() any { return &appsv1.Deployment{} }, nil},
		{apps.WithKind("ReplicaSet"), true, template, func() any { return &appsv1.ReplicaSet{} }, nil},
		{apps.WithKind("StatefulSet"), true, template, func() any { return &appsv1.StatefulSet{} }, nil},
		{apps.WithKind("DaemonSet"), true, template, func() any { return &appsv1.DaemonSet{} }, nil},
		{batch.WithKind("Job"), true, template, func() any { return &batchv1.Job{} }, nil},
		{batch.WithKind("CronJob"), true, append([]string{"spec", "jobTemplate"}, template...), func() any { return &batchv1.CronJob{} }, nil},
		{autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"), true, nil, func() any { return &autoscalingv2.HorizontalPodAutoscaler{} }, nil},
		{policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget"), true, nil, func() any { return &policyv1.PodDisruptionBudget{} }, nil},
		{schedulingv1.SchemeGroupVersion.WithKind("PriorityClass"), false, nil, func() any { return &schedulingv1.PriorityClass{} }, nil},
		{networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"), true, nil, func() any { return &networkingv1.NetworkPolicy{} }, nil},
		{v1alpha1.GroupVersion.WithKind("Source"), false, nil, func() any { return &v1alpha1.Source{} }, nil},
	}
}

// kinds finds a kind by its apiVersion and name.
type kinds map[schema.GroupVersionKind]*kind

func newKinds(s *check.Schema) (kinds, error) {
	out := kinds{}
	for _, k := range kindTable() {
		k.definition = s.Definition("#" + k.Kind)
		if k.definition == nil {
			return nil, fmt.Errorf("the schema lacks #%s", k.Kind)
		}
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
