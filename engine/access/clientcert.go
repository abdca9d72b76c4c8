package access

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"time"
)

// ClientLife is how long a client's certificate lasts at most. It cannot be
// taken back, so it is short.
const ClientLife = 90 * 24 * time.Hour

// SignClient makes the certificate of a user out of a request (PKCS #10, as
// PEM), signed by the authority in dir. Only the key is taken from the request.
func SignClient(dir string, request []byte, name string, role Role, life time.Duration, now time.Time) ([]byte, error) {
	if err := checkUser(name, role); err != nil {
		return nil, err
	}
	if life < time.Minute || life > ClientLife {
		return nil, UserError(fmt.Sprintf("a certificate lasts from a minute to %d days, not %v", int(ClientLife.Hours()/24), life))
	}
	block, _ := pem.Decode(request)
	if block == nil {
		return nil, UserError("the request for a certificate is not PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, UserError("the request for a certificate cannot be read: " + err.Error())
	}
	ca, caKey, err := authority(dir, now)
	if err != nil {
		return nil, err
	}
	user := named(name, role)
	cert := template(user.Name, now, life)
	cert.Subject = pkix.Name{CommonName: user.Name, Organization: user.Groups[:1]}
	cert.KeyUsage, cert.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, cert, ca, csr.PublicKey, caKey)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate for %s: %w", user.Name, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
