package resources

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
)

// DefaultClassAnnotation marks the StorageClass of claims that name none, as in
// Kubernetes.
const DefaultClassAnnotation = "storageclass.kubernetes.io/is-default-class"

// protectClaim keeps a claim while a Pod mounts it.
func protectClaim(o client.Object) {
	c := o.(*corev1.PersistentVolumeClaim)
	c.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}
	c.Finalizers = protect(c.Finalizers, v1alpha1.ProtectClaim)
}

// protectVolume keeps a volume while a claim is bound to it.
func protectVolume(o client.Object) {
	v := o.(*corev1.PersistentVolume)
	v.Status = corev1.PersistentVolumeStatus{Phase: corev1.VolumePending}
	v.Finalizers = protect(v.Finalizers, v1alpha1.ProtectVolume)
}

func protect(finalizers []string, name string) []string {
	if slices.Contains(finalizers, name) {
		return finalizers
	}
	return append(slices.Clone(finalizers), name)
}

// classify gives a claim that names no class the default one, as Kubernetes'
// admission does; a class of "" is none.
func (t *Tx) classify(ctx context.Context, c *corev1.PersistentVolumeClaim) error {
	if c.Spec.StorageClassName != nil {
		return nil
	}
	var all storagev1.StorageClassList
	if err := t.r.List(ctx, &all, client.ListOptions{}); err != nil {
		return err
	}
	classes := make([]*storagev1.StorageClass, len(all.Items))
	for i := range all.Items {
		classes[i] = &all.Items[i]
	}
	c.Spec.StorageClassName = DefaultClass(classes)
	return nil
}

// DefaultClass is the name of the class of claims that name none: of several
// defaults the newest counts. It is nil when there is none.
func DefaultClass(classes []*storagev1.StorageClass) *string {
	var found *storagev1.StorageClass
	for _, class := range classes {
		if class.Annotations[DefaultClassAnnotation] == "true" && (found == nil || found.CreationTimestamp.Before(&class.CreationTimestamp)) {
			found = class
		}
	}
	if found == nil {
		return nil
	}
	name := found.Name
	return &name
}

// expandable: a bound claim may grow if its class says so
// (StorageClass.AllowVolumeExpansion); Kubernetes' rules let no claim shrink.
func (t *Tx) expandable(ctx context.Context, c, old *corev1.PersistentVolumeClaim) error {
	now, was := c.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage]
	if now.Cmp(was) <= 0 {
		return nil
	}
	refuse := func(why string) error {
		return apierrors.NewForbidden(corev1.Resource("persistentvolumeclaims"), c.Name, fmt.Errorf("it cannot grow: %s", why))
	}
	if old.Status.Phase != corev1.ClaimBound || old.Spec.StorageClassName == nil || *old.Spec.StorageClassName == "" {
		return refuse("only a bound claim with a storage class can")
	}
	var class storagev1.StorageClass
	class.Name = *old.Spec.StorageClassName
	err := t.r.Get(ctx, client.Key(&class), &class)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if err != nil || class.AllowVolumeExpansion == nil || !*class.AllowVolumeExpansion {
		return refuse("storage class " + class.Name + " does not set allowVolumeExpansion")
	}
	return nil
}

// KeepBound takes over into a claim or a volume what the cluster filled in on
// the live one and what the new one leaves out: that is no change.
func KeepBound(obj, live client.Object) {
	switch o := obj.(type) {
	case *corev1.PersistentVolumeClaim:
		was := live.(*corev1.PersistentVolumeClaim)
		if o.Spec.VolumeName == "" {
			o.Spec.VolumeName = was.Spec.VolumeName
		}
		if o.Spec.StorageClassName == nil {
			o.Spec.StorageClassName = was.Spec.StorageClassName
		}
	case *corev1.PersistentVolume:
		was := live.(*corev1.PersistentVolume)
		if o.Spec.ClaimRef == nil && was.DeletionTimestamp == nil && was.Status.Phase == corev1.VolumeBound {
			o.Spec.ClaimRef = was.Spec.ClaimRef
		}
	}
}

// IsBound: the object is a claim or a volume that has its counterpart.
func IsBound(obj client.Object) bool {
	switch o := obj.(type) {
	case *corev1.PersistentVolumeClaim:
		return o.Spec.VolumeName != ""
	case *corev1.PersistentVolume:
		return o.Spec.ClaimRef != nil
	}
	return false
}
