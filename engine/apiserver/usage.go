package apiserver

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/resources"
)

// Usage tells what nodes and the Pods on them use now. What has not been
// measured yet is left out.
type Usage interface {
	Usage() ([]metricsv1beta1.NodeMetrics, []metricsv1beta1.PodMetrics)
}

// measured adds the paths of metrics.k8s.io, which kubectl top reads.
func (s *Server) measured() {
	for _, row := range resources.Measured() {
		all := base(row) + "/" + row.Plural
		collection := all
		if row.Namespaced {
			collection = base(row) + "/namespaces/{namespace}/" + row.Plural
			s.mux.HandleFunc("GET "+all, s.handle(row, s.listUsage))
		}
		s.mux.HandleFunc("GET "+collection, s.handle(row, s.listUsage))
		s.mux.HandleFunc("GET "+collection+"/{name}", s.handle(row, s.getUsage))
	}
}

func (s *Server) getUsage(w http.ResponseWriter, q *request) error {
	found, err := s.usage(q, client.ListOptions{Namespace: q.namespace, Fields: fields.OneTermEqualSelector("metadata.name", q.name)})
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return apierrors.NewNotFound(q.row.GroupResource(), q.name)
	}
	return s.answer(w, q, http.StatusOK, found[0])
}

func (s *Server) listUsage(w http.ResponseWriter, q *request) error {
	opts := client.ListOptions{Namespace: q.namespace}
	var err error
	if opts.Labels, err = labels.Parse(q.URL.Query().Get("labelSelector")); err != nil {
		return apierrors.NewBadRequest("labelSelector: " + err.Error())
	}
	if opts.Fields, err = fields.ParseSelector(q.URL.Query().Get("fieldSelector")); err != nil {
		return apierrors.NewBadRequest("fieldSelector: " + err.Error())
	}
	if w := q.URL.Query().Get("watch"); w == "true" || w == "1" {
		return apierrors.NewMethodNotSupported(q.row.GroupResource(), "watch")
	}
	found, err := s.usage(q, opts)
	if err != nil {
		return err
	}
	list := q.row.NewList()
	switch l := list.(type) {
	case *metricsv1beta1.NodeMetricsList:
		l.Items = []metricsv1beta1.NodeMetrics{}
		for _, o := range found {
			l.Items = append(l.Items, *o.(*metricsv1beta1.NodeMetrics))
		}
	case *metricsv1beta1.PodMetricsList:
		l.Items = []metricsv1beta1.PodMetrics{}
		for _, o := range found {
			l.Items = append(l.Items, *o.(*metricsv1beta1.PodMetrics))
		}
	}
	list.GetObjectKind().SetGroupVersionKind(q.row.GroupVersion().WithKind(q.row.Kind + "List"))
	return s.answer(w, q, http.StatusOK, list)
}

// usage is that of the nodes or Pods that are selected, by name: those that are
// stored say which there are, and what labels they have.
func (s *Server) usage(q *request, opts client.ListOptions) ([]client.Object, error) {
	var nodes []metricsv1beta1.NodeMetrics
	var pods []metricsv1beta1.PodMetrics
	if s.Usage != nil {
		nodes, pods = s.Usage.Usage()
	}
	var out []client.Object
	if q.row.Namespaced {
		byUID := map[types.UID]*metricsv1beta1.PodMetrics{}
		for i := range pods {
			byUID[pods[i].UID] = &pods[i]
		}
		var stored corev1.PodList
		if err := s.Resources.List(q.Context(), &stored, opts); err != nil {
			return nil, err
		}
		for i := range stored.Items {
			p := &stored.Items[i]
			if m := byUID[p.UID]; m != nil {
				slices.SortFunc(m.Containers, func(a, b metricsv1beta1.ContainerMetrics) int { return cmp.Compare(a.Name, b.Name) })
				out = append(out, usageOf(q, m, p))
			}
		}
		return out, nil
	}
	var stored corev1.NodeList
	if err := s.Resources.List(q.Context(), &stored, opts); err != nil {
		return nil, err
	}
	for i := range stored.Items {
		n := &stored.Items[i]
		if at := slices.IndexFunc(nodes, func(m metricsv1beta1.NodeMetrics) bool { return m.Name == n.Name }); at >= 0 {
			out = append(out, usageOf(q, &nodes[at], n))
		}
	}
	return out, nil
}

// usageOf gives a measurement the identity of what was measured.
func usageOf(q *request, m, of client.Object) client.Object {
	m = m.DeepCopyObject().(client.Object)
	m.SetUID("")
	m.SetLabels(of.GetLabels())
	m.SetCreationTimestamp(metav1.NewTime(time.Now()))
	m.GetObjectKind().SetGroupVersionKind(q.row.GroupVersionKind)
	return m
}

// usageTable is what kubectl get podmetrics and nodemetrics show.
func usageTable(obj runtime.Object) *metav1.Table {
	t := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name"},
		{Name: "CPU", Type: "string", Description: "Cores, as a mean over the window."},
		{Name: "Memory", Type: "string", Description: "The working set."},
		{Name: "Window", Type: "string"},
	}}
	add := func(o client.Object, window metav1.Duration, usage ...corev1.ResourceList) {
		total := corev1.ResourceList{}
		for _, u := range usage {
			for name, q := range u {
				sum := total[name]
				sum.Add(q)
				total[name] = sum
			}
		}
		t.Rows = append(t.Rows, metav1.TableRow{
			Cells:  []any{o.GetName(), fmt.Sprintf("%dm", total.Cpu().MilliValue()), fmt.Sprintf("%dKi", total.Memory().Value()>>10), window.Duration.String()},
			Object: runtime.RawExtension{Object: o},
		})
	}
	pod := func(m *metricsv1beta1.PodMetrics) {
		var usage []corev1.ResourceList
		for _, c := range m.Containers {
			usage = append(usage, c.Usage)
		}
		add(m, m.Window, usage...)
	}
	switch o := obj.(type) {
	case *metricsv1beta1.NodeMetrics:
		add(o, o.Window, o.Usage)
	case *metricsv1beta1.NodeMetricsList:
		for i := range o.Items {
			add(&o.Items[i], o.Items[i].Window, o.Items[i].Usage)
		}
	case *metricsv1beta1.PodMetrics:
		pod(o)
	case *metricsv1beta1.PodMetricsList:
		for i := range o.Items {
			pod(&o.Items[i])
		}
	}
	return t
}
