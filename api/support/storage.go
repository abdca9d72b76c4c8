package support

import (
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"berth.dev/berth/api/v1alpha1"
)

// storageEntries are fields of claims, volumes and storage classes.
func storageEntries() []Entry {
	const (
		block  = "block devices are not given to containers; use Filesystem"
		source = "a volume begins empty; fill it with an init container"
		kinds  = "volumes of this kind are not mounted; use local or hostPath"
	)
	out := []Entry{
		refuse[corev1.PersistentVolumeClaimSpec]("volumeMode", block).of(string(corev1.PersistentVolumeBlock)),
		refuse[corev1.PersistentVolumeClaimSpec]("dataSource", source).present(),
		refuse[corev1.PersistentVolumeClaimSpec]("dataSourceRef", source).present(),
		refuse[corev1.PersistentVolumeClaimSpec]("volumeAttributesClassName", "there are no VolumeAttributesClasses"),
		ignore[corev1.VolumeResourceRequirements]("limits", "what is written to a volume is not limited"),
		refuse[corev1.PersistentVolumeSpec]("volumeMode", block).of(string(corev1.PersistentVolumeBlock)),
		refuse[corev1.PersistentVolumeSpec]("mountOptions", "a volume is mounted without further options"),
		refuse[corev1.PersistentVolumeSpec]("volumeAttributesClassName", "there are no VolumeAttributesClasses"),
		refuse[corev1.PersistentVolumeSpec]("persistentVolumeReclaimPolicy", "nothing empties a volume; use Retain").of(string(corev1.PersistentVolumeReclaimRecycle)),
		refuse[corev1.LocalVolumeSource]("fsType", "a local volume is a folder; mount its disk on the node"),
		refuse[storagev1.StorageClass]("parameters", "the built-in provisioner takes none"),
		refuse[storagev1.StorageClass]("mountOptions", "a volume is mounted without further options"),
		refuse[storagev1.StorageClass]("allowedTopologies", "use node affinity on the Pod, or on volumes that you make"),
		ignore[storagev1.StorageClass]("provisioner", "no such provisioner is here; its claims wait until somebody makes volumes for them").but(v1alpha1.LocalProvisioner, "kubernetes.io/no-provisioner"),
	}
	for _, name := range []string{
		"gcePersistentDisk", "awsElasticBlockStore", "glusterfs", "nfs", "rbd", "iscsi", "cinder", "cephfs", "fc", "flocker", "flexVolume", "azureFile",
		"vsphereVolume", "quobyte", "azureDisk", "photonPersistentDisk", "portworxVolume", "scaleIO", "storageos", "csi",
	} {
		out = append(out, refuse[corev1.PersistentVolumeSource](name, kinds).present())
	}
	return out
}
