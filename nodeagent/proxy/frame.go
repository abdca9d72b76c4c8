package proxy

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers of 32 bits each, as the rules use them (NFT_REG32_00 is 8).
const (
	regIndex  = unix.NFT_REG32_00 + iota // the drawn number
	regAddr                              // the packet's destination
	regProto                             // its protocol
	regPort                              // its destination port
	regTo                                // the endpoint's address
	regToPort                            // the endpoint's port
)

// markNodePort marks a packet that came in by a node port: it leaves with the
// node's address, so that the answer comes back here.
const markNodePort = 0x8000

// clientSeed is the same on every node, so that a client finds the same endpoint
// through each of them.
const clientSeed = 0x62657274

// Priorities: before and after the kernel's own steps of translation.
const (
	priorityMasquerade = 99
	priorityFilter     = 0
)

// frame adds to the batch the sets and the rules that do not depend on Services.
func (k *kernel) frame(serviceCIDR netip.Prefix) {
	for _, s := range k.sets() {
		_ = k.conn.AddSet(s, nil)
	}
	k.entry("services_prerouting", nftables.ChainHookPrerouting)
	k.entry("services_output", nftables.ChainHookOutput)
	k.masquerade()
	k.refuse("refuse_forward", nftables.ChainHookForward, serviceCIDR)
	k.refuse("refuse_output", nftables.ChainHookOutput, serviceCIDR)
}

func (k *kernel) rule(c *nftables.Chain, exprs ...expr.Any) {
	k.conn.AddRule(&nftables.Rule{Table: k.table, Chain: c, Exprs: exprs})
}

func priority(p int32) *nftables.ChainPriority {
	return nftables.ChainPriorityRef(nftables.ChainPriority(p))
}

// where loads address, protocol and port of a packet's destination.
func where() []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: regAddr, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: regProto},
		&expr.Payload{DestRegister: regPort, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
}

// entry is where packets to Services are found.
func (k *kernel) entry(name string, hook *nftables.ChainHook) {
	c := k.conn.AddChain(&nftables.Chain{Name: name, Table: k.table, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: nftables.ChainPriorityNATDest})
	k.rule(c, append(where(), &expr.Lookup{SourceRegister: regAddr, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: k.services.Name, SetID: k.services.ID})...)
	local := []expr.Any{
		&expr.Fib{Register: 1, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{127}},
	}
	local = append(local, where()...)
	k.rule(c, append(local, &expr.Lookup{SourceRegister: regProto, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: k.nodePorts.Name, SetID: k.nodePorts.ID})...)
}

// masquerade gives packets the node's address whose answers would not come back
// to where they were translated.
func (k *kernel) masquerade() {
	c := k.conn.AddChain(&nftables.Chain{Name: "services_postrouting", Table: k.table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: priority(priorityMasquerade)})
	k.rule(c,
		&expr.Payload{DestRegister: regIndex, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Payload{DestRegister: regAddr, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Lookup{SourceRegister: regIndex, SetName: k.hairpin.Name, SetID: k.hairpin.ID},
		&expr.Masq{})
	k.rule(c,
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(markNodePort), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
		&expr.Masq{})
}

// refuse answers what is still going to a Service's address after translation:
// there is no such port, or nobody behind it.
func (k *kernel) refuse(name string, hook *nftables.ChainHook, serviceCIDR netip.Prefix) {
	c := k.conn.AddChain(&nftables.Chain{Name: name, Table: k.table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: priority(priorityFilter)})
	mask := make([]byte, 4)
	for i := range serviceCIDR.Bits() {
		mask[i/8] |= 1 << (7 - i%8)
	}
	match := []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: addr4(serviceCIDR.Masked().Addr())},
	}
	tcp := append(append([]expr.Any{}, match...),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protoTCP}},
		&expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
	k.rule(c, tcp...)
	k.rule(c, append(match, &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 3})...) // port unreachable
}

func (c chainKey) name() string {
	name := "pick"
	if c.node {
		name = "node"
	}
	name = fmt.Sprintf("%s_%d", name, c.n)
	if c.byClient {
		name += "_by_client"
	}
	return name
}

// draw makes the chain that draws one of n endpoints.
func (k *kernel) draw(key chainKey) {
	c := k.conn.AddChain(&nftables.Chain{Name: key.name(), Table: k.table})
	load := where()
	if key.node {
		load[0] = &expr.Immediate{Register: regAddr, Data: make([]byte, 4)}
		k.rule(c,
			&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(^uint32(markNodePort)), Xor: binaryutil.NativeEndian.PutUint32(markNodePort)},
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1})
	}
	drawn := []expr.Any{&expr.Numgen{Register: regIndex, Modulus: uint32(key.n), Type: unix.NFT_NG_RANDOM}}
	if key.byClient {
		drawn = []expr.Any{
			&expr.Payload{DestRegister: regTo, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
			&expr.Hash{SourceRegister: regTo, DestRegister: regIndex, Length: 4, Modulus: uint32(key.n), Seed: clientSeed, Type: expr.HashTypeJenkins},
		}
	}
	exprs := append(drawn, load...)
	k.rule(c, append(exprs,
		&expr.Lookup{SourceRegister: regIndex, DestRegister: regTo, IsDestRegSet: true, SetName: k.endpoints.Name, SetID: k.endpoints.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: regTo, RegProtoMin: regToPort, Specified: true})...)
}
