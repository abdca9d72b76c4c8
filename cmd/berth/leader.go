package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/duration"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/apiserver"
	"berth.dev/berth/engine/controllers"
	"berth.dev/berth/engine/election"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/notify"
	"berth.dev/berth/engine/resources"
	"berth.dev/berth/engine/store"
	"berth.dev/berth/engine/sync"
	"berth.dev/berth/sources/git"
)

// loops are what one server of a cluster runs for all: nothing else in the
// control plane acts by itself.
type loops struct {
	control  *controllers.Controllers
	engine   *sync.Engine
	notifier *notify.Notifier
}

func (s *server) newLoops(res *resources.Resources, views *live.Cluster) *loops {
	o := s.syncOptions
	o.Resources, o.Live = res, views
	return &loops{
		control: controllers.New(controllers.Options{
			Resources: res, Live: views, Clock: clock.RealClock{}, Log: s.log,
			NodeGrace: s.options.nodeGrace,
			CA:        s.ca, ServiceCIDR: s.ranges.services, Servers: s.servers,
			Usage: s.usage(),
		}),
		engine: sync.New(o),
		notifier: notify.New(notify.Options{
			Live: views, Client: res, HTTP: git.HTTPClient(s.options.allowLocal), AllowHTTP: s.options.allowLocal, Clock: clock.RealClock{}, Log: s.log,
		}),
	}
}

// usage is what the agent of this server measures; nil where there is none.
func (s *server) usage() controllers.Usage {
	if !s.options.agent {
		return nil
	}
	return agentUsage{s}
}

// agentUsage asks the agent, which is made after the loops.
type agentUsage struct{ server *server }

// Usage implements controllers.Usage.
func (u agentUsage) Usage() ([]metricsv1beta1.NodeMetrics, []metricsv1beta1.PodMetrics) {
	return u.server.agent.Usage()
}

// servers are the addresses of all servers of the cluster. None is known while
// the store is away: what was said of them before stays then.
func (s *server) servers() []netip.AddrPort {
	if s.etcd == nil {
		return []netip.AddrPort{s.advertised}
	}
	all, err := s.etcd.Reachable(context.Background())
	if err != nil {
		s.log.Debug("read the addresses of the servers", "err", err)
		return nil
	}
	var out []netip.AddrPort
	for _, text := range all {
		if at, err := netip.ParseAddrPort(text); err == nil {
			out = append(out, at)
		}
	}
	return out
}

func (l *loops) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.control.Run(ctx) })
	g.Go(func() error { return l.engine.Run(ctx) })
	g.Go(func() error { return l.notifier.Run(ctx) })
	return g.Wait()
}

// lead runs the loops for as long as this server leads. They begin with what is in
// the store and know nothing of an earlier time; what they write is carried out
// only while this server leads.
func (s *server) lead(ctx context.Context, fenced store.Store) error {
	s.leadership.leads.Store(true)
	defer s.leadership.leads.Store(false)
	res, views := s.resources(fenced), live.New()
	l := s.newLoops(res, views)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return views.Run(ctx, res) })
	g.Go(func() error { return l.run(ctx) })
	return g.Wait()
}

// leadership is who leads.
type leadership struct {
	etcd     *store.Etcd
	client   client.Client
	identity string
	// leads is true while the loops run.
	leads atomic.Bool
}

var _ apiserver.Cluster = (*leadership)(nil)

// newLeadership makes the identity of this start of the server.
func newLeadership(etcd *store.Etcd, c client.Client) *leadership {
	return &leadership{etcd: etcd, client: c, identity: etcd.Name() + "_" + strings.ToLower(rand.Text()[:6])}
}

func (l *leadership) run(ctx context.Context, s *server) error {
	e := election.New(election.Options{Store: s.sealed, Client: s.res, Identity: l.identity, Log: s.log})
	return e.Run(ctx, s.lead)
}

// Trouble implements apiserver.Cluster.
func (l *leadership) Trouble() string { return l.etcd.Trouble() }

// Leader implements apiserver.Cluster.
func (l *leadership) Leader(ctx context.Context) (name string, leads bool) {
	lease, err := leaderLease(store.AnyAge(ctx), l.client)
	if err != nil {
		return "", false
	}
	return serverOf(holderOf(lease)), l.leads.Load()
}

// leaderGone is how old the last sign of life of a leader may be.
const leaderGone = 15 * time.Second

func leaderLease(ctx context.Context, c client.Client) (*coordinationv1.Lease, error) {
	var lease coordinationv1.Lease
	err := c.Get(ctx, types.NamespacedName{Namespace: election.Namespace, Name: election.Name}, &lease)
	return &lease, err
}

// holderOf is empty for a Lease that nobody holds.
func holderOf(lease *coordinationv1.Lease) string {
	if lease.Spec.HolderIdentity == nil || lease.Spec.RenewTime == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

// serverOf is the name of the server in an identity.
func serverOf(identity string) string {
	if i := strings.LastIndex(identity, "_"); i > 0 {
		return identity[:i]
	}
	return identity
}

// printLeader says which of several servers leads. Where one has the store for
// itself it says nothing and returns false.
func printLeader(ctx context.Context, c client.Client, out io.Writer) (several bool) {
	lease, err := leaderLease(ctx, c)
	if err != nil {
		return false // there is none, or the Sources say it better
	}
	holder := holderOf(lease)
	if holder == "" {
		fmt.Fprintln(out, "no server leads at the moment")
		return true
	}
	if ago := time.Since(lease.Spec.RenewTime.Time); ago > leaderGone {
		fmt.Fprintf(out, "server %s led until %s ago, and no other has taken over\n", serverOf(holder), duration.HumanDuration(ago))
		return true
	}
	fmt.Fprintf(out, "server %s leads\n", serverOf(holder))
	return true
}
