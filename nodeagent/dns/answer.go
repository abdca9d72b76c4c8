package dns

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"

	"berth.dev/berth/nodeagent/services"
)

// answer looks a name of the cluster up.
func (s *Server) answer(req *dns.Msg) *dns.Msg {
	q := req.Question[0]
	reply := new(dns.Msg).SetReply(req)
	reply.Authoritative, reply.RecursionAvailable = true, true
	if name := s.reverse(q.Name); name != "" {
		if q.Qtype == dns.TypePTR {
			reply.Answer = []dns.RR{&dns.PTR{Hdr: header(q.Name, dns.TypePTR), Ptr: name}}
		}
		return reply
	}
	found, records, extra := s.lookup(strings.ToLower(q.Name), q.Qtype)
	if !found {
		reply.Rcode = dns.RcodeNameError
	}
	for _, r := range records {
		r.Header().Name = q.Name // as it was asked for, in its case
	}
	reply.Answer, reply.Extra = records, extra
	if len(records) == 0 {
		reply.Ns = []dns.RR{&dns.SOA{
			Hdr: header(s.opts.Domain, dns.TypeSOA), Ns: "ns.dns." + s.opts.Domain, Mbox: "hostmaster." + s.opts.Domain,
			Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
		}}
	}
	return reply
}

func header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

// lookup finds [_port._proto | hostname].service.namespace.svc.domain.
func (s *Server) lookup(name string, kind uint16) (found bool, records, extra []dns.RR) {
	rest, ok := strings.CutSuffix(name, "."+s.opts.Domain)
	if !ok {
		return name == s.opts.Domain, nil, nil
	}
	labels := strings.Split(rest, ".")
	n := len(labels)
	switch {
	case labels[n-1] == "pod" && n == 3:
		return podName(labels[0], name, kind)
	case labels[n-1] != "svc":
		return false, nil, nil
	case n < 3:
		return n == 1 || s.namespace(labels[0]), nil, nil
	}
	svc, groups := s.opts.Services.Get(services.Key{Namespace: labels[n-2], Name: labels[n-3]})
	if svc == nil {
		return false, nil, nil
	}
	base := labels[n-3] + "." + labels[n-2] + ".svc." + s.opts.Domain
	switch {
	case n == 3:
		return service(svc, groups, name, base, kind)
	case n == 4:
		return host(svc, groups, labels[0], name, kind)
	case n == 5 && strings.HasPrefix(labels[0], "_") && strings.HasPrefix(labels[1], "_"):
		return port(svc, groups, labels[0][1:], labels[1][1:], name, base, kind)
	}
	return false, nil, nil
}

func (s *Server) namespace(name string) bool {
	for _, key := range s.opts.Services.Keys() {
		if key.Namespace == name {
			return true
		}
	}
	return false
}

// podName is 10-42-0-2.namespace.pod.
func podName(label, name string, kind uint16) (bool, []dns.RR, []dns.RR) {
	ip, err := netip.ParseAddr(strings.ReplaceAll(label, "-", "."))
	if err != nil || !ip.Is4() {
		return false, nil, nil
	}
	return true, addresses(name, []netip.Addr{ip}, kind), nil
}

func service(svc *services.Service, groups []*services.Group, name, base string, kind uint16) (bool, []dns.RR, []dns.RR) {
	switch {
	case svc.ExternalName != "":
		return true, []dns.RR{&dns.CNAME{Hdr: header(name, dns.TypeCNAME), Target: dns.Fqdn(svc.ExternalName)}}, nil
	case kind == dns.TypeSRV:
		var all, extra []dns.RR
		for _, p := range svc.Ports {
			_, records, more := port(svc, groups, p.Name, strings.ToLower(string(p.Protocol)), name, base, kind)
			all, extra = append(all, records...), append(extra, more...)
		}
		return true, all, extra
	case !svc.Headless:
		return true, addresses(name, []netip.Addr{svc.ClusterIP}, kind), nil
	}
	var ips []netip.Addr
	for _, e := range endpoints(svc, groups) {
		ips = append(ips, e.IP)
	}
	return len(ips) > 0 || len(groups) > 0, addresses(name, ips, kind), nil
}

// endpoints are those that a headless Service shows.
func endpoints(svc *services.Service, groups []*services.Group) []services.Endpoint {
	var out []services.Endpoint
	seen := map[netip.Addr]bool{}
	for _, g := range groups {
		for _, e := range g.Endpoints {
			if (e.Ready || svc.PublishNotReady) && !seen[e.IP] {
				seen[e.IP] = true
				out = append(out, e)
			}
		}
	}
	return out
}

// host is hostname.service, of a headless Service.
func host(svc *services.Service, groups []*services.Group, label, name string, kind uint16) (bool, []dns.RR, []dns.RR) {
	var ips []netip.Addr
	for _, e := range endpoints(svc, groups) {
		if label == hostLabel(e) || label == dashed(e.IP) {
			ips = append(ips, e.IP)
		}
	}
	return len(ips) > 0, addresses(name, ips, kind), nil
}

func hostLabel(e services.Endpoint) string {
	if e.Hostname != "" {
		return strings.ToLower(e.Hostname)
	}
	return dashed(e.IP)
}

func dashed(ip netip.Addr) string { return strings.ReplaceAll(ip.String(), ".", "-") }

// port is _port._protocol.service.
func port(svc *services.Service, groups []*services.Group, portName, proto, name, base string, kind uint16) (bool, []dns.RR, []dns.RR) {
	var found bool
	var records, extra []dns.RR
	add := func(number uint16, target string, ip netip.Addr) {
		found = true
		if kind != dns.TypeSRV && kind != dns.TypeANY {
			return
		}
		records = append(records, &dns.SRV{Hdr: header(name, dns.TypeSRV), Priority: 0, Weight: 100, Port: number, Target: target})
		extra = append(extra, &dns.A{Hdr: header(target, dns.TypeA), A: ip.AsSlice()})
	}
	if !svc.Headless {
		for _, p := range svc.Ports {
			if p.Name == portName && same(p.Protocol, proto) && svc.ClusterIP.IsValid() {
				add(p.Port, base, svc.ClusterIP)
			}
		}
		return found, records, extra
	}
	for _, g := range groups {
		for _, p := range g.Ports {
			if p.Name != portName || !same(p.Protocol, proto) {
				continue
			}
			for _, e := range endpoints(svc, []*services.Group{g}) {
				add(p.Port, hostLabel(e)+"."+base, e.IP)
			}
		}
	}
	return found, records, extra
}

func same(p corev1.Protocol, label string) bool { return strings.EqualFold(string(p), label) }

// addresses are A records; there are no others, so other types are empty.
func addresses(name string, ips []netip.Addr, kind uint16) []dns.RR {
	if kind != dns.TypeA && kind != dns.TypeANY {
		return nil
	}
	var out []dns.RR
	for _, ip := range ips {
		out = append(out, &dns.A{Hdr: header(name, dns.TypeA), A: ip.AsSlice()})
	}
	return out
}
