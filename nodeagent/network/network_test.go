package network_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"berth.dev/berth/nodeagent/namespaces"
	"berth.dev/berth/nodeagent/network"
	"berth.dev/berth/nodeagent/pods"
	"berth.dev/berth/nodeagent/testhost"
)

func TestMain(m *testing.M) { testhost.Main(m) }

func newNetwork(t *testing.T, dir string) *network.Network {
	t.Helper()
	n, err := network.New(network.Options{
		Dir: dir + "/addresses", Pins: &namespaces.Pins{Dir: dir + "/ns"}, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		ClusterCIDR: netip.MustParsePrefix("10.42.0.0/16"), PodCIDR: netip.MustParsePrefix("10.42.3.0/24"), ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func setup(t *testing.T, n *network.Network, uid string) pods.Attachment {
	t.Helper()
	at, err := n.Setup(t.Context(), pods.Sandbox{UID: uid, Namespace: "default", Name: uid, Hostname: uid})
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func run(t *testing.T, command string, args ...any) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", fmt.Sprintf(command, args...)).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", fmt.Sprintf(command, args...), err, out)
	}
	return string(out)
}

func clean(t *testing.T, n *network.Network, uids ...string) {
	t.Helper()
	for _, uid := range uids {
		if err := n.Teardown(t.Context(), uid); err != nil {
			t.Error(err)
		}
	}
	if err := network.Remove(); err != nil {
		t.Error(err)
	}
	if left := run(t, `ip -o link | grep -E 'berth|bth' || true; ip route | grep 10.4 || true; nft list tables`); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

func TestPodsReachEachOther(t *testing.T) {
	n := newNetwork(t, t.TempDir())
	defer clean(t, n, "a", "b")
	a, b := setup(t, n, "a"), setup(t, n, "b")
	if a.IP.String() != "10.42.3.2" || b.IP.String() != "10.42.3.3" || n.Gateway().String() != "10.42.3.1" {
		t.Errorf("addresses %s %s, gateway %s", a.IP, b.IP, n.Gateway())
	}
	if again := setup(t, n, "a"); again != a {
		t.Errorf("a second Setup gives %+v, the first gave %+v", again, a)
	}
	for _, to := range []string{b.IP.String(), "10.42.3.1", testhost.NodeIP, "127.0.0.1"} {
		run(t, `nsenter --net=%s busybox ping -c 1 -W 2 %s`, a.NetPath, to)
	}
	run(t, `busybox ping -c 1 -W 2 %s`, b.IP)
	if got := strings.TrimSpace(run(t, `nsenter --uts=%s hostname`, a.UTSPath)); got != "a" {
		t.Errorf("host name %q", got)
	}
}

func TestMTULeavesRoomForVXLAN(t *testing.T) {
	link, err := netlink.LinkByName("uplink")
	if err != nil {
		t.Fatal(err)
	}
	defer netlink.LinkSetMTU(link, 1500)
	for _, underlay := range []int{1500, 9000} {
		if err := netlink.LinkSetMTU(link, underlay); err != nil {
			t.Fatal(err)
		}
		n := newNetwork(t, t.TempDir())
		a := setup(t, n, "a")
		for _, command := range []string{"ip link show berth0", "nsenter --net=" + a.NetPath + " ip link show eth0"} {
			if out := run(t, "%s", command); !strings.Contains(out, fmt.Sprintf("mtu %d", underlay-50)) {
				t.Errorf("underlay %d: %s says %s", underlay, command, out)
			}
		}
		clean(t, n, "a")
	}
}

// TestMasqueradeOnlyWhatLeaves sees from outside which address a pod has.
func TestMasqueradeOnlyWhatLeaves(t *testing.T) {
	n := newNetwork(t, t.TempDir())
	defer clean(t, n, "a", "b", "world")
	a, b := setup(t, n, "a"), setup(t, n, "b")
	pins := &namespaces.Pins{Dir: t.TempDir()}
	world, _, err := pins.Pin("world", namespaces.Want{Hostname: "world"})
	if err != nil {
		t.Fatal(err)
	}
	defer pins.Unpin("world")
	run(t, `ip link add wan type veth peer name wan0 && ip addr add 198.51.100.1/24 dev wan && ip link set wan up`)
	defer run(t, `ip link del wan`)
	run(t, `touch /run/world && mount --bind %s /run/world && ip link set wan0 netns /run/world && umount /run/world`, world.Net)
	run(t, `nsenter --net=%s sh -c 'ip addr add 198.51.100.2/24 dev wan0; ip link set wan0 up; ip link set lo up; ip route add default via 198.51.100.1'`, world.Net)
	tool := testhost.Tool(t)
	for _, path := range []string{world.Net, b.NetPath} {
		server := exec.Command("nsenter", "--net="+path, tool, "serve", ":9000", "x")
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { server.Process.Kill(); server.Wait() }()
	}
	seen := func(from, at string) (got string) {
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if got = run(t, `nsenter --net=%s %s get http://%s:9000/from`, from, tool, at); !strings.Contains(got, "refused") {
				break
			}
		}
		return got
	}
	if got := seen(a.NetPath, "198.51.100.2"); !strings.HasPrefix(got, "198.51.100.1:") {
		t.Errorf("outside, a pod is %q, want the node's address", got)
	}
	if got := seen(a.NetPath, b.IP.String()); !strings.HasPrefix(got, a.IP.String()+":") {
		t.Errorf("another pod sees %q, want %s", got, a.IP)
	}
}

func TestDeletedBridgeIsRepaired(t *testing.T) {
	n := newNetwork(t, t.TempDir())
	defer clean(t, n, "a", "b")
	a := setup(t, n, "a")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	time.Sleep(50 * time.Millisecond) // the watch begins
	run(t, `ip link del berth0`)
	deadline := time.Now().Add(5 * time.Second)
	for exec.Command("nsenter", "--net="+a.NetPath, "busybox", "ping", "-c", "1", "-W", "1", "10.42.3.1").Run() != nil {
		if time.Now().After(deadline) {
			t.Fatal("the pod does not reach its gateway after the bridge was deleted")
		}
	}
	setup(t, n, "b")
}

func TestAddressesAreNotLeaked(t *testing.T) {
	dir := t.TempDir()
	n := newNetwork(t, dir)
	for i := range 20 {
		setup(t, n, fmt.Sprintf("pod%d", i))
	}
	// A new agent, after a SIGKILL, knows one pod of them.
	n = newNetwork(t, dir)
	defer clean(t, n, "pod7")
	if err := n.Known(t.Context(), []string{"pod7"}); err != nil {
		t.Fatal(err)
	}
	if files, _ := os.ReadDir(dir + "/addresses"); len(files) != 1 || files[0].Name() != "10.42.3.9" {
		t.Errorf("addresses in use: %v", files)
	}
	if pins, _ := os.ReadDir(dir + "/ns"); len(pins) != 1 {
		t.Errorf("namespaces: %v", pins)
	}
	if links := strings.Count(run(t, `ip -o link show type veth`), "bth"); links != 1 {
		t.Errorf("%d links of pods", links)
	}
	run(t, `busybox ping -c 1 -W 2 10.42.3.9`)
}

func TestAllAddressesCanBeUsed(t *testing.T) {
	a, err := network.OpenAddresses(t.TempDir(), netip.MustParsePrefix("10.42.3.0/28"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Addr]bool{}
	for i := range 13 { // 16 less network, gateway, broadcast
		ip, err := a.Take(fmt.Sprint(i))
		if err != nil || seen[ip] {
			t.Fatalf("address %d: %s %v", i, ip, err)
		}
		seen[ip] = true
	}
	if _, err := a.Take("more"); err == nil || !strings.Contains(err.Error(), "all 13 addresses of 10.42.3.0/28 are in use") {
		t.Errorf("%v", err)
	}
	if err := a.Release("4"); err != nil {
		t.Fatal(err)
	}
	if ip, err := a.Take("more"); err != nil || ip.String() != "10.42.3.6" {
		t.Errorf("%s %v", ip, err)
	}
}

func TestPortClashNamesTheOther(t *testing.T) {
	n := newNetwork(t, t.TempDir())
	defer clean(t, n, "a")
	ports := []pods.HostPort{{Port: 80, Protocol: "TCP"}}
	if _, err := n.Setup(t.Context(), pods.Sandbox{UID: "a", Namespace: "shop", Name: "front", HostNetwork: true, Ports: ports}); err != nil {
		t.Fatal(err)
	}
	_, err := n.Setup(t.Context(), pods.Sandbox{UID: "b", Namespace: "default", Name: "b", HostNetwork: true, Ports: ports})
	if err == nil || !strings.Contains(err.Error(), "port 80/TCP of the node is taken by pod shop/front") {
		t.Errorf("%v", err)
	}
}
