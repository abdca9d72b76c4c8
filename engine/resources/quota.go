package resources

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/store"
)

// metered is a ResourceQuota in a transaction: what its changes add is in
// status.used. The quota is written with them, and only if nobody else has
// written it, so two transactions cannot both take the last of it.
type metered struct {
	quota *corev1.ResourceQuota
	// charged: something was added.
	charged bool
}

var errCharged = errors.New("the quota was charged by another change at the same moment; try again")

func quotaKind() schema.GroupVersionKind {
	return corev1.SchemeGroupVersion.WithKind("ResourceQuota")
}

// meter charges the quotas of a namespace with a new object, or with what it uses
// more than the old one. An error says which quota it exceeds.
func (t *Tx) meter(ctx context.Context, row *Resource, obj, old client.Object) error {
	if !row.Namespaced || row.Kind == "Event" { // events say what goes wrong, quotas among it
		return nil
	}
	quotas, err := t.quotasIn(ctx, obj.GetNamespace())
	if err != nil {
		return err
	}
	sums := make([]corev1.ResourceList, len(quotas))
	for i, m := range quotas {
		if sums[i], err = m.charge(t.r, row, obj, old); err != nil {
			return apierrors.NewForbidden(row.GroupResource(), obj.GetName(), err)
		}
	}
	for i, m := range quotas { // all of them or, so that the transaction can go on without the object, none
		if sums[i] != nil {
			m.quota.Status.Used, m.charged = sums[i], true
		}
	}
	return nil
}

// quotasIn are the quotas of a namespace as the transaction leaves them.
func (t *Tx) quotasIn(ctx context.Context, namespace string) ([]*metered, error) {
	if found, ok := t.quotas[namespace]; ok {
		return found, nil
	}
	objects, err := t.objectsIn(ctx, t.r.byKind[quotaKind()], namespace)
	if err != nil {
		return nil, fmt.Errorf("look for quotas in namespace %s: %w", namespace, err)
	}
	found := make([]*metered, 0, len(objects))
	for _, o := range objects {
		found = append(found, &metered{quota: o.(*corev1.ResourceQuota)})
	}
	t.quotas[namespace] = found
	return found, nil
}

// requota lets a quota that the transaction changes count for what comes after
// it. What came before is left to the controller to count.
func (t *Tx) requota(q *corev1.ResourceQuota, gone bool) {
	found, ok := t.quotas[q.Namespace]
	if !ok {
		return
	}
	found = slices.DeleteFunc(found, func(m *metered) bool { return m.quota.Name == q.Name })
	if !gone {
		found = append(found, &metered{quota: q})
	}
	t.quotas[q.Namespace] = found
}

// objectsIn are the objects of a kind in a namespace, with what the transaction
// has changed of them so far.
func (t *Tx) objectsIn(ctx context.Context, row *Resource, namespace string) ([]client.Object, error) {
	list, err := t.r.Objects(ctx, row, ListRequest{Namespace: namespace})
	if err != nil {
		return nil, err
	}
	out := slices.DeleteFunc(list.Objects, func(o client.Object) bool { return t.byKey[row.key(o.GetNamespace(), o.GetName())] != nil })
	for _, c := range t.changes {
		if c.row == row && c.result.GetNamespace() == namespace && (c.main == nil || c.main.Value != nil) {
			out = append(out, c.result)
		}
	}
	return out, nil
}

// charge is what is used with an object, nil when that is no more than without
// it. An error says that it does not fit.
func (m *metered) charge(r *Resources, row *Resource, obj, old client.Object) (corev1.ResourceList, error) {
	q := m.quota
	if !covers(q, obj) {
		return nil, nil
	}
	if pod, ok := obj.(*corev1.Pod); ok && old == nil {
		if missing := unspecified(q.Spec.Hard, pod); missing != "" {
			return nil, fmt.Errorf("failed quota: %s: must specify %s", q.Name, missing)
		}
	}
	now := r.clock.Now()
	added := usageOf(row, obj, now)
	if old != nil && covers(q, old) {
		for name, n := range usageOf(row, old, now) {
			more := added[name]
			more.Sub(n)
			added[name] = more
		}
	}
	var over []corev1.ResourceName
	used := maps.Clone(q.Status.Used)
	if used == nil {
		used = corev1.ResourceList{}
	}
	changed := false
	for name, hard := range q.Spec.Hard {
		n, ok := added[name]
		if !ok || n.Sign() <= 0 {
			continue // what an object gives up is counted by the controller
		}
		sum := used[name].DeepCopy()
		sum.Add(n)
		if sum.Cmp(hard) > 0 {
			over = append(over, name)
		}
		used[name], changed = sum, true
	}
	if len(over) > 0 {
		return nil, fmt.Errorf("exceeded quota: %s, requested: %s, used: %s, limited: %s",
			q.Name, amounts(added, over), amounts(q.Status.Used, over), amounts(q.Spec.Hard, over))
	}
	if !changed {
		return nil, nil
	}
	return used, nil
}

