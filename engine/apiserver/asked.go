package apiserver

import (
	"maps"

	"k8s.io/apimachinery/pkg/api/equality"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
)

// asks: a change of a Source writes nothing but the annotations with which
// people ask something of it. They are not in Git, also when the Source is.
func asks(live, next client.Object) bool {
	was, ok := live.(*v1alpha1.Source)
	now, isSource := next.(*v1alpha1.Source)
	if !ok || !isSource {
		return false
	}
	rest := func(s *v1alpha1.Source) map[string]string {
		out := maps.Clone(s.Annotations)
		for _, key := range v1alpha1.AskedAnnotations() {
			delete(out, key)
		}
		return out
	}
	return equality.Semantic.DeepEqual(was.Spec, now.Spec) && maps.Equal(was.Labels, now.Labels) && maps.Equal(rest(was), rest(now)) &&
		equality.Semantic.DeepEqual(was.Finalizers, now.Finalizers) && equality.Semantic.DeepEqual(was.OwnerReferences, now.OwnerReferences)
}
