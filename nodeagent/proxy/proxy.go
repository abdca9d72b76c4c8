// Package proxy turns Services into nftables rules. It owns the chains and sets
// of the table "ip berth" but the chain postrouting, which is package network's,
// and never touches a table that is not Berth's. It reads the services.Index.
//
// All Services share a few maps. A packet to a Service finds the number of
// endpoints in one, goes to the chain for that number, which draws one of them,
// and finds the drawn endpoint in another. So a change costs the elements that
// change, whatever else there is (docs/decisions/service-rules.md).
package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"berth.dev/berth/nodeagent/pods"
	"berth.dev/berth/nodeagent/services"
)

// Options is what a Proxy needs. All fields must be set.
type Options struct {
	Services             *services.Index
	PodCIDR, ClusterCIDR netip.Prefix
	ServiceCIDR          netip.Prefix
	Log                  *slog.Logger
}

// gather is how long changes are collected for one batch.
const gather = 3 * time.Millisecond

// Proxy keeps the rules.
type Proxy struct {
	opts Options
	wake chan struct{}

	mu        sync.Mutex
	dirty     map[services.Key]bool
	hostPorts map[services.Key][]target

	blocked []services.Key // whose address another Service has
	written *state         // what the kernel has; nil when that is not known
}

// New readies a Proxy. It must be called before the Index runs.
func New(opts Options) *Proxy {
	p := &Proxy{opts: opts, wake: make(chan struct{}, 1), dirty: map[services.Key]bool{}, hostPorts: map[services.Key][]target{}}
	opts.Services.Notify(p.changed)
	return p
}

func (p *Proxy) changed(key services.Key) {
	p.mu.Lock()
	p.dirty[key] = true
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// SetHostPorts leads ports of the node to a pod; without ports it ends that.
func (p *Proxy) SetHostPorts(uid string, ip netip.Addr, ports []pods.HostPort) {
	key := services.Key{Name: "pod " + uid} // no Service has a name with a space
	var want []target
	for _, port := range ports {
		host := port.HostIP
		if !host.IsValid() {
			host = netip.IPv4Unspecified()
		}
		want = append(want, target{front: front{host, protocol(port.Protocol), port.Port}, backends: []netip.AddrPort{netip.AddrPortFrom(ip, port.ContainerPort)}})
	}
	p.mu.Lock()
	_, had := p.hostPorts[key]
	if len(want) == 0 {
		delete(p.hostPorts, key)
	} else {
		p.hostPorts[key] = want
	}
	p.mu.Unlock()
	if had || len(want) > 0 {
		p.changed(key)
	}
}

// Run writes rules until the context ends, and leaves them in place then. The
// rules of an agent before this one stay until everything is known.
func (p *Proxy) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-p.opts.Services.Synced():
	}
	var retry <-chan time.Time
	first := make(chan struct{}, 1)
	first <- struct{}{}
	for wait := time.Second; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-first:
		case <-p.wake:
			pause(ctx, gather)
		case <-retry:
		}
		retry = nil
		if err := p.sync(); err != nil {
			p.opts.Log.Error("write the rules of Services; all of them are written again", "err", err)
			p.written = nil
			retry = time.After(wait)
			wait = min(2*wait, 30*time.Second)
			continue
		}
		wait = time.Second
	}
}

// sync writes what has changed, or everything.
func (p *Proxy) sync() error {
	p.mu.Lock()
	keys := p.dirty
	p.dirty = map[services.Key]bool{}
	p.mu.Unlock()
	if p.written == nil {
		return p.rewrite()
	}
	next, ops := p.written, &changes{}
	want := map[services.Key][]target{}
	for _, key := range p.blocked {
		keys[key] = true
	}
	for key := range keys {
		want[key] = p.desired(key)
	}
	p.blocked = next.setAll(want, ops)
	if ops.empty() {
		return nil
	}
	k, err := open()
	if err != nil {
		return err
	}
	k.apply(ops)
	if err := k.conn.Flush(); err != nil {
		return fmt.Errorf("change rules: %w", err)
	}
	p.forgetFlows(ops)
	return nil
}

// rewrite replaces every rule and set of ours, in one step.
func (p *Proxy) rewrite() error {
	next, ops := newState(p.opts.PodCIDR), &changes{}
	want := map[services.Key][]target{}
	for _, key := range p.opts.Services.Keys() {
		want[key] = p.desired(key)
	}
	p.mu.Lock()
	for key, host := range p.hostPorts {
		want[key] = host
	}
	p.mu.Unlock()
	p.blocked = next.setAll(want, ops)
	k, err := open()
	if err != nil {
		return err
	}
	if err := k.clear(); err != nil {
		return err
	}
	k.frame(p.opts.ServiceCIDR)
	k.apply(ops)
	if err := k.conn.Flush(); err != nil {
		return fmt.Errorf("write rules: %w", err)
	}
	p.written = next
	return nil
}

func (p *Proxy) desired(key services.Key) []target {
	p.mu.Lock()
	host, ok := p.hostPorts[key]
	p.mu.Unlock()
	if ok {
		return host
	}
	svc, groups := p.opts.Services.Get(key)
	return targets(svc, groups)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
