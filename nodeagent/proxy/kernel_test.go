package proxy

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"berth.dev/berth/nodeagent/services"
	"berth.dev/berth/nodeagent/testhost"
)

func TestMain(m *testing.M) { testhost.Main(m) }

func nft(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func web(i, endpoints int, byClient bool) (services.Key, []target) {
	tg := target{front: front{netip.AddrFrom4([4]byte{10, 43, byte(i >> 8), byte(i)}), protoTCP, 80}, byClient: byClient}
	for e := range endpoints {
		tg.backends = append(tg.backends, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 42, byte(e), byte(2 + i%200)}), 8080))
	}
	return services.Key{Namespace: "default", Name: fmt.Sprint("s", i)}, []target{tg}
}

// write makes the kernel hold what s was told, as sync and rewrite do.
func write(t *testing.T, s *state, ops *changes, all bool) {
	t.Helper()
	k, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if all {
		if err := k.clear(); err != nil {
			t.Fatal(err)
		}
		k.frame(netip.MustParsePrefix("10.43.0.0/16"))
	}
	k.apply(ops)
	if err := k.conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestRulesAreReplacedAndForeignTablesStay(t *testing.T) {
	nft(t, "add table ip foreign")
	nft(t, "add chain ip foreign c")
	defer nft(t, "delete table ip foreign")
	local := netip.MustParsePrefix("10.42.0.0/24")
	for range 2 { // the second is an agent that finds the rules of the first
		s, ops := newState(local), &changes{}
		key, want := web(1, 3, false)
		s.set(key, want, ops)
		key, want = web(2, 2, true)
		s.set(key, want, ops)
		want[0].front.addr = netip.IPv4Unspecified()
		want[0].front.port = 30080
		s.set(services.Key{Name: "node"}, want, ops)
		write(t, s, ops, true)
	}
	text := nft(t, "list ruleset")
	for _, want := range []string{"table ip foreign", "10.43.0.1 . tcp . 80 : goto pick_3", "10.43.0.2 . tcp . 80 : goto pick_2_by_client", "tcp . 30080 : goto node_2_by_client", "numgen random mod 3", "jhash ip saddr mod 2"} {
		if !strings.Contains(text, want) {
			t.Errorf("the rules lack %q:\n%s", want, text)
		}
	}
	if n := strings.Count(text, "chain services_prerouting"); n != 1 {
		t.Errorf("%d times the same chain", n)
	}
	c, _ := nftables.New()
	c.DelTable(&nftables.Table{Name: "berth", Family: nftables.TableFamilyIPv4})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

// TestTenThousandServices holds the design's figures: everything under 10 s, one
// more under 50 ms.
func TestTenThousandServices(t *testing.T) {
	if testing.Short() {
		t.Skip("10,000 Services")
	}
	s, ops := newState(netip.MustParsePrefix("10.42.0.0/24")), &changes{}
	for i := range 10000 {
		key, want := web(i+1, 3, false)
		s.set(key, want, ops)
	}
	began := time.Now()
	write(t, s, ops, true)
	first := time.Since(began)
	var one time.Duration
	for i := range 5 {
		ops = &changes{}
		key, want := web(20000+i, 3, false)
		s.set(key, want, ops)
		began = time.Now()
		write(t, s, ops, false)
		one = max(one, time.Since(began))
	}
	t.Logf("10,000 Services with 3 endpoints each: %v, one more: %v", first, one)
	if first > 10*time.Second || one > 50*time.Millisecond {
		t.Errorf("10,000 Services took %v (under 10 s), one more %v (under 50 ms)", first, one)
	}
	c, _ := nftables.New()
	c.DelTable(&nftables.Table{Name: "berth", Family: nftables.TableFamilyIPv4})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}
