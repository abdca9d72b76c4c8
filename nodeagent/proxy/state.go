package proxy

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"berth.dev/berth/nodeagent/services"
)

// front is where a Service is reached. The unspecified address stands for
// every address of the node: a node port.
type front struct {
	addr  netip.Addr
	proto uint8
	port  uint16
}

func (f front) node() bool { return f.addr.IsUnspecified() }

// target is a front and what stands behind it.
type target struct {
	front    front
	byClient bool             // ClientIP affinity
	backends []netip.AddrPort // sorted
}

// Protocol numbers (RFC 1700).
const (
	protoTCP  = 6
	protoUDP  = 17
	protoSCTP = 132
)

func protocol(p corev1.Protocol) uint8 {
	switch p {
	case corev1.ProtocolUDP:
		return protoUDP
	case corev1.ProtocolSCTP:
		return protoSCTP
	}
	return protoTCP
}

// targets is what a Service needs in the kernel. It is pure; nil has none. A
// front without endpoints is left out: what is not translated is refused.
func targets(svc *services.Service, groups []*services.Group) []target {
	if svc == nil || svc.Headless || svc.ExternalName != "" || !svc.ClusterIP.IsValid() {
		return nil
	}
	var out []target
	for _, port := range svc.Ports {
		backends := behind(port, groups)
		if len(backends) == 0 {
			continue
		}
		proto := protocol(port.Protocol)
		fronts := []front{{svc.ClusterIP, proto, port.Port}}
		for _, ip := range svc.External {
			fronts = append(fronts, front{ip, proto, port.Port})
		}
		if port.NodePort != 0 {
			fronts = append(fronts, front{netip.IPv4Unspecified(), proto, port.NodePort})
		}
		for _, f := range fronts {
			out = append(out, target{front: f, byClient: svc.Affinity > 0, backends: backends})
		}
	}
	return out
}

// behind returns the endpoints of a port: the ready ones, else those that are
// ending and still serve (KEP-1669).
func behind(port services.Port, groups []*services.Group) []netip.AddrPort {
	var ready, serving []netip.AddrPort
	for _, g := range groups {
		for _, p := range g.Ports {
			if p.Name != port.Name || protocol(p.Protocol) != protocol(port.Protocol) || p.Port == 0 {
				continue
			}
			for _, e := range g.Endpoints {
				at := netip.AddrPortFrom(e.IP, p.Port)
				switch {
				case e.Ready:
					ready = append(ready, at)
				case e.Serving:
					serving = append(serving, at)
				}
			}
		}
	}
	if len(ready) == 0 {
		ready = serving
	}
	slices.SortFunc(ready, compare)
	return slices.Compact(ready)
}

func compare(a, b netip.AddrPort) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Port(), b.Port()))
}

// state is what the kernel has.
type state struct {
	local  netip.Prefix
	of     map[services.Key]map[front]bool
	fronts map[front]*installed
	hair   map[netip.Addr]int // local endpoints, and how many fronts have them
	chains map[chainKey]bool
}

// installed is a front in the kernel. Its slots are numbered from 0 without a gap.
type installed struct {
	owner    services.Key
	byClient bool
	slots    []netip.AddrPort
}

// chainKey says which chain draws an endpoint.
type chainKey struct {
	node     bool
	n        int
	byClient bool
}

func (f front) chain(n int, byClient bool) chainKey {
	return chainKey{node: f.node(), n: n, byClient: byClient}
}

// changes are elements to delete and to add, and chains that are needed.
type changes struct {
	delFronts, addFronts []frontChange
	delSlots, addSlots   []slotChange
	delHair, addHair     []netip.Addr
	addChains            []chainKey
	gone                 []flow
}

type frontChange struct {
	front front
	chain chainKey
}

type slotChange struct {
	front   front
	index   int
	backend netip.AddrPort
}

// flow is UDP traffic that must find its way anew.
type flow struct {
	front   front
	backend netip.AddrPort // invalid: all
}

func (c *changes) empty() bool {
	return len(c.delFronts)+len(c.addFronts)+len(c.delSlots)+len(c.addSlots)+len(c.delHair)+len(c.addHair)+len(c.gone) == 0
}

func newState(local netip.Prefix) *state {
	return &state{local: local, of: map[services.Key]map[front]bool{}, fronts: map[front]*installed{}, hair: map[netip.Addr]int{}, chains: map[chainKey]bool{}}
}

// set makes the state hold exactly want for a Service and notes what that takes.
// A front that another Service has stays with it; it then returns false.
func (s *state) set(key services.Key, want []target, ops *changes) (whole bool) {
	whole = true
	fronts := map[front]bool{}
	for _, t := range want {
		if have := s.fronts[t.front]; have != nil && have.owner != key {
			whole = false
			continue
		}
		fronts[t.front] = true
		s.install(key, t, ops)
	}
	for f := range s.of[key] {
		if !fronts[f] {
			s.uninstall(f, ops)
		}
	}
	if len(fronts) == 0 {
		delete(s.of, key)
		return whole
	}
	s.of[key] = fronts
	return whole
}

