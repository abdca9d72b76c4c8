package apiserver

import (
	"fmt"
	"maps"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
)

func keys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// render brings an object or a list into the form that was asked for.
func (s *Server) render(q *request, obj runtime.Object) (any, error) {
	switch q.accept.form {
	case formTable:
		return s.table(q, obj)
	case formPartial:
		return partial(obj)
	}
	return obj, nil
}

func (s *Server) table(q *request, obj runtime.Object) (*metav1.Table, error) {
	var t *metav1.Table
	var err error
	if q.row.Kind == "Source" {
		t = sourceTable(obj, time.Now())
	} else if q.row.Measured {
		t = usageTable(obj)
	} else if q.row.Kind == "LimitRange" { // Kubernetes has no columns for it either
		t, err = plainTable(obj)
		if err != nil {
			return nil, apierrors.NewInternalError(err)
		}
	} else if t, err = s.Upstream.Table(obj); err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	t.TypeMeta = metav1.TypeMeta{Kind: "Table", APIVersion: "meta.k8s.io/v1"}
	if list, ok := obj.(metav1.ListInterface); ok {
		t.ResourceVersion, t.Continue = list.GetResourceVersion(), list.GetContinue()
	} else if o, ok := obj.(client.Object); ok {
		t.ResourceVersion = o.GetResourceVersion()
	}
	include := metav1.IncludeObjectPolicy(q.URL.Query().Get("includeObject"))
	for i := range t.Rows {
		if err := s.rowObject(&t.Rows[i], q, include); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// plainTable prints names and ages, as Kubernetes does where it has no columns of
// its own for a kind.
func plainTable(obj runtime.Object) (*metav1.Table, error) {
	t := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: "Name of the object."},
		{Name: "Created At", Type: "date", Description: "When the object was made."},
	}}
	add := func(o runtime.Object) error {
		m, err := meta.Accessor(o)
		if err != nil {
			return err
		}
		t.Rows = append(t.Rows, metav1.TableRow{
			Cells:  []any{m.GetName(), m.GetCreationTimestamp().UTC().Format(time.RFC3339)},
			Object: runtime.RawExtension{Object: o},
		})
		return nil
	}
	if meta.IsListType(obj) {
		return t, meta.EachListItem(obj, add)
	}
	return t, add(obj)
}

// rowObject puts into a row as much of its object as the client wants.
func (s *Server) rowObject(row *metav1.TableRow, q *request, include metav1.IncludeObjectPolicy) error {
	obj := row.Object.Object
	row.Object = runtime.RawExtension{}
	if include == metav1.IncludeNone {
		return nil
	}
	m, err := meta.Accessor(obj)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if include == metav1.IncludeObject {
		full, err := s.Upstream.Scheme().ConvertToVersion(obj, q.row.GroupVersion())
		if err != nil {
			return apierrors.NewInternalError(err)
		}
		full.GetObjectKind().SetGroupVersionKind(q.row.GroupVersionKind)
		row.Object.Object = full
		return nil
	}
	p := meta.AsPartialObjectMetadata(m)
	p.TypeMeta = metav1.TypeMeta{Kind: "PartialObjectMetadata", APIVersion: "meta.k8s.io/v1"}
	row.Object.Object = p
	return nil
}

func partial(obj runtime.Object) (any, error) {
	if !meta.IsListType(obj) {
		m, err := meta.Accessor(obj)
		if err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		p := meta.AsPartialObjectMetadata(m)
		p.TypeMeta = metav1.TypeMeta{Kind: "PartialObjectMetadata", APIVersion: "meta.k8s.io/v1"}
		return p, nil
	}
	list, ok := obj.(metav1.ListInterface)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("%T is not a list", obj))
	}
	out := &metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{Kind: "PartialObjectMetadataList", APIVersion: "meta.k8s.io/v1"}}
	out.ResourceVersion, out.Continue = list.GetResourceVersion(), list.GetContinue()
	err := meta.EachListItem(obj, func(item runtime.Object) error {
		m, err := meta.Accessor(item)
		if err != nil {
			return err
		}
		p := meta.AsPartialObjectMetadata(m)
		p.TypeMeta = metav1.TypeMeta{Kind: "PartialObjectMetadata", APIVersion: "meta.k8s.io/v1"}
		out.Items = append(out.Items, *p)
		return nil
	})
	return out, err
}

// sourceTable is what kubectl get sources shows.
func sourceTable(obj runtime.Object, now time.Time) *metav1.Table {
	t := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name"},
		{Name: "Ready", Type: "string", Description: "Whether the newest commit is applied and healthy."},
		{Name: "Reason", Type: "string"},
		{Name: "Commit", Type: "string", Description: "The commit that is applied."},
		{Name: "Age", Type: "string"},
		{Name: "Message", Type: "string", Priority: 1},
	}}
	add := func(s *v1alpha1.Source) {
		ready, reason, message, commit := "Unknown", "", "", ""
		if c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReady); c != nil {
			ready, reason, message = string(c.Status), c.Reason, c.Message
		}
		if a := s.Status.Applied; a != nil {
			commit = a.ID[:min(10, len(a.ID))]
		}
		age := duration.HumanDuration(now.Sub(s.CreationTimestamp.Time))
		t.Rows = append(t.Rows, metav1.TableRow{
			Cells: []any{s.Name, ready, reason, commit, age, message}, Object: runtime.RawExtension{Object: s},
		})
	}
	switch o := obj.(type) {
	case *v1alpha1.Source:
		add(o)
	case *v1alpha1.SourceList:
		for i := range o.Items {
			add(&o.Items[i])
		}
	}
	return t
}
