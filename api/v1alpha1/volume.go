package v1alpha1

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// NodeOfVolume is the node whose folder a volume of the class of Berth is; empty
// for any other volume.
func NodeOfVolume(pv *corev1.PersistentVolume) string {
	if pv.Annotations[AnnotationProvisioned] != LocalProvisioner || pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return ""
	}
	terms := pv.Spec.NodeAffinity.Required.NodeSelectorTerms
	if len(terms) != 1 || len(terms[0].MatchExpressions) != 1 || len(terms[0].MatchFields) > 0 {
		return ""
	}
	e := terms[0].MatchExpressions[0]
	if e.Key != corev1.LabelHostname || e.Operator != corev1.NodeSelectorOpIn || len(e.Values) != 1 {
		return ""
	}
	return e.Values[0]
}

// RemovableVolume reports whether the data of a volume is to be removed by its
// node: it is being deleted, and no claim holds it any more.
func RemovableVolume(pv *corev1.PersistentVolume) bool {
	return pv.DeletionTimestamp != nil && slices.Contains(pv.Finalizers, FinalizerVolume) && !slices.Contains(pv.Finalizers, ProtectVolume)
}

// Finalizers of Kubernetes that keep what is in use.
const (
	// ProtectClaim keeps a claim while a Pod mounts it.
	ProtectClaim = "kubernetes.io/pvc-protection"
	// ProtectVolume keeps a volume while a claim is bound to it.
	ProtectVolume = "kubernetes.io/pv-protection"
)
