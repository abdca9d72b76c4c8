package git

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	neturl "net/url"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/http/httpproxy"
)

const (
	dialTimeout = 20 * time.Second
	// lookupTimeout bounds how long the name of a target is looked up that a proxy
	// connects to; many machines behind a proxy have no names of the outside.
	lookupTimeout = 5 * time.Second
	// maxRefusal is how much of an answer is read that is no success, in bytes.
	maxRefusal = 64 << 10
)

// httpClient refuses local addresses, whatever name or redirect led there. roots
// may be nil.
func httpClient(allowLocal bool, roots *x509.CertPool) *http.Client {
	return &http.Client{
		Timeout:   fetchTimeout,
		Transport: newPolicy(allowLocal, roots),
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if r.URL.Scheme != "https" && !allowLocal {
				return errNotAllowed
			}
			if len(via) > 5 {
				return fmt.Errorf("more than 5 redirects")
			}
			return nil
		},
	}
}

// policy decides where a request may go. What is dialled from here is looked at
// when it is dialled. A proxy, which the operator of this machine has chosen, may
// be anywhere; since it dials the target, that is looked at by its name.
type policy struct {
	allowLocal bool
	proxy      func(*neturl.URL) (*neturl.URL, error)
	direct     *http.Transport
	proxied    *http.Transport
}

func newPolicy(allowLocal bool, roots *x509.CertPool) *policy {
	p := &policy{allowLocal: allowLocal, proxy: httpproxy.FromEnvironment().ProxyFunc()}
	guarded := &net.Dialer{Timeout: dialTimeout}
	if !allowLocal {
		guarded.Control = func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil || local(ap.Addr().Unmap()) {
				return errNotAllowed
			}
			return nil
		}
	}
	p.direct = transportOver(guarded, roots)
	p.proxied = transportOver(&net.Dialer{Timeout: dialTimeout}, roots)
	p.proxied.Proxy = func(r *http.Request) (*neturl.URL, error) { return p.proxy(r.URL) }
	return p
}

func transportOver(d *net.Dialer, roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		DialContext:           d.DialContext,
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   20 * time.Second,
		ResponseHeaderTimeout: 2 * time.Minute,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   2,
	}
}

// RoundTrip implements http.RoundTripper.
func (p *policy) RoundTrip(r *http.Request) (*http.Response, error) {
	through := p.direct
	proxy, err := p.proxy(r.URL)
	if err != nil {
		return nil, err
	}
	if proxy != nil {
		if err := p.target(r.Context(), r.URL.Hostname()); err != nil {
			return nil, err
		}
		through = p.proxied
	}
	resp, err := through.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	switch {
	case resp.StatusCode >= http.StatusMultipleChoices:
		resp.Body = &body{io.LimitReader(resp.Body, maxRefusal), resp.Body}
	case strings.HasSuffix(r.URL.Path, "/info/refs"):
		resp.Body = &body{guardRefs(resp.Body), resp.Body}
	case strings.HasSuffix(r.URL.Path, "/git-upload-pack"):
		resp.Body = &body{guardPack(resp.Body), resp.Body}
	}
	return resp, nil
}

// body reads through something and closes what is below.
type body struct {
	io.Reader
	io.Closer
}

// target looks at the name of what a proxy is to connect to. One that is not
// known here is left to the proxy.
func (p *policy) target(ctx context.Context, host string) error {
	if p.allowLocal {
		return nil
	}
	name := strings.TrimSuffix(strings.ToLower(host), ".")
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return errNotAllowed
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil
	}
	for _, a := range addresses {
		if local(a.Unmap()) {
			return errNotAllowed
		}
	}
	return nil
}
