package cue

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/cue/document"
)

// identity is what two objects must not share.
type identity struct {
	schema.GroupKind
	namespace, name string
}

// assemble joins the results of all files and folders into one Set.
func assemble(problems []document.Problem, results []admitted, ks kinds, opts Options) manifest.Set {
	var set manifest.Set
	problems = append(twins(results, ks, opts), problems...)
	for _, p := range problems {
		set.Diagnostics = append(set.Diagnostics, diagnostic(p))
	}
	var objects []object
	for _, r := range results {
		for _, p := range r.problems {
			set.Diagnostics = append(set.Diagnostics, diagnostic(p))
		}
		for _, o := range r.objects {
			objects = append(objects, place(o, ks, opts))
		}
	}
	slices.SortStableFunc(objects, compareObjects)
	objects, set.Diagnostics = unique(objects, set.Diagnostics)
	set.Diagnostics = append(set.Diagnostics, unsupported(objects, opts.Kinds)...)
	resolve(objects, ks, &set, v1alpha1.HasErrors(set.Diagnostics))
	for _, o := range objects {
		o.mark()
		set.Manifests = append(set.Manifests, o.Manifest)
	}
	if len(objects) == 0 && len(set.Diagnostics) == 0 {
		set.Diagnostics = append(set.Diagnostics, diagnostic(document.Problem{Warning: true, Pos: document.Pos{Path: opts.Path},
			Message: "nothing is deployed from here: no file holds an object, a value with an apiVersion and a kind"}))
	}
	slices.SortStableFunc(set.Diagnostics, v1alpha1.CompareDiagnostics)
	set.Diagnostics = slices.Compact(set.Diagnostics)
	return set
}

// place copies an object, for the cache keeps it, and gives it its namespace.
func place(o object, ks kinds, opts Options) object {
	o.Object = o.Object.DeepCopy()
	k := ks[o.Object.GroupVersionKind()]
	if k.namespaced && o.Object.GetNamespace() == "" && opts.TargetNamespace != "" {
		o.Object.SetNamespace(opts.TargetNamespace)
	}
	return o
}

// mark notes on an object that something of it was encrypted.
func (o object) mark() {
	if !o.encrypted {
		return
	}
	annotations := o.Object.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[v1alpha1.AnnotationEncrypted] = "true"
	o.Object.SetAnnotations(annotations)
}

func identify(u *unstructured.Unstructured) identity {
	return identity{u.GroupVersionKind().GroupKind(), u.GetNamespace(), u.GetName()}
}

// unique refuses the same object twice. A package in a subfolder includes the
// files of its name above it: what both give from the same place is one object.
func unique(objects []object, ds []v1alpha1.Diagnostic) ([]object, []v1alpha1.Diagnostic) {
	var out []object
	for _, m := range objects {
		if len(out) == 0 || identify(out[len(out)-1].Object) != identify(m.Object) {
			out = append(out, m)
			continue
		}
		first := out[len(out)-1]
		if first.Origin == m.Origin && equality.Semantic.DeepEqual(first.Object.Object, m.Object.Object) {
			out[len(out)-1].encrypted = first.encrypted || m.encrypted // one of the folders may read an encrypted file
			continue
		}
		if first.Origin == m.Origin {
			ds = append(ds, v1alpha1.Diagnostic{
				Severity: v1alpha1.SeverityError,
				Path:     m.Origin.Path, Line: int32(m.Origin.Line), Column: 1,
				Object:  m.Object.GetKind() + "/" + m.Object.GetName(),
				Message: "two folders make it, each in its own way, for a package in a folder includes the files above it; deploy one of the folders, such as the one of an environment",
			})
			continue
		}
		in := ""
		if ns := m.Object.GetNamespace(); ns != "" {
			in = " in the namespace " + ns
		}
		ds = append(ds, v1alpha1.Diagnostic{
			Severity: v1alpha1.SeverityError,
			Path:     m.Origin.Path, Line: int32(m.Origin.Line), Column: 1,
			Object:  m.Object.GetKind() + "/" + m.Object.GetName(),
			Message: fmt.Sprintf("the same object is already at %s%s; remove or rename one", first.Origin, in),
		})
	}
	return out, ds
}

func unsupported(objects []object, kinds KindSet) []v1alpha1.Diagnostic {
	if kinds == nil {
		return nil
	}
	var out []v1alpha1.Diagnostic
	for _, m := range objects {
		if !kinds[m.Object.GroupVersionKind().GroupKind()] {
			out = append(out, v1alpha1.Diagnostic{
				Severity: v1alpha1.SeverityError,
				Path:     m.Origin.Path, Line: int32(m.Origin.Line), Column: 1,
				Object:  m.Object.GetKind() + "/" + m.Object.GetName(),
				Message: fmt.Sprintf("this cluster does not run the kind %s yet; it runs %s", m.Object.GetKind(), kinds),
			})
		}
	}
	return out
}

func compareObjects(a, b object) int {
	x, y := identify(a.Object), identify(b.Object)
	return cmp.Or(
		cmp.Compare(x.Group, y.Group), cmp.Compare(x.Kind, y.Kind),
		cmp.Compare(x.namespace, y.namespace), cmp.Compare(x.name, y.name),
		cmp.Compare(a.Origin.Path, b.Origin.Path), cmp.Compare(a.Origin.Line, b.Origin.Line),
	)
}
