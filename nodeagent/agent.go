package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/event"
	"berth.dev/berth/nodeagent/config"
	"berth.dev/berth/nodeagent/containerd"
	"berth.dev/berth/nodeagent/dns"
	"berth.dev/berth/nodeagent/logs"
	"berth.dev/berth/nodeagent/namespaces"
	"berth.dev/berth/nodeagent/network"
	"berth.dev/berth/nodeagent/pods"
	"berth.dev/berth/nodeagent/proxy"
	"berth.dev/berth/nodeagent/services"
	"berth.dev/berth/nodeagent/tokens"
	"berth.dev/berth/nodeagent/usage"
	"berth.dev/berth/nodeagent/volumes"
)

// Options is what an Agent needs. Fields must be set unless they say otherwise.
type Options struct {
	Client   client.Client
	NodeName string
	// NodeIP is the node's own address, under which other nodes reach it.
	NodeIP netip.Addr
	// DataDir holds all that the agent keeps; its path must be short enough
	// for Unix sockets. BinDir holds containerd, its shim and runc.
	DataDir, BinDir                   string
	ClusterCIDR, PodCIDR, ServiceCIDR netip.Prefix
	// ContainerdAddress is the socket of a containerd that is there; empty: the
	// agent starts its own, under DataDir.
	ContainerdAddress string
	// CgroupParent is the control group of all pods. Default "berth".
	CgroupParent string
	// ClusterDomain ends the names of Services. Default "cluster.local".
	ClusterDomain string
	// Labels are given to the Node, beside the usual ones. Optional.
	Labels map[string]string
	// Version is Berth's, as the Node shows it. Optional.
	Version string
	Log     *slog.Logger
	// Clock is by default the machine's.
	Clock clock.WithTicker
}

// starts is how many containers are started at once: enough to keep the cores
// busy while one waits for the disk.
const starts = 6

// Agent runs the pods of one node.
type Agent struct {
	opts     Options
	daemon   *containerd.Daemon // nil with a containerd that is not ours
	address  string
	logs     *logs.Collector
	services *services.Index
	capacity corev1.ResourceList

	ready   chan struct{} // closed when the parts below are there
	runtime *containerd.Runtime
	runner  *pods.Runner
	usage   *usage.Sampler
}

// New checks the options and readies the agent's folders. It starts nothing.
func New(opts Options) (*Agent, error) {
	opts = withDefaults(opts)
	for _, dir := range []string{opts.DataDir, runDir(opts), filepath.Join(opts.DataDir, "pods")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the agent's folder: %w", err)
		}
	}
	a := &Agent{opts: opts, address: opts.ContainerdAddress, services: services.New(opts.Client), ready: make(chan struct{})}
	if a.address == "" {
		a.daemon = daemon(opts)
		a.address = a.daemon.Address()
		if err := a.daemon.Check(); err != nil {
			return nil, err
		}
	}
	if !opts.PodCIDR.IsValid() || !opts.ClusterCIDR.Contains(opts.PodCIDR.Addr()) {
		return nil, fmt.Errorf("the pod range %s is not in the cluster's range %s: correct --cluster-cidr", opts.PodCIDR, opts.ClusterCIDR)
	}
	var err error
	if a.capacity, err = capacity(opts.DataDir); err != nil {
		return nil, err
	}
	if a.logs, err = logs.Open(filepath.Join(opts.DataDir, "logs", "pods"), opts.Clock, opts.Log); err != nil {
		return nil, err
	}
	return a, nil
}

func withDefaults(opts Options) Options {
	if opts.CgroupParent == "" {
		opts.CgroupParent = "berth"
	}
	if opts.ClusterDomain == "" {
		opts.ClusterDomain = "cluster.local"
	}
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	return opts
}

func runDir(opts Options) string { return filepath.Join(opts.DataDir, "run") }

func daemon(opts Options) *containerd.Daemon {
	return &containerd.Daemon{Dir: filepath.Join(opts.DataDir, "containerd"), BinDir: opts.BinDir, Log: opts.Log}
}

