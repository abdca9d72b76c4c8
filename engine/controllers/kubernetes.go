package controllers

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/resources"
)

const (
	// apiService is the Service by which Pods reach the API.
	apiService = "kubernetes"
	apiPort    = 443
	// apiEvery is how often the addresses of the servers are read anew.
	apiEvery = 10 * time.Second
)

// APIAddress is the address of the API inside the cluster: the first one of the
// Services' range, as in Kubernetes.
func APIAddress(services netip.Prefix) netip.Addr { return services.Masked().Addr().Next() }

// kubernetes keeps the Service of the API and its endpoints, which are no Pods.
type kubernetes struct {
	*cluster
	loop    *loop
	address netip.Addr
	servers func() []netip.AddrPort
}

func newKubernetes(c *cluster, services netip.Prefix, servers func() []netip.AddrPort) *kubernetes {
	k := &kubernetes{cluster: c, address: APIAddress(services), servers: servers}
	k.loop = newLoop(c, "kubernetes", k.reconcile)
	c.Services.OnChange(func(old, now *corev1.Service) { k.changed(asObject(old), asObject(now)) })
	c.EndpointSlices.OnChange(func(old, now *discoveryv1.EndpointSlice) {
		if now == nil { // what reconcile has written itself needs no other look
			k.changed(old, nil)
		}
	})
	return k
}

func (k *kubernetes) key() types.NamespacedName {
	return types.NamespacedName{Namespace: metav1.NamespaceDefault, Name: apiService}
}

func (k *kubernetes) changed(objs ...client.Object) {
	for _, obj := range objs {
		if obj != nil && client.Key(obj) == k.key() {
			k.loop.add(obj)
		}
	}
}

// Run works until the context ends.
func (k *kubernetes) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return k.loop.run(ctx, k.Services) })
	g.Go(func() error {
		ticker := k.clock.NewTicker(apiEvery)
		defer ticker.Stop()
		for {
			k.loop.queue.Add(k.key())
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C():
			}
		}
	})
	return g.Wait()
}

func (k *kubernetes) reconcile(ctx context.Context, _ types.NamespacedName) error {
	servers := k.servers()
	if len(servers) == 0 {
		return nil
	}
	if err := k.service(ctx, servers[0].Port()); err != nil {
		return fmt.Errorf("service of the API: %w", err)
	}
	servers = slices.DeleteFunc(slices.Clone(servers), func(a netip.AddrPort) bool { return a.Addr().IsLoopback() })
	if err := k.slice(ctx, servers); err != nil {
		return fmt.Errorf("endpoints of the API: %w", err)
	}
	return k.endpoints(ctx, servers)
}

func (k *kubernetes) service(ctx context.Context, target uint16) error {
	ports := []corev1.ServicePort{{Name: "https", Protocol: corev1.ProtocolTCP, Port: apiPort, TargetPort: intstr.FromInt32(int32(target))}}
	var have corev1.Service
	err := k.resources.Get(ctx, k.key(), &have)
	if apierrors.IsNotFound(err) {
		return k.resources.Create(ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: k.key().Namespace, Name: apiService, Labels: map[string]string{"component": "apiserver", "provider": "kubernetes"},
			},
			Spec: corev1.ServiceSpec{ClusterIP: k.address.String(), Ports: ports},
		})
	}
	if _, managed := resources.Managed(&have); err != nil || managed || equality.Semantic.DeepEqual(have.Spec.Ports, ports) {
		return err
	}
	have.Spec.Ports = ports
	return k.resources.Update(ctx, &have)
}

func (k *kubernetes) slice(ctx context.Context, servers []netip.AddrPort) error {
	name, protocol, port := "https", corev1.ProtocolTCP, int32(0)
	yes := true
	want := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: k.key().Namespace, Name: apiService, Labels: map[string]string{discoveryv1.LabelServiceName: apiService},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{},
		Ports:       []discoveryv1.EndpointPort{},
	}
	for _, a := range servers {
		port = int32(a.Port()) // the same on all servers
		want.Endpoints = append(want.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{a.Addr().String()}, Conditions: discoveryv1.EndpointConditions{Ready: &yes},
		})
	}
	if port != 0 {
		want.Ports = []discoveryv1.EndpointPort{{Name: &name, Protocol: &protocol, Port: &port}}
	}
	var have discoveryv1.EndpointSlice
	err := k.resources.Get(ctx, k.key(), &have)
	if apierrors.IsNotFound(err) {
		return k.resources.Create(ctx, want)
	}
	if err != nil {
		return err
	}
	if equality.Semantic.DeepEqual(have.Endpoints, want.Endpoints) && equality.Semantic.DeepEqual(have.Ports, want.Ports) {
		return nil
	}
	have.Endpoints, have.Ports = want.Endpoints, want.Ports
	return k.resources.Update(ctx, &have)
}

// endpoints says the same in the older kind.
func (k *kubernetes) endpoints(ctx context.Context, servers []netip.AddrPort) error {
	want := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{
		Namespace: k.key().Namespace, Name: apiService, Labels: map[string]string{"endpointslice.kubernetes.io/skip-mirror": "true"},
	}}
	if len(servers) > 0 {
		subset := corev1.EndpointSubset{Ports: []corev1.EndpointPort{{Name: "https", Protocol: corev1.ProtocolTCP, Port: int32(servers[0].Port())}}}
		for _, a := range servers {
			subset.Addresses = append(subset.Addresses, corev1.EndpointAddress{IP: a.Addr().String()})
		}
		want.Subsets = []corev1.EndpointSubset{subset}
	}
	t := k.resources.Begin()
	if err := putEndpoints(ctx, k.resources, t, want); err != nil {
		return err
	}
	return t.Commit(ctx)
}
