package apiserver

import (
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/resources"
)

// dryRun: nothing is to be written.
func (q *request) dryRun() bool { return q.URL.Query().Has("dryRun") }

// deleteOptions reads a deletion's options from the body and, where that says
// nothing, from the query (metav1.DeleteOptions).
func (q *request) deleteOptions() (client.DeleteOptions, bool, error) {
	var o metav1.DeleteOptions
	if err := q.read(&o); err != nil {
		return client.DeleteOptions{}, false, err
	}
	query := q.URL.Query()
	if v := query.Get("gracePeriodSeconds"); v != "" && o.GracePeriodSeconds == nil {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return client.DeleteOptions{}, false, apierrors.NewBadRequest("gracePeriodSeconds " + strconv.Quote(v) + " is not a number of seconds")
		}
		o.GracePeriodSeconds = &n
	}
	if v := query.Get("propagationPolicy"); v != "" && o.PropagationPolicy == nil {
		policy := metav1.DeletionPropagation(v)
		o.PropagationPolicy = &policy
	}
	return deleteOptions(&o), len(o.DryRun) > 0 || q.dryRun(), checkPropagation(o.PropagationPolicy)
}

func checkPropagation(p *metav1.DeletionPropagation) error {
	if p == nil {
		return nil
	}
	switch *p {
	case metav1.DeletePropagationBackground, metav1.DeletePropagationForeground, metav1.DeletePropagationOrphan:
		return nil
	}
	return apierrors.NewBadRequest("propagationPolicy " + strconv.Quote(string(*p)) + " is none of Background, Foreground, Orphan")
}

func deleteOptions(o *metav1.DeleteOptions) client.DeleteOptions {
	opts := client.DeleteOptions{GracePeriodSeconds: o.GracePeriodSeconds}
	if o.Preconditions != nil {
		if o.Preconditions.UID != nil {
			opts.UID = *o.Preconditions.UID
		}
		if o.Preconditions.ResourceVersion != nil {
			opts.ResourceVersion = *o.Preconditions.ResourceVersion
		}
	}
	if o.PropagationPolicy != nil {
		opts.Propagation = *o.PropagationPolicy
	} else if o.OrphanDependents != nil && *o.OrphanDependents { // said by older clients
		opts.Propagation = metav1.DeletePropagationOrphan
	}
	return opts
}

func (s *Server) delete(w http.ResponseWriter, q *request) error {
	if err := s.writable(q); err != nil {
		return err
	}
	opts, dry, err := q.deleteOptions()
	if err != nil {
		return err
	}
	obj := q.row.New()
	obj.SetNamespace(q.namespace)
	obj.SetName(q.name)
	if err := s.remove(q, obj, opts, dry); err != nil {
		return err
	}
	if obj.GetDeletionTimestamp() != nil || q.row.Kind == "Pod" {
		return s.answer(w, q, http.StatusOK, obj)
	}
	writeJSON(w, http.StatusOK, &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess,
		Details: &metav1.StatusDetails{Name: obj.GetName(), Group: q.row.Group, Kind: q.row.Plural, UID: obj.GetUID()},
	})
	return nil
}

func (s *Server) remove(q *request, obj client.Object, opts client.DeleteOptions, dry bool) error {
	if dry {
		return s.Resources.Begin().Delete(q.Context(), obj, opts)
	}
	return s.Resources.Delete(q.Context(), obj, opts)
}

// deleteCollection deletes all that the selectors name, one after the other as
// Kubernetes does. When one of them belongs to a Source, nothing is deleted.
func (s *Server) deleteCollection(w http.ResponseWriter, q *request) error {
	if q.row.ReadOnly {
		return apierrors.NewMethodNotSupported(q.row.GroupResource(), q.Method)
	}
	opts, dry, err := q.deleteOptions()
	if err != nil {
		return err
	}
	if opts.UID != "" || opts.ResourceVersion != "" {
		return apierrors.NewBadRequest("preconditions name one object, not a collection")
	}
	sel, err := q.selection()
	if err != nil {
		return err
	}
	found, err := s.Resources.Objects(q.Context(), q.row, resources.ListRequest{Namespace: q.namespace, Labels: sel.labels, Fields: sel.fields})
	if err != nil {
		return err
	}
	for _, obj := range found.Objects {
		one := *q
		one.name = obj.GetName()
		if err := s.unowned(&one, obj); err != nil {
			return err
		}
	}
	list := q.row.NewList()
	var items []runtime.Object
	for _, obj := range found.Objects {
		opts.UID = obj.GetUID()
		err := s.remove(q, obj, opts, dry)
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			continue // somebody else was faster
		}
		if err != nil {
			return err
		}
		items = append(items, obj)
	}
	if err := meta.SetList(list, items); err != nil {
		return apierrors.NewInternalError(err)
	}
	list.GetObjectKind().SetGroupVersionKind(q.row.GroupVersion().WithKind(q.row.Kind + "List"))
	list.SetResourceVersion(strconv.FormatInt(found.Revision, 10))
	return s.answer(w, q, http.StatusOK, list)
}
