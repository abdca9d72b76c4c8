package upstream

import (
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// SelectOwnPods gives a Job the selector and the labels by which it knows its
// own Pods, unless the user chose them (JobSpec.ManualSelector).
func SelectOwnPods(j *batchv1.Job) {
	if j.Spec.ManualSelector != nil && *j.Spec.ManualSelector {
		return
	}
	if j.Spec.Template.Labels == nil {
		j.Spec.Template.Labels = map[string]string{}
	}
	own := map[string]string{
		batchv1.JobNameLabel: j.Name, "job-name": j.Name,
		batchv1.ControllerUidLabel: string(j.UID), "controller-uid": string(j.UID),
	}
	for k, v := range own {
		// A label that the user set is left, for validation to refuse.
		if _, set := j.Spec.Template.Labels[k]; !set {
			j.Spec.Template.Labels[k] = v
		}
	}
	if j.Spec.Selector == nil {
		j.Spec.Selector = &metav1.LabelSelector{}
	}
	if j.Spec.Selector.MatchLabels == nil {
		j.Spec.Selector.MatchLabels = map[string]string{}
	}
	if _, set := j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel]; !set {
		j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel] = string(j.UID)
	}
}

// ForgetOwnPods takes off what SelectOwnPods has put on under another UID.
func ForgetOwnPods(j *batchv1.Job, was types.UID) {
	for _, key := range []string{batchv1.ControllerUidLabel, "controller-uid"} {
		if j.Spec.Template.Labels[key] == string(was) {
			delete(j.Spec.Template.Labels, key)
		}
	}
	if s := j.Spec.Selector; s != nil && s.MatchLabels[batchv1.ControllerUidLabel] == string(was) {
		delete(s.MatchLabels, batchv1.ControllerUidLabel)
	}
}

// SameClusterIPs lets a client name the address of a Service, or None, once.
func SameClusterIPs(s *corev1.Service) {
	if s.Spec.ClusterIP != "" && len(s.Spec.ClusterIPs) == 0 {
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	} else if s.Spec.ClusterIP == "" && len(s.Spec.ClusterIPs) > 0 {
		s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
	}
}
