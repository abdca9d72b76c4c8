package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	mdlayher "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"berth.dev/berth/nodeagent/network"
)

// chunk is how many elements go in a message: its length field has 16 bits.
const chunk = 300

// socketBuffer holds the largest batch: a full write of many Services.
const socketBuffer = 64 << 20

// kernel is a batch of changes to Berth's table.
type kernel struct {
	conn  *nftables.Conn
	table *nftables.Table

	services, nodePorts, endpoints, hairpin *nftables.Set
}

func open() (*kernel, error) {
	conn, err := nftables.New(nftables.WithSockOptions(func(c *mdlayher.Conn) error {
		return errors.Join(c.SetWriteBuffer(socketBuffer), c.SetReadBuffer(socketBuffer))
	}))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	table := &nftables.Table{Name: network.Table, Family: nftables.TableFamilyIPv4}
	concat := func(types ...nftables.SetDatatype) nftables.SetDatatype { return nftables.MustConcatSetType(types...) }
	ip, proto, port := nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService
	k := &kernel{
		conn: conn, table: table,
		services:  &nftables.Set{Table: table, Name: "services", IsMap: true, Concatenation: true, KeyType: concat(ip, proto, port), DataType: nftables.TypeVerdict},
		nodePorts: &nftables.Set{Table: table, Name: "node_ports", IsMap: true, Concatenation: true, KeyType: concat(proto, port), DataType: nftables.TypeVerdict},
		endpoints: &nftables.Set{Table: table, Name: "endpoints", IsMap: true, Concatenation: true, KeyType: concat(nftables.TypeMark, ip, proto, port), DataType: concat(ip, port)},
		hairpin:   &nftables.Set{Table: table, Name: "hairpin", Concatenation: true, KeyType: concat(ip, ip)},
	}
	return k, nil
}

func (k *kernel) sets() []*nftables.Set {
	return []*nftables.Set{k.services, k.nodePorts, k.endpoints, k.hairpin}
}

// clear adds to the batch what removes all chains and sets that are ours.
func (k *kernel) clear() error {
	k.conn.AddTable(k.table)
	if err := k.conn.Flush(); err != nil {
		return fmt.Errorf("make table %s: %w", network.Table, err)
	}
	chains, err := k.conn.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	chains = slices.DeleteFunc(chains, func(c *nftables.Chain) bool {
		return c.Table.Name != k.table.Name || c.Name == "postrouting"
	})
	sets, err := k.conn.GetSets(k.table)
	if err != nil {
		return fmt.Errorf("list sets: %w", err)
	}
	for _, c := range chains {
		k.conn.FlushChain(&nftables.Chain{Name: c.Name, Table: k.table})
	}
	for _, s := range sets {
		k.conn.DelSet(&nftables.Set{Name: s.Name, Table: k.table})
	}
	for _, c := range chains {
		k.conn.DelChain(&nftables.Chain{Name: c.Name, Table: k.table})
	}
	return nil
}

// apply adds changes to the batch. Deletions come first, so that an element that
// changes is one of each.
func (k *kernel) apply(ops *changes) {
	for _, c := range ops.addChains {
		k.draw(c)
	}
	split := func(all []frontChange) (services, nodes []nftables.SetElement) {
		for _, c := range all {
			e := nftables.SetElement{Key: c.front.key(), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: c.chain.name()}}
			if c.front.node() {
				nodes = append(nodes, e)
			} else {
				services = append(services, e)
			}
		}
		return services, nodes
	}
	services, nodes := split(ops.delFronts)
	k.change(k.services, services, k.conn.SetDeleteElements)
	k.change(k.nodePorts, nodes, k.conn.SetDeleteElements)
	k.change(k.endpoints, slots(ops.delSlots), k.conn.SetDeleteElements)
	k.change(k.hairpin, hair(ops.delHair), k.conn.SetDeleteElements)
	k.change(k.endpoints, slots(ops.addSlots), k.conn.SetAddElements)
	k.change(k.hairpin, hair(ops.addHair), k.conn.SetAddElements)
	services, nodes = split(ops.addFronts)
	k.change(k.services, services, k.conn.SetAddElements)
	k.change(k.nodePorts, nodes, k.conn.SetAddElements)
}

func (k *kernel) change(set *nftables.Set, elements []nftables.SetElement, do func(*nftables.Set, []nftables.SetElement) error) {
	for part := range slices.Chunk(elements, chunk) {
		_ = do(set, part) // encoding errors come out of Flush
	}
}

func slots(all []slotChange) []nftables.SetElement {
	var out []nftables.SetElement
	for _, c := range all {
		key := binary.NativeEndian.AppendUint32(nil, uint32(c.index))
		key = append(key, addr4(c.front.addr)...)
		key = append(key, portKey(c.front)...)
		out = append(out, nftables.SetElement{Key: key, Val: backend(c.backend)})
	}
	return out
}

func hair(all []netip.Addr) []nftables.SetElement {
	var out []nftables.SetElement
	for _, ip := range all {
		out = append(out, nftables.SetElement{Key: append(addr4(ip), addr4(ip)...)})
	}
	return out
}

// key is a front as an element's key: each field fills a multiple of 4 bytes.
func (f front) key() []byte {
	if f.node() {
		return portKey(f)
	}
	return append(addr4(f.addr), portKey(f)...)
}

func portKey(f front) []byte {
	return []byte{f.proto, 0, 0, 0, byte(f.port >> 8), byte(f.port), 0, 0}
}

func addr4(ip netip.Addr) []byte { b := ip.As4(); return b[:] }

func backend(b netip.AddrPort) []byte {
	return append(addr4(b.Addr()), byte(b.Port()>>8), byte(b.Port()), 0, 0)
}

// forgetFlows ends UDP flows to endpoints that are gone: the kernel would keep
// their translation as long as packets come.
func (p *Proxy) forgetFlows(ops *changes) {
	for _, f := range ops.gone {
		filter := &netlink.ConntrackFilter{}
		errs := []error{filter.AddProtocol(unix.IPPROTO_UDP)}
		if !f.front.node() {
			errs = append(errs, filter.AddIP(netlink.ConntrackOrigDstIP, f.front.addr.AsSlice()))
		}
		errs = append(errs, filter.AddPort(netlink.ConntrackOrigDstPort, f.front.port))
		if f.backend.IsValid() {
			errs = append(errs, filter.AddIP(netlink.ConntrackReplySrcIP, f.backend.Addr().AsSlice()))
		}
		_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, filter)
		if err = errors.Join(append(errs, err)...); err != nil {
			p.opts.Log.Warn("forget UDP flows to an endpoint that is gone", "address", f.front.addr, "err", err)
		}
	}
}