func runtimeOptions(opts Options, address string) containerd.Options {
	out := containerd.Options{Address: address, RuncRoot: filepath.Join(opts.DataDir, "containerd", "runc"), Log: opts.Log}
	if opts.BinDir != "" {
		if path := filepath.Join(opts.BinDir, "runc"); exists(path) {
			out.RuncPath = path
		}
	}
	return out
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Run runs the node until the context ends, and leaves its pods running then.
func (a *Agent) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	if a.daemon != nil {
		if _, err := a.daemon.Ensure(ctx); err != nil {
			return err
		}
		group.Go(func() error { return a.daemon.Run(ctx) })
	}
	options := runtimeOptions(a.opts, a.address)
	options.Daemon = a.daemon
	runtime, err := containerd.Connect(options)
	if err != nil {
		return err
	}
	defer runtime.Close()
	rules := proxy.New(proxy.Options{Services: a.services, PodCIDR: a.opts.PodCIDR, ClusterCIDR: a.opts.ClusterCIDR, ServiceCIDR: a.opts.ServiceCIDR, Log: a.opts.Log})
	net, err := network.New(network.Options{
		HostPorts: rules.SetHostPorts,
		Dir:       filepath.Join(a.opts.DataDir, "network", "addresses"), Pins: &namespaces.Pins{Dir: filepath.Join(runDir(a.opts), "ns")},
		ClusterCIDR: a.opts.ClusterCIDR, PodCIDR: a.opts.PodCIDR, ServiceCIDR: a.opts.ServiceCIDR, Log: a.opts.Log,
	})
	if err != nil {
		return err
	}
	var runner *pods.Runner
	store := config.New(a.opts.Client, filepath.Join(a.opts.DataDir, "config"), a.opts.Log, func(uids []string) { runner.ConfigChanged(uids) })
	accounts := tokens.New(tokens.Options{Client: a.opts.Client, Clock: a.opts.Clock, Log: a.opts.Log, Due: func(uids []string) { runner.ConfigChanged(uids) }})
	runner = a.newRunner(runtime, net, store, accounts)
	names := dns.New(dns.Options{Services: a.services, Domain: a.opts.ClusterDomain, Listen: netip.AddrPortFrom(net.Gateway(), 53), Log: a.opts.Log})
	a.runtime, a.runner = runtime, runner
	a.usage = &usage.Sampler{Containers: runner.Running, Root: "/", Clock: a.opts.Clock}
	close(a.ready)
	for _, part := range []func(context.Context) error{a.logs.Run, store.Run, accounts.Run, net.Run, rules.Run, names.Run, a.services.Run, runner.Run, a.usage.Run, a.heartbeat, a.reclaim} {
		group.Go(func() error { return part(ctx) })
	}
	return group.Wait()
}

func (a *Agent) newRunner(runtime *containerd.Runtime, net *network.Network, store *config.Store, accounts *tokens.Keeper) *pods.Runner {
	memory := a.capacity[corev1.ResourceMemory]
	return pods.New(pods.Options{
		Client: a.opts.Client, NodeName: a.opts.NodeName, NodeIP: a.opts.NodeIP, NodeMemory: memory.Value(),
		Runtime: runtime, Images: runtime, Exec: runtime, Network: net, Config: store, Links: a.services, Logs: a.logs,
		Volumes: a.volumes(store, accounts),
		Events:  &event.Recorder{Client: a.opts.Client, Component: "berth-agent", Node: a.opts.NodeName, Clock: a.opts.Clock, Log: a.opts.Log},
		Dir:     filepath.Join(a.opts.DataDir, "pods"), CgroupParent: a.opts.CgroupParent,
		DNS: net.Gateway(), Domain: a.opts.ClusterDomain, Starts: starts, Clock: a.opts.Clock, Log: a.opts.Log,
	})
}

func (a *Agent) volumes(store *config.Store, accounts *tokens.Keeper) *volumes.Volumes {
	return &volumes.Volumes{Dir: filepath.Join(a.opts.DataDir, "volumes"), Claims: claimsDir(a.opts), Config: store, Tokens: accounts, Log: a.opts.Log}
}

// claimsDir is where the volumes of claims are.
func claimsDir(opts Options) string { return filepath.Join(opts.DataDir, "claims") }

// wait blocks until Run has begun.
func (a *Agent) wait(ctx context.Context) error {
	select {
	case <-a.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(30 * time.Second):
		return errors.New("the node's agent is not running yet")
	}
}

// Logs writes the log of a container. An empty container means the only one.
// With Follow it goes on until the container ends or the context is done.
func (a *Agent) Logs(ctx context.Context, namespace, pod, container string, opts *corev1.PodLogOptions, w io.Writer) error {
	if err := a.wait(ctx); err != nil {
		return err
	}
	select {
	case <-a.runner.Adopted():
	case <-ctx.Done():
		return ctx.Err()
	}
	instance, err := a.runner.Find(namespace, pod, container, opts.Previous)
	if err != nil {
		return err
	}
	read := logs.ReadOptions{Follow: opts.Follow && !opts.Previous, Timestamps: opts.Timestamps, Tail: -1}
	if opts.TailLines != nil {
		read.Tail = *opts.TailLines
	}
	if opts.LimitBytes != nil {
		read.Limit = *opts.LimitBytes
	}
	if opts.SinceSeconds != nil {
		read.Since = a.opts.Clock.Now().Add(-time.Duration(*opts.SinceSeconds) * time.Second)
	}
	if opts.SinceTime != nil {
		read.Since = opts.SinceTime.Time
	}
	return a.logs.Read(ctx, instance, read, w)
}

// LoadImage imports an OCI or docker archive and returns the names of its images.
func (a *Agent) LoadImage(ctx context.Context, r io.Reader) ([]string, error) {
	if err := a.wait(ctx); err != nil {
		return nil, err
	}
	return a.runtime.Load(ctx, r)
}
