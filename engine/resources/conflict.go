package resources

import (
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/store"
)

// explain turns a failed transaction into the error of the object at fault.
func (t *Tx) explain(err error) error {
	var conflict *store.ConflictError
	if !errors.As(err, &conflict) {
		return fault(err)
	}
	for _, c := range t.changes {
		if c.main == nil || c.main.Key != conflict.Key {
			continue
		}
		if c.main.Expect == store.Absent {
			return apierrors.NewAlreadyExists(c.row.GroupResource(), c.result.GetName())
		}
		if conflict.Have == 0 {
			return apierrors.NewNotFound(c.row.GroupResource(), c.result.GetName())
		}
		return apierrors.NewConflict(c.row.GroupResource(), c.result.GetName(), errChanged)
	}
	if read, ok := t.reads[conflict.Key]; ok {
		return apierrors.NewConflict(read.row.GroupResource(), read.name, errChanged)
	}
	if err := t.chargedMeanwhile(conflict.Key); err != nil {
		return err
	}
	// A reservation was taken by another transaction meanwhile: try again.
	return apierrors.NewConflict(t.changes[0].row.GroupResource(), t.changes[0].result.GetName(), errReserved)
}

var (
	errChanged  = errors.New("the object has been modified; get it again and apply your change to the new version")
	errReserved = errors.New("an address or port was taken by another Service at the same moment")
	errUID      = errors.New("the object was deleted and created anew: its UID is another one")
)

// sameObject checks what the caller says it has read.
func sameObject(row *Resource, obj, old client.Object) error {
	if v := obj.GetResourceVersion(); v != "" && v != old.GetResourceVersion() {
		return apierrors.NewConflict(row.GroupResource(), obj.GetName(), errChanged)
	}
	if u := obj.GetUID(); u != "" && u != old.GetUID() {
		return apierrors.NewConflict(row.GroupResource(), obj.GetName(), errUID)
	}
	return nil
}

func preconditions(row *Resource, old client.Object, opts client.DeleteOptions) error {
	if opts.UID != "" && opts.UID != old.GetUID() {
		return apierrors.NewConflict(row.GroupResource(), old.GetName(), errUID)
	}
	if opts.ResourceVersion != "" && opts.ResourceVersion != old.GetResourceVersion() {
		return apierrors.NewConflict(row.GroupResource(), old.GetName(), errChanged)
	}
	return nil
}
