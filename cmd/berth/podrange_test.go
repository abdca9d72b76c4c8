package main

import (
	"net/netip"
	"strings"
	"testing"
)

func TestFreeRange(t *testing.T) {
	cluster := netip.MustParsePrefix("10.42.0.0/22")
	taken := map[string]string{"10.42.0.0/24": "a", "10.42.2.0/24": "b"}
	for _, test := range []struct{ wanted, want string }{
		{"", "10.42.1.0/24"},
		{"10.42.3.0/24", "10.42.3.0/24"},
	} {
		got, err := freeRange(cluster, test.wanted, taken)
		if err != nil || got.String() != test.want {
			t.Errorf("wanted %q: %s, %v; want %s", test.wanted, got, err, test.want)
		}
	}
	if _, err := freeRange(cluster, "10.42.2.0/24", taken); err == nil || !strings.Contains(err.Error(), "node b both have the addresses") {
		t.Errorf("a range that another node has: %v", err)
	}
	taken["10.42.1.0/24"], taken["10.42.3.0/24"] = "c", "d"
	if _, err := freeRange(cluster, "", taken); err == nil || !strings.Contains(err.Error(), "all addresses of --cluster-cidr 10.42.0.0/22 are taken") {
		t.Errorf("no range is left: %v", err)
	}
}
