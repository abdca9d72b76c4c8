package controllers

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// noOrdinal is the ordinal of a Pod that has none.
const noOrdinal = -1

// ordinalOf is the number at the end of a Pod's name, or noOrdinal when the name
// is not one that the set gives.
func ordinalOf(set *appsv1.StatefulSet, name string) int {
	number, ok := strings.CutPrefix(name, set.Name+"-")
	if !ok {
		return noOrdinal
	}
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil || strconv.FormatUint(n, 10) != number {
		return noOrdinal
	}
	return int(n)
}

// firstOrdinal is where the numbers of a set begin (StatefulSetSpec.Ordinals).
func firstOrdinal(set *appsv1.StatefulSet) int {
	if set.Spec.Ordinals != nil {
		return int(set.Spec.Ordinals.Start)
	}
	return 0
}

func podNameOf(set *appsv1.StatefulSet, ordinal int) string {
	return fmt.Sprintf("%s-%d", set.Name, ordinal)
}

// claimNameOf is the name of the claim that the Pod of an ordinal has of a template.
func claimNameOf(set *appsv1.StatefulSet, template string, ordinal int) string {
	return fmt.Sprintf("%s-%s-%d", template, set.Name, ordinal)
}

// podOfSet makes the Pod of an ordinal from the template of a revision.
func podOfSet(set *appsv1.StatefulSet, template *corev1.PodTemplateSpec, revision string, ordinal int) *corev1.Pod {
	t := template.DeepCopy()
	name := podNameOf(set, ordinal)
	labels := maps.Clone(t.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[appsv1.StatefulSetPodNameLabel] = name
	labels[appsv1.PodIndexLabel] = strconv.Itoa(ordinal)
	labels[appsv1.StatefulSetRevisionLabel] = revision
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: set.Namespace, Name: name, GenerateName: set.Name + "-",
			Labels: labels, Annotations: t.Annotations, Finalizers: t.Finalizers,
			OwnerReferences: []metav1.OwnerReference{ownerRef(statefulSetKind(), set)},
		},
		Spec: t.Spec,
	}
	pod.Spec.Hostname, pod.Spec.Subdomain = name, set.Spec.ServiceName
	for _, c := range set.Spec.VolumeClaimTemplates {
		pod.Spec.Volumes = slices.DeleteFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == c.Name })
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: c.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimNameOf(set, c.Name, ordinal)},
		}})
	}
	return pod
}

// claimOfSet makes a claim of the Pod of an ordinal.
func claimOfSet(set *appsv1.StatefulSet, template *corev1.PersistentVolumeClaim, ordinal int) *corev1.PersistentVolumeClaim {
	c := template.DeepCopy()
	c.ObjectMeta = metav1.ObjectMeta{
		Namespace: set.Namespace, Name: claimNameOf(set, template.Name, ordinal),
		Labels: maps.Clone(c.Labels), Annotations: c.Annotations, Finalizers: c.Finalizers,
	}
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	if set.Spec.Selector != nil {
		maps.Copy(c.Labels, set.Spec.Selector.MatchLabels)
	}
	c.Status = corev1.PersistentVolumeClaimStatus{}
	c.OwnerReferences = claimOwners(set, nil, nil)
	return c
}

// claimOwners are the owners that a claim is to have besides those that others
// gave it (StatefulSetSpec.PersistentVolumeClaimRetentionPolicy): the set, when
// claims go with it, and the Pod when it is scaled away, and claims go with that.
func claimOwners(set *appsv1.StatefulSet, has []metav1.OwnerReference, condemned *corev1.Pod) []metav1.OwnerReference {
	var out []metav1.OwnerReference
	for _, ref := range has {
		if ref.UID != set.UID && (ref.Kind != "Pod" || ordinalOf(set, ref.Name) == noOrdinal) {
			out = append(out, ref)
		}
	}
	policy := set.Spec.PersistentVolumeClaimRetentionPolicy
	switch {
	case policy == nil:
	case condemned != nil && policy.WhenScaled == appsv1.DeletePersistentVolumeClaimRetentionPolicyType:
		out = append(out, metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: condemned.Name, UID: condemned.UID})
	case policy.WhenDeleted == appsv1.DeletePersistentVolumeClaimRetentionPolicyType:
		out = append(out, metav1.OwnerReference{APIVersion: "apps/v1", Kind: "StatefulSet", Name: set.Name, UID: set.UID})
	}
	return out
}
