// Package ha runs several control planes on one etcd, as processes of their own,
// and takes parts of them away: the leader, a member of etcd, its quorum.
package ha

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"berth.dev/berth/engine/store/storetest"
	"berth.dev/berth/nodeagent/testhost"
)

func TestMain(m *testing.M) { testhost.Main(m) }

// wait is how long anything may take that has no promise of its own.
const wait = 40 * time.Second

// takeover is the promise: so long after the death of a leader another one acts.
const takeover = 15 * time.Second

// cluster is servers on an etcd.
type cluster struct {
	t       testing.TB
	binary  string
	etcd    *storetest.Etcd
	certs   storetest.Certs
	servers []*server
}

// server is one control plane.
type server struct {
	c     *cluster
	name  string
	dir   string
	port  int
	flags []string
	cmd   *exec.Cmd
	log   output
}

// output is what a process has printed so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (s *server) logged() string {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return s.log.b.String()
}

// start runs servers on an etcd with TLS of so many members.
func start(t testing.TB, members, servers int, etcdFlags ...string) *cluster {
	t.Helper()
	binary, err := filepath.Abs("../../bin/berth")
	if err == nil {
		_, err = os.Stat(binary)
	}
	if err != nil {
		t.Fatalf("%v: run make build first", err)
	}
	c := &cluster{t: t, binary: binary, certs: storetest.MakeCerts(t, "berth")}
	c.etcd = storetest.StartSecureEtcd(t, c.certs, members, etcdFlags...)
	for range servers {
		s := c.add()
		s.start()
		s.await()
	}
	return c
}

// add makes a server that does not run yet; it has the key of the first.
func (c *cluster) add() *server {
	c.t.Helper()
	n := len(c.servers) + 1
	s := &server{c: c, name: fmt.Sprintf("s%d", n), dir: filepath.Join(c.t.TempDir(), "data"), port: freePort(c.t)}
	s.flags = []string{
		"server", "--name", s.name, "--data-dir", s.dir, "--listen", fmt.Sprintf("127.0.0.1:%d", s.port),
		"--store", c.etcd.URL(), "--store-ca", c.certs.CA, "--store-cert", c.certs.Cert, "--store-key", c.certs.Key,
	}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	if n > 1 {
		s.copyKey(c.servers[0])
	}
	c.servers = append(c.servers, s)
	c.t.Cleanup(func() {
		s.kill()
		if c.t.Failed() {
			c.t.Logf("the log of %s:\n%s", s.name, s.logged())
		}
	})
	return s
}

// freePort is one that nobody listens on.
func freePort(t testing.TB) int {
	t.Helper()
	at, err := netip.ParseAddrPort(storetest.FreeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	return int(at.Port())
}

// copyKey does what the operator does for each further server.
func (s *server) copyKey(from *server) {
	s.c.t.Helper()
	key, err := os.ReadFile(filepath.Join(from.dir, "secrets.key"))
	if err == nil {
		err = os.WriteFile(filepath.Join(s.dir, "secrets.key"), key, 0o600)
	}
	if err != nil {
		s.c.t.Fatal(err)
	}
}

func (s *server) start() {
	s.c.t.Helper()
	s.cmd = exec.Command(s.c.binary, s.flags...)
	s.cmd.Stderr = &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.c.t.Fatal(err)
	}
}

// await waits until the server is ready.
func (s *server) await() {
	s.c.t.Helper()
	eventually(s.c.t, s.name+" is ready", func() error {
		code, body := s.readyz()
		if code != http.StatusOK {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
}

// failsToStart runs a server that is to refuse, and returns what it says.
func (s *server) failsToStart() string {
	s.c.t.Helper()
	out, err := exec.Command(s.c.binary, s.flags...).CombinedOutput()
	if err == nil {
		s.c.t.Fatalf("it started\n%s", out)
	}
	return string(out)
}

func (s *server) signal(sig syscall.Signal) {
	s.c.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.c.t.Fatal(err)
	}
}

// kill ends the server as a loss of power would.
func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill() // it may have ended by itself
		_ = s.cmd.Wait()         // ended by a signal
		s.cmd = nil
	}
}

// stop ends the server in an orderly way.
func (s *server) stop() {
	s.c.t.Helper()
	s.signal(syscall.SIGTERM)
	if err := s.cmd.Wait(); err != nil {
		s.c.t.Errorf("%s ends with %v", s.name, err)
	}
	s.cmd = nil
}

