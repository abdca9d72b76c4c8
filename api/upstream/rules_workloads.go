package upstream

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/batch"
	batchvalidation "k8s.io/kubernetes/pkg/apis/batch/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"

	"berth.dev/berth/api/cron"
)

func replicationControllerRules() rules {
	return rulesOf(
		func(r *core.ReplicationController) field.ErrorList {
			return corevalidation.ValidateReplicationController(r, pod.GetValidationOptionsFromPodTemplate(r.Spec.Template, nil))
		},
		func(r, old *core.ReplicationController) field.ErrorList {
			return corevalidation.ValidateReplicationControllerUpdate(r, old, pod.GetValidationOptionsFromPodTemplate(r.Spec.Template, old.Spec.Template))
		},
		corevalidation.ValidateReplicationControllerStatusUpdate)
}

func statefulSetRules() rules {
	return rulesOf(
		func(s *apps.StatefulSet) field.ErrorList {
			return appsvalidation.ValidateStatefulSet(s, appsvalidation.StatefulSetValidationOptions{}, pod.GetValidationOptionsFromPodTemplate(&s.Spec.Template, nil))
		},
		func(s, old *apps.StatefulSet) field.ErrorList {
			// What cannot be changed any more is not found fault with.
			set := appsvalidation.StatefulSetValidationOptions{AllowInvalidServiceName: true, SkipValidateVolumeClaimTemplates: true}
			return appsvalidation.ValidateStatefulSetUpdate(s, old, set, pod.GetValidationOptionsFromPodTemplate(&s.Spec.Template, &old.Spec.Template))
		},
		appsvalidation.ValidateStatefulSetStatusUpdate)
}

func daemonSetRules() rules {
	return rulesOf(
		func(d *apps.DaemonSet) field.ErrorList {
			return appsvalidation.ValidateDaemonSet(d, pod.GetValidationOptionsFromPodTemplate(&d.Spec.Template, nil))
		},
		func(d, old *apps.DaemonSet) field.ErrorList {
			d = generated(d, old)
			return appsvalidation.ValidateDaemonSetUpdate(d, old, pod.GetValidationOptionsFromPodTemplate(&d.Spec.Template, &old.Spec.Template))
		},
		appsvalidation.ValidateDaemonSetStatusUpdate)
}

// generated is a DaemonSet with the template generation that Kubernetes' registry
// gives it. The field is deprecated, and nothing reads it here.
func generated(d, old *apps.DaemonSet) *apps.DaemonSet {
	out := *d
	out.Spec.TemplateGeneration = old.Spec.TemplateGeneration
	if !equality.Semantic.DeepEqual(d.Spec.Template, old.Spec.Template) {
		out.Spec.TemplateGeneration++
	}
	return &out
}

func jobRules() rules {
	return rulesOf(
		func(j *batch.Job) field.ErrorList {
			return batchvalidation.ValidateJobCreate(j, batchvalidation.JobValidationOptions{
				PodValidationOptions:  pod.GetValidationOptionsFromPodTemplate(&j.Spec.Template, nil),
				RequirePrefixedLabels: true,
			})
		},
		func(j, old *batch.Job) field.ErrorList {
			return batchvalidation.ValidateJobUpdate(j, old, jobUpdateOptions(j, old))
		},
		func(j, old *batch.Job) field.ErrorList {
			return batchvalidation.ValidateJobUpdateStatus(j, old, batchvalidation.JobStatusValidationOptions{
				RejectDecreasingFailedCounter:    true,
				RejectDisablingTerminalCondition: true,
				RejectMutatingCompletionTime:     true,
			})
		})
}

// jobUpdateOptions: a Job that is suspended and runs nothing may have its
// template changed; any other keeps it (k8s.io/api/batch/v1, JobSpec.Template).
func jobUpdateOptions(j, old *batch.Job) batchvalidation.JobValidationOptions {
	suspended := old.Spec.Suspend != nil && *old.Spec.Suspend && old.Status.Active == 0
	paused := slices.ContainsFunc(old.Status.Conditions, func(c batch.JobCondition) bool {
		return c.Type == batch.JobSuspended && c.Status == core.ConditionTrue
	})
	mutable := suspended && (old.Status.StartTime == nil || paused)
	o := batchvalidation.JobValidationOptions{
		PodValidationOptions:             pod.GetValidationOptionsFromPodTemplate(&j.Spec.Template, &old.Spec.Template),
		RequirePrefixedLabels:            true,
		AllowMutableSchedulingDirectives: mutable,
		AllowMutablePodResources:         mutable,
	}
	if metav1validation.LabelSelectorHasInvalidLabelValue(old.Spec.Selector) {
		o.AllowInvalidLabelValueInSelector = true
	}
	return o
}

func cronJobRules() rules {
	template := func(c *batch.CronJob) *core.PodTemplateSpec { return &c.Spec.JobTemplate.Spec.Template }
	return rulesOf(
		func(c *batch.CronJob) field.ErrorList {
			return append(schedule(c), batchvalidation.ValidateCronJobCreate(scheduled(c), pod.GetValidationOptionsFromPodTemplate(template(c), nil))...)
		},
		func(c, old *batch.CronJob) field.ErrorList {
			var errs field.ErrorList
			if c.Spec.Schedule != old.Spec.Schedule {
				errs = schedule(c)
			}
			return append(errs, batchvalidation.ValidateCronJobUpdate(scheduled(c), scheduled(old), pod.GetValidationOptionsFromPodTemplate(template(c), template(old)))...)
		}, nil)
}

// scheduled is a CronJob with a schedule that Kubernetes' rules find no fault
// with: they refuse a 7 for Sunday, and let dates pass that never come.
func scheduled(c *batch.CronJob) *batch.CronJob {
	if c.Spec.Schedule == "" {
		return c // it is said that it is missing
	}
	out := *c
	out.Spec.Schedule = "0 0 * * *"
	return &out
}

// schedule says what is wrong with the schedule of a CronJob.
func schedule(c *batch.CronJob) field.ErrorList {
	path := field.NewPath("spec", "schedule")
	text := c.Spec.Schedule
	switch {
	case text == "":
		return nil
	case strings.Contains(text, "TZ="):
		return field.ErrorList{field.Invalid(path, text, "a schedule names no zone; use spec.timeZone, such as Europe/Berlin")}
	}
	if _, err := cron.Parse(text); err != nil {
		return field.ErrorList{field.Invalid(path, text, err.Error())}
	}
	return nil
}
