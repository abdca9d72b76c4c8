package sync

import (
	"fmt"
	"maps"
	"slices"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/v1alpha1"
)

// unforged: a manifest does not say what Berth alone says. On the object itself
// that is left out, for it comes with manifests that were read from a cluster.
// In a template it is an error: what is made from it would look as if it were
// another Source's own, and would be pruned or counted there.
func (p *preparation) unforged(m manifest.Manifest, obj client.Object) bool {
	for _, k := range append(v1alpha1.AskedAnnotations(), v1alpha1.AnnotationAdopted) {
		if _, ok := obj.GetAnnotations()[k]; ok {
			p.warn(m, "metadata.annotations["+k+"]", "is written on the live object alone, and is left out here")
		}
	}
	path := ""
	for _, field := range slices.Sorted(maps.Keys(m.Object.Object)) {
		if field != "metadata" && path == "" {
			path = claims(field, m.Object.Object[field])
		}
	}
	if path != "" {
		p.fail(m, path, "is written by Berth alone, on what a Source holds; take it out of the template")
		return false
	}
	return true
}

// claims finds the place in a value where the metadata of a template says that a
// Source owns what is made from it; empty when there is none.
func claims(path string, v any) string {
	switch v := v.(type) {
	case map[string]any:
		if meta, ok := v["metadata"].(map[string]any); ok {
			for _, at := range [][2]string{{"labels", v1alpha1.LabelSource}, {"annotations", v1alpha1.AnnotationOrigin}} {
				if set, ok := meta[at[0]].(map[string]any); ok && set[at[1]] != nil {
					return fmt.Sprintf("%s.metadata.%s[%s]", path, at[0], at[1])
				}
			}
		}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if found := claims(path+"."+k, v[k]); found != "" {
				return found
			}
		}
	case []any:
		for i, item := range v {
			if found := claims(fmt.Sprintf("%s[%d]", path, i), item); found != "" {
				return found
			}
		}
	}
	return ""
}
