package controllers

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/scheduler"
	"berth.dev/berth/engine/storage"
)

const (
	// binders is how many Pods are bound at a time.
	binders = 16
	// wakeEvery is when one of each kind that waits is tried again though nothing
	// has changed that is known to help: what it is told is up to date then.
	wakeEvery = time.Minute
)

// scheduling gives each Pod a node. What the scheduler knows is kept up to date
// by every event. One goroutine decides, by priority and age, and counts a Pod
// on its node at once, so that the next decision sees it; others write down what
// was decided.
type scheduling struct {
	*cluster
	binds    *loop
	refusals *loop
	// kick wakes the goroutine that decides.
	kick chan struct{}

	mu    sync.Mutex
	known *scheduler.Cluster
	queue *scheduler.Queue
	// assumed are the Pods whose binding the view does not show yet.
	assumed map[types.NamespacedName]assumption
	// claimants are the Pods that wait and mount claims. What they are told of
	// their claims is brought up to date before the next decision.
	claimants *claimants
	holders   *holders
	offers    *storage.Offers
	// refused is what is to be written on Pods that wait.
	refused map[types.NamespacedName]refusal
	// unbindable are the nodes, by Pod that waits, on which its claims could not
	// have their volumes.
	unbindable map[types.NamespacedName]map[string]bool
	// failures is how often a Pod could not be bound, for the wait until it is
	// decided on anew.
	failures workqueue.TypedRateLimiter[types.UID]
	// budgets are the PodDisruptionBudgets, nil when one has changed.
	budgets []scheduler.Budget
}

// assumption is a decision that is being written.
type assumption struct {
	uid  types.UID
	node string
}

func newScheduling(c *cluster) *scheduling {
	s := &scheduling{
		cluster: c, kick: make(chan struct{}, 1), known: scheduler.New(),
		assumed: map[types.NamespacedName]assumption{}, refused: map[types.NamespacedName]refusal{},
		claimants: newClaimants(), holders: newHolders(), offers: storage.NewOffers(c.Cluster),
		unbindable: map[types.NamespacedName]map[string]bool{}, failures: workqueue.NewTypedItemExponentialFailureRateLimiter[types.UID](retryFirst, retryMax),
	}
	s.queue = scheduler.NewQueue(s.known)
	s.binds = newLoop(c, "bind", s.bind)
	s.binds.workers = binders
	s.refusals = newLoop(c, "scheduler", s.refuse)
	c.Pods.OnChange(func(old, now *corev1.Pod) { s.change(func() { s.podChanged(old, now) }) })
	c.Nodes.OnChange(func(old, now *corev1.Node) {
		s.change(func() {
			if now == nil {
				s.known.RemoveNode(old.Name)
				return
			}
			s.known.SetNode(now)
			if old == nil || old.Annotations[v1alpha1.AnnotationClaims] != now.Annotations[v1alpha1.AnnotationClaims] || !maps.Equal(old.Labels, now.Labels) {
				s.storageChanged()
			}
		})
	})
	c.Budgets.OnChange(func(_, _ *policyv1.PodDisruptionBudget) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.budgets = nil
	})
	c.Namespaces.OnChange(func(old, now *corev1.Namespace) {
		s.change(func() {
			if now == nil {
				s.known.RemoveNamespace(old.Name)
			} else {
				s.known.SetNamespace(now.Name, now.Labels)
			}
		})
	})
	c.Claims.OnChange(func(old, now *corev1.PersistentVolumeClaim) {
		s.change(func() { s.storageChanged(onClaim(client.Key(cmp.Or(now, old)))) })
	})
	c.Volumes.OnChange(func(old, now *corev1.PersistentVolume) { s.change(func() { s.volumeChanged(old, now) }) })
	c.Classes.OnChange(func(old, now *storagev1.StorageClass) {
		s.change(func() { s.storageChanged(onClass(cmp.Or(now, old).Name)) })
	})
	return s
}

