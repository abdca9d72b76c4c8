// Package dns answers names on a node: Services and the pods behind them from
// memory, all others by asking the node's own name servers. It owns the sockets
// at the gateway's address, reads the services.Index, and writes nothing.
//
// Names follow the specification of Kubernetes DNS, version 1.1.0.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"berth.dev/berth/nodeagent/services"
)

// Options is what a Server needs. All fields must be set, but Upstream.
type Options struct {
	Services *services.Index
	// Domain is the cluster's, such as cluster.local.
	Domain string
	Listen netip.AddrPort
	// Upstream are the servers for other names. Default: those of /etc/resolv.conf.
	Upstream []netip.AddrPort
	Log      *slog.Logger
}

// ttl is how long answers may be kept, in seconds; as CoreDNS has it.
const ttl = 5

// upstreamTimeout is how long one server of the node is waited for.
const upstreamTimeout = 3 * time.Second

// Server answers names.
type Server struct{ opts Options }

// New readies a Server.
func New(opts Options) *Server {
	opts.Domain = strings.ToLower(strings.Trim(opts.Domain, ".")) + "."
	return &Server{opts: opts}
}

// Run answers until the context ends.
func (s *Server) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := s.serve(ctx)
		if ctx.Err() != nil {
			break
		}
		s.opts.Log.Error("answer names; it is tried again", "listen", s.opts.Listen, "err", err)
		pause(ctx, time.Second)
	}
	return nil
}

func (s *Server) serve(ctx context.Context) error {
	packet, err := net.ListenPacket("udp4", s.opts.Listen.String())
	if err != nil {
		return fmt.Errorf("listen on %s/udp (is another name server there?): %w", s.opts.Listen, err)
	}
	stream, err := net.Listen("tcp4", s.opts.Listen.String())
	if err != nil {
		return errors.Join(fmt.Errorf("listen on %s/tcp (is another name server there?): %w", s.opts.Listen, err), packet.Close())
	}
	handler := dns.HandlerFunc(s.handle)
	udp := &dns.Server{PacketConn: packet, Handler: handler}
	tcp := &dns.Server{Listener: stream, Handler: handler, IdleTimeout: func() time.Duration { return 10 * time.Second }}
	group, inner := errgroup.WithContext(ctx)
	group.Go(udp.ActivateAndServe)
	group.Go(tcp.ActivateAndServe)
	group.Go(func() error {
		<-inner.Done()
		return errors.Join(packet.Close(), stream.Close())
	})
	return group.Wait()
}

func (s *Server) handle(w dns.ResponseWriter, req *dns.Msg) {
	var reply *dns.Msg
	switch {
	case len(req.Question) != 1:
		reply = new(dns.Msg).SetRcode(req, dns.RcodeFormatError)
	case s.ours(req.Question[0].Name):
		reply = s.answer(req)
	default:
		reply = s.forward(req, w.RemoteAddr().Network())
	}
	fit(reply, req, w.RemoteAddr().Network())
	if err := w.WriteMsg(reply); err != nil {
		s.opts.Log.Debug("answer a name", "err", err)
	}
}

// fit keeps an answer within what the asker takes; TC tells it to use TCP.
func fit(reply, req *dns.Msg, network string) {
	size := dns.MaxMsgSize
	if network == "udp" {
		size = dns.MinMsgSize
		if opt := req.IsEdns0(); opt != nil {
			size = max(size, int(opt.UDPSize()))
			if reply.IsEdns0() == nil {
				reply.SetEdns0(opt.UDPSize(), false)
			}
		}
	}
	reply.Compress = true
	reply.Truncate(size)
}

// ours tells whether a name is the cluster's, a reverse name of a Service included.
func (s *Server) ours(name string) bool {
	name = strings.ToLower(name)
	if dns.IsSubDomain(s.opts.Domain, name) {
		return true
	}
	return s.reverse(name) != ""
}

// reverse is the name that a Service's address has, or "".
func (s *Server) reverse(name string) string {
	rest, ok := strings.CutSuffix(strings.ToLower(name), ".in-addr.arpa.")
	if !ok {
		return ""
	}
	parts := strings.Split(rest, ".")
	if len(parts) != 4 {
		return ""
	}
	ip, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
	if err != nil {
		return ""
	}
	for _, key := range s.opts.Services.Keys() {
		if svc, _ := s.opts.Services.Get(key); svc != nil && svc.ClusterIP == ip {
			return key.Name + "." + key.Namespace + ".svc." + s.opts.Domain
		}
	}
	return ""
}

// forward asks the node's servers, one after the other.
func (s *Server) forward(req *dns.Msg, network string) *dns.Msg {
	servers := s.opts.Upstream
	if servers == nil {
		servers = nodeServers(s.opts.Listen.Addr())
	}
	c := &dns.Client{Net: network, Timeout: upstreamTimeout}
	for _, server := range servers {
		reply, _, err := c.Exchange(req, server.String())
		if err == nil {
			return reply
		}
		s.opts.Log.Debug("ask a name server of the node", "server", server, "err", err)
	}
	return new(dns.Msg).SetRcode(req, dns.RcodeServerFailure)
}

// nodeServers are those of /etc/resolv.conf, without ourselves.
func nodeServers(self netip.Addr) []netip.AddrPort {
	f, err := os.Open("/etc/resolv.conf")
	if err != nil {
		return nil
	}
	defer f.Close()
	config, err := dns.ClientConfigFromReader(f)
	if err != nil {
		return nil
	}
	var out []netip.AddrPort
	for _, server := range config.Servers {
		if ip, err := netip.ParseAddr(server); err == nil && ip != self {
			out = append(out, netip.AddrPortFrom(ip, 53))
		}
	}
	return out
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