// setAll is set for several Services. It returns those that another one stands
// in the way of, which are to be set again when something changes.
func (s *state) setAll(want map[services.Key][]target, ops *changes) (blocked []services.Key) {
	var again []services.Key
	for key, targets := range want {
		if !s.set(key, targets, ops) {
			again = append(again, key)
		}
	}
	for _, key := range again { // whoever was in the way may be gone by now
		if !s.set(key, want[key], ops) {
			blocked = append(blocked, key)
		}
	}
	return blocked
}

func (s *state) install(key services.Key, t target, ops *changes) {
	have := s.fronts[t.front]
	n, former := 0, false
	if have == nil {
		have = &installed{owner: key}
		s.fronts[t.front] = have
		if t.front.proto == protoUDP { // what was sent while there was nobody
			ops.gone = append(ops.gone, flow{front: t.front})
		}
	} else {
		n, former = len(have.slots), have.byClient
	}
	s.fill(t.front, have, t.backends, ops)
	have.byClient = t.byClient
	before, after := t.front.chain(n, former), t.front.chain(len(have.slots), t.byClient)
	if n > 0 && before == after {
		return
	}
	if n > 0 {
		ops.delFronts = append(ops.delFronts, frontChange{t.front, before})
	}
	ops.addFronts = append(ops.addFronts, frontChange{t.front, after})
	if !s.chains[after] {
		s.chains[after] = true
		ops.addChains = append(ops.addChains, after)
	}
}

// fill changes as few slots as it can: an endpoint that goes is replaced by a new
// one, or by the last.
func (s *state) fill(f front, have *installed, want []netip.AddrPort, ops *changes) {
	var fresh []netip.AddrPort
	for _, b := range want {
		if !slices.Contains(have.slots, b) {
			fresh = append(fresh, b)
			s.hairpin(b.Addr(), 1, ops)
		}
	}
	for i := 0; i < len(have.slots); {
		old := have.slots[i]
		if slices.Contains(want, old) {
			i++
			continue
		}
		ops.delSlots = append(ops.delSlots, slotChange{f, i, old})
		s.hairpin(old.Addr(), -1, ops)
		if f.proto == protoUDP {
			ops.gone = append(ops.gone, flow{f, old})
		}
		if len(fresh) > 0 {
			have.slots[i] = fresh[0]
			ops.addSlots = append(ops.addSlots, slotChange{f, i, fresh[0]})
			fresh = fresh[1:]
			i++
			continue
		}
		last := len(have.slots) - 1
		if i != last {
			moved := have.slots[last]
			if slices.Contains(want, moved) {
				ops.delSlots = append(ops.delSlots, slotChange{f, last, moved})
				ops.addSlots = append(ops.addSlots, slotChange{f, i, moved})
				have.slots[i] = moved
				have.slots = have.slots[:last]
				i++
				continue
			}
			// The last goes as well: take it away first, then look at i again.
			ops.delSlots[len(ops.delSlots)-1] = slotChange{f, last, moved}
			s.hairpin(old.Addr(), 1, ops)
			s.hairpin(moved.Addr(), -1, ops)
			if f.proto == protoUDP {
				ops.gone[len(ops.gone)-1] = flow{f, moved}
			}
		}
		have.slots = have.slots[:last]
	}
	for _, b := range fresh {
		ops.addSlots = append(ops.addSlots, slotChange{f, len(have.slots), b})
		have.slots = append(have.slots, b)
	}
}

func (s *state) uninstall(f front, ops *changes) {
	have := s.fronts[f]
	ops.delFronts = append(ops.delFronts, frontChange{f, f.chain(len(have.slots), have.byClient)})
	for i, b := range have.slots {
		ops.delSlots = append(ops.delSlots, slotChange{f, i, b})
		s.hairpin(b.Addr(), -1, ops)
	}
	if f.proto == protoUDP {
		ops.gone = append(ops.gone, flow{front: f})
	}
	delete(s.fronts, f)
}

// hairpin counts who reaches an endpoint of this node: one that reaches itself
// through a Service must see another address than its own.
func (s *state) hairpin(ip netip.Addr, by int, ops *changes) {
	if !s.local.Contains(ip) {
		return
	}
	before := s.hair[ip]
	s.hair[ip] = before + by
	switch {
	case before == 0 && by > 0:
		if i := slices.Index(ops.delHair, ip); i >= 0 { // away and back in one batch
			ops.delHair = slices.Delete(ops.delHair, i, i+1)
			return
		}
		ops.addHair = append(ops.addHair, ip)
	case before+by == 0:
		delete(s.hair, ip)
		if i := slices.Index(ops.addHair, ip); i >= 0 {
			ops.addHair = slices.Delete(ops.addHair, i, i+1)
			return
		}
		ops.delHair = append(ops.delHair, ip)
	}
}
