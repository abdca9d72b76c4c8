package main

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"

	"berth.dev/berth/engine/access"
	"berth.dev/berth/engine/controllers"
)

// peopleOnly keeps the page from service accounts and nodes.
func peopleOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, ok := access.From(r.Context()); ok && !user.Person() {
			http.Error(w, fmt.Sprintf("the page is for administrators and viewers; %s is neither", user.Name), http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// advertised is where pods reach a server that listens on an address: a node
// that listens everywhere is reached at its own.
func advertised(on net.Addr, node netip.Addr) netip.AddrPort {
	at := on.(*net.TCPAddr).AddrPort()
	if a := at.Addr().Unmap(); !a.IsUnspecified() && a.Is4() {
		node = a
	}
	return netip.AddrPortFrom(node, at.Port())
}

// inClusterNames are those by which pods know the API.
func inClusterNames(services netip.Prefix) []string {
	return []string{
		controllers.APIAddress(services).String(), "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	}
}
