package support

import (
	"slices"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// otherEntries are fields of the cluster's own kinds.
func otherEntries() []Entry {
	const noElection = "holders agree among themselves"
	return []Entry{
		ignore[metav1.ObjectMeta]("selfLink", "the API names no links; leave the field out"),
		refuse[corev1.Secret]("type", "no token is put into it; mount one with a projected volume, or make one with kubectl create token").of(string(corev1.SecretTypeServiceAccountToken)),
		ignore[corev1.Secret]("type", "it opens no registry; use type "+string(corev1.SecretTypeDockerConfigJson)).of(string(corev1.SecretTypeDockercfg)),
		refuse[batchv1.JobSpec]("scheduling", "Pods are scheduled one by one, not as a group"),
		refuse[autoscalingv2.MetricSpec]("type", "there is no API of custom metrics; use Resource or ContainerResource").of(
			string(autoscalingv2.PodsMetricSourceType), string(autoscalingv2.ObjectMetricSourceType), string(autoscalingv2.ExternalMetricSourceType)),
		refuse[corev1.LimitRangeItem]("type", "nothing has bounds of another type").but(string(corev1.LimitTypePod), string(corev1.LimitTypeContainer), string(corev1.LimitTypePersistentVolumeClaim)),
		only(refuse[corev1.ResourceQuotaSpec]("scopes", "no quota counts by it; use PriorityClass, or one of the others"), strings.Join(unscoped(), ", "),
			func(scopes []corev1.ResourceQuotaScope) bool {
				return slices.ContainsFunc(scopes, func(s corev1.ResourceQuotaScope) bool { return slices.Contains(unscoped(), string(s)) })
			}),
		refuse[corev1.ScopedResourceSelectorRequirement]("scopeName", "no quota counts by it; use PriorityClass, or one of the others").of(unscoped()...),
		ignore[corev1.NodeSpec]("configSource", "an agent is configured where it is started"),
		ignore[corev1.NodeSpec]("externalID", "nothing reads it"),
		ignore[corev1.NodeSpec]("podPreemptionPolicy", "a Pod is not resized in place, and none is preempted for it"),
		ignore[coordinationv1.LeaseSpec]("strategy", noElection),
		ignore[coordinationv1.LeaseSpec]("preferredHolder", noElection),
	}
}

// unscoped are the scopes of quotas that nothing is counted by.
func unscoped() []string {
	return []string{string(corev1.ResourceQuotaScopeCrossNamespacePodAffinity), string(corev1.ResourceQuotaScopeVolumeAttributesClass)}
}
