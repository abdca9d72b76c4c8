// Package upstream brings Kubernetes' own scheme, defaults, validation and
// printer columns into Berth. It is the one package that imports
// k8s.io/kubernetes, which is pinned and not meant as a library: everything
// else sees only what is exported here. It keeps no state but the scheme.
package upstream

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/apps"
	appsv1 "k8s.io/kubernetes/pkg/apis/apps/v1"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	autoscalingv1 "k8s.io/kubernetes/pkg/apis/autoscaling/v1"
	autoscalingv2 "k8s.io/kubernetes/pkg/apis/autoscaling/v2"
	"k8s.io/kubernetes/pkg/apis/batch"
	batchv1 "k8s.io/kubernetes/pkg/apis/batch/v1"
	"k8s.io/kubernetes/pkg/apis/coordination"
	coordinationv1 "k8s.io/kubernetes/pkg/apis/coordination/v1"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1k "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"
	"k8s.io/kubernetes/pkg/apis/discovery"
	discoveryv1 "k8s.io/kubernetes/pkg/apis/discovery/v1"
	"k8s.io/kubernetes/pkg/apis/events"
	eventsv1 "k8s.io/kubernetes/pkg/apis/events/v1"
	"k8s.io/kubernetes/pkg/apis/networking"
	networkingv1 "k8s.io/kubernetes/pkg/apis/networking/v1"
	"k8s.io/kubernetes/pkg/apis/policy"
	policyv1 "k8s.io/kubernetes/pkg/apis/policy/v1"
	"k8s.io/kubernetes/pkg/apis/scheduling"
	schedulingv1 "k8s.io/kubernetes/pkg/apis/scheduling/v1"
	"k8s.io/kubernetes/pkg/apis/storage"
	storagev1 "k8s.io/kubernetes/pkg/apis/storage/v1"
	"k8s.io/kubernetes/pkg/printers"
	printersinternal "k8s.io/kubernetes/pkg/printers/internalversion"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"berth.dev/berth/api/v1alpha1"
)

// Upstream is Kubernetes' knowledge of its kinds. It is safe for concurrent use.
type Upstream struct {
	scheme *runtime.Scheme
	tables *printers.HumanReadableGenerator
	rules  map[schema.GroupVersionKind]rules
}

// New builds the scheme of all kinds that Berth knows, Source among them.
func New() (*Upstream, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		core.AddToScheme, corev1k.AddToScheme,
		apps.AddToScheme, appsv1.AddToScheme,
		batch.AddToScheme, batchv1.AddToScheme,
		autoscaling.AddToScheme, autoscalingv2.AddToScheme, autoscalingv1.AddToScheme,
		coordination.AddToScheme, coordinationv1.AddToScheme,
		discovery.AddToScheme, discoveryv1.AddToScheme,
		events.AddToScheme, eventsv1.AddToScheme,
		networking.AddToScheme, networkingv1.AddToScheme,
		policy.AddToScheme, policyv1.AddToScheme,
		scheduling.AddToScheme, schedulingv1.AddToScheme,
		storage.AddToScheme, storagev1.AddToScheme,
		metricsv1beta1.AddToScheme,
		v1alpha1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("build scheme: %w", err)
		}
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	metav1.AddMetaToScheme(scheme)
	return &Upstream{
		scheme: scheme,
		tables: printers.NewTableGenerator().With(printersinternal.AddHandlers),
		rules:  kindRules(),
	}, nil
}

// Scheme holds the Go types of all kinds. It must not be changed.
func (u *Upstream) Scheme() *runtime.Scheme { return u.scheme }

// Default fills the fields that obj leaves out, as Kubernetes does.
func (u *Upstream) Default(obj runtime.Object) {
	if s, ok := obj.(*v1alpha1.Source); ok {
		v1alpha1.SetDefaults(s)
		return
	}
	u.scheme.Default(obj)
}

// ValidateCreate says what is wrong with a new, defaulted object.
func (u *Upstream) ValidateCreate(obj runtime.Object) field.ErrorList {
	if s, ok := obj.(*v1alpha1.Source); ok {
		return v1alpha1.Validate(s)
	}
	if errs := quantities(reflect.ValueOf(obj), nil); len(errs) > 0 {
		return errs
	}
	r, in, err := u.internal(obj)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	if r.create == nil {
		return nil
	}
	return withoutHealthPort(merge(r.create(in), u.scheme.Validate(context.Background(), gates(), obj)))
}

