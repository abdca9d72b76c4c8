package resources

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/v1alpha1"
)

// Bootstrap makes the Namespaces, the classes of priority and the storage class
// that every cluster has, where they are missing. What people make of them stays.
func (r *Resources) Bootstrap(ctx context.Context) error {
	for _, name := range lasting() {
		err := r.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create namespace %s: %w", name, err)
		}
	}
	for name, value := range SystemPriorities() {
		err := r.Create(ctx, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create priority class %s: %w", name, err)
		}
	}
	if err := r.Create(ctx, localClass()); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create storage class %s: %w", v1alpha1.LocalClass, err)
	}
	return nil
}

// localClass keeps volumes in folders of the node of their first Pod.
func localClass() *storagev1.StorageClass {
	wait, remove, grow := storagev1.VolumeBindingWaitForFirstConsumer, corev1.PersistentVolumeReclaimDelete, true
	return &storagev1.StorageClass{
		ObjectMeta:  metav1.ObjectMeta{Name: v1alpha1.LocalClass, Annotations: map[string]string{DefaultClassAnnotation: "true"}},
		Provisioner: v1alpha1.LocalProvisioner, VolumeBindingMode: &wait, ReclaimPolicy: &remove, AllowVolumeExpansion: &grow,
	}
}
