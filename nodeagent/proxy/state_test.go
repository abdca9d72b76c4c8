package proxy

import (
	"fmt"
	"math/rand"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"berth.dev/berth/nodeagent/services"
)

// model is a kernel that refuses what the real one refuses: an element that is
// there already, and the removal of one that is not.
type model struct {
	t      *testing.T
	fronts map[front]chainKey
	slots  map[string]netip.AddrPort
	hair   map[netip.Addr]bool
	chains map[chainKey]bool
}

func (m *model) apply(ops *changes) (size int) {
	for _, c := range ops.addChains {
		m.chains[c] = true
	}
	for _, c := range ops.delFronts {
		if m.fronts[c.front] != c.chain {
			m.t.Fatalf("deletes front %v with %v, has %v", c.front, c.chain, m.fronts[c.front])
		}
		delete(m.fronts, c.front)
	}
	key := func(c slotChange) string { return fmt.Sprint(c.front, c.index) }
	for _, c := range ops.delSlots {
		if m.slots[key(c)] != c.backend {
			m.t.Fatalf("deletes slot %s with %s, has %s", key(c), c.backend, m.slots[key(c)])
		}
		delete(m.slots, key(c))
	}
	for _, ip := range ops.delHair {
		if !m.hair[ip] {
			m.t.Fatalf("deletes hairpin %s, which is not there", ip)
		}
		delete(m.hair, ip)
	}
	for _, c := range ops.addSlots {
		if _, there := m.slots[key(c)]; there {
			m.t.Fatalf("adds slot %s, which is there", key(c))
		}
		m.slots[key(c)] = c.backend
	}
	for _, ip := range ops.addHair {
		if m.hair[ip] {
			m.t.Fatalf("adds hairpin %s, which is there", ip)
		}
		m.hair[ip] = true
	}
	for _, c := range ops.addFronts {
		if _, there := m.fronts[c.front]; there || !m.chains[c.chain] {
			m.t.Fatalf("adds front %v to %v", c.front, c.chain)
		}
		m.fronts[c.front] = c.chain
	}
	return len(ops.delSlots) + len(ops.addSlots) + len(ops.delFronts) + len(ops.addFronts)
}

// TestRandomChangesKeepTheKernelRight changes Services at random and holds the
// model against what each Service should be.
func TestRandomChangesKeepTheKernelRight(t *testing.T) {
	local := netip.MustParsePrefix("10.42.0.0/24")
	for seed := range int64(30) {
		r := rand.New(rand.NewSource(seed))
		s := newState(local)
		m := &model{t: t, fronts: map[front]chainKey{}, slots: map[string]netip.AddrPort{}, hair: map[netip.Addr]bool{}, chains: map[chainKey]bool{}}
		want := map[services.Key][]target{}
		for range 200 {
			ops := &changes{}
			for _, i := range r.Perm(5)[:1+r.Intn(3)] {
				key := services.Key{Name: fmt.Sprint(i)}
				want[key] = randomTargets(r, key)
				s.set(key, want[key], ops)
			}
			m.apply(ops)
			check(t, m, want, local)
		}
	}
}

func randomTargets(r *rand.Rand, key services.Key) []target {
	svc := &services.Service{Name: key.Name, ClusterIP: netip.MustParseAddr("10.43.0.1" + key.Name), Ports: []services.Port{{Name: "a", Protocol: corev1.ProtocolTCP, Port: 80}, {Name: "b", Protocol: corev1.ProtocolUDP, Port: 53, NodePort: uint16(30000 + len(key.Name))}}}
	if key.Name != "0" {
		svc.Ports[1].NodePort = 0
	}
	if r.Intn(4) == 0 {
		svc.Affinity = time.Hour
	}
	g := &services.Group{Ports: []services.Port{{Name: "a", Protocol: corev1.ProtocolTCP, Port: 8080}, {Name: "b", Protocol: corev1.ProtocolUDP, Port: 5353}}}
	for i := range r.Intn(7) {
		g.Endpoints = append(g.Endpoints, services.Endpoint{IP: netip.AddrFrom4([4]byte{10, 42, byte(r.Intn(2)), byte(2 + r.Intn(8) + i*0)}), Ready: r.Intn(5) > 0})
	}
	return targets(svc, []*services.Group{g})
}

