package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"time"
)

// checkServer makes sure that the token goes to the server that is meant: one
// whose certificate the authority has signed, or one on this machine.
func checkServer(ctx context.Context, page *url.URL, ca string) error {
	if ca == "" {
		ip, err := netip.ParseAddr(page.Hostname())
		if page.Hostname() == "localhost" || err == nil && ip.IsLoopback() {
			return nil
		}
		return fmt.Errorf("say with -ca which authority has signed the certificate of %s", page.Host)
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return fmt.Errorf("read the certificate authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no certificate", ca)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page.Scheme+"://"+page.Host+"/healthz", nil)
	if err != nil {
		return err
	}
	answer, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return fmt.Errorf("reach the server: %w", err)
	}
	return answer.Body.Close()
}