func (s *server) url() string { return fmt.Sprintf("https://127.0.0.1:%d", s.port) }

func (s *server) read(file string) []byte {
	s.c.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, file))
	if err != nil {
		s.c.t.Fatal(err)
	}
	return b
}

// config is how clients reach the server, or what stands before it.
func (s *server) config(url string) *rest.Config {
	s.c.t.Helper()
	return &rest.Config{
		Host: url, BearerToken: strings.TrimSpace(string(s.read("admin.token"))), QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: s.read("ca.crt")},
	}
}

func (s *server) client() *kubernetes.Clientset { return clientset(s.c.t, s.config(s.url())) }

func clientset(t testing.TB, c *rest.Config) *kubernetes.Clientset {
	t.Helper()
	set, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// get asks for a path, as the administrator.
func (s *server) get(path string) (int, string) {
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(s.dir, "ca.crt"))
	if err != nil {
		return 0, err.Error()
	}
	roots.AppendCertsFromPEM(ca)
	token, _ := os.ReadFile(filepath.Join(s.dir, "admin.token")) // without it the answer says so
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url()+path, nil)
	if err != nil {
		return 0, err.Error()
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots}}}
	resp, err := c.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

func (s *server) readyz() (int, string) { return s.get("/readyz?verbose") }

func (s *server) leads() bool {
	_, metrics := s.get("/metrics")
	return strings.Contains(metrics, "\nberth_leader 1\n")
}

// berth runs a command of berth against the server.
func (s *server) berth(args ...string) (string, error) {
	cmd := exec.Command(s.c.binary, append(args, "--kubeconfig", filepath.Join(s.dir, "admin.kubeconfig"))...)
	cmd.Env = append(os.Environ(), "NO_PROXY=*")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// leader waits until one of the servers leads.
func (c *cluster) leader(among ...*server) *server {
	c.t.Helper()
	var found *server
	eventually(c.t, "a server leads", func() error {
		for _, s := range among {
			if s.leads() {
				found = s
				return nil
			}
		}
		return fmt.Errorf("none of %d", len(among))
	})
	return found
}

func (c *cluster) without(gone *server) (rest []*server) {
	for _, s := range c.servers {
		if s != gone {
			rest = append(rest, s)
		}
	}
	return rest
}

// eventually tries until check is content.
func eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(wait)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after %v: %v", what, wait, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// balancer is what stands before the servers: a new connection goes to the first
// of those in use that takes it, and a server that is gone cuts its connections.
type balancer struct {
	listener net.Listener
	wg       sync.WaitGroup

	mu    sync.Mutex
	inUse []*server
	open  map[net.Conn]*server
}

func balance(t testing.TB, servers ...*server) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{listener: l, open: map[net.Conn]*server{}}
	b.use(servers...)
	b.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.wg.Go(func() { b.carry(c) })
		}
	})
	t.Cleanup(func() { l.Close(); b.use(); b.wg.Wait() })
	return b
}

func (b *balancer) url() string { return "https://" + b.listener.Addr().String() }

// use sends new connections to these servers, and cuts those to others.
func (b *balancer) use(servers ...*server) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inUse = servers
	for c, s := range b.open {
		keep := false
		for _, u := range servers {
			keep = keep || u == s
		}
		if !keep {
			c.Close()
		}
	}
}

func (b *balancer) carry(c net.Conn) {
	defer c.Close()
	b.mu.Lock()
	servers := b.inUse
	b.mu.Unlock()
	for _, s := range servers {
		far, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", s.port), time.Second)
		if err != nil {
			continue
		}
		b.mu.Lock()
		b.open[c] = s
		b.mu.Unlock()
		b.pipe(c, far)
		b.mu.Lock()
		delete(b.open, c)
		b.mu.Unlock()
		return
	}
}

func (b *balancer) pipe(c, far net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(far, c); far.Close(); c.Close() })
	wg.Go(func() { io.Copy(c, far); far.Close(); c.Close() })
	wg.Wait()
}

// node makes a Node that is ready.
func node(t testing.TB, c *kubernetes.Clientset) {
	t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	made, err := c.CoreV1().Nodes().Create(t.Context(), n, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	made.Status.Allocatable = resources("64", "256Gi", "1000")
	made.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	if _, err := c.CoreV1().Nodes().UpdateStatus(t.Context(), made, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}
