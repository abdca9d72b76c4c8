package sync

import (
	"cmp"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/plan"
	"berth.dev/berth/engine/resources"
)

// findScaled notes the objects whose replicas an autoscaler has: one of the
// revision, or one in the cluster that the revision does not take away.
func (p *preparation) findScaled(set manifest.Set) {
	p.scaled = map[plan.Key]bool{}
	said := map[plan.Key]bool{}
	for _, m := range set.Manifests {
		if m.Object.GroupVersionKind() != autoscalerKind() {
			continue
		}
		a := &autoscalingv2.HorizontalPodAutoscaler{}
		if runtime.DefaultUnstructuredConverter.FromUnstructured(m.Object.Object, a) != nil {
			continue // it is said where the object is prepared
		}
		a.Namespace = cmp.Or(a.Namespace, p.source.Spec.TargetNamespace)
		said[plan.KeyOf(autoscalerKind(), a)] = true
		p.scaled[targetOf(a)] = true
	}
	for _, a := range p.engine.Live.Autoscalers.All() {
		owner, managed := resources.Managed(a)
		goes := managed && owner == p.source.Name && !said[plan.KeyOf(autoscalerKind(), a)] &&
			*p.source.Spec.Prune && a.Annotations[v1alpha1.AnnotationPrune] != v1alpha1.PruneDisabled
		if !goes && a.DeletionTimestamp == nil {
			p.scaled[targetOf(a)] = true
		}
	}
}

func autoscalerKind() schema.GroupVersionKind {
	return autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler")
}

func targetOf(a *autoscalingv2.HorizontalPodAutoscaler) plan.Key {
	ref := a.Spec.ScaleTargetRef
	return plan.Key{GroupVersionKind: schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind), Namespace: a.Namespace, Name: ref.Name}
}

// keepReplicas takes over the replicas that an autoscaler has set: they are no
// change of what the repository says. Zero is the switch of the autoscaler, and is
// the repository's on both sides.
func (p *preparation) keepReplicas(obj, live client.Object) {
	wanted, ok := resources.ScaleOf(obj)
	if !ok {
		return
	}
	row, err := p.engine.Resources.Of(obj)
	if err != nil || !p.scaled[plan.KeyOf(row.GroupVersionKind, obj)] {
		return
	}
	if was, ok := resources.ScaleOf(live); ok && wanted.Replicas() != 0 && was.Replicas() != 0 {
		n := was.Replicas()
		*wanted.Want = &n
	}
}