func check(t *testing.T, m *model, want map[services.Key][]target, local netip.Prefix) {
	t.Helper()
	fronts, hair, count := map[front]chainKey{}, map[netip.Addr]bool{}, 0
	for _, ts := range want {
		for _, tg := range ts {
			fronts[tg.front] = tg.front.chain(len(tg.backends), tg.byClient)
			have := map[netip.AddrPort]bool{}
			for i := range tg.backends {
				have[m.slots[fmt.Sprint(tg.front, i)]] = true
			}
			for _, b := range tg.backends {
				count++
				if !have[b] {
					t.Fatalf("front %v lacks %s", tg.front, b)
				}
				if local.Contains(b.Addr()) {
					hair[b.Addr()] = true
				}
			}
		}
	}
	if diff := cmp.Diff(fmt.Sprint(fronts), fmt.Sprint(m.fronts)); diff != "" {
		t.Fatalf("fronts: %s", diff)
	}
	if len(m.slots) != count {
		t.Fatalf("%d slots, want %d", len(m.slots), count)
	}
	if fmt.Sprint(hair) != fmt.Sprint(m.hair) {
		t.Fatalf("hairpins %v, want %v", m.hair, hair)
	}
}

func TestOneEndpointMoreCostsOneElement(t *testing.T) {
	s := newState(netip.MustParsePrefix("10.42.0.0/24"))
	tg := target{front: front{netip.MustParseAddr("10.43.0.1"), protoTCP, 80}}
	for i := range 50 {
		tg.backends = append(tg.backends, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 42, 1, byte(i)}), 80))
	}
	s.set(services.Key{Name: "a"}, []target{tg}, &changes{})
	ops := &changes{}
	tg.backends = append(tg.backends[:50:50], netip.MustParseAddrPort("10.42.1.200:80"))
	s.set(services.Key{Name: "a"}, []target{tg}, ops)
	if len(ops.addSlots) != 1 || len(ops.delSlots) != 0 || len(ops.addFronts) != 1 {
		t.Errorf("%+v", ops)
	}
	ops = &changes{}
	tg.backends = tg.backends[1:]
	s.set(services.Key{Name: "a"}, []target{tg}, ops)
	if len(ops.addSlots) != 1 || len(ops.delSlots) != 2 {
		t.Errorf("one endpoint less: %+v", ops)
	}
}

func TestEndingEndpointsServeWhenNoneIsReady(t *testing.T) {
	port := services.Port{Name: "a", Protocol: corev1.ProtocolTCP, Port: 80}
	g := &services.Group{Ports: []services.Port{{Name: "a", Protocol: corev1.ProtocolTCP, Port: 8080}}, Endpoints: []services.Endpoint{
		{IP: netip.MustParseAddr("10.0.0.1"), Serving: true}, {IP: netip.MustParseAddr("10.0.0.2")},
	}}
	if got := fmt.Sprint(behind(port, []*services.Group{g})); got != "[10.0.0.1:8080]" {
		t.Error(got)
	}
	g.Endpoints = append(g.Endpoints, services.Endpoint{IP: netip.MustParseAddr("10.0.0.3"), Ready: true, Serving: true})
	if got := fmt.Sprint(behind(port, []*services.Group{g})); got != "[10.0.0.3:8080]" {
		t.Error(got)
	}
}

func TestAddressMovesToAnotherService(t *testing.T) {
	for _, order := range [][]string{{"a", "b"}, {"b", "a"}} {
		s := newState(netip.MustParsePrefix("10.42.0.0/24"))
		m := &model{t: t, fronts: map[front]chainKey{}, slots: map[string]netip.AddrPort{}, hair: map[netip.Addr]bool{}, chains: map[chainKey]bool{}}
		_, want := web(1, 2, false)
		ops := &changes{}
		s.set(services.Key{Name: "a"}, want, ops)
		m.apply(ops)
		ops = &changes{}
		_, other := web(1, 3, false)
		s.setAll(map[services.Key][]target{{Name: order[0]}: map[string][]target{"b": other}[order[0]], {Name: order[1]}: map[string][]target{"b": other}[order[1]]}, ops)
		m.apply(ops)
		if len(m.slots) != 3 {
			t.Errorf("order %v: %d slots, want those of b", order, len(m.slots))
		}
	}
}
