package upstream

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/coordination"
	coordinationvalidation "k8s.io/kubernetes/pkg/apis/coordination/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/discovery"
	discoveryvalidation "k8s.io/kubernetes/pkg/apis/discovery/validation"
	schedulingvalidation "k8s.io/kubernetes/pkg/apis/scheduling/validation"
)

// rules are the validation functions of one kind, over its internal type.
type rules struct {
	create func(runtime.Object) field.ErrorList
	update func(obj, old runtime.Object) field.ErrorList
	status func(obj, old runtime.Object) field.ErrorList
}

type (
	createFunc[T any] func(*T) field.ErrorList
	updateFunc[T any] func(obj, old *T) field.ErrorList
)

func rulesOf[T any](create createFunc[T], update, status updateFunc[T]) rules {
	as := func(o runtime.Object) *T { return any(o).(*T) }
	r := rules{}
	if create != nil {
		r.create = func(o runtime.Object) field.ErrorList { return create(as(o)) }
	}
	if update != nil {
		r.update = func(o, old runtime.Object) field.ErrorList { return update(as(o), as(old)) }
	}
	if status != nil {
		r.status = func(o, old runtime.Object) field.ErrorList { return status(as(o), as(old)) }
	}
	return r
}

// kindRules names, for each kind, what Kubernetes' own registry strategies
// (k8s.io/kubernetes/pkg/registry) call.
func kindRules() map[schema.GroupVersionKind]rules {
	v1 := func(kind string) schema.GroupVersionKind { return schema.GroupVersionKind{Version: "v1", Kind: kind} }
	of := func(group, kind string) schema.GroupVersionKind {
		return schema.GroupVersionKind{Group: group, Version: "v1", Kind: kind}
	}
	return map[schema.GroupVersionKind]rules{
		v1("Namespace"): rulesOf(corevalidation.ValidateNamespace, corevalidation.ValidateNamespaceUpdate, corevalidation.ValidateNamespaceStatusUpdate),
		v1("Node"):      rulesOf(corevalidation.ValidateNode, corevalidation.ValidateNodeUpdate, corevalidation.ValidateNodeUpdate),
		v1("Pod"): rulesOf(
			func(p *core.Pod) field.ErrorList {
				return corevalidation.ValidatePodCreate(p, podOptions(p, nil))
			},
			func(p, old *core.Pod) field.ErrorList {
				return corevalidation.ValidatePodUpdate(p, old, podOptions(p, old))
			},
			func(p, old *core.Pod) field.ErrorList {
				return corevalidation.ValidatePodStatusUpdate(p, old, podOptions(p, old))
			}),
		v1("Service"): rulesOf(corevalidation.ValidateServiceCreate, corevalidation.ValidateServiceUpdate, corevalidation.ValidateServiceStatusUpdate),
		v1("Endpoints"): rulesOf(corevalidation.ValidateEndpointsCreate, corevalidation.ValidateEndpointsUpdate,
			nil),
		v1("ConfigMap"):      rulesOf(corevalidation.ValidateConfigMap, corevalidation.ValidateConfigMapUpdate, nil),
		v1("Secret"):         rulesOf(corevalidation.ValidateSecret, corevalidation.ValidateSecretUpdate, nil),
		v1("ServiceAccount"): rulesOf(corevalidation.ValidateServiceAccount, corevalidation.ValidateServiceAccountUpdate, nil),
		v1("Event"): rulesOf(
			func(e *core.Event) field.ErrorList {
				return corevalidation.ValidateEventCreate(e, schema.GroupVersion{Version: "v1"})
			},
			func(e, old *core.Event) field.ErrorList {
				return corevalidation.ValidateEventUpdate(e, old, schema.GroupVersion{Version: "v1"})
			}, nil),
		of("apps", "Deployment"): rulesOf(
			func(d *apps.Deployment) field.ErrorList {
				return appsvalidation.ValidateDeployment(d, pod.GetValidationOptionsFromPodTemplate(&d.Spec.Template, nil))
			},
			func(d, old *apps.Deployment) field.ErrorList {
				opts := pod.GetValidationOptionsFromPodTemplate(&d.Spec.Template, &old.Spec.Template)
				return appsvalidation.ValidateDeploymentUpdate(d, old, opts)
			},
			appsvalidation.ValidateDeploymentStatusUpdate),
		of("apps", "ReplicaSet"): rulesOf(
			func(r *apps.ReplicaSet) field.ErrorList {
				return appsvalidation.ValidateReplicaSet(r, pod.GetValidationOptionsFromPodTemplate(&r.Spec.Template, nil))
			},
			func(r, old *apps.ReplicaSet) field.ErrorList {
				opts := pod.GetValidationOptionsFromPodTemplate(&r.Spec.Template, &old.Spec.Template)
				return appsvalidation.ValidateReplicaSetUpdate(r, old, opts)
			},
			appsvalidation.ValidateReplicaSetStatusUpdate),
		v1("PersistentVolumeClaim"): claimRules(),
		v1("PersistentVolume"):      volumeRules(),
		v1("ResourceQuota"):         rulesOf(corevalidation.ValidateResourceQuota, corevalidation.ValidateResourceQuotaUpdate, corevalidation.ValidateResourceQuotaStatusUpdate),
		v1("LimitRange"): rulesOf(corevalidation.ValidateLimitRange,
			func(l, old *core.LimitRange) field.ErrorList {
				errs := corevalidation.ValidateObjectMetaUpdate(&l.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
				return append(errs, corevalidation.ValidateLimitRange(l)...)
			}, nil),
		v1("ReplicationController"):                                            replicationControllerRules(),
		of("apps", "StatefulSet"):                                              statefulSetRules(),
		of("apps", "DaemonSet"):                                                daemonSetRules(),
		of("apps", "ControllerRevision"):                                       rulesOf(appsvalidation.ValidateControllerRevisionCreate, appsvalidation.ValidateControllerRevisionUpdate, nil),
		of("batch", "Job"):                                                     jobRules(),
		of("batch", "CronJob"):                                                 cronJobRules(),
		of("networking.k8s.io", "NetworkPolicy"):                               networkPolicyRules(),
		of("policy", "PodDisruptionBudget"):                                    budgetRules(),
		of("scheduling.k8s.io", "PriorityClass"):                               rulesOf(schedulingvalidation.ValidatePriorityClass, schedulingvalidation.ValidatePriorityClassUpdate, nil),
		of("storage.k8s.io", "StorageClass"):                                   storageClassRules(),
		{Group: "autoscaling", Version: "v2", Kind: "HorizontalPodAutoscaler"}: autoscalerRules(),
		of("autoscaling", "HorizontalPodAutoscaler"):                           autoscalerRules(),
		of("discovery.k8s.io", "EndpointSlice"): rulesOf(discoveryvalidation.ValidateEndpointSliceCreate, discoveryvalidation.ValidateEndpointSliceUpdate,
			updateFunc[discovery.EndpointSlice](nil)),
		of("coordination.k8s.io", "Lease"): rulesOf(coordinationvalidation.ValidateLease, coordinationvalidation.ValidateLeaseUpdate,
			updateFunc[coordination.Lease](nil)),
	}
}

// ValidateEphemeralContainers says what is wrong with the ephemeral containers
// that a Pod is given; those that it has stay as they are.
func (u *Upstream) ValidateEphemeralContainers(p, old *corev1.Pod) field.ErrorList {
	_, in, inOld, err := u.internals(p, old)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	next, was := in.(*core.Pod), inOld.(*core.Pod)
	return corevalidation.ValidatePodEphemeralContainersUpdate(next, was, podOptions(next, was))
}

func podOptions(p, old *core.Pod) corevalidation.PodValidationOptions {
	var opts corevalidation.PodValidationOptions
	if old == nil {
		opts = pod.GetValidationOptionsFromPodSpecAndMeta(&p.Spec, nil, &p.ObjectMeta, nil)
	} else {
		opts = pod.GetValidationOptionsFromPodSpecAndMeta(&p.Spec, &old.Spec, &p.ObjectMeta, &old.ObjectMeta)
	}
	opts.ResourceIsPod = true
	return opts
}
