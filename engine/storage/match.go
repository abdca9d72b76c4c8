// Package storage knows which volume a claim can have, and what the claims of a
// Pod mean for where it runs. It reads the views of the cluster and writes nothing.
package storage

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// Unfit says why a volume cannot serve a claim, "" when it can. It is a verb
// phrase about the volume (k8s.io/kubernetes/pkg/controller/volume/persistentvolume).
func Unfit(c *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) string {
	want, have := c.Spec.Resources.Requests[corev1.ResourceStorage], pv.Spec.Capacity[corev1.ResourceStorage]
	switch {
	case pv.DeletionTimestamp != nil:
		return "is being deleted"
	case pv.Spec.StorageClassName != ClassOf(c):
		return "is of another storage class"
	case have.Cmp(want) < 0:
		return "is too small"
	case volumeMode(pv.Spec.VolumeMode) != volumeMode(c.Spec.VolumeMode):
		return "has another volumeMode"
	}
	for _, mode := range c.Spec.AccessModes {
		if !slices.Contains(pv.Spec.AccessModes, mode) {
			return "does not offer the access mode " + string(mode)
		}
	}
	if c.Spec.Selector != nil {
		s, err := metav1.LabelSelectorAsSelector(c.Spec.Selector)
		if err != nil || !s.Matches(labels.Set(pv.Labels)) {
			return "is not selected by the claim"
		}
	}
	return ""
}

func volumeMode(m *corev1.PersistentVolumeMode) corev1.PersistentVolumeMode {
	if m == nil {
		return corev1.PersistentVolumeFilesystem
	}
	return *m
}

// free: nobody has a volume, or it was set aside for the claim.
func free(c *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) bool {
	ref := pv.Spec.ClaimRef
	return ref == nil || ref.UID == "" && ref.Namespace == c.Namespace && ref.Name == c.Name || ref.UID == c.UID
}

// candidates are the volumes that a claim could have.
func candidates(c *corev1.PersistentVolumeClaim, all []*corev1.PersistentVolume) []*corev1.PersistentVolume {
	var out []*corev1.PersistentVolume
	for _, pv := range all {
		if free(c, pv) && Unfit(c, pv) == "" {
			out = append(out, pv)
		}
	}
	return out
}

// Smallest is the best volume for a claim: one that was set aside for it, then
// the smallest that a node reaches, if one is given; nil for none.
func Smallest(c *corev1.PersistentVolumeClaim, all []*corev1.PersistentVolume, node *corev1.Node) *corev1.PersistentVolume {
	fitting := slices.DeleteFunc(candidates(c, all), func(pv *corev1.PersistentVolume) bool { return node != nil && !Reaches(node, pv) })
	if len(fitting) == 0 {
		return nil
	}
	return slices.MinFunc(fitting, func(a, b *corev1.PersistentVolume) int {
		sizeA, sizeB := a.Spec.Capacity[corev1.ResourceStorage], b.Spec.Capacity[corev1.ResourceStorage]
		return cmp.Or(
			cmp.Compare(btoi(b.Spec.ClaimRef != nil), btoi(a.Spec.ClaimRef != nil)),
			sizeA.Cmp(sizeB), cmp.Compare(a.Name, b.Name),
		)
	})
}

// Reaches: the node is one of those that a volume can be mounted on.
func Reaches(node *corev1.Node, pv *corev1.PersistentVolume) bool {
	return pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil || selects(pv.Spec.NodeAffinity.Required, node)
}

func selects(s *corev1.NodeSelector, node *corev1.Node) bool {
	ok, err := nodeaffinity.NewLazyErrorNodeSelector(s).Match(node)
	return err == nil && ok
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
