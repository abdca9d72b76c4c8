// Package services holds what this node knows of Services and their endpoints,
// in a slim form, for the rules, the names and the variables that lead to them.
// It follows Services and EndpointSlices and never writes.
package services

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
)

// Service is what a node needs of a Service.
type Service struct {
	Namespace, Name string
	// ClusterIP is invalid for a headless Service and for an ExternalName.
	ClusterIP       netip.Addr
	Headless        bool
	ExternalName    string
	PublishNotReady bool
	Ports           []Port
	// Affinity is how long a client stays with an endpoint; 0: not at all.
	Affinity time.Duration
	// LoadBalancerIPs and external addresses lead to the Service too.
	External []netip.Addr
}

// Port is a port of a Service.
type Port struct {
	Name     string
	Protocol corev1.Protocol
	Port     uint16
	NodePort uint16
}

// Endpoint is a pod behind a Service.
type Endpoint struct {
	IP       netip.Addr
	Ready    bool
	Serving  bool
	Hostname string
	Node     string
}

// Group is endpoints that share their ports.
type Group struct {
	Ports     []Port // Name, Protocol, Port
	Endpoints []Endpoint
}

// Key names a Service.
type Key = types.NamespacedName

// Index is the node's knowledge. The zero value is not usable; see New.
type Index struct {
	client client.Client

	mu       sync.RWMutex
	services map[Key]*Service
	groups   map[Key]map[string]*Group // by Service, by slice
	owner    map[Key]Key               // slice → Service
	tell     []func(Key)
	synced   chan struct{}
}

// New readies an Index.
func New(c client.Client) *Index {
	return &Index{client: c, services: map[Key]*Service{}, groups: map[Key]map[string]*Group{}, owner: map[Key]Key{}, synced: make(chan struct{})}
}

// Notify calls f, which must not block, with each Service that changes. It must be
// called before Run.
func (x *Index) Notify(f func(Key)) { x.tell = append(x.tell, f) }

// Synced is closed when everything that existed at the start is known.
func (x *Index) Synced() <-chan struct{} { return x.synced }

// Run follows Services and EndpointSlices until the context ends.
func (x *Index) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	var wait sync.WaitGroup
	wait.Add(2)
	synced := sync.OnceFunc(wait.Done)
	syncedSlices := sync.OnceFunc(wait.Done)
	group.Go(func() error {
		return client.Follow(ctx, x.client, &corev1.ServiceList{}, client.ListOptions{}, serviceFollower{x, synced})
	})
	group.Go(func() error {
		return client.Follow(ctx, x.client, &discoveryv1.EndpointSliceList{}, client.ListOptions{}, sliceFollower{x, syncedSlices})
	})
	group.Go(func() error {
		done := make(chan struct{})
		go func() { wait.Wait(); close(done) }()
		select {
		case <-done:
			close(x.synced)
		case <-ctx.Done():
			synced()
			syncedSlices()
		}
		return nil
	})
	return group.Wait()
}

// Get returns a Service and its endpoints; nil when there is none.
func (x *Index) Get(key Key) (*Service, []*Group) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	s := x.services[key]
	if s == nil {
		return nil, nil
	}
	names := make([]string, 0, len(x.groups[key]))
	for name := range x.groups[key] {
		names = append(names, name)
	}
	slices.Sort(names)
	groups := make([]*Group, 0, len(names))
	for _, name := range names {
		groups = append(groups, x.groups[key][name])
	}
	return s, groups
}

