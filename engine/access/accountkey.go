package access

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"k8s.io/apimachinery/pkg/types"
)

// Issuer of the tokens of service accounts, and their audience when none is
// asked for: the name of the API in the cluster, as in Kubernetes.
const Issuer = "https://kubernetes.default.svc.cluster.local"

// skew is how far the clocks of two servers may be apart.
const skew = 10 * time.Second

// AccountKeyFile is where the key of the service accounts' tokens is kept.
func AccountKeyFile(dir string) string { return filepath.Join(dir, "service-account.key") }

// AccountKey signs the tokens of service accounts and knows its own signature.
// Whether what a token names still exists is for Accounts to say.
type AccountKey struct {
	key    *ecdsa.PrivateKey
	id     string
	signer jose.Signer
}

// Named is an object that a token is of.
type Named struct {
	Name string    `json:"name"`
	UID  types.UID `json:"uid,omitempty"`
}

// Claims is what the token of a service account says of itself. At most one of
// Pod, Secret and Node is what the token is bound to; a Pod has its Node beside.
type Claims struct {
	Namespace string `json:"namespace"`
	Account   Named  `json:"serviceaccount"`
	Pod       *Named `json:"pod,omitempty"`
	Secret    *Named `json:"secret,omitempty"`
	Node      *Named `json:"node,omitempty"`

	ID        string    `json:"-"`
	Audiences []string  `json:"-"`
	Issued    time.Time `json:"-"`
	Expires   time.Time `json:"-"`
}

// private are the claims under the name that Kubernetes' tokens have them.
type private struct {
	Kubernetes Claims `json:"kubernetes.io"`
}

// OpenAccountKey reads the key of a data directory, or makes one.
func OpenAccountKey(dir string) (*AccountKey, error) {
	path := AccountKeyFile(dir)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeAccountKey(path); err != nil {
			return nil, fmt.Errorf("make the key of service accounts: %w", err)
		}
		content, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the key of service accounts: %w", err)
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, fmt.Errorf("read %s: it is no PEM file; put it back, or remove it: a new key is made, and running pods are given new tokens", path)
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("read %s: it is not the key that Berth made; put that back, or remove it: a new key is made, and running pods are given new tokens", path)
	}
	return newAccountKey(key)
}

func makeAccountKey(path string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return writeSecret(path, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})))
}

func newAccountKey(key *ecdsa.PrivateKey) (*AccountKey, error) {
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	k := &AccountKey{key: key, id: base64.RawURLEncoding.EncodeToString(sum[:])}
	k.signer, err = jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: k.id}}, nil)
	return k, err
}

// Sign makes a token. It fills in the claims' ID.
func (k *AccountKey) Sign(c *Claims) (string, error) {
	c.ID = NewToken()[:22]
	token, err := jwt.Signed(k.signer).Claims(jwt.Claims{
		Issuer: Issuer, Subject: accountPrefix + c.Namespace + ":" + c.Account.Name, Audience: c.Audiences, ID: c.ID,
		Expiry: jwt.NewNumericDate(c.Expires), NotBefore: jwt.NewNumericDate(c.Issued), IssuedAt: jwt.NewNumericDate(c.Issued),
	}).Claims(private{*c}).Serialize()
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return token, nil
}

// Verify reads the claims of a token that this key has signed, that has not
// ended, and that is for one of the audiences; which, is returned too. Its
// errors do not hold the token.
func (k *AccountKey) Verify(token string, audiences []string, now time.Time) (Claims, []string, error) {
	// Only this algorithm: neither "none" nor a secret made of the public key.
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return Claims{}, nil, errors.New("it is no token of a service account")
	}
	var std jwt.Claims
	var own private
	if err := parsed.Claims(&k.key.PublicKey, &std, &own); err != nil {
		return Claims{}, nil, errors.New("the token's signature is not ours")
	}
	if err := std.ValidateWithLeeway(jwt.Expected{Issuer: Issuer, Time: now}, skew); err != nil {
		return Claims{}, nil, fmt.Errorf("the token does not count: %w", err)
	}
	c := own.Kubernetes
	if std.Subject != accountPrefix+c.Namespace+":"+c.Account.Name || c.Account.UID == "" || std.Expiry == nil || std.IssuedAt == nil {
		return Claims{}, nil, errors.New("the token does not say whose it is")
	}
	var both []string
	for _, a := range audiences {
		if slices.Contains(std.Audience, a) {
			both = append(both, a)
		}
	}
	if len(both) == 0 {
		return Claims{}, nil, errors.New("the token is for another audience")
	}
	c.ID, c.Audiences, c.Issued, c.Expires = std.ID, std.Audience, std.IssuedAt.Time(), std.Expiry.Time()
	return c, both, nil
}

// PublicKeys is the key set by which others can check tokens (RFC 7517).
func (k *AccountKey) PublicKeys() jose.JSONWebKeySet {
	return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &k.key.PublicKey, KeyID: k.id, Algorithm: string(jose.ES256), Use: "sig"}}}
}
