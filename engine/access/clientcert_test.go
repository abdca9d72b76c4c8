package access_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"berth.dev/berth/engine/access"
)

// certificate is a client's, signed by the authority in dir.
func certificate(t *testing.T, dir, name string, groups []string, life time.Duration, usage x509.ExtKeyUsage) tls.Certificate {
	t.Helper()
	authority, err := tls.LoadX509KeyPair(access.CAFile(dir), filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(authority.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Organization: groups},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life), ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}, ca, &key.PublicKey, authority.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestClientCertificates(t *testing.T) {
	dir, foreign := t.TempDir(), t.TempDir()
	var config *tls.Config
	for _, d := range []string{foreign, dir} {
		var err error
		if config, err = access.ServerTLS(d, []string{"127.0.0.1"}, time.Now); err != nil {
			t.Fatal(err)
		}
	}
	users := &access.Users{Tokens: open(t, dir)}
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, ok := users.Request(r); ok {
			w.Header().Set("User", u.Name+" "+string(u.Role))
		}
	}))
	h.Listener = tls.NewListener(h.Listener, config)
	h.Config.ErrorLog = log.New(io.Discard, "", 0)
	h.Start()
	defer h.Close()
	ca, err := os.ReadFile(access.CAFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	const client, server = x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth
	for _, c := range []struct {
		what string
		cert tls.Certificate
		site string // Sec-Fetch-Site of a browser
		want string // user and role; "refused" in the handshake
	}{
		{"an administrator", certificate(t, dir, "ann", []string{"system:masters"}, time.Hour, client), "", "ann admin"},
		{"a viewer", certificate(t, dir, "vic", []string{"berth:viewers", "others"}, time.Hour, client), "", "vic viewer"},
		{"a node", certificate(t, dir, "system:node:n1", []string{"system:nodes"}, time.Hour, client), "", "system:node:n1 node"},
		{"no group", certificate(t, dir, "eve", nil, time.Hour, client), "", "eve"},
		{"nobody", certificate(t, dir, "", []string{"system:masters"}, time.Hour, client), "", ""},
		{"a service account's name", certificate(t, dir, "system:serviceaccount:shop:front", nil, time.Hour, client), "", ""},
		{"sent by another site", certificate(t, dir, "ann", []string{"system:masters"}, time.Hour, client), "cross-site", ""},
		{"sent by our page", certificate(t, dir, "ann", []string{"system:masters"}, time.Hour, client), "same-origin", "ann admin"},
		{"ended", certificate(t, dir, "ann", []string{"system:masters"}, -time.Minute, client), "", "refused"},
		{"a server's", certificate(t, dir, "ann", []string{"system:masters"}, time.Hour, server), "", "refused"},
		{"another authority's", certificate(t, foreign, "ann", []string{"system:masters"}, time.Hour, client), "", "refused"},
	} {
		// Sent whether or not the server says that it knows the authority.
		config := &tls.Config{RootCAs: roots, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.cert, nil }}
		q, err := http.NewRequest(http.MethodPost, "https://"+h.Listener.Addr().String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.site != "" {
			q.Header.Set("Sec-Fetch-Site", c.site)
		}
		transport := &http.Transport{TLSClientConfig: config}
		r, err := (&http.Client{Transport: transport}).Do(q)
		got := "refused"
		if err == nil {
			got = r.Header.Get("User")
			r.Body.Close()
		}
		if got != c.want {
			t.Errorf("%s: %q (%v), want %q", c.what, got, err, c.want)
		}
		transport.CloseIdleConnections()
	}
}
