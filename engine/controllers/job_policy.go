package controllers

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// failureRule is what a Job's podFailurePolicy says of a failed Pod.
type failureRule struct {
	// action is empty when no rule matches: the failure counts.
	action batchv1.PodFailurePolicyAction
	// message says which rule fails the Job.
	message string
}

// counts reports whether the failure counts towards the limits.
func (r failureRule) counts() bool { return r.action != batchv1.PodFailurePolicyActionIgnore }

// ruleFor finds the first rule that matches a failed Pod, as
// k8s.io/api/batch/v1, PodFailurePolicy.Rules says. The messages are Kubernetes'.
func ruleFor(job *batchv1.Job, pod *corev1.Pod) failureRule {
	if job.Spec.PodFailurePolicy == nil {
		return failureRule{}
	}
	for i, rule := range job.Spec.PodFailurePolicy.Rules {
		if rule.OnExitCodes != nil {
			if s := exitedWith(pod, rule.OnExitCodes); s != nil {
				return failureRule{rule.Action, fmt.Sprintf("Container %s for pod %s/%s failed with exit code %d matching %s rule at index %d",
					s.Name, pod.Namespace, pod.Name, s.State.Terminated.ExitCode, rule.Action, i)}
			}
			continue
		}
		for _, c := range pod.Status.Conditions {
			if slices.ContainsFunc(rule.OnPodConditions, func(p batchv1.PodFailurePolicyOnPodConditionsPattern) bool {
				return p.Type == c.Type && p.Status == c.Status
			}) {
				return failureRule{rule.Action, fmt.Sprintf("Pod %s/%s has condition %s matching %s rule at index %d",
					pod.Namespace, pod.Name, c.Type, rule.Action, i)}
			}
		}
	}
	return failureRule{}
}

// exitedWith finds a container whose exit code a rule is about; 0 is none.
func exitedWith(pod *corev1.Pod, want *batchv1.PodFailurePolicyOnExitCodesRequirement) *corev1.ContainerStatus {
	all := slices.Concat(pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses)
	for i := range all {
		t := all[i].State.Terminated
		if t == nil || t.ExitCode == 0 || want.ContainerName != nil && *want.ContainerName != all[i].Name {
			continue
		}
		listed := slices.Contains(want.Values, t.ExitCode)
		if listed == (want.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn) {
			return &all[i]
		}
	}
	return nil
}

// succeedsBy finds the first rule of a Job's successPolicy that the indexes
// which have succeeded meet (k8s.io/api/batch/v1, SuccessPolicy.Rules).
func succeedsBy(job *batchv1.Job, succeeded indexSet) (message string, ok bool) {
	if job.Spec.SuccessPolicy == nil || len(succeeded) == 0 {
		return "", false
	}
	for i, rule := range job.Spec.SuccessPolicy.Rules {
		done, all := succeeded.total(), -1
		if rule.SucceededIndexes != nil {
			wanted := parseIndexes(*rule.SucceededIndexes, int(*job.Spec.Completions))
			done, all = wanted.common(succeeded), wanted.total()
		}
		if done == all && all > 0 || rule.SucceededCount != nil && done >= int(*rule.SucceededCount) {
			return fmt.Sprintf("Matched rules at index %d", i), true
		}
	}
	return "", false
}
