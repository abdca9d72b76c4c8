package network

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Bridge is the name of the node's bridge.
const Bridge = "berth0"

// linkPrefix begins the names of the pods' links on the node.
const linkPrefix = "bth"

// vxlanOverhead is what VXLAN over IPv4 adds to a packet, in bytes (RFC 7348).
const vxlanOverhead = 50

// bridge makes berth0 and its addresses, or repairs them.
func (n *Network) bridge() error {
	gateway := n.addresses.Gateway()
	link, err := netlink.LinkByName(Bridge)
	if isLinkNotFound(err) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.HardwareAddr = Bridge, n.mtu, hardwareAddr(gateway)
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make bridge %s: %w", Bridge, err)
		}
		link, err = netlink.LinkByName(Bridge)
	}
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", Bridge, err)
	}
	if link.Type() != "bridge" {
		return fmt.Errorf("a link named %s is here and is no bridge but %s: remove it with `ip link delete %s`", Bridge, link.Type(), Bridge)
	}
	if link.Attrs().MTU != n.mtu {
		if err := netlink.LinkSetMTU(link, n.mtu); err != nil {
			return fmt.Errorf("set MTU %d on %s: %w", n.mtu, Bridge, err)
		}
	}
	if err := setAddress(link, netip.PrefixFrom(gateway, n.opts.PodCIDR.Bits())); err != nil {
		return err
	}
	for _, setting := range []struct{ file, value string }{
		{"ipv4/conf/" + Bridge + "/send_redirects", "0"},
		{"ipv6/conf/" + Bridge + "/disable_ipv6", "1"},
	} {
		if err := writeSetting(filepath.Join("/proc/sys/net", setting.file), setting.value); err != nil && !errors.Is(err, os.ErrNotExist) {
			n.opts.Log.Warn("set a kernel switch", "switch", setting.file, "err", err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", Bridge, err)
	}
	return n.serviceRoute(link, gateway)
}

// serviceRoute lets processes of the node reach Services: a packet needs a
// route before the rules can give it its destination, and the gateway's
// address as its source is one that every pod can answer.
func (n *Network) serviceRoute(link netlink.Link, gateway netip.Addr) error {
	route := &netlink.Route{
		LinkIndex: link.Attrs().Index, Dst: ipNet(n.opts.ServiceCIDR.Masked()),
		Src: gateway.AsSlice(), Scope: netlink.SCOPE_LINK,
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("route Services %s to %s: %w", n.opts.ServiceCIDR, Bridge, err)
	}
	return nil
}

// setAddress makes want the one IPv4 address of a link.
func setAddress(link netlink.Link, want netip.Prefix) error {
	have, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list the addresses of %s: %w", link.Attrs().Name, err)
	}
	found := false
	for _, a := range have {
		if a.IPNet.String() == want.String() {
			found = true
			continue
		}
		if err := netlink.AddrDel(link, &a); err != nil {
			return fmt.Errorf("remove address %s: %w", a.IPNet, err)
		}
	}
	if found {
		return nil
	}
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(want)}); err != nil {
		return fmt.Errorf("add address %s to %s: %w", want, link.Attrs().Name, err)
	}
	return nil
}

// attach makes the pod's pair of links and everything inside its namespace.
func (n *Network) attach(uid, path string, ip netip.Addr) error {
	if err := n.detach(uid); err != nil {
		return err
	}
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("open the pod's network namespace: %w", err)
	}
	defer ns.Close()
	bridge, err := netlink.LinkByName(Bridge)
	if isLinkNotFound(err) { // somebody deleted it
		if err := n.Repair(); err != nil {
			return err
		}
		bridge, err = netlink.LinkByName(Bridge)
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", Bridge, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.MasterIndex = linkName(uid), n.mtu, bridge.Attrs().Index
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns), PeerHardwareAddr: hardwareAddr(ip), PeerMTU: uint32(n.mtu)}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("make the pod's link: %w", err)
	}
	if err := netlink.LinkSetHairpin(pair, true); err != nil {
		return fmt.Errorf("set hairpin on the pod's link: %w", err)
	}
	if err := netlink.LinkSetUp(pair); err != nil {
		return fmt.Errorf("bring up the pod's link: %w", err)
	}
	if err := inside(ns, ip, n.addresses.Gateway()); err != nil {
		return err
	}
	return insideSettings(path)
}

// inside configures eth0 and lo in the pod's namespace.
func inside(ns netns.NsHandle, ip, gateway netip.Addr) error {
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("enter the pod's network namespace: %w", err)
	}
	defer h.Close()
	for _, name := range []string{"lo", "eth0"} {
		link, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s in the pod: %w", name, err)
		}
		if name == "eth0" {
			if err := h.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(ip, 32))}); err != nil && !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("give the pod %s: %w", ip, err)
			}
		}
		if err := h.LinkSetUp(link); err != nil {
			return fmt.Errorf("bring up %s in the pod: %w", name, err)
		}
		if name != "eth0" {
			continue
		}
		for _, route := range []*netlink.Route{
			{LinkIndex: link.Attrs().Index, Dst: ipNet(netip.PrefixFrom(gateway, 32)), Scope: netlink.SCOPE_LINK},
			{LinkIndex: link.Attrs().Index, Gw: gateway.AsSlice()},
		} {
			if err := h.RouteReplace(route); err != nil {
				return fmt.Errorf("route the pod through %s: %w", gateway, err)
			}
		}
	}
	return nil
}

// detach removes the pod's link on the node, and with it the one in the pod.
func (n *Network) detach(uid string) error {
	link, err := netlink.LinkByName(linkName(uid))
	if isLinkNotFound(err) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !isLinkNotFound(err) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove the pod's link: %w", err)
	}
	return nil
}

func (n *Network) attached(uid string) bool {
	link, err := netlink.LinkByName(linkName(uid))
	return err == nil && link.Attrs().MasterIndex != 0
}

// strays removes the links of pods that are gone.
func (n *Network) strays(uids []string) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	keep := make([]string, 0, len(uids))
	for _, uid := range uids {
		keep = append(keep, linkName(uid))
	}
	for _, link := range links {
		name := link.Attrs().Name
		if !strings.HasPrefix(name, linkPrefix) || link.Type() != "veth" || slices.Contains(keep, name) {
			continue
		}
		if err := netlink.LinkDel(link); err != nil && !isLinkNotFound(err) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove a link that belongs to no pod: %w", err)
		}
	}
	return nil
}

// linkName is the same for the same pod, within the kernel's 15 characters.
func linkName(uid string) string {
	sum := sha256.Sum256([]byte(uid))
	return linkPrefix + hex.EncodeToString(sum[:6])
}

// hardwareAddr follows from the address, so that a neighbour entry stays right
// when an address is used again.
func hardwareAddr(ip netip.Addr) net.HardwareAddr {
	b := ip.As4()
	return net.HardwareAddr{0x0a, 0x58, b[0], b[1], b[2], b[3]}
}

// underlayMTU is the MTU of the link that the default route leaves by.
func underlayMTU() int {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return 1500
	}
	for _, r := range routes {
		if r.Dst != nil && r.Dst.IP != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil && link.Attrs().MTU >= 1280 {
			return link.Attrs().MTU
		}
	}
	return 1500
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func isLinkNotFound(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound)
}
