package support

import (
	corev1 "k8s.io/api/core/v1"
)

// volumeEntries are fields of a Pod's volumes.
func volumeEntries() []Entry {
	const (
		kinds = "volumes of this kind are not mounted; use emptyDir, persistentVolumeClaim, hostPath, configMap, secret, projected or downwardAPI"
		owner = "files belong to root, and to the Pod's fsGroup"
	)
	var out []Entry
	for _, name := range []string{
		"ephemeral", "csi", "image", "nfs", "iscsi", "fc", "rbd", "cephfs", "glusterfs", "gitRepo", "flexVolume",
		"awsElasticBlockStore", "azureDisk", "azureFile", "cinder", "flocker", "gcePersistentDisk", "photonPersistentDisk", "portworxVolume",
		"quobyte", "scaleIO", "storageos", "vsphereVolume",
	} {
		out = append(out, refuse[corev1.VolumeSource](name, kinds).present())
	}
	disk := func(e corev1.EmptyDirVolumeSource) bool {
		return e.Medium != corev1.StorageMediumMemory && e.SizeLimit.Value() > 0
	}
	return append(out,
		refuse[corev1.ConfigMapVolumeSource]("defaultUser", owner),
		refuse[corev1.SecretVolumeSource]("defaultUser", owner),
		refuse[corev1.DownwardAPIVolumeSource]("defaultUser", owner),
		refuse[corev1.ProjectedVolumeSource]("defaultUser", owner),
		refuse[corev1.KeyToPath]("user", owner),
		refuse[corev1.DownwardAPIVolumeFile]("user", owner),
		refuse[corev1.ServiceAccountTokenProjection]("user", "the file belongs to the one user of the Pod's containers, or to root"),
		where(ignore[corev1.EmptyDirVolumeSource]("sizeLimit", "what is written to the disk is not limited"), "unless medium is Memory", disk),
		only(refuse[corev1.EmptyDirVolumeSource]("mode", "everybody may write to the folder"), "other than 0777", func(mode int32) bool { return mode != 0o777 }),
		refuse[corev1.EmptyDirVolumeSource]("medium", "nodes offer no huge pages").of("HugePages*"),
		refuse[corev1.VolumeProjection]("clusterTrustBundle", "there are no ClusterTrustBundles; use a ConfigMap").present(),
		refuse[corev1.VolumeProjection]("podCertificate", "no certificates are made for Pods; use a Secret").present(),
	)
}
