package git_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"context"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/sources/git"
)

// opened is a fetcher whose remotes are opened by c.
func opened(t *testing.T, c git.Credentials) *git.Fetcher {
	t.Helper()
	return git.New(git.Options{Dir: t.TempDir(), AllowLocal: true, Credentials: func(context.Context, *v1alpha1.Source) (git.Credentials, error) { return c, nil }})
}

func secured(url string) *v1alpha1.Source {
	s := source(url)
	s.Spec.Credentials = &v1alpha1.Credentials{SecretName: "shop"}
	return s
}

// TestHTTPSWithPasswordAndPrivateAuthority: a remote that wants a password and
// whose certificate only the Secret's authority vouches for.
func TestHTTPSWithPasswordAndPrivateAuthority(t *testing.T) {
	r := newRemote(t)
	want := r.push(map[string]string{"a.yaml": "a"})
	root := filepath.Dir(r.bare)
	backend := &cgi.Handler{Path: "/usr/lib/git-core/git-http-backend", Root: "/", Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}}
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if user, password, ok := req.BasicAuth(); !ok || user != "ann" || password != "hunter2" {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, req)
	}))
	defer web.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	url := web.URL + "/shop.git"
	for _, c := range []struct {
		name string
		git.Credentials
		err string
	}{
		{"right", git.Credentials{Username: "ann", Password: "hunter2", CA: ca}, ""},
		{"wrong password", git.Credentials{Username: "ann", Password: "hunter3", CA: ca}, "the remote wants credentials"},
		{"none", git.Credentials{CA: ca}, "the remote wants credentials"},
		{"unknown authority", git.Credentials{Username: "ann", Password: "hunter2"}, "certificate"},
		{"no certificate", git.Credentials{CA: []byte("x")}, "ca.crt of the Secret holds no certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rev, err := opened(t, c.Credentials).Fetch(t.Context(), secured(url))
			if c.err == "" {
				if err != nil || rev.Commit != want {
					t.Fatalf("%v %v", rev.Commit, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "hunter") {
				t.Errorf("%v", err)
			}
		})
	}
}

// sshServer serves git-upload-pack of repositories below root to one key.
func sshServer(t *testing.T, root string, allowed ssh.PublicKey) (addr string, host ssh.PublicKey) {
	addr, host, _ = countingServer(t, root, allowed)
	return addr, host
}

// countingServer is an sshServer that counts its open connections.
func countingServer(t *testing.T, root string, allowed ssh.PublicKey) (addr string, host ssh.PublicKey, open *atomic.Int32) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if string(key.Marshal()) != string(allowed.Marshal()) {
			return nil, fmt.Errorf("unknown key")
		}
		return nil, nil
	}}
	config.AddHostKey(signer)
	open = new(atomic.Int32)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Add(1)
			go func() {
				defer open.Add(-1)
				serveSSH(conn, config, root)
			}()
		}
	}()
	return l.Addr().String(), signer.PublicKey(), open
}

func serveSSH(conn net.Conn, config *ssh.ServerConfig, root string) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		channel, requests, err := c.Accept()
		if err != nil {
			return
		}
		go func() {
			defer channel.Close()
			for r := range requests {
				var exe struct{ Command string }
				if r.Type != "exec" || ssh.Unmarshal(r.Payload, &exe) != nil {
					_ = r.Reply(r.Type == "env", nil)
					continue
				}
				_ = r.Reply(true, nil)
				name := strings.Trim(strings.TrimPrefix(exe.Command, "git-upload-pack "), "'")
				cmd := exec.Command("git", "-c", "safe.directory=*", "upload-pack", filepath.Join(root, name))
				cmd.Stdout = channel
				in, _ := cmd.StdinPipe()
				go func() { _, _ = io.Copy(in, channel); in.Close() }()
				code := uint32(0)
				if cmd.Run() != nil {
					code = 1
				}
				_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{code}))
				return
			}
		}()
	}
}

func keyPair(t *testing.T, passphrase string) (private []byte, public ssh.PublicKey) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block), signer.PublicKey()
}

