package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/live"
)

const (
	// endpointsPerSlice is Kubernetes' default.
	endpointsPerSlice = 100
	managedBy         = "endpointslice-controller.berth.dev"
)

// endpoints keeps the EndpointSlices of each Service with a selector.
type endpoints struct {
	*cluster
	*horizons
	loop *loop
	// perSlice is how many endpoints a slice holds at most.
	perSlice int
}

func newEndpoints(c *cluster) *endpoints {
	e := &endpoints{cluster: c, horizons: newHorizons(), perSlice: endpointsPerSlice}
	e.loop = newLoop(c, "endpointslice", e.reconcile)
	c.Services.OnChange(func(old, now *corev1.Service) {
		if now == nil {
			e.forget(old.UID)
			return
		}
		e.loop.add(now)
	})
	c.Pods.OnChange(func(old, now *corev1.Pod) {
		if old != nil && now != nil && equality.Semantic.DeepEqual(endpointView(old), endpointView(now)) {
			return
		}
		for _, pod := range []*corev1.Pod{old, now} {
			if pod != nil {
				e.podChanged(pod)
			}
		}
	})
	c.EndpointSlices.OnChange(func(old, now *discoveryv1.EndpointSlice) {
		// What somebody else has changed or taken away is put right.
		for _, slice := range []*discoveryv1.EndpointSlice{old, now} {
			if slice != nil && slice.Labels[discoveryv1.LabelManagedBy] == managedBy && (now == nil || !e.wrote(now)) {
				e.loop.queue.Add(types.NamespacedName{Namespace: slice.Namespace, Name: slice.Labels[discoveryv1.LabelServiceName]})
			}
		}
	})
	return e
}

// wrote reports whether a slice is not newer than what was last written for its
// Service.
func (e *endpoints) wrote(slice *discoveryv1.EndpointSlice) bool {
	ref := controllerOf(slice)
	return ref != nil && e.covers(ref.UID, live.Version(slice))
}

// endpointView is what of a Pod shows in a slice.
func endpointView(p *corev1.Pod) any {
	return []any{p.Labels, p.Status.PodIP, p.Spec.NodeName, podReady(p), p.DeletionTimestamp != nil, podFinished(p)}
}

func (e *endpoints) podChanged(pod *corev1.Pod) {
	for _, s := range e.Services.InNamespace(pod.Namespace) {
		if selects(s, pod) {
			e.loop.add(s)
		}
	}
}

// selects is asked of every Pod of a namespace, so it makes no selector of the pairs.
func selects(s *corev1.Service, p *corev1.Pod) bool {
	for k, v := range s.Spec.Selector {
		if has, ok := p.Labels[k]; !ok || has != v {
			return false
		}
	}
	return len(s.Spec.Selector) > 0
}

// Run works until the context ends.
func (e *endpoints) Run(ctx context.Context) error {
	return e.loop.run(ctx, e.Services, e.Pods, e.EndpointSlices, e.Namespaces)
}

func (e *endpoints) reconcile(ctx context.Context, key types.NamespacedName) error {
	s, ok := e.Services.Get(key)
	if !ok || s.DeletionTimestamp != nil || len(s.Spec.Selector) == 0 || s.Spec.Type == corev1.ServiceTypeExternalName || e.going(s.Namespace) {
		return nil
	}
	if !e.settled(s.UID, e.EndpointSlices) { // what was just made would be made again
		return apierrors.NewConflict(corev1.Resource("services"), s.Name, errors.New("its slices are not seen yet"))
	}
	have, want := e.existing(s), e.slices(s)
	t := e.resources.Begin()
	var written []*discoveryv1.EndpointSlice
	for i, slice := range want {
		if i >= len(have) {
			written = append(written, slice)
			if err := t.Create(ctx, slice); err != nil {
				return fmt.Errorf("create endpoint slice: %w", err)
			}
			continue
		}
		next := have[i].DeepCopy()
		next.Labels, next.Endpoints, next.Ports, next.OwnerReferences = slice.Labels, slice.Endpoints, slice.Ports, slice.OwnerReferences
		if equality.Semantic.DeepEqual(next, have[i]) {
			continue
		}
		written = append(written, next)
		if err := t.Update(ctx, next); err != nil {
			return fmt.Errorf("update endpoint slice %s: %w", next.Name, err)
		}
	}
	for i := len(want); i < len(have); i++ {
		gone := have[i].DeepCopy()
		written = append(written, gone)
		if err := t.Delete(ctx, gone, client.DeleteOptions{UID: gone.UID}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete endpoint slice: %w", err)
		}
	}
	if err := putEndpoints(ctx, e.resources, t, endpointsOf(s, want)); err != nil {
		return err
	}
	if err := t.Commit(ctx); err != nil {
		return err
	}
	e.reach(s.UID, newest(written...))
	return nil
}

