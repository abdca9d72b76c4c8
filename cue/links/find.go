package links

import (
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Find returns the links of a typed object, in the order of its fields. What is
// marked as optional is none.
func Find(obj any) []Link {
	f := &finder{}
	template := []any{"spec", "template", "spec"}
	switch o := obj.(type) {
	case *corev1.Pod:
		f.pod(&o.Spec, []any{"spec"})
	case *corev1.Service:
		f.service(o)
	case *corev1.PersistentVolumeClaim:
		f.claim(&o.Spec, []any{"spec"})
	case *appsv1.Deployment:
		f.pod(&o.Spec.Template.Spec, template)
	case *appsv1.ReplicaSet:
		f.pod(&o.Spec.Template.Spec, template)
	case *corev1.ReplicationController:
		f.pod(&o.Spec.Template.Spec, template)
	case *appsv1.DaemonSet:
		f.pod(&o.Spec.Template.Spec, template)
	case *appsv1.StatefulSet:
		f.statefulSet(o, template)
	case *batchv1.Job:
		f.pod(&o.Spec.Template.Spec, template)
	case *batchv1.CronJob:
		f.pod(&o.Spec.JobTemplate.Spec.Template.Spec, append([]any{"spec", "jobTemplate"}, template...))
	case *autoscalingv2.HorizontalPodAutoscaler:
		f.autoscaler(o)
	case *policyv1.PodDisruptionBudget:
		f.budget(o)
	case *discoveryv1.EndpointSlice:
		f.name(Core("Service"), o.Labels[discoveryv1.LabelServiceName], "its addresses are nobody's", "metadata", "labels", discoveryv1.LabelServiceName)
	}
	return f.links
}

func (f *finder) statefulSet(s *appsv1.StatefulSet, template []any) {
	f.name(Core("Service"), s.Spec.ServiceName, "its pods have no names of their own in DNS", "spec", "serviceName")
	f.pod(&s.Spec.Template.Spec, template)
	for i := range s.Spec.VolumeClaimTemplates {
		f.claim(&s.Spec.VolumeClaimTemplates[i].Spec, []any{"spec", "volumeClaimTemplates", i, "spec"})
	}
}

func (f *finder) claim(c *corev1.PersistentVolumeClaimSpec, at []any) {
	if c.StorageClassName != nil {
		f.name(schema.GroupKind{Group: "storage.k8s.io", Kind: "StorageClass"}, *c.StorageClassName,
			"the claim stays Pending", under(at, "storageClassName")...)
	}
}

// autoscaler: any kind may be scaled; those that Berth has are looked for.
func (f *finder) autoscaler(h *autoscalingv2.HorizontalPodAutoscaler) {
	t := h.Spec.ScaleTargetRef
	gv, err := schema.ParseGroupVersion(t.APIVersion)
	if err == nil {
		f.name(schema.GroupKind{Group: gv.Group, Kind: t.Kind}, t.Name, "nothing is scaled", "spec", "scaleTargetRef", "name")
	}
}

func (f *finder) budget(b *policyv1.PodDisruptionBudget) {
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err == nil && b.Spec.Selector != nil && !selector.Empty() {
		f.links = append(f.links, Link{Steps: []any{"spec", "selector"}, Selector: selector.String(), Else: "it protects nothing"})
	}
}

// byUser leaves out the labels that controllers give their pods.
func byUser(selector map[string]string) map[string]string {
	out := maps.Clone(selector)
	for _, label := range []string{appsv1.StatefulSetPodNameLabel, appsv1.PodIndexLabel, batchv1.JobCompletionIndexAnnotation, batchv1.JobNameLabel} {
		delete(out, label)
	}
	return out
}

func (f *finder) service(s *corev1.Service) {
	selects := ""
	if s.Spec.Type != corev1.ServiceTypeExternalName && len(s.Spec.Selector) > 0 {
		selects = equals(byUser(s.Spec.Selector))
	}
	if selects != "" {
		f.links = append(f.links, Link{Steps: []any{"spec", "selector"}, Selector: selects, Else: "connections to it are refused"})
	}
	for i, p := range s.Spec.Ports {
		at := []any{"spec", "ports", i}
		// Of a headless Service the ports are not used, but told.
		if selects != "" && s.Spec.ClusterIP != corev1.ClusterIPNone && p.TargetPort.Type == intstr.String && p.TargetPort.StrVal != "" {
			f.links = append(f.links, Link{Steps: under(at, "targetPort"), Selector: selects, Port: p.TargetPort.StrVal,
				Protocol: protocol(p.Protocol), Else: "connections to this port are refused"})
		}
		if p.NodePort != 0 {
			f.links = append(f.links, Link{Steps: under(at, "nodePort"), NodePort: p.NodePort, Protocol: protocol(p.Protocol)})
		}
	}
}