// Run works until the context ends.
func (s *scheduling) Run(ctx context.Context) error {
	views := []interface{ Ready() <-chan struct{} }{s.Nodes, s.Namespaces, s.Pods, s.Budgets, s.Claims, s.Volumes, s.Classes}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.binds.run(ctx, views...) })
	g.Go(func() error { return s.refusals.run(ctx, views...) })
	g.Go(func() error {
		if live.Synced(ctx, views...) {
			s.work(ctx)
		}
		return nil
	})
	return g.Wait()
}

// work decides until the context ends.
func (s *scheduling) work(ctx context.Context) {
	again := s.clock.NewTicker(wakeEvery)
	defer again.Stop()
	for {
		for ctx.Err() == nil && s.decide() {
		}
		select {
		case <-ctx.Done():
			return
		case <-s.kick:
		case <-again.C():
			s.change(func() {
				s.storageChanged() // a volume may have been freed just before a node was barred
				s.queue.WakeAll()
			})
		}
	}
}

// change changes what is known, and lets the consequences be decided.
func (s *scheduling) change(f func()) {
	s.mu.Lock()
	f()
	s.mu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

func (s *scheduling) podChanged(old, now *corev1.Pod) {
	if old != nil && (now == nil || now.UID != old.UID) {
		s.forget(old)
	}
	if now == nil {
		return
	}
	key := client.Key(now)
	switch {
	case podFinished(now):
		s.forget(now)
	case now.Spec.NodeName != "":
		s.place(now, now.Spec.NodeName)
		delete(s.assumed, key)
		delete(s.refused, key)
		delete(s.unbindable, key)
	case now.DeletionTimestamp != nil:
		s.forget(now)
	case len(now.Spec.SchedulingGates) > 0:
		s.queue.Remove(now.UID)
		s.claimants.remove(key)
	case s.assumed[key].uid == now.UID: // this view is older than the decision
	default:
		if nominated := now.Status.NominatedNodeName; old == nil && nominated != "" {
			s.known.Reserve(s.input(now), nominated) // as the engine said before it was started anew
		}
		if len(storage.ClaimsIn(now)) > 0 {
			s.claimants.set(now)
		} else {
			s.queue.Add(s.input(now))
		}
	}
}

// input is a Pod as the scheduler wants to have it.
func (s *scheduling) input(pod *corev1.Pod) scheduler.Pod {
	claims := s.offers.Of(pod, s.holders.other)
	in := scheduler.Pod{Pod: pod, Volumes: claims.Reaches, Blocked: claims.Waits}
	if nodes := s.unbindable[client.Key(pod)]; len(nodes) > 0 && len(claims.Unbound) > 0 {
		in.Volumes = append(in.Volumes, scheduler.Volume{Claim: claims.Unbound[0].Name, Nodes: allBut(nodes)})
	}
	return in
}

// allBut selects the nodes that are not among some.
func allBut(nodes map[string]bool) *corev1.NodeSelector {
	var term corev1.NodeSelectorTerm
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		term.MatchFields = append(term.MatchFields, corev1.NodeSelectorRequirement{
			Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpNotIn, Values: []string{name},
		})
	}
	return &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{term}}
}

// place counts a Pod on a node; it waits no longer.
func (s *scheduling) place(pod *corev1.Pod, node string) {
	s.known.Add(scheduler.Pod{Pod: pod}, node)
	s.known.Unreserve(pod.UID)
	s.queue.Remove(pod.UID)
	s.claimants.remove(client.Key(pod))
	s.handedOn(s.holders.add(pod))
}

// forget: the Pod neither runs nor waits any more.
func (s *scheduling) forget(pod *corev1.Pod) {
	s.known.Remove(pod.UID)
	s.known.Unreserve(pod.UID)
	s.queue.Remove(pod.UID)
	key := client.Key(pod)
	if s.assumed[key].uid == pod.UID {
		delete(s.assumed, key)
	}
	delete(s.refused, key)
	delete(s.unbindable, key)
	s.failures.Forget(pod.UID)
	s.claimants.remove(key)
	s.handedOn(s.holders.remove(pod.UID))
}
