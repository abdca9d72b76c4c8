package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"berth.dev/berth/nodeagent/namespaces"
	"berth.dev/berth/nodeagent/pods"
)

// Options is what a Network needs. All fields must be set.
type Options struct {
	// Dir is the folder of the addresses in use.
	Dir                  string
	Pins                 *namespaces.Pins
	ClusterCIDR, PodCIDR netip.Prefix
	ServiceCIDR          netip.Prefix
	// HostPorts leads ports of the node to a pod's address; no ports end it.
	// Optional.
	HostPorts func(uid string, ip netip.Addr, ports []pods.HostPort)
	Log       *slog.Logger
}

// Network attaches pods to the node's bridge.
type Network struct {
	opts      Options
	addresses *Addresses
	mtu       int

	mu    sync.Mutex
	ports map[string][]pods.HostPort // by pod
	names map[string]string          // of pods that have ports
}

var _ pods.Network = (*Network)(nil)

// New makes the bridge, the routes, the rules and the kernel's settings.
func New(opts Options) (*Network, error) {
	addresses, err := OpenAddresses(opts.Dir, opts.PodCIDR)
	if err != nil {
		return nil, err
	}
	n := &Network{opts: opts, addresses: addresses, ports: map[string][]pods.HostPort{}, names: map[string]string{}}
	n.mtu = underlayMTU() - vxlanOverhead
	if err := settings(); err != nil {
		return nil, err
	}
	if err := n.bridge(); err != nil {
		return nil, err
	}
	if err := n.masquerade(); err != nil {
		return nil, err
	}
	return n, nil
}

// Gateway is the node's address on the pod network. Pods find it as their
// gateway, and the node's DNS listens there.
func (n *Network) Gateway() netip.Addr { return n.addresses.Gateway() }

// Setup implements pods.Network.
func (n *Network) Setup(_ context.Context, s pods.Sandbox) (pods.Attachment, error) {
	if err := n.claim(s); err != nil {
		return pods.Attachment{}, err
	}
	set, fresh, err := n.opts.Pins.Pin(s.UID, namespaces.Want{Hostname: s.Hostname, HostNetwork: s.HostNetwork, HostIPC: s.HostIPC})
	if err != nil {
		return pods.Attachment{}, err
	}
	out := pods.Attachment{NetPath: set.Net, IPCPath: set.IPC, UTSPath: set.UTS}
	if s.HostNetwork {
		return out, nil
	}
	if out.IP, err = n.addresses.Take(s.UID); err != nil {
		return pods.Attachment{}, err
	}
	if fresh || !n.attached(s.UID) {
		if err := n.attach(s.UID, set.Net, out.IP); err != nil {
			return pods.Attachment{}, err
		}
	}
	if n.opts.HostPorts != nil && len(s.Ports) > 0 {
		n.opts.HostPorts(s.UID, out.IP, s.Ports)
	}
	return out, nil
}

// Teardown implements pods.Network.
func (n *Network) Teardown(_ context.Context, uid string) error {
	n.release(uid)
	if n.opts.HostPorts != nil {
		n.opts.HostPorts(uid, netip.Addr{}, nil)
	}
	return errors.Join(n.detach(uid), n.opts.Pins.Unpin(uid), n.addresses.Release(uid))
}

// Known implements pods.Network.
func (n *Network) Known(ctx context.Context, uids []string) error {
	pinned, err := n.opts.Pins.List()
	if err != nil {
		return err
	}
	for uid := range n.addresses.Owners() {
		pinned = append(pinned, uid)
	}
	slices.Sort(pinned)
	var errs []error
	for _, uid := range slices.Compact(pinned) {
		if !slices.Contains(uids, uid) {
			errs = append(errs, n.Teardown(ctx, uid))
		}
	}
	return errors.Join(append(errs, n.strays(uids))...)
}

// claim keeps two pods from one port of the node.
func (n *Network) claim(s pods.Sandbox) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for uid, ports := range n.ports {
		if uid == s.UID {
			continue
		}
		for _, have := range ports {
			for _, want := range s.Ports {
				if have.Port == want.Port && have.Protocol == want.Protocol && sameHost(have.HostIP, want.HostIP) {
					return &pods.WaitError{Reason: "HostPortConflict", Message: fmt.Sprintf("port %d/%s of the node is taken by pod %s: change hostPort (or the container's port, with hostNetwork), or remove that pod", want.Port, want.Protocol, n.names[uid])}
				}
			}
		}
	}
	if len(s.Ports) > 0 {
		n.ports[s.UID], n.names[s.UID] = s.Ports, s.Namespace+"/"+s.Name
	}
	return nil
}

func (n *Network) release(uid string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.ports, uid)
	delete(n.names, uid)
}

func sameHost(a, b netip.Addr) bool {
	return !a.IsValid() || !b.IsValid() || a.IsUnspecified() || b.IsUnspecified() || a == b
}

// settings are the kernel's switches that pod traffic needs.
func settings() error {
	const forward = "/proc/sys/net/ipv4/ip_forward"
	if err := writeSetting(forward, "1"); err != nil {
		return fmt.Errorf("turn on IP forwarding, without which pods reach nothing: %w: run `sysctl -w net.ipv4.ip_forward=1`", err)
	}
	return nil
}

func writeSetting(file, value string) error {
	have, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if string(have) == value+"\n" {
		return nil
	}
	err = os.WriteFile(file, []byte(value), 0)
	if errors.Is(err, unix.EROFS) {
		return fmt.Errorf("%s is read-only here", filepath.Base(file))
	}
	return err
}
