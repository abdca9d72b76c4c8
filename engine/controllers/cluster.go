// Package controllers makes the objects of the cluster follow from one another:
// ReplicaSets from Deployments, Pods from ReplicaSets, EndpointSlices from
// Services and Pods, and so on, one file per kind. It reads through watches
// that it shares, writes through engine/resources, and never touches a node.
package controllers

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/event"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/resources"
)

// Options are what the controllers are made of. The first group must be set.
type Options struct {
	Resources *resources.Resources
	// Live is filled by others.
	Live  *live.Cluster
	Clock clock.WithTicker
	Log   *slog.Logger

	// CA is the certificate that clients in the cluster trust, as PEM; without
	// one no Namespace is told.
	CA []byte
	// NodeGrace is how long an agent may be silent; 0 means DefaultNodeGrace.
	NodeGrace time.Duration
	// Usage is what autoscalers go by; without it they say that they cannot.
	Usage Usage
	// Servers are the addresses of the API for Pods. Loopback is none: Pods
	// cannot reach it. Without it there is no Service of the API; ServiceCIDR
	// must be set with it.
	Servers     func() []netip.AddrPort
	ServiceCIDR netip.Prefix
}

// Controllers are all controllers and the scheduler.
type Controllers struct {
	loops []func(context.Context) error
}

// New makes the controllers and hooks them to the views, which must not be
// running yet.
func New(o Options) *Controllers {
	c := newCluster(o)
	deployments := newDeployments(c)
	replicaSets := newReplicaSets(c)
	endpoints := newEndpoints(c)
	scheduling := newScheduling(c)
	namespaces := newNamespaces(c)
	loops := []func(context.Context) error{
		deployments.Run, replicaSets.Run, newJobs(c).Run, newCronJobs(c).Run, newStatefulSets(c).Run, newClaims(c).Run, newVolumes(c).Run, newDaemonSets(c).Run, newNodes(c, o.NodeGrace).Run, endpoints.Run, scheduling.Run, namespaces.Run,
		newDisruption(c).Run, newCollector(c).Run, newEventExpiry(c).Run, newAccounts(c).Run, newAutoscalers(c, o.Usage).Run, newQuotas(c).Run, newReplicationControllers(c).Run,
	}
	if len(o.CA) > 0 {
		loops = append(loops, newRootCA(c, string(o.CA)).Run)
	}
	if o.Servers != nil {
		loops = append(loops, newKubernetes(c, o.ServiceCIDR, o.Servers).Run)
	}
	return &Controllers{loops: loops}
}

// Run runs them until the context ends.
func (c *Controllers) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range c.loops {
		g.Go(func() error { return run(ctx) })
	}
	return g.Wait()
}

// cluster is the shared view of what exists.
type cluster struct {
	*live.Cluster
	resources *resources.Resources
	clock     clock.WithTicker
	log       *slog.Logger
	events    *event.Recorder

	orphanPods *orphans[*corev1.Pod]
	orphanSets *orphans[*appsv1.ReplicaSet]
	orphanRevs *orphans[*appsv1.ControllerRevision]
}

func newCluster(o Options) *cluster {
	return &cluster{
		Cluster:   o.Live,
		resources: o.Resources, clock: o.Clock, log: o.Log,
		events:     &event.Recorder{Client: o.Resources, Component: "berth", Clock: o.Clock, Log: o.Log},
		orphanPods: followOrphans(o.Live.Pods), orphanSets: followOrphans(o.Live.ReplicaSets),
		orphanRevs: followOrphans(o.Live.Revisions),
	}
}

// going: the Namespace is being deleted, and nothing can be created in it.
func (c *cluster) going(namespace string) bool {
	ns, ok := c.Namespaces.Get(types.NamespacedName{Name: namespace})
	return ok && ns.DeletionTimestamp != nil
}
