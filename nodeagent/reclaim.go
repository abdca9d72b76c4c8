package nodeagent

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/nodeagent/volumes"
)

// reclaimer removes the data of this node's volumes that are being deleted, if
// their reclaim policy says so, and lets them go then.
type reclaimer struct {
	agent *Agent
	queue workqueue.TypedRateLimitingInterface[string]
}

// reclaim works until the context ends.
func (a *Agent) reclaim(ctx context.Context) error {
	r := &reclaimer{agent: a, queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, time.Minute))}
	stop := context.AfterFunc(ctx, r.queue.ShutDown)
	defer stop()
	done := make(chan error, 1)
	go func() {
		done <- client.Follow(ctx, a.opts.Client, &corev1.PersistentVolumeList{}, client.ListOptions{}, r)
	}()
	for {
		name, down := r.queue.Get()
		if down {
			return <-done
		}
		if err := r.remove(ctx, name); err != nil && ctx.Err() == nil {
			a.opts.Log.Warn("remove the data of a volume", "volume", name, "err", err)
			r.queue.AddRateLimited(name)
		} else {
			r.queue.Forget(name)
		}
		r.queue.Done(name)
	}
}

func (r *reclaimer) remove(ctx context.Context, name string) error {
	var pv corev1.PersistentVolume
	if err := r.agent.opts.Client.Get(ctx, types.NamespacedName{Name: name}, &pv); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	if !r.mine(&pv) {
		return nil
	}
	if pv.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete {
		v := &volumes.Volumes{Claims: claimsDir(r.agent.opts)}
		if err := v.Remove(&pv); err != nil {
			return err
		}
	}
	pv.Finalizers = slices.DeleteFunc(pv.Finalizers, func(f string) bool { return f == v1alpha1.FinalizerVolume })
	if err := r.agent.opts.Client.Update(ctx, &pv); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("let go of the volume: %w", err)
	}
	return nil
}

func (r *reclaimer) mine(pv *corev1.PersistentVolume) bool {
	return v1alpha1.NodeOfVolume(pv) == r.agent.opts.NodeName && v1alpha1.RemovableVolume(pv)
}

// Set implements client.Follower.
func (r *reclaimer) Set(obj client.Object) {
	if r.mine(obj.(*corev1.PersistentVolume)) {
		r.queue.Add(obj.GetName())
	}
}

// Gone implements client.Follower.
func (r *reclaimer) Gone(client.Object) {}

// Synced implements client.Follower.
func (r *reclaimer) Synced() {}
