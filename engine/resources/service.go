package resources

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/upstream"
	"berth.dev/berth/engine/store"
)

// Node ports are taken from Kubernetes' default range.
const (
	nodePortFirst = 30000
	nodePortLast  = 32767
)

// Keys that hold what a Service has for itself alone. They are written in the
// transaction that writes the Service, so no two can have the same.
func addressKey(ip string) string { return "/berth/clusterip/" + ip }
func nodePortKey(port int32, proto corev1.Protocol) string {
	return fmt.Sprintf("/berth/nodeport/%s/%d", proto, port)
}

func prepareService(o client.Object) {
	s := o.(*corev1.Service)
	s.Status = corev1.ServiceStatus{}
	upstream.SameClusterIPs(s)
}

// keepClusterIP carries over the addresses and ports that a new version of the
// Service does not name.
func keepClusterIP(obj, old client.Object) {
	s, o := obj.(*corev1.Service), old.(*corev1.Service)
	upstream.SameClusterIPs(s)
	if s.Spec.Type == corev1.ServiceTypeExternalName || o.Spec.Type == corev1.ServiceTypeExternalName {
		return
	}
	if s.Spec.ClusterIP == "" {
		s.Spec.ClusterIP, s.Spec.ClusterIPs = o.Spec.ClusterIP, o.Spec.ClusterIPs
	}
	if s.Spec.IPFamilies == nil {
		s.Spec.IPFamilies, s.Spec.IPFamilyPolicy = o.Spec.IPFamilies, o.Spec.IPFamilyPolicy
	}
	if !usesNodePorts(s) {
		return
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		for _, was := range o.Spec.Ports {
			// Defaults come later: a protocol left out is TCP.
			if p.NodePort == 0 && p.Port == was.Port && cmp.Or(p.Protocol, corev1.ProtocolTCP) == was.Protocol {
				p.NodePort = was.NodePort
			}
		}
	}
}

func usesNodePorts(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeNodePort ||
		(s.Spec.Type == corev1.ServiceTypeLoadBalancer && (s.Spec.AllocateLoadBalancerNodePorts == nil || *s.Spec.AllocateLoadBalancerNodePorts))
}

// held are the keys that a Service has reserved.
func held(s *corev1.Service) map[string]bool {
	keys := map[string]bool{}
	if s == nil {
		return keys
	}
	if ip := s.Spec.ClusterIP; ip != "" && ip != corev1.ClusterIPNone && s.Spec.Type != corev1.ServiceTypeExternalName {
		keys[addressKey(ip)] = true
	}
	if usesNodePorts(s) {
		for _, p := range s.Spec.Ports {
			if p.NodePort != 0 {
				keys[nodePortKey(p.NodePort, p.Protocol)] = true
			}
		}
	}
	return keys
}

// reserveForService gives a Service the address and ports it lacks and returns
// the operations that reserve what is new and release what is no longer used.
func (t *Tx) reserveForService(ctx context.Context, s, old *corev1.Service) ([]store.Op, error) {
	if err := t.assignClusterIP(ctx, s); err != nil {
		return nil, err
	}
	before := held(old)
	if usesNodePorts(s) {
		if err := t.assignNodePorts(ctx, s); err != nil {
			return nil, err
		}
	}
	owner := []byte(s.Namespace + "/" + s.Name)
	var ops []store.Op
	for key := range held(s) {
		if before[key] {
			delete(before, key)
			continue
		}
		if by, err := t.holder(ctx, key); err != nil {
			return nil, err
		} else if by != "" {
			return nil, t.r.portTaken(s, key, by)
		}
		expect := store.Absent
		if t.released[key] {
			expect = store.Any // the change that gives it up is in this transaction
		}
		t.reserved[key] = string(owner)
		ops = append(ops, store.Op{Key: key, Value: owner, Expect: expect})
	}
	return append(ops, t.release(before)...), nil
}

// release gives keys up, so that later changes of the transaction can have them.
func (t *Tx) release(keys map[string]bool) []store.Op {
	var ops []store.Op
	for key := range keys {
		t.released[key] = true
		ops = append(ops, store.Op{Key: key, Expect: store.Any})
	}
	return ops
}

// holder is the Service that has a key, in the store or earlier in this
// transaction; empty when it is free.
func (t *Tx) holder(ctx context.Context, key string) (string, error) {
	if by := t.reserved[key]; by != "" {
		return by, nil
	}
	if t.released[key] {
		return "", nil
	}
	kv, taken, err := t.r.store.Get(ctx, key)
	if err != nil {
		return "", fault(err)
	}
	if !taken {
		return "", nil
	}
	return string(kv.Value), nil
}