// existing are the slices of a Service that this controller keeps, in a stable order.
func (e *endpoints) existing(s *corev1.Service) []*discoveryv1.EndpointSlice {
	all := e.EndpointSlices.InNamespace(s.Namespace)
	out := slices.DeleteFunc(all, func(slice *discoveryv1.EndpointSlice) bool {
		return slice.Labels[discoveryv1.LabelServiceName] != s.Name || slice.Labels[discoveryv1.LabelManagedBy] != managedBy
	})
	slices.SortFunc(out, func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// slices are the endpoints of a Service, grouped by the numbers that its ports
// come to: a named target port may differ from Pod to Pod.
func (e *endpoints) slices(s *corev1.Service) []*discoveryv1.EndpointSlice {
	type group struct {
		ports     []discoveryv1.EndpointPort
		endpoints []discoveryv1.Endpoint
	}
	groups := map[string]*group{}
	var order []string
	pods := slices.DeleteFunc(e.Pods.InNamespace(s.Namespace), func(p *corev1.Pod) bool {
		return p.Status.PodIP == "" || podFinished(p) || !selects(s, p)
	})
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	for _, p := range pods {
		ports := portsOn(s, p)
		k := fmt.Sprint(describePorts(ports))
		if groups[k] == nil {
			groups[k] = &group{ports: ports}
			order = append(order, k)
		}
		groups[k].endpoints = append(groups[k].endpoints, endpointOf(s, p))
	}
	slices.Sort(order)
	if len(order) == 0 {
		order, groups[""] = []string{""}, &group{ports: []discoveryv1.EndpointPort{}}
	}
	var out []*discoveryv1.EndpointSlice
	for _, k := range order {
		for chunk := range chunks(groups[k].endpoints, e.perSlice) {
			out = append(out, newSlice(s, groups[k].ports, chunk))
		}
	}
	return out
}

// chunks yields at least one, which may be empty.
func chunks[T any](all []T, size int) func(func([]T) bool) {
	return func(yield func([]T) bool) {
		for first := true; first || len(all) > 0; first = false {
			n := min(size, len(all))
			if !yield(all[:n]) {
				return
			}
			all = all[n:]
		}
	}
}

func describePorts(ports []discoveryv1.EndpointPort) []string {
	var out []string
	for _, p := range ports {
		out = append(out, fmt.Sprintf("%s/%s/%d", *p.Name, *p.Protocol, *p.Port))
	}
	return out
}

func portsOn(s *corev1.Service, p *corev1.Pod) []discoveryv1.EndpointPort {
	out := []discoveryv1.EndpointPort{}
	for i := range s.Spec.Ports {
		sp := s.Spec.Ports[i]
		number := targetPort(&sp, p)
		if number == 0 {
			continue
		}
		out = append(out, discoveryv1.EndpointPort{Name: &sp.Name, Protocol: &sp.Protocol, Port: &number, AppProtocol: sp.AppProtocol})
	}
	return out
}

// targetPort is 0 when the Pod has no port of that name.
func targetPort(sp *corev1.ServicePort, p *corev1.Pod) int32 {
	if sp.TargetPort.StrVal == "" {
		return cmp.Or(sp.TargetPort.IntVal, sp.Port)
	}
	for _, list := range [][]corev1.Container{p.Spec.Containers, p.Spec.InitContainers} {
		for _, c := range list {
			for _, cp := range c.Ports {
				if cp.Name == sp.TargetPort.StrVal && cp.Protocol == sp.Protocol {
					return cp.ContainerPort
				}
			}
		}
	}
	return 0
}

func endpointOf(s *corev1.Service, p *corev1.Pod) discoveryv1.Endpoint {
	serving := podReady(p)
	terminating := p.DeletionTimestamp != nil
	ready := (serving && !terminating) || s.Spec.PublishNotReadyAddresses
	ep := discoveryv1.Endpoint{
		Addresses:  []string{p.Status.PodIP},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID},
	}
	if p.Spec.NodeName != "" {
		ep.NodeName = &p.Spec.NodeName
	}
	if p.Spec.Hostname != "" && p.Spec.Subdomain == s.Name {
		ep.Hostname = &p.Spec.Hostname
	}
	return ep
}

func newSlice(s *corev1.Service, ports []discoveryv1.EndpointPort, eps []discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	yes := true
	l := map[string]string{}
	for k, v := range s.Labels {
		if k != "berth.dev/source" {
			l[k] = v
		}
	}
	l[discoveryv1.LabelServiceName], l[discoveryv1.LabelManagedBy] = s.Name, managedBy
	if s.Spec.ClusterIP == corev1.ClusterIPNone {
		l[corev1.IsHeadlessService] = ""
	}
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Namespace, GenerateName: s.Name + "-", Labels: l,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "v1", Kind: "Service", Name: s.Name, UID: s.UID, Controller: &yes, BlockOwnerDeletion: &yes,
			}},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       ports,
		Endpoints:   eps,
	}
}
