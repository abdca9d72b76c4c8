package storetest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Etcd is an etcd of one or more members, for a test.
type Etcd struct {
	t       testing.TB
	certs   Certs
	members []*member
}

type member struct {
	args   []string
	client string
	cmd    *exec.Cmd
	log    *bytes.Buffer
}

// StartEtcd starts an etcd that lives as long as the test. args are more flags
// of the members.
func StartEtcd(t testing.TB, members int, args ...string) *Etcd {
	t.Helper()
	return StartSecureEtcd(t, Certs{}, members, args...)
}

// StartSecureEtcd starts an etcd that takes clients with a certificate alone.
func StartSecureEtcd(t testing.TB, certs Certs, members int, args ...string) *Etcd {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%v; install the package etcd-server", err)
		}
		t.Skipf("%v; install the package etcd-server", err)
	}
	e := &Etcd{t: t, certs: certs}
	scheme := "http://"
	if certs.CA != "" {
		scheme = "https://"
	}
	dir := t.TempDir()
	var cluster []string
	for i := range members {
		m := &member{client: FreeAddress(t)}
		// Nobody else uses this address of the machine, whatever the port.
		peer := "http://" + freeOn(t, fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254)))
		name := fmt.Sprintf("m%d", i)
		cluster = append(cluster, name+"="+peer)
		m.args = append([]string{
			"--name", name, "--data-dir", filepath.Join(dir, name), "--logger", "zap", "--log-level", "warn",
			"--listen-client-urls", scheme + m.client, "--advertise-client-urls", scheme + m.client,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		}, append(certs.flags(), args...)...)
		e.members = append(e.members, m)
	}
	for i, m := range e.members {
		m.args = append(m.args, "--initial-cluster", strings.Join(cluster, ","))
		e.Start(i)
		t.Cleanup(func() { e.Kill(i) })
	}
	for i := range e.members {
		e.waitFor(i)
	}
	return e
}

// FreeAddress is one that nobody listens on, with a port that the kernel gives
// to nobody who does not ask for it: it is still free when it is used.
func FreeAddress(t testing.TB) string { return freeOn(t, "127.0.0.1") }

func freeOn(t testing.TB, host string) string {
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", host, 10_000+rand.IntN(20_000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free between 10000 and 30000")
	return ""
}

// URL is what --store takes, without a prefix.
func (e *Etcd) URL() string {
	var all []string
	for _, m := range e.members {
		all = append(all, m.client)
	}
	return "etcd://" + strings.Join(all, ",")
}

// Start starts a member that does not run.
func (e *Etcd) Start(i int) {
	e.t.Helper()
	m := e.members[i]
	m.log = &bytes.Buffer{}
	m.cmd = exec.Command("etcd", m.args...)
	m.cmd.Stderr = m.log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
}

// Kill ends a member as a loss of power would.
func (e *Etcd) Kill(i int) {
	m := e.members[i]
	if m.cmd.ProcessState == nil {
		_ = m.cmd.Process.Kill()
		_ = m.cmd.Wait()
	}
}

// Ctl runs etcdctl and returns what it prints.
func (e *Etcd) Ctl(args ...string) string {
	e.t.Helper()
	flags := []string{"--endpoints", e.members[0].client}
	if c := e.certs; c.CA != "" {
		flags = []string{"--endpoints", "https://" + e.members[0].client, "--cacert", c.CA, "--cert", c.Cert, "--key", c.Key}
	}
	cmd := exec.Command("etcdctl", append(flags, args...)...)
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
	out, err := cmd.CombinedOutput()
	if err != nil {
		e.t.Fatalf("etcdctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// waitFor waits until a member answers with a leader.
func (e *Etcd) waitFor(i int) {
	e.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		c, err := net.DialTimeout("tcp", e.members[i].client, time.Second)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			e.Kill(i)
			e.t.Fatalf("etcd does not listen: %v\n%s", err, e.members[i].log)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
