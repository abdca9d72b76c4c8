package controllers

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/resources"
)

// namespaceRetry is how long to wait for the content of a Namespace to go.
const namespaceRetry = 250 * time.Millisecond

// namespaces takes the content of a Namespace along when it is deleted.
type namespaces struct {
	*cluster
	loop *loop
}

func newNamespaces(c *cluster) *namespaces {
	n := &namespaces{cluster: c}
	n.loop = newLoop(c, "namespace", n.reconcile)
	c.Namespaces.OnChange(func(_, now *corev1.Namespace) {
		if now != nil && now.DeletionTimestamp != nil {
			n.loop.add(now)
		}
	})
	return n
}

// Run works until the context ends.
func (n *namespaces) Run(ctx context.Context) error { return n.loop.run(ctx, n.Namespaces) }

func (n *namespaces) reconcile(ctx context.Context, key types.NamespacedName) error {
	if ns, ok := n.Namespaces.Get(key); !ok || ns.DeletionTimestamp == nil {
		return nil
	}
	// The store is asked: there may be another one of the name by now.
	var ns corev1.Namespace
	if err := n.resources.Get(ctx, key, &ns); err != nil {
		return ignoreNotFound(err)
	}
	if ns.DeletionTimestamp == nil || len(ns.Spec.Finalizers) == 0 {
		return nil
	}
	left := 0
	for _, row := range n.resources.All() {
		if !row.Namespaced || row.Form() {
			continue
		}
		remaining, err := n.empty(ctx, row, ns.Name)
		if err != nil {
			return err
		}
		left += remaining
	}
	if left > 0 {
		n.loop.queue.AddAfter(key, namespaceRetry)
		return nil
	}
	return ignoreNotFound(n.resources.FinalizeNamespace(ctx, &ns))
}

// empty deletes everything of a kind, and says how much is still going. What
// makes other objects comes before them in the table's order only by chance,
// so nothing can be created in the Namespace meanwhile (resources refuses it).
func (n *namespaces) empty(ctx context.Context, row *resources.Resource, ns string) (int, error) {
	all, err := n.resources.Objects(ctx, row, resources.ListRequest{Namespace: ns})
	if err != nil {
		return 0, err
	}
	for _, obj := range all.Objects {
		if obj.GetDeletionTimestamp() != nil {
			continue
		}
		err := n.resources.Delete(ctx, obj, client.DeleteOptions{UID: obj.GetUID()})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return 0, fmt.Errorf("empty namespace %s: %w", ns, err)
		}
	}
	return len(all.Objects), nil
}
