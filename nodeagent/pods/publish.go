package pods

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
)

// publishers is how many statuses are written at once.
const publishers = 4

// publisher writes the statuses of pods, the newest of each, and tries again
// while the control plane is away. Workers never wait for it.
type publisher struct {
	client client.Client
	log    *slog.Logger

	mu    sync.Mutex
	items map[types.UID]*item
	queue chan types.UID
}

type item struct {
	pod     *corev1.Pod // whose status is the one wanted
	dirty   bool
	busy    bool
	delete  bool
	written *corev1.PodStatus
}

func newPublisher(c client.Client, log *slog.Logger) *publisher {
	return &publisher{client: c, log: log, items: map[types.UID]*item{}, queue: make(chan types.UID, 4096)}
}

// put asks for a status to be written. pod belongs to the publisher from here on.
// live is the status that the cluster has, as far as the caller knows.
func (p *publisher) put(pod *corev1.Pod, live *corev1.PodStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	it := p.item(pod.UID)
	if it.written == nil {
		it.written = live
	}
	it.pod = pod
	if it.dirty || it.busy || !equality.Semantic.DeepEqual(it.written, &pod.Status) {
		p.mark(pod.UID, it)
	}
}

// contradict looks whether the cluster has said of a pod that its node does not
// report, which is not so while this runs: its status is written again then.
func (p *publisher) contradict(live *corev1.Pod) {
	if !slices.ContainsFunc(live.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Reason == "NodeNotReady"
	}) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if it := p.items[live.UID]; it != nil && it.pod != nil {
		it.written = &live.Status
		p.mark(live.UID, it)
	}
}

// delete asks for the object to be removed, after its status.
func (p *publisher) delete(pod *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	it := p.item(pod.UID)
	if it.pod == nil {
		it.pod = pod
	}
	it.delete = true
	p.mark(pod.UID, it)
}

func (p *publisher) forget(uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.items, uid)
}

func (p *publisher) item(uid types.UID) *item {
	it := p.items[uid]
	if it == nil {
		it = &item{}
		p.items[uid] = it
	}
	return it
}

func (p *publisher) mark(uid types.UID, it *item) {
	if it.dirty {
		return
	}
	it.dirty = true
	if !it.busy {
		p.queue <- uid
	}
}

// run writes until the context ends.
func (p *publisher) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for range publishers {
		group.Go(func() error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case uid := <-p.queue:
					p.serve(ctx, uid)
				}
			}
		})
	}
	return group.Wait()
}

func (p *publisher) serve(ctx context.Context, uid types.UID) {
	p.mu.Lock()
	it := p.items[uid]
	if it == nil || it.busy {
		p.mu.Unlock()
		return
	}
	it.dirty, it.busy = false, true
	pod, remove, written := it.pod, it.delete, it.written
	p.mu.Unlock()

	err := p.write(ctx, pod, written)
	if err == nil && remove {
		err = p.remove(ctx, pod)
	}
	if err != nil && ctx.Err() == nil {
		p.log.Warn("write a pod's status; it is tried again", "pod", pod.Namespace+"/"+pod.Name, "err", err)
		pause(ctx, time.Second)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	it.busy = false
	if err == nil {
		it.written = &pod.Status
	}
	if (err != nil || it.dirty) && p.items[uid] == it {
		it.dirty = true
		p.queue <- uid
	}
}

// write replaces the status, on top of whatever else has changed meanwhile.
func (p *publisher) write(ctx context.Context, pod *corev1.Pod, written *corev1.PodStatus) error {
	if written != nil && equality.Semantic.DeepEqual(*written, pod.Status) {
		return nil
	}
	next := pod.DeepCopy()
	for {
		err := p.client.UpdateStatus(ctx, next)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if !apierrors.IsConflict(err) {
			return err
		}
		var live corev1.Pod
		if err := p.client.Get(ctx, client.Key(pod), &live); err != nil {
			if apierrors.IsNotFound(err) {
				return nil
			}
			return err
		}
		if live.UID != pod.UID {
			return nil
		}
		next = live.DeepCopy()
		pod.Status.DeepCopyInto(&next.Status)
		foreign(&next.Status, live.Status)
	}
}

// foreign takes over the conditions that others own from the live object.
func foreign(s *corev1.PodStatus, live corev1.PodStatus) {
	for _, c := range live.Conditions {
		switch c.Type {
		case corev1.PodReady, corev1.ContainersReady, corev1.PodInitialized, corev1.PodReadyToStartContainers:
			continue
		}
		found := false
		for i := range s.Conditions {
			if s.Conditions[i].Type == c.Type {
				s.Conditions[i], found = c, true
			}
		}
		if !found {
			s.Conditions = append(s.Conditions, c)
		}
	}
}

func (p *publisher) remove(ctx context.Context, pod *corev1.Pod) error {
	now := int64(0)
	err := p.client.Delete(ctx, &corev1.Pod{ObjectMeta: metaOf(pod)}, client.DeleteOptions{UID: pod.UID, GracePeriodSeconds: &now})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
