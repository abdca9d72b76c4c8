package apiserver

import (
	"cmp"
	"net/http"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	applyconfigurations "k8s.io/client-go/applyconfigurations"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/resources"
)

// managerLimit is the longest name of a field manager, in bytes (metav1.FieldManager).
const managerLimit = 128

// managers keep note of who set which field of an object, for server-side
// apply. The types are parsed when somebody first writes over the API (150 ms).
type managers struct {
	scheme *runtime.Scheme
	types  func() managedfields.TypeConverter
	// several are the kinds that are served in more than one version.
	several map[schema.GroupKind]bool

	mu     sync.Mutex
	byKind map[string]*managedfields.FieldManager
}

func newManagers(scheme *runtime.Scheme) *managers {
	return &managers{
		scheme: scheme,
		types:  sync.OnceValue(func() managedfields.TypeConverter { return applyconfigurations.NewTypeConverter(scheme) }),
		byKind: map[string]*managedfields.FieldManager{}, several: severalVersions(),
	}
}

func (m *managers) of(row *resources.Resource, subresource string) (*managedfields.FieldManager, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := row.GroupVersionKind.String() + "/" + subresource
	if f := m.byKind[key]; f != nil {
		return f, nil
	}
	types := m.types()
	if row.Group == v1alpha1.GroupVersion.Group {
		types = managedfields.NewDeducedTypeConverter()
	}
	f, err := managedfields.NewDefaultFieldManager(types, m.scheme, m.scheme, m.scheme, row.GroupVersionKind, m.hub(row), subresource, nil)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	m.byKind[key] = f
	return f, nil
}

// hub is the version by way of which the versions of a kind are converted to one
// another: Kubernetes' own form, where there are several.
func (m *managers) hub(row *resources.Resource) schema.GroupVersion {
	if m.several[row.GroupKind()] {
		return schema.GroupVersion{Group: row.Group, Version: runtime.APIVersionInternal}
	}
	return row.GroupVersion()
}

// severalVersions are the kinds that are served in more than one.
func severalVersions() map[schema.GroupKind]bool {
	seen, out := map[schema.GroupKind]bool{}, map[schema.GroupKind]bool{}
	for _, row := range resources.Table() {
		out[row.GroupKind()] = seen[row.GroupKind()]
		seen[row.GroupKind()] = true
	}
	return out
}

// apply merges what a manager says of an object into the live one.
func (m *managers) apply(q *request, live client.Object, patch runtime.Object) (client.Object, error) {
	f, err := m.of(q.row, q.subresource)
	if err != nil {
		return nil, err
	}
	out, err := f.Apply(live, patch, managerName(q.Request), q.URL.Query().Get("force") == "true")
	if err != nil {
		return nil, err
	}
	if m.hub(q.row) != q.row.GroupVersion() {
		if out, err = m.scheme.ConvertToVersion(out, q.row.GroupVersion()); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
	}
	return out.(client.Object), nil
}

// note records what the manager of a request changes from live to obj. live is
// an empty object when there was none.
func (m *managers) note(q *request, live, obj client.Object) error {
	f, err := m.of(q.row, q.subresource)
	if err != nil {
		return err
	}
	managed, err := f.Update(live, obj, managerName(q.Request))
	if err != nil {
		return apierrors.NewBadRequest("field managers: " + err.Error())
	}
	obj.SetManagedFields(managed.(client.Object).GetManagedFields())
	return nil
}

// managerName is who writes: what the client says, or the first word of its name.
func managerName(r *http.Request) string {
	agent, _, _ := strings.Cut(r.UserAgent(), "/")
	name := cmp.Or(r.URL.Query().Get("fieldManager"), agent, "unknown")
	return name[:min(len(name), managerLimit)]
}
