package access

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	caLife     = 10 * 365 * 24 * time.Hour
	serverLife = 365 * 24 * time.Hour
	// renewBefore is how long before its end the server's certificate is made anew.
	renewBefore = 30 * 24 * time.Hour
)

// CAFile is the certificate that clients trust.
func CAFile(dir string) string { return filepath.Join(dir, "ca.crt") }

// ServerTLS makes the server's certificate for its names, signed by an
// authority of its own that is kept in dir, and makes it anew before it ends.
// The server's key is never written. Clients may show certificates that the
// same authority has signed.
func ServerTLS(dir string, names []string, now func() time.Time) (*tls.Config, error) {
	ca, caKey, err := authority(dir, now())
	if err != nil {
		return nil, err
	}
	s := &signer{ca: ca, key: caKey, names: names, now: now}
	if _, err := s.certificate(nil); err != nil {
		return nil, err
	}
	clients := x509.NewCertPool()
	clients.AddCert(ca)
	return &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: s.certificate,
		// Who shows a certificate of another authority is turned away.
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients,
	}, nil
}

// signer holds the server's present certificate.
type signer struct {
	ca    *x509.Certificate
	key   *ecdsa.PrivateKey
	names []string
	now   func() time.Time

	mu      sync.Mutex
	current *tls.Certificate
	until   time.Time
}

// certificate is the present one, or a new one when that ends soon.
func (s *signer) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if s.current != nil && now.Before(s.until.Add(-renewBefore)) {
		return s.current, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	cert := template("berth", now, serverLife)
	cert.KeyUsage = x509.KeyUsageDigitalSignature
	cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, n := range s.names {
		if ip := net.ParseIP(n); ip != nil {
			cert.IPAddresses = append(cert.IPAddresses, ip)
		} else {
			cert.DNSNames = append(cert.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, s.ca, &key.PublicKey, s.key)
	if err != nil {
		return nil, fmt.Errorf("sign the server's certificate: %w", err)
	}
	s.current, s.until = &tls.Certificate{Certificate: [][]byte{der, s.ca.Raw}, PrivateKey: key}, cert.NotAfter
	return s.current, nil
}

// authority reads the authority of a data directory, or makes one.
func authority(dir string, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	certPath, keyPath := CAFile(dir), filepath.Join(dir, "ca.key")
	pair, err := tls.LoadX509KeyPair(certPath, keyPath)
	if err == nil {
		cert, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil {
			return nil, nil, fmt.Errorf("read %s: %w", certPath, err)
		}
		key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
		if !ok || !cert.IsCA {
			return nil, nil, fmt.Errorf("read %s: it is not the authority that Berth made; put that one back, or remove %s and %s to make another, which every client must then be told", certPath, certPath, keyPath)
		}
		return cert, key, nil
	}
	// Only when there is no certificate is there nobody who trusts one.
	if _, statErr := os.Stat(certPath); !errors.Is(statErr, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("read the certificate authority: %w; put %s back, or remove %s to make another one, which every client must then be told", err, keyPath, certPath)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := template("berth-ca", now, caLife)
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate authority: %w", err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	// The key first: a certificate without its key would stop the next start.
	if err := writePEM(keyPath, "EC PRIVATE KEY", keyDER, 0o600); err != nil {
		return nil, nil, err
	}
	if err := writePEM(certPath, "CERTIFICATE", der, 0o644); err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}

func template(name string, now time.Time, life time.Duration) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)) // never fails (crypto/rand)
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name, Organization: []string{"Berth"}},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(life),
	}
}

func writePEM(path, kind string, der []byte, mode fs.FileMode) error {
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
