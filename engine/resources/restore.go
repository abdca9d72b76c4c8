package resources

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/store"
)

// Restore puts an object back that was in a store which is lost, with its UID,
// its times, its generation and its status. It is for building a store anew and
// for nothing else: what a client may not decide is taken as it is.
func (t *Tx) Restore(ctx context.Context, obj client.Object) error {
	row, err := t.r.Of(obj)
	if err != nil {
		return err
	}
	if obj.GetUID() == "" || obj.GetName() == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("%s %q to be restored has no name or no UID", row.Kind, obj.GetName()))
	}
	t.r.upstream.Default(obj)
	if err := t.checkNamespace(ctx, row, obj); err != nil {
		return err
	}
	c := &change{row: row, result: obj}
	if s, ok := obj.(*corev1.Service); ok {
		if c.extra, err = t.reserveForService(ctx, s, nil); err != nil {
			return err
		}
	}
	value, err := row.encode(obj)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	c.main = &store.Op{Key: row.key(obj.GetNamespace(), obj.GetName()), Value: value, Expect: store.Absent}
	return t.add(c)
}

// RowOf is the row of the object that is stored under a key; false when it is
// none of an object.
func (r *Resources) RowOf(key string) (*Resource, bool) {
	for _, row := range r.table {
		if !row.Form() && strings.HasPrefix(key, row.prefix("")) {
			return row, true
		}
	}
	return nil, false
}

// Decode makes an object of a stored pair.
func (r *Resource) Decode(kv store.KV) (client.Object, error) { return r.decode(kv) }