// Keys lists all Services, sorted.
func (x *Index) Keys() []Key {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make([]Key, 0, len(x.services))
	for key := range x.services {
		out = append(out, key)
	}
	slices.SortFunc(out, func(a, b Key) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out
}

func (x *Index) changed(key Key) {
	for _, f := range x.tell {
		f(key)
	}
}

type serviceFollower struct {
	x      *Index
	synced func()
}

func (f serviceFollower) Set(obj client.Object) {
	svc := obj.(*corev1.Service)
	key := client.Key(svc)
	f.x.mu.Lock()
	f.x.services[key] = slim(svc)
	f.x.mu.Unlock()
	f.x.changed(key)
}

func (f serviceFollower) Gone(obj client.Object) {
	key := client.Key(obj)
	f.x.mu.Lock()
	delete(f.x.services, key)
	f.x.mu.Unlock()
	f.x.changed(key)
}

func (f serviceFollower) Synced() { f.synced() }

type sliceFollower struct {
	x      *Index
	synced func()
}

func (f sliceFollower) Set(obj client.Object) {
	slice := obj.(*discoveryv1.EndpointSlice)
	if slice.AddressType != discoveryv1.AddressTypeIPv4 {
		return
	}
	key, owner := client.Key(slice), Key{Namespace: slice.Namespace, Name: slice.Labels[discoveryv1.LabelServiceName]}
	f.x.mu.Lock()
	old, had := f.x.owner[key]
	if had && old != owner {
		delete(f.x.groups[old], slice.Name)
	}
	f.x.owner[key] = owner
	if f.x.groups[owner] == nil {
		f.x.groups[owner] = map[string]*Group{}
	}
	f.x.groups[owner][slice.Name] = slimSlice(slice)
	f.x.mu.Unlock()
	if had && old != owner {
		f.x.changed(old)
	}
	f.x.changed(owner)
}

func (f sliceFollower) Gone(obj client.Object) {
	key := client.Key(obj)
	f.x.mu.Lock()
	owner, had := f.x.owner[key]
	delete(f.x.owner, key)
	delete(f.x.groups[owner], key.Name)
	if len(f.x.groups[owner]) == 0 {
		delete(f.x.groups, owner)
	}
	f.x.mu.Unlock()
	if had {
		f.x.changed(owner)
	}
}

func (f sliceFollower) Synced() { f.synced() }

func slim(svc *corev1.Service) *Service {
	out := &Service{Namespace: svc.Namespace, Name: svc.Name, PublishNotReady: svc.Spec.PublishNotReadyAddresses}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		out.ExternalName = svc.Spec.ExternalName
		return out
	}
	out.Headless = svc.Spec.ClusterIP == corev1.ClusterIPNone
	if ip, err := netip.ParseAddr(svc.Spec.ClusterIP); err == nil && ip.Is4() {
		out.ClusterIP = ip
	}
	for _, p := range svc.Spec.Ports {
		port := Port{Name: p.Name, Protocol: cmp.Or(p.Protocol, corev1.ProtocolTCP), Port: uint16(p.Port), NodePort: uint16(p.NodePort)}
		out.Ports = append(out.Ports, port)
	}
	if svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		out.Affinity = 3 * time.Hour // the field's default
		if c := svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
			out.Affinity = time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
		}
	}
	addresses := slices.Clone(svc.Spec.ExternalIPs)
	for _, in := range svc.Status.LoadBalancer.Ingress {
		addresses = append(addresses, in.IP)
	}
	for _, a := range addresses {
		if ip, err := netip.ParseAddr(a); err == nil && ip.Is4() && !slices.Contains(out.External, ip) {
			out.External = append(out.External, ip)
		}
	}
	return out
}

func slimSlice(slice *discoveryv1.EndpointSlice) *Group {
	out := &Group{}
	for _, p := range slice.Ports {
		port := Port{Protocol: corev1.ProtocolTCP}
		if p.Name != nil {
			port.Name = *p.Name
		}
		if p.Protocol != nil {
			port.Protocol = *p.Protocol
		}
		if p.Port != nil {
			port.Port = uint16(*p.Port)
		}
		out.Ports = append(out.Ports, port)
	}
	for _, e := range slice.Endpoints {
		if len(e.Addresses) == 0 {
			continue
		}
		ip, err := netip.ParseAddr(e.Addresses[0])
		if err != nil {
			continue
		}
		ep := Endpoint{IP: ip, Ready: e.Conditions.Ready == nil || *e.Conditions.Ready}
		ep.Serving = ep.Ready
		if e.Conditions.Serving != nil {
			ep.Serving = *e.Conditions.Serving
		}
		if e.Hostname != nil {
			ep.Hostname = *e.Hostname
		}
		if e.NodeName != nil {
			ep.Node = *e.NodeName
		}
		out.Endpoints = append(out.Endpoints, ep)
	}
	return out
}
