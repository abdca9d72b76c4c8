package controllers

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// quotaSettles is how long changes of a namespace are gathered before its
	// quotas are counted.
	quotaSettles = 100 * time.Millisecond
	// quotaEvery is how often a quota is counted that limits kinds which nothing
	// here follows, and quotaRepairs how often any other is.
	quotaEvery   = 30 * time.Second
	quotaRepairs = 5 * time.Minute
)

// quotas counts what ResourceQuotas use. What is created charges them itself
// (engine/resources); here it is noticed what ended, was deleted or shrank.
type quotas struct {
	*cluster
	loop *loop
}

func newQuotas(c *cluster) *quotas {
	r := &quotas{cluster: c}
	r.loop = newLoop(c, "resourcequota", r.reconcile)
	c.Quotas.OnChange(func(old, now *corev1.ResourceQuota) {
		if now != nil && (old == nil || !equality.Semantic.DeepEqual(old.Spec, now.Spec)) {
			r.loop.add(now)
		}
	})
	c.Pods.OnChange(func(old, now *corev1.Pod) {
		switch {
		case now == nil, podFinished(now) && (old == nil || !podFinished(old)):
			r.freed(cmp.Or(now, old).Namespace, quotaSettles)
		case now.DeletionTimestamp != nil: // its node may never say that it has stopped
			r.freed(now.Namespace, now.DeletionTimestamp.Sub(c.clock.Now())+time.Second)
		}
	})
	c.Services.OnChange(func(old, now *corev1.Service) {
		if old != nil && (now == nil || !equality.Semantic.DeepEqual(old.Spec, now.Spec)) {
			r.freed(old.Namespace, quotaSettles)
		}
	})
	c.Claims.OnChange(func(old, now *corev1.PersistentVolumeClaim) {
		if old != nil && now == nil {
			r.freed(old.Namespace, quotaSettles)
		}
	})
	return r
}

// freed counts the quotas of a namespace anew, after a while.
func (r *quotas) freed(namespace string, after time.Duration) {
	for _, q := range r.Quotas.InNamespace(namespace) {
		r.loop.queue.AddAfter(types.NamespacedName{Namespace: namespace, Name: q.Name}, after)
	}
}

// Run works until the context ends.
func (r *quotas) Run(ctx context.Context) error { return r.loop.run(ctx, r.Quotas) }

// reconcile counts by the store, not by the views: one that lacks the newest Pods
// would give their room away again. The status is written at the version that was
// read first, so a change that charged the quota meanwhile is not lost.
func (r *quotas) reconcile(ctx context.Context, key types.NamespacedName) error {
	var q corev1.ResourceQuota
	if err := r.resources.Get(ctx, key, &q); err != nil {
		return ignoreNotFound(err)
	}
	r.loop.queue.AddAfter(key, recountAfter(&q))
	next := q.DeepCopy()
	if err := r.resources.Recount(ctx, next); err != nil {
		return fmt.Errorf("count quota %s: %w", key, err)
	}
	if equality.Semantic.DeepEqual(next.Status, q.Status) {
		return nil
	}
	return ignoreNotFound(r.resources.UpdateStatus(ctx, next))
}

func recountAfter(q *corev1.ResourceQuota) time.Duration {
	for name := range q.Spec.Hard {
		switch text := string(name); {
		case strings.HasPrefix(text, "count/"), text == "secrets", text == "configmaps", text == "replicationcontrollers", text == "resourcequotas":
			return quotaEvery
		}
	}
	return quotaRepairs
}

// roomier reports whether a quota lets more be created than before.
func roomier(old, now *corev1.ResourceQuota) bool {
	if old == nil || now == nil {
		return now == nil
	}
	for name, was := range old.Spec.Hard {
		hard, limited := now.Spec.Hard[name]
		used, before := now.Status.Used[name], old.Status.Used[name]
		if !limited || hard.Cmp(was) > 0 || used.Cmp(before) < 0 {
			return true
		}
	}
	return false
}
