package git

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"

	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"

	"berth.dev/berth/api/v1alpha1"
)

// Credentials are what opens a remote. No message holds any of them.
type Credentials struct {
	// Username and Password are for https. A token is a password.
	Username, Password string
	// CA are certificates, as PEM, that an https remote is trusted by besides
	// those of the machine.
	CA []byte
	// Key is a private key for ssh, as PEM, and Passphrase what it is sealed with.
	Key, Passphrase []byte
	// KnownHosts are lines of a known_hosts file.
	KnownHosts []byte
	// InsecureIgnoreHostKey takes any ssh host.
	InsecureIgnoreHostKey bool
}

// credentials are those of a Source; none if it names none.
func (f *Fetcher) credentials(ctx context.Context, src *v1alpha1.Source) (Credentials, error) {
	if src.Spec.Credentials == nil || f.opts.Credentials == nil {
		return Credentials{}, nil
	}
	c, err := f.opts.Credentials(ctx, src)
	if err != nil {
		return c, fmt.Errorf("get the credentials: %w", err)
	}
	return c, nil
}

// session begins to talk with a remote.
func (f *Fetcher) session(ctx context.Context, remote *url, c Credentials) (transport.UploadPackSession, error) {
	if remote.endpoint.Protocol == "ssh" {
		return f.sshSession(ctx, remote.endpoint, c)
	}
	client, err := f.https(c.CA)
	if err != nil {
		return nil, err
	}
	var auth transport.AuthMethod
	if c.Username != "" || c.Password != "" {
		auth = &githttp.BasicAuth{Username: c.Username, Password: c.Password}
	}
	return githttp.NewClient(client).NewUploadPackSession(remote.endpoint, auth)
}

// maxTrusting bounds how many clients are kept; the certificates of a Source
// seldom change.
const maxTrusting = 100

// https is the client that trusts some certificates besides the machine's.
func (f *Fetcher) https(ca []byte) (*http.Client, error) {
	if len(ca) == 0 {
		return f.client, nil
	}
	key := sha256.Sum256(ca)
	f.mu.Lock()
	defer f.mu.Unlock()
	if client := f.private[key]; client != nil {
		return client, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the machine's certificates: %w", err)
	}
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("ca.crt of the Secret holds no certificate; it must be PEM, as in a .crt file")
	}
	if len(f.private) >= maxTrusting {
		clear(f.private)
	}
	f.private[key] = httpClient(f.opts.AllowLocal, pool)
	return f.private[key], nil
}
