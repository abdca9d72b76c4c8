package simulate

import (
	"context"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/resources"
)

// workers is how many Pods are taken a step further at a time.
const workers = 16

// agents stand in for the agents of all nodes.
type agents struct {
	resources *resources.Resources
	clock     clock.WithTicker
	queue     workqueue.TypedRateLimitingInterface[types.NamespacedName]
	addresses addresses
}

func (a *agents) run(ctx context.Context) error {
	a.queue = workqueue.NewTypedRateLimitingQueueWithConfig(workqueue.DefaultTypedControllerRateLimiter[types.NamespacedName](),
		workqueue.TypedRateLimitingQueueConfig[types.NamespacedName]{Clock: a.clock})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-ctx.Done()
		a.queue.ShutDown()
		return nil
	})
	g.Go(func() error {
		taken := fields.OneTermNotEqualSelector("spec.nodeName", "")
		return client.Follow(ctx, a.resources, &corev1.PodList{}, client.ListOptions{Fields: taken}, a)
	})
	for range workers {
		g.Go(func() error {
			for a.next(ctx) {
			}
			return nil
		})
	}
	return g.Wait()
}

// Set implements client.Follower.
func (a *agents) Set(obj client.Object) { a.queue.Add(client.Key(obj)) }

// Gone implements client.Follower.
func (a *agents) Gone(client.Object) {}

// Synced implements client.Follower.
func (a *agents) Synced() {}

func (a *agents) next(ctx context.Context) bool {
	key, down := a.queue.Get()
	if down {
		return false
	}
	defer a.queue.Done(key)
	if err := a.step(ctx, key); err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		a.queue.AddRateLimited(key)
		return true
	}
	a.queue.Forget(key)
	return true
}

// step takes a Pod one state further.
func (a *agents) step(ctx context.Context, key types.NamespacedName) error {
	pod := &corev1.Pod{}
	if err := a.resources.Get(ctx, key, pod); err != nil {
		return err
	}
	if pod.DeletionTimestamp != nil {
		zero := int64(0)
		return a.resources.Delete(ctx, pod, client.DeleteOptions{UID: pod.UID, GracePeriodSeconds: &zero})
	}
	switch {
	case pod.Spec.NodeName == "":
		return nil
	case pod.Status.Phase == corev1.PodPending || pod.Status.Phase == "":
		a.begin(pod)
	case pod.Status.Phase == corev1.PodRunning && pod.Spec.RestartPolicy != corev1.RestartPolicyAlways:
		a.end(pod)
	default:
		return nil
	}
	return a.resources.UpdateStatus(ctx, pod)
}

// begin makes a Pod run and be ready.
func (a *agents) begin(pod *corev1.Pod) {
	now := metav1.NewTime(a.clock.Now())
	s := &pod.Status
	s.Phase, s.StartTime = corev1.PodRunning, &now
	s.PodIP = a.addresses.next().String()
	s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	for _, t := range []corev1.PodConditionType{corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		s.Conditions = append(s.Conditions, corev1.PodCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	for _, c := range pod.Spec.Containers {
		started := true
		s.ContainerStatuses = append(s.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, Ready: true, Started: &started,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		})
	}
}

// end makes a Pod that is to end do so, and well.
func (a *agents) end(pod *corev1.Pod) {
	now := metav1.NewTime(a.clock.Now())
	s := &pod.Status
	s.Phase = corev1.PodSucceeded
	for i := range s.Conditions {
		if t := s.Conditions[i].Type; t == corev1.PodReady || t == corev1.ContainersReady {
			s.Conditions[i].Status, s.Conditions[i].Reason, s.Conditions[i].LastTransitionTime = corev1.ConditionFalse, "PodCompleted", now
		}
	}
	for i := range s.ContainerStatuses {
		c := &s.ContainerStatuses[i]
		c.Ready, c.State = false, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", StartedAt: now, FinishedAt: now}}
	}
}

// addresses are given to Pods one after the other.
type addresses struct{ given atomic.Uint32 }

func (a *addresses) next() netip.Addr {
	n := a.given.Add(1)
	return netip.AddrFrom4([4]byte{10, byte(44 + n>>16), byte(n >> 8), byte(n)})
}