// ValidateUpdate says what is wrong with a change of everything but the status,
// immutable fields included.
func (u *Upstream) ValidateUpdate(obj, old runtime.Object) field.ErrorList {
	if s, ok := obj.(*v1alpha1.Source); ok {
		return v1alpha1.Validate(s)
	}
	if errs := quantities(reflect.ValueOf(obj), nil); len(errs) > 0 {
		return errs
	}
	r, in, inOld, err := u.internals(obj, old)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	if r.update == nil {
		return nil
	}
	return withoutHealthPort(merge(r.update(in, inOld), u.scheme.ValidateUpdate(context.Background(), gates(), obj, old)))
}

// withoutHealthPort leaves out that a Service with externalTrafficPolicy: Local
// needs a healthCheckNodePort: Kubernetes fills it for an outside load balancer
// to ask at, which Berth does not have.
func withoutHealthPort(errs field.ErrorList) field.ErrorList {
	return slices.DeleteFunc(errs, func(e *field.Error) bool {
		return e.Type == field.ErrorTypeRequired && e.Field == "spec.healthCheckNodePort"
	})
}

// ValidateStatus says what is wrong with a change of the status.
func (u *Upstream) ValidateStatus(obj, old runtime.Object) field.ErrorList {
	r, in, inOld, err := u.internals(obj, old)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	if r.status == nil {
		return nil
	}
	return r.status(in, inOld)
}

// Table prints an object or a list as kubectl's columns.
func (u *Upstream) Table(obj runtime.Object) (*metav1.Table, error) {
	gvk, err := u.kind(obj)
	if err != nil {
		return nil, err
	}
	in, err := u.scheme.ConvertToVersion(obj, schema.GroupVersion{Group: gvk.Group, Version: runtime.APIVersionInternal})
	if err != nil {
		return nil, fmt.Errorf("convert %s for printing: %w", gvk.Kind, err)
	}
	return u.tables.GenerateTable(in, printers.GenerateOptions{Wide: true})
}

// PodQOS is the quality-of-service class that a Pod's requests and limits make.
func PodQOS(pod *corev1.Pod) corev1.PodQOSClass { return qos.GetPodQOS(pod) }

func (u *Upstream) kind(obj runtime.Object) (schema.GroupVersionKind, error) {
	gvks, _, err := u.scheme.ObjectKinds(obj)
	if err != nil {
		return schema.GroupVersionKind{}, err
	}
	return gvks[0], nil
}

// internals converts two versions of an object.
func (u *Upstream) internals(obj, old runtime.Object) (r rules, in, inOld runtime.Object, err error) {
	if r, in, err = u.internal(obj); err != nil {
		return r, nil, nil, err
	}
	_, inOld, err = u.internal(old)
	return r, in, inOld, err
}

// internal converts to the hub type that Kubernetes validates.
func (u *Upstream) internal(obj runtime.Object) (rules, runtime.Object, error) {
	gvk, err := u.kind(obj)
	if err != nil {
		return rules{}, nil, err
	}
	r, known := u.rules[gvk]
	if !known {
		return rules{}, obj, nil
	}
	in, err := u.scheme.ConvertToVersion(obj, schema.GroupVersion{Group: gvk.Group, Version: runtime.APIVersionInternal})
	if err != nil {
		return rules{}, nil, fmt.Errorf("convert %s for validation: %w", gvk.Kind, err)
	}
	return r, in, nil
}

// gates are the options that the generated validation asks for. A scale to
// zero is carried out; the others are alpha in Kubernetes and are not.
func gates() map[string]bool {
	return map[string]bool{
		"HPAScaleToZero": true,
		"InPlacePodVerticalScalingSchedulerPreemption": false,
		"WorkloadWithJob": false,
	}
}

// merge joins the hand-written and the generated findings. Kubernetes moves
// rules from one to the other, so the same one may come from both.
func merge(hand, generated field.ErrorList) field.ErrorList {
	seen := map[string]bool{}
	for _, e := range hand {
		seen[string(e.Type)+e.Field] = true
	}
	for _, e := range generated {
		if !seen[string(e.Type)+e.Field] {
			hand = append(hand, e)
		}
	}
	return hand
}
