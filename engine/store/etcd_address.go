package store

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
)

// EtcdAddress says where an etcd is and how to speak with it.
type EtcdAddress struct {
	// URL is etcd://HOST:PORT,HOST:PORT/PREFIX. Without a port it is 2379, without
	// a prefix /berth. With etcds://, or with any of the files below, it is TLS.
	URL string
	// Files for TLS. CA signs the servers' certificates (empty: the system's
	// authorities); Cert and Key are the client's own, if the servers want one.
	CA, Cert, Key string
	// Plain allows to speak with other machines without TLS.
	Plain bool
}

// secure: TLS was asked for.
func (a EtcdAddress) secure() bool {
	return strings.HasPrefix(a.URL, "etcds://") || a.CA != "" || a.Cert != "" || a.Key != ""
}

// endpoints are the URLs of the members, and the prefix, which ends in a slash.
func (a EtcdAddress) endpoints() (endpoints []string, prefix string, err error) {
	scheme, rest, _ := strings.Cut(a.URL, "://")
	if scheme != "etcd" && scheme != "etcds" {
		return nil, "", fmt.Errorf("--store %q: say etcd://HOST:2379,HOST:2379, or leave it out to keep everything in one file", a.URL)
	}
	web := "http"
	if a.secure() {
		web = "https"
	}
	hosts, path, _ := strings.Cut(rest, "/")
	for _, h := range strings.Split(hosts, ",") {
		if _, _, err := net.SplitHostPort(h); err != nil {
			h = net.JoinHostPort(strings.Trim(h, "[]"), "2379")
		}
		u, err := url.Parse(web + "://" + h)
		if err != nil || u.Hostname() == "" {
			return nil, "", fmt.Errorf("--store %q: %q is not an address; say etcd://HOST:2379,HOST:2379", a.URL, h)
		}
		if !a.secure() && !a.Plain && !loopback(u.Hostname()) {
			return nil, "", fmt.Errorf("--store %q: without TLS everybody on the way to %s could read and change the cluster: name the authority that signed the certificates of etcd with --store-ca, or allow it with --store-plain", a.URL, u.Hostname())
		}
		endpoints = append(endpoints, u.String())
	}
	if path = strings.Trim(path, "/"); path == "" {
		path = "berth"
	}
	return endpoints, "/" + path + "/", nil
}

// tls is nil for an address without TLS.
func (a EtcdAddress) tls() (*tls.Config, error) {
	if !a.secure() {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if a.CA != "" {
		pem, err := os.ReadFile(a.CA)
		if err != nil {
			return nil, fmt.Errorf("--store-ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--store-ca %s: it holds no certificate in PEM form", a.CA)
		}
	}
	if (a.Cert == "") != (a.Key == "") {
		return nil, errors.New("--store-cert and --store-key go together")
	}
	if a.Cert != "" {
		pair, err := tls.LoadX509KeyPair(a.Cert, a.Key)
		if err != nil {
			return nil, fmt.Errorf("--store-cert and --store-key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// loopback: what is sent to the host does not leave this machine.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}