func (r *Resources) portTaken(s *corev1.Service, key, owner string) error {
	path, value := field.NewPath("spec", "clusterIP"), any(s.Spec.ClusterIP)
	for i, p := range s.Spec.Ports {
		if p.NodePort != 0 && key == nodePortKey(p.NodePort, p.Protocol) {
			path, value = field.NewPath("spec", "ports").Index(i).Child("nodePort"), p.NodePort
		}
	}
	row := r.byKind[corev1.SchemeGroupVersion.WithKind("Service")]
	return invalid(row, s, field.ErrorList{field.Invalid(path, value,
		fmt.Sprintf("is taken by Service %s; leave it out to be given a free one", owner))})
}

func (t *Tx) releaseService(s *corev1.Service) []store.Op { return t.release(held(s)) }

func (t *Tx) assignClusterIP(ctx context.Context, s *corev1.Service) error {
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		s.Spec.ClusterIP, s.Spec.ClusterIPs = "", nil
		return nil
	}
	if s.Spec.ClusterIP == "" {
		ip, err := t.freeAddress(ctx, s.Namespace+"/"+s.Name)
		if err != nil {
			return err
		}
		s.Spec.ClusterIP = ip
	} else if ip, err := netip.ParseAddr(s.Spec.ClusterIP); err == nil && !t.r.services.Contains(ip) {
		row := t.r.byKind[corev1.SchemeGroupVersion.WithKind("Service")]
		return invalid(row, s, field.ErrorList{field.Invalid(field.NewPath("spec", "clusterIP"), s.Spec.ClusterIP,
			fmt.Sprintf("is outside the range of cluster addresses, %s; leave it out to be given one", t.r.services))})
	}
	s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	if s.Spec.IPFamilies == nil {
		s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
	}
	if s.Spec.IPFamilyPolicy == nil {
		single := corev1.IPFamilyPolicySingleStack
		s.Spec.IPFamilyPolicy = &single
	}
	return nil
}

// freeAddress finds an address that no Service has, beginning at a place that
// the name decides: the same Service gets the same address again. The first
// ten are left for what Berth itself offers, such as DNS.
func (t *Tx) freeAddress(ctx context.Context, name string) (string, error) {
	const reserved = 10
	size := uint32(1) << (32 - t.r.services.Bits())
	usable := size - reserved - 1
	base := be32(t.r.services.Masked().Addr())
	h := fnv.New32a()
	h.Write([]byte(name))
	start := h.Sum32() % usable
	for i := range usable {
		ip := from32(base + reserved + (start+i)%usable).String()
		by, err := t.holder(ctx, addressKey(ip))
		if err != nil {
			return "", err
		}
		if by == "" {
			return ip, nil
		}
	}
	return "", apierrors.NewInternalError(fmt.Errorf("all %d cluster addresses of %s are taken; start Berth with a larger --service-cidr", usable, t.r.services))
}

func be32(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func from32(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

func (t *Tx) assignNodePorts(ctx context.Context, s *corev1.Service) error {
	const count = nodePortLast - nodePortFirst + 1
	chosen := map[string]bool{}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.NodePort != 0 && (p.NodePort < nodePortFirst || p.NodePort > nodePortLast) {
			row := t.r.byKind[corev1.SchemeGroupVersion.WithKind("Service")]
			return invalid(row, s, field.ErrorList{field.Invalid(field.NewPath("spec", "ports").Index(i).Child("nodePort"), p.NodePort,
				fmt.Sprintf("must be from %d to %d; leave it out to be given a free one", nodePortFirst, nodePortLast))})
		}
		h := fnv.New32a()
		h.Write([]byte(s.Namespace + "/" + s.Name + "/" + strconv.Itoa(int(p.Port))))
		start := int32(h.Sum32() % count)
		for n := int32(0); n < count && p.NodePort == 0; n++ {
			port := nodePortFirst + (start+n)%count
			key := nodePortKey(port, p.Protocol)
			by, err := t.holder(ctx, key)
			if err != nil {
				return err
			}
			if by == "" && !chosen[key] {
				p.NodePort = port
			}
		}
		if p.NodePort == 0 {
			return apierrors.NewInternalError(fmt.Errorf("all node ports from %d to %d are taken", nodePortFirst, nodePortLast))
		}
		chosen[nodePortKey(p.NodePort, p.Protocol)] = true
	}
	return nil
}
