package controllers

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	left := remains{going: map[string]int{}, finalizers: map[string]int{}}
	for _, row := range n.resources.All() {
		if !row.Namespaced || row.Form() {
			continue
		}
		if err := n.empty(ctx, row, ns.Name, &left); err != nil {
			return err
		}
	}
	if left.objects > 0 {
		n.loop.queue.AddAfter(key, namespaceRetry)
		return n.say(ctx, &ns, left)
	}
	return ignoreNotFound(n.resources.FinalizeNamespace(ctx, &ns))
}

// remains are what of a Namespace's content was there at a look.
type remains struct {
	objects int
	// Of those that were going already: how many there are by their kind, and by the
	// finalizers that they wait for.
	going, finalizers map[string]int
}

// empty deletes everything of a kind, and notes what is still going. What
// makes other objects comes before them in the table's order only by chance,
// so nothing can be created in the Namespace meanwhile (resources refuses it).
func (n *namespaces) empty(ctx context.Context, row *resources.Resource, ns string, left *remains) error {
	all, err := n.resources.Objects(ctx, row, resources.ListRequest{Namespace: ns})
	if err != nil {
		return err
	}
	for _, obj := range all.Objects {
		left.objects++
		if obj.GetDeletionTimestamp() == nil {
			err := n.resources.Delete(ctx, obj, client.DeleteOptions{UID: obj.GetUID()})
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				return fmt.Errorf("empty namespace %s: %w", ns, err)
			}
			continue
		}
		left.going[row.GroupResource().String()]++
		for _, f := range obj.GetFinalizers() {
			left.finalizers[f]++
		}
	}
	return nil
}

// say writes what a Namespace that is being deleted waits for, in the words of
// Kubernetes' namespace controller.
func (n *namespaces) say(ctx context.Context, ns *corev1.Namespace, left remains) error {
	if len(left.going) == 0 {
		return nil
	}
	next := ns.DeepCopy()
	content := "Some resources are remaining: " + listed(left.going, "%s has %d resource instances")
	n.condition(next, corev1.NamespaceContentRemaining, true, "SomeResourcesRemain", content)
	if len(left.finalizers) > 0 {
		n.condition(next, corev1.NamespaceFinalizersRemaining, true, "SomeFinalizersRemain",
			"Some content in the namespace has finalizers remaining: "+listed(left.finalizers, "%s in %d resource instances"))
	} else {
		n.condition(next, corev1.NamespaceFinalizersRemaining, false, "ContentHasNoFinalizers", "All content-preserving finalizers finished")
	}
	if equality.Semantic.DeepEqual(next.Status, ns.Status) {
		return nil
	}
	return ignoreNotFound(n.resources.UpdateStatus(ctx, next))
}

func listed(counts map[string]int, format string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf(format, name, counts[name]))
	}
	return strings.Join(parts, ", ")
}

func (n *namespaces) condition(ns *corev1.Namespace, kind corev1.NamespaceConditionType, holds bool, reason, message string) {
	status := corev1.ConditionFalse
	if holds {
		status = corev1.ConditionTrue
	}
	at := slices.IndexFunc(ns.Status.Conditions, func(c corev1.NamespaceCondition) bool { return c.Type == kind })
	if at < 0 {
		if !holds {
			return
		}
		at = len(ns.Status.Conditions)
		ns.Status.Conditions = append(ns.Status.Conditions, corev1.NamespaceCondition{Type: kind})
	}
	c := &ns.Status.Conditions[at]
	if c.Status != status {
		c.LastTransitionTime = metav1.NewTime(n.clock.Now())
	}
	c.Status, c.Reason, c.Message = status, reason, message
}
