package resources

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/store"
)

// read is an object that something was decided by.
type read struct {
	row      *Resource
	name     string
	revision int64
}

// checks compare what was read and is not written.
func (t *Tx) checks() []store.Op {
	var out []store.Op
	for _, key := range slices.Sorted(maps.Keys(t.reads)) {
		if c := t.byKey[key]; c == nil || c.main == nil {
			out = append(out, store.Op{Key: key, Expect: t.reads[key].revision, Check: true})
		}
	}
	return out
}

// checkNamespace makes sure that the Namespace of a new object is there, and is not
// going away, when the transaction is carried out.
func (t *Tx) checkNamespace(ctx context.Context, row *Resource, obj client.Object) error {
	if !row.Namespaced {
		if obj.GetNamespace() != "" {
			return apierrors.NewBadRequest(fmt.Sprintf("%s %s has a namespace, but the kind has none", row.Kind, obj.GetName()))
		}
		return nil
	}
	name := obj.GetNamespace()
	if name == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("%s %s has no namespace", row.Kind, obj.GetName()))
	}
	namespaces := t.r.byKind[corev1.SchemeGroupVersion.WithKind("Namespace")]
	if c := t.byKey[namespaces.key("", name)]; c != nil && c.result.GetDeletionTimestamp() == nil && (c.main == nil || c.main.Value != nil) {
		return nil
	} else if c != nil {
		return terminating(row, obj, name)
	}
	ns, kv, err := t.r.load(ctx, namespaces, "", name)
	if err != nil {
		return err
	}
	if ns.GetDeletionTimestamp() != nil {
		return terminating(row, obj, name)
	}
	t.reads[kv.Key] = read{namespaces, name, kv.Revision} // it could be emptied, and gone, before the object is there
	return nil
}

func terminating(row *Resource, obj client.Object, namespace string) error {
	err := apierrors.NewForbidden(row.GroupResource(), obj.GetName(),
		fmt.Errorf("namespace %s is being deleted, nothing can be created in it", namespace))
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
		Type: corev1.NamespaceTerminatingCause, Message: fmt.Sprintf("namespace %s is being terminated", namespace), Field: "metadata.namespace",
	})
	return err
}

// holdClaims makes sure that the claims of a Pod are there, and are not going away,
// when the transaction is carried out.
func (t *Tx) holdClaims(ctx context.Context, pod *corev1.Pod) error {
	row := t.r.byKind[corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim")]
	for i := range pod.Spec.Volumes {
		v := pod.Spec.Volumes[i].PersistentVolumeClaim
		if v == nil {
			continue
		}
		claim, kv, err := t.r.load(ctx, row, pod.Namespace, v.ClaimName)
		if apierrors.IsNotFound(err) || err == nil && claim.GetDeletionTimestamp() != nil {
			return apierrors.NewConflict(corev1.Resource("pods"), pod.Name, fmt.Errorf("claim %s, which it mounts, is not there or is being deleted", v.ClaimName))
		}
		if err != nil {
			return err
		}
		t.reads[kv.Key] = read{row, v.ClaimName, kv.Revision}
	}
	return nil
}