// amounts are some resources of a list in words, by name.
func amounts(list corev1.ResourceList, names []corev1.ResourceName) string {
	slices.Sort(names)
	var out []string
	for _, name := range names {
		q := list[name]
		out = append(out, fmt.Sprintf("%s=%s", name, q.String()))
	}
	return strings.Join(out, ",")
}

// quotaOps are the writes of the quotas that were charged. One that the
// transaction changes besides is written by its own change.
func (t *Tx) quotaOps() ([]store.Op, error) {
	row := t.r.byKind[quotaKind()]
	var out []store.Op
	for _, namespace := range slices.Sorted(maps.Keys(t.quotas)) {
		for _, m := range t.quotas[namespace] {
			if !m.charged {
				continue
			}
			key := row.key(namespace, m.quota.Name)
			value, err := row.encode(m.quota)
			if err != nil {
				return nil, apierrors.NewInternalError(err)
			}
			c := t.byKey[key]
			switch {
			case c == nil:
				expect, err := strconv.ParseInt(m.quota.ResourceVersion, 10, 64)
				if err != nil {
					return nil, apierrors.NewInternalError(err)
				}
				out = append(out, store.Op{Key: key, Value: value, Expect: expect})
			case c.main != nil && c.main.Value != nil:
				c.main.Value = value
			case c.main == nil:
				expect, err := strconv.ParseInt(c.version, 10, 64)
				if err != nil {
					return nil, apierrors.NewInternalError(err)
				}
				c.main = &store.Op{Key: key, Value: value, Expect: expect}
			}
		}
	}
	return out, nil
}

// chargedMeanwhile is the error of a quota that another transaction has written,
// or nil when a key is not that of one.
func (t *Tx) chargedMeanwhile(key string) error {
	row := t.r.byKind[quotaKind()]
	for _, quotas := range t.quotas {
		for _, m := range quotas {
			if row.key(m.quota.Namespace, m.quota.Name) == key {
				return apierrors.NewConflict(row.GroupResource(), m.quota.Name, errCharged)
			}
		}
	}
	return nil
}

// Recount fills in what of a quota is used now. Whoever writes it must write it
// at the version at which it was read before: a change that charged it since
// then is in its status and may be missing here.
func (r *Resources) Recount(ctx context.Context, q *corev1.ResourceQuota) error {
	status := corev1.ResourceQuotaStatus{Hard: q.Spec.Hard.DeepCopy(), Used: corev1.ResourceList{}}
	for name := range q.Spec.Hard {
		status.Used[name] = *resource.NewQuantity(0, resource.DecimalSI)
	}
	now := r.clock.Now()
	for _, row := range r.table {
		if !row.Namespaced || row.Form() || !mentions(q.Spec.Hard, row) {
			continue
		}
		list, err := r.Objects(ctx, row, ListRequest{Namespace: q.Namespace})
		if err != nil {
			return fmt.Errorf("count the %s of namespace %s: %w", row.Plural, q.Namespace, err)
		}
		for _, obj := range list.Objects {
			if !covers(q, obj) {
				continue
			}
			for name, n := range usageOf(row, obj, now) {
				if sum, ok := status.Used[name]; ok {
					sum.Add(n)
					status.Used[name] = sum
				}
			}
		}
	}
	q.Status = status
	return nil
}

// recount keeps the status of a quota that is created or changed.
func (t *Tx) recount(ctx context.Context, obj, old client.Object) error {
	q, ok := obj.(*corev1.ResourceQuota)
	if !ok {
		return nil
	}
	if was, ok := old.(*corev1.ResourceQuota); ok && sameHard(q, was) {
		return nil
	}
	return t.r.Recount(ctx, q)
}

// sameHard: scopes cannot be changed.
func sameHard(a, b *corev1.ResourceQuota) bool {
	return maps.EqualFunc(a.Spec.Hard, b.Spec.Hard, func(a, b resource.Quantity) bool { return a.Cmp(b) == 0 })
}

// growing: a change of the object can take more of a quota.
func growing(row *Resource) bool {
	return row.Group == "" && (row.Kind == "Service" || row.Kind == "PersistentVolumeClaim")
}
