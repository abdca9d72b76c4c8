package git

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
)

const (
	sshTimeout = 20 * time.Second
	sshPort    = 22
)

// sshSession begins to talk with an ssh remote. The address that is dialled is
// the one that was looked at: the name is not resolved again in between.
func (f *Fetcher) sshSession(ctx context.Context, remote *transport.Endpoint, c Credentials) (transport.UploadPackSession, error) {
	if len(c.Key) == 0 {
		return nil, errors.New("an ssh remote needs a key: name a Secret with ssh-privatekey and known_hosts in spec.credentials")
	}
	signer, err := signerOf(c)
	if err != nil {
		return nil, err
	}
	port := strconv.Itoa(cmp.Or(remote.Port, sshPort))
	name := net.JoinHostPort(remote.Host, port)
	config := &ssh.ClientConfig{User: remote.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, Timeout: sshTimeout}
	check := ssh.InsecureIgnoreHostKey()
	if !c.InsecureIgnoreHostKey {
		if check, config.HostKeyAlgorithms, err = f.knownHosts(c.KnownHosts, name); err != nil {
			return nil, err
		}
	}
	address, err := f.resolve(ctx, remote.Host)
	if err != nil {
		return nil, &ErrUnreachable{Err: err}
	}
	config.HostKeyCallback = func(_ string, at net.Addr, key ssh.PublicKey) error { return inWords(check(name, at, key), name, key) }
	return dialSSH(ctx, net.JoinHostPort(address.String(), port), remote.Path, config)
}

func signerOf(c Credentials) (ssh.Signer, error) {
	signer, err := ssh.ParsePrivateKey(c.Key)
	var sealed *ssh.PassphraseMissingError
	if errors.As(err, &sealed) && len(c.Passphrase) > 0 {
		signer, err = ssh.ParsePrivateKeyWithPassphrase(c.Key, c.Passphrase)
	}
	switch {
	case err == nil:
		return signer, nil
	case errors.As(err, &sealed):
		return nil, errors.New("ssh-privatekey of the Secret is sealed with a passphrase; put it under password")
	}
	return nil, errors.New("ssh-privatekey of the Secret is no private key, or its passphrase is another one; it must be what ssh-keygen writes")
}

// knownHosts reads lines of known_hosts. The package that knows their format
// reads files only.
func (f *Fetcher) knownHosts(lines []byte, name string) (ssh.HostKeyCallback, []string, error) {
	host, _, _ := net.SplitHostPort(name)
	if len(lines) == 0 {
		return nil, nil, fmt.Errorf("the Secret has no known_hosts; put in what ssh-keyscan %s prints, after comparing it with what the host's owner says", host)
	}
	if err := os.MkdirAll(f.opts.Dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("read known_hosts: %w", err)
	}
	dir, err := os.MkdirTemp(f.opts.Dir, "known-hosts-")
	if err != nil {
		return nil, nil, fmt.Errorf("read known_hosts: %w", err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(file, lines, 0o600); err != nil {
		return nil, nil, fmt.Errorf("read known_hosts: %w", err)
	}
	db, err := knownhosts.NewDB(file)
	if err != nil {
		return nil, nil, errors.New("known_hosts of the Secret is malformed; its lines must be what ssh-keyscan prints")
	}
	return db.HostKeyCallback(), db.HostKeyAlgorithms(name), nil
}

// inWords says what is wrong with the key of a host.
func inWords(err error, name string, key ssh.PublicKey) error {
	switch {
	case err == nil:
		return nil
	case knownhosts.IsHostKeyChanged(err):
		return fmt.Errorf("the host %s shows the key %s, which is not the one in known_hosts: its key was changed, or somebody is in between", name, ssh.FingerprintSHA256(key))
	case knownhosts.IsHostUnknown(err):
		return fmt.Errorf("known_hosts of the Secret does not have the host %s (it shows the key %s)", name, ssh.FingerprintSHA256(key))
	}
	return err
}

// resolve finds the address of a host, if it is one that may be dialled.
func (f *Fetcher) resolve(ctx context.Context, host string) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, sshTimeout)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range addresses {
		if a = a.Unmap(); f.opts.AllowLocal || !local(a) {
			return a, nil
		}
	}
	return netip.Addr{}, errNotAllowed
}
