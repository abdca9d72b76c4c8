package sync

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/plan"
	"berth.dev/berth/engine/resources"
)

// references looks in the cluster for what the objects of a revision refer to
// and the revision does not hold. What the plan deletes is not there.
func (e *Engine) references(ctx context.Context, source string, open []manifest.Reference, p plan.Plan) ([]v1alpha1.Diagnostic, error) {
	deleted := map[plan.Key]bool{}
	for _, s := range p.Steps {
		if s.Action == plan.Delete {
			key := s.Key
			key.Version = ""
			deleted[key] = true
		}
	}
	var out []v1alpha1.Diagnostic
	for _, r := range open {
		look := e.named
		if r.Selector != "" {
			look = e.selected
		}
		d, err := look(ctx, source, r, deleted)
		if err != nil {
			return nil, fmt.Errorf("look up what %s refers to: %w", r.Object, err)
		}
		if d != nil {
			out = append(out, *d)
		}
	}
	return out, nil
}

const nowhere = "in this repository or the cluster"

// named looks for an object by its name, and for its key.
func (e *Engine) named(ctx context.Context, _ string, r manifest.Reference, deleted map[plan.Key]bool) (*v1alpha1.Diagnostic, error) {
	missing := r.Missing(nowhere)
	i := slices.IndexFunc(e.Resources.All(), func(row *resources.Resource) bool { return row.GroupKind() == r.To })
	if i < 0 {
		return &missing, nil
	}
	row := e.Resources.All()[i]
	if deleted[plan.Key{GroupVersionKind: schema.GroupVersionKind{Group: r.To.Group, Kind: r.To.Kind}, Namespace: r.Namespace, Name: r.Name}] {
		d := r.Diagnostic(v1alpha1.SeverityError, fmt.Sprintf("%s is no longer in the repository and would be deleted, but it is needed here: %s; put it back, or remove this reference",
			r.Target(), r.Else))
		return &d, nil
	}
	obj := row.New()
	err := e.Resources.Get(ctx, types.NamespacedName{Namespace: r.Namespace, Name: r.Name}, obj)
	switch {
	case apierrors.IsNotFound(err):
		return &missing, nil
	case err != nil:
		return nil, err
	case r.Key != "" && !slices.Contains(keysOf(obj), r.Key):
		key := fmt.Sprintf("key %q", r.Key)
		if r.Hidden {
			key = "key of the name that stands here"
		}
		d := r.Diagnostic(v1alpha1.SeverityWarning, fmt.Sprintf("the %s in the cluster has no %s; %s", r.Target(), key, r.Else))
		return &d, nil
	}
	return nil, nil
}

func keysOf(obj client.Object) []string {
	var keys []string
	switch o := obj.(type) {
	case *corev1.ConfigMap:
		for key := range o.Data {
			keys = append(keys, key)
		}
		for key := range o.BinaryData {
			keys = append(keys, key)
		}
	case *corev1.Secret:
		for key := range o.Data {
			keys = append(keys, key)
		}
	}
	return keys
}

// selected looks for Pods that are not this Source's: what the revision makes
// was looked at by the compiler.
func (e *Engine) selected(ctx context.Context, source string, r manifest.Reference, _ map[plan.Key]bool) (*v1alpha1.Diagnostic, error) {
	selector, err := labels.Parse(r.Selector)
	if err != nil {
		return nil, err
	}
	row, _ := e.Resources.ByKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	list, err := e.Resources.Objects(ctx, row, resources.ListRequest{Namespace: r.Namespace, Labels: selector})
	if err != nil {
		return nil, err
	}
	for _, obj := range list.Objects {
		if obj.GetDeletionTimestamp() == nil && e.sourceOf(ctx, obj) != source {
			return nil, nil
		}
	}
	missing := r.Missing(nowhere)
	return &missing, nil
}

// sourceOf is the Source of an object, or of the one that it was made for.
func (e *Engine) sourceOf(ctx context.Context, obj client.Object) string {
	for range 4 { // a Pod of a Job of a CronJob at most
		if owner, ok := resources.Managed(obj); ok {
			return owner
		}
		refs := obj.GetOwnerReferences()
		i := slices.IndexFunc(refs, func(r metav1.OwnerReference) bool { return r.Controller != nil && *r.Controller })
		if i < 0 {
			return ""
		}
		gv, err := schema.ParseGroupVersion(refs[i].APIVersion)
		if err != nil {
			return ""
		}
		row, ok := e.Resources.ByKind(gv.WithKind(refs[i].Kind))
		if !ok {
			return ""
		}
		above := row.New()
		if e.Resources.Get(ctx, types.NamespacedName{Namespace: obj.GetNamespace(), Name: refs[i].Name}, above) != nil {
			return "" // it is gone, and the object goes with it
		}
		obj = above
	}
	return ""
}
