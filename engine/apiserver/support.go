package apiserver

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/support"
	"berth.dev/berth/engine/access"
)

// supported tells who writes next which of its fields Berth does not carry out.
// A field that is refused is an error, unless live has it already or nothing
// acts on the kind: then it is a warning, as for one that is ignored. live is
// nil for a new object. A change of metadata or status is not judged, nor is
// what a node writes as a part of Berth.
func (q *request) supported(next, live client.Object) error {
	if q.user.Role == access.Node || (q.subresource != "" && q.subresource != ephemeralContainers) {
		return nil
	}
	found := support.Find(next)
	if q.subresource == ephemeralContainers { // nothing else is written by it
		found = slices.DeleteFunc(found, func(f support.Finding) bool { return !strings.HasPrefix(f.Path(), "spec.ephemeralContainers") })
	}
	if len(found) == 0 || (live != nil && sameSpec(next, live)) {
		return nil
	}
	var used []support.Finding
	if live != nil {
		used = support.Find(live)
	}
	var refused field.ErrorList
	for _, f := range found {
		has := slices.ContainsFunc(used, func(u support.Finding) bool { return u.Field == f.Field && u.State == f.State })
		if f.State == support.Ignored || has || q.row.Idle {
			q.warn(f.Path() + ": " + f.Explanation())
			continue
		}
		refused = append(refused, field.Forbidden(field.NewPath(f.Path()), f.Explanation()))
	}
	if len(refused) == 0 {
		return nil
	}
	return apierrors.NewInvalid(q.row.GroupVersionKind.GroupKind(), next.GetName(), refused)
}

// sameSpec compares all but metadata and status.
func sameSpec(a, b client.Object) bool {
	x, errX := runtime.DefaultUnstructuredConverter.ToUnstructured(a)
	y, errY := runtime.DefaultUnstructuredConverter.ToUnstructured(b)
	if errX != nil || errY != nil {
		return false
	}
	for _, name := range []string{"apiVersion", "kind", "metadata", "status"} {
		delete(x, name)
		delete(y, name)
	}
	return equality.Semantic.DeepEqual(x, y)
}

// warn sends a warning with the answer, once.
func (q *request) warn(text string) {
	if !slices.Contains(q.warnings, text) {
		q.warnings = append(q.warnings, text)
	}
}