func TestSSH(t *testing.T) {
	r := newRemote(t)
	want := r.push(map[string]string{"a.yaml": "a"})
	key, public := keyPair(t, "")
	sealed, sealedPublic := keyPair(t, "open")
	other, _ := keyPair(t, "")
	addr, host := sshServer(t, filepath.Dir(r.bare), public)
	sealedAddr, sealedHost := sshServer(t, filepath.Dir(r.bare), sealedPublic)
	line := func(addr string, key ssh.PublicKey) []byte {
		at, port, _ := net.SplitHostPort(addr)
		return fmt.Appendf(nil, "# the host\n[%s]:%s %s", at, port, ssh.MarshalAuthorizedKey(key))
	}
	_, stranger := keyPair(t, "")
	for _, c := range []struct {
		name string
		addr string
		git.Credentials
		err string
	}{
		{"known host", addr, git.Credentials{Key: key, KnownHosts: line(addr, host)}, ""},
		{"a sealed key", sealedAddr, git.Credentials{Key: sealed, Passphrase: []byte("open"), KnownHosts: line(sealedAddr, sealedHost)}, ""},
		{"any host, as asked", addr, git.Credentials{Key: key, InsecureIgnoreHostKey: true}, ""},
		{"no key", addr, git.Credentials{KnownHosts: line(addr, host)}, "an ssh remote needs a key"},
		{"another key", addr, git.Credentials{Key: other, KnownHosts: line(addr, host)}, "unable to authenticate"},
		{"no known_hosts", addr, git.Credentials{Key: key}, "the Secret has no known_hosts"},
		{"another host's key", addr, git.Credentials{Key: key, KnownHosts: line(addr, stranger)}, "which is not the one in known_hosts"},
		{"an unknown host", addr, git.Credentials{Key: key, KnownHosts: line("192.0.2.1:22", host)}, "does not have the host " + addr},
		{"malformed known_hosts", addr, git.Credentials{Key: key, KnownHosts: []byte("nonsense")}, "known_hosts of the Secret is malformed"},
		{"a malformed key", addr, git.Credentials{Key: []byte("hunter2"), KnownHosts: line(addr, host)}, "is no private key"},
		{"a sealed key without its passphrase", sealedAddr, git.Credentials{Key: sealed, KnownHosts: line(sealedAddr, sealedHost)}, "sealed with a passphrase"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rev, err := opened(t, c.Credentials).Fetch(t.Context(), secured("ssh://git@"+c.addr+"/shop.git"))
			if c.err == "" {
				if err != nil || rev.Commit != want || content(t, rev, "a.yaml") != "a" {
					t.Fatalf("%v %v", rev.Commit, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("a local address is refused", func(t *testing.T) {
		f := git.New(git.Options{Dir: t.TempDir(), Credentials: func(context.Context, *v1alpha1.Source) (git.Credentials, error) {
			return git.Credentials{Key: key, KnownHosts: line(addr, host)}, nil
		}})
		if _, err := f.Fetch(t.Context(), secured("ssh://git@"+addr+"/shop.git")); err == nil || !strings.Contains(err.Error(), "not allowed as a source") {
			t.Errorf("%v", err)
		}
	})
}

// TestSSHConnectionsAreClosed: a poll that finds nothing new leaves none open.
func TestSSHConnectionsAreClosed(t *testing.T) {
	r := newRemote(t)
	r.push(map[string]string{"a.yaml": "a"})
	key, public := keyPair(t, "")
	addr, _, open := countingServer(t, filepath.Dir(r.bare), public)
	f := opened(t, git.Credentials{Key: key, InsecureIgnoreHostKey: true})
	for range 5 {
		if _, err := f.Fetch(t.Context(), secured("ssh://git@"+addr+"/shop.git")); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		if open.Load() == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("%d connections are open after 5 fetches", open.Load())
}

// TestSSHHostThatSaysNothing: the fetch ends with its context.
func TestSSHHostThatSaysNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	key, _ := keyPair(t, "")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = opened(t, git.Credentials{Key: key, InsecureIgnoreHostKey: true}).Fetch(ctx, secured("ssh://git@"+l.Addr().String()+"/shop.git"))
	if err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("%v", err)
	}
}

func TestSemver(t *testing.T) {
	r := newRemote(t)
	commits := map[string]string{}
	for _, tag := range []string{"v1.4.0", "1.4.2", "v1.10.0", "v2.0.0-rc.1", "latest", "v1.4"} {
		commits[tag] = r.push(map[string]string{"a.yaml": tag})
		r.git(r.work, "tag", "-a", "-m", tag, tag)
		r.git(r.work, "push", "-q", "origin", tag)
	}
	f := opened(t, git.Credentials{})
	for within, want := range map[string]string{"~1.4": "1.4.2", ">=1.0 <2": "v1.10.0", "^2.0.0-0": "v2.0.0-rc.1", "1.4.0": "v1.4.0"} {
		s := source(r.url)
		s.Spec.Ref = v1alpha1.Ref{Semver: within}
		if rev, err := f.Fetch(t.Context(), s); err != nil || rev.Commit != commits[want] {
			t.Errorf("%s: %s %v, want %s", within, rev.Commit, err, want)
		}
	}
	for within, want := range map[string]string{">=3": "no tag is a version within >=3; 5 tags are versions", "newest": "is no range of versions"} {
		s := source(r.url)
		s.Spec.Ref = v1alpha1.Ref{Semver: within}
		if _, err := f.Fetch(t.Context(), s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", within, err)
		}
	}
}
