package controllers

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/live"
)

// Waits between attempts at a key that fails.
const (
	retryFirst = 20 * time.Millisecond
	retryMax   = 30 * time.Second
	workers    = 4
)

// loop calls reconcile for each key that was added: never twice at a time for
// one key, and again after an error.
type loop struct {
	name      string
	queue     workqueue.TypedRateLimitingInterface[types.NamespacedName]
	reconcile func(context.Context, types.NamespacedName) error
	log       *slog.Logger
	// workers is how many keys are reconciled at a time.
	workers int
}

func newLoop(c *cluster, name string, reconcile func(context.Context, types.NamespacedName) error) *loop {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](retryFirst, retryMax)
	return &loop{
		name:      name,
		queue:     workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[types.NamespacedName]{Clock: c.clock}),
		reconcile: reconcile,
		log:       c.log,
		workers:   workers,
	}
}

func (l *loop) add(obj client.Object) { l.queue.Add(client.Key(obj)) }

// run works until the context ends, once the views are complete.
func (l *loop) run(ctx context.Context, views ...interface{ Ready() <-chan struct{} }) error {
	if !live.Synced(ctx, views...) {
		l.queue.ShutDown()
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-ctx.Done()
		l.queue.ShutDown()
		return nil
	})
	for range l.workers {
		g.Go(func() error {
			for l.next(ctx) {
			}
			return nil
		})
	}
	return g.Wait()
}

func (l *loop) next(ctx context.Context) bool {
	key, down := l.queue.Get()
	if down {
		return false
	}
	defer l.queue.Done(key)
	err := l.reconcile(ctx, key)
	if err == nil || ctx.Err() != nil {
		l.queue.Forget(key)
		return true
	}
	// A conflict only says that this view is a moment old.
	if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) && !apierrors.IsAlreadyExists(err) {
		l.log.Warn("reconcile", "controller", l.name, "key", key.String(), "err", err)
	}
	l.queue.AddRateLimited(key)
	return true
}

// controllerOf is the owner that manages an object, or nil.
func controllerOf(obj metav1.Object) *metav1.OwnerReference { return metav1.GetControllerOfNoCopy(obj) }

// ownerRef names an owner that manages an object.
func ownerRef(kind schema.GroupVersionKind, o client.Object) metav1.OwnerReference {
	return *metav1.NewControllerRef(o, kind)
}

func controls(owner, obj metav1.Object) bool {
	ref := controllerOf(obj)
	return ref != nil && ref.UID == owner.GetUID()
}
