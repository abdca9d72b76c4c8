package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth.dev/berth/engine/store/storetest"
)

// beside is a second control plane on the same machine, without an agent.
type beside struct {
	m   *machine
	dir string
	cmd *exec.Cmd
}

// besides starts a control plane in a directory, which needs the key of Secrets.
func (m *machine) besides(dir string, flags ...string) *beside {
	m.t.Helper()
	b := &beside{m: m, dir: dir}
	b.cmd = m.command("berth", append([]string{"server", "--name", "beside", "--data-dir", dir, "--listen", "127.0.0.1:7444"}, flags...)...)
	b.cmd.Stdout, b.cmd.Stderr = m.log, m.log
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(b.stop)
	m.eventually("the server beside answers", func() error {
		_, err := b.kubectl("get", "--raw", "/readyz")
		return err
	})
	return b
}

func (b *beside) stop() {
	if b.cmd != nil {
		_ = b.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		_ = b.cmd.Wait()
		b.cmd = nil
	}
}

func (b *beside) kubectl(args ...string) (string, error) {
	return b.m.try("kubectl", append([]string{"--kubeconfig", filepath.Join(b.dir, "admin.kubeconfig")}, args...)...)
}

// remoteSource makes a Source of a repository that is not Berth's own.
func (m *machine) remoteSource(name string) *repository {
	m.t.Helper()
	bare := filepath.Join(m.dir, name+".git")
	m.run("git", "init", "-q", "--bare", "-b", "main", bare)
	r := m.empty(name)
	r.git("remote", "set-url", "origin", bare)
	manifest := filepath.Join(m.dir, name+".yaml")
	text := fmt.Sprintf("apiVersion: berth.dev/v1alpha1\nkind: Source\nmetadata: {name: %s}\nspec: {url: \"file://%s\", interval: 1s}\n", name, bare)
	if err := os.WriteFile(manifest, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	m.kubectl("create", "-f", manifest)
	return r
}

// TestUpOnEtcd: a node whose control plane is one of two goes on with its
// containers while that control plane, or etcd, is away.
func TestUpOnEtcd(t *testing.T) {
	etcd := storetest.StartEtcd(t, 1)
	m := boot(t, "--store", etcd.URL(), "--allow-file-sources")
	r := m.remoteSource("remote")
	r.write("app.yaml", deployment("app", 1))
	r.push("One")
	r.ready()
	before := m.containers("default")

	dir := filepath.Join(m.dir, "beside")
	m.run("mkdir", "-m", "0700", dir)
	m.run("cp", "-p", filepath.Join(m.dir, "secrets.key"), dir)
	b := m.besides(dir, "--store", etcd.URL(), "--allow-file-sources")
	var pod string
	for pod = range before {
	}
	m.kubectl("logs", pod)
	if out, err := b.kubectl("logs", pod); err == nil || !strings.Contains(out, "this server does not reach its containers") {
		t.Errorf("logs from a server without an agent: %v\n%s", err, out)
	}

	m.stop(syscall.SIGKILL)
	killed := time.Now()
	r.write("app.yaml", deployment("app", 2))
	r.push("Two, while the leader is dead")
	m.eventually("the other server applies the commit", func() error {
		out, err := b.kubectl("get", "deployment", "app", "-o", "jsonpath={.spec.replicas}")
		if err == nil && out != "2" {
			err = fmt.Errorf("replicas: %s", out)
		}
		return err
	})
	t.Logf("the other server applied a commit %v after the leader was killed", time.Since(killed).Round(time.Millisecond))
	m.up()
	r.ready()
	same(t, before, m.containers("default"))

	before = m.containers("default")
	etcd.Kill(0)
	m.eventually("the server says that etcd is away", func() error {
		out, err := m.try("kubectl", "get", "--raw", "/readyz")
		if err == nil || !strings.Contains(out, "the store is not reachable") {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	etcd.Start(0)
	r.write("app.yaml", deployment("app", 3))
	r.push("Three")
	r.ready()
	same(t, before, m.containers("default"))
}

// same: what ran before runs on, untouched.
func same(t *testing.T, before, now map[string]container) {
	t.Helper()
	for name, was := range before {
		if is := now[name]; is.id != was.id || is.restarts != was.restarts {
			t.Errorf("%s was %+v and is %+v", name, was, is)
		}
	}
}

// TestAClusterMovesToEtcd as docs/high-availability.md says, with its containers
// running.
func TestAClusterMovesToEtcd(t *testing.T) {
	etcd := storetest.StartEtcd(t, 1)
	m := boot(t, "--allow-file-sources")
	r := m.remoteSource("remote")
	r.write("app.yaml", deployment("app", 2))
	r.push("Two")
	r.ready()
	m.kubectl("create", "secret", "generic", "s", "--from-literal=a=b")
	before := m.containers("default")
	file := filepath.Join(t.TempDir(), "saved")
	m.berth("backup", file)
	m.stop(syscall.SIGTERM)

	m.flags = append(m.flags, "--store", etcd.URL())
	out, err := m.try("berth", append([]string{"up", "--data-dir", m.dir, "--listen", "127.0.0.1:7443"}, m.flags...)...)
	if err == nil || !strings.Contains(out, "holds no cluster, but this machine runs 2 pods of one") {
		t.Errorf("an agent beside an empty store: %v\n%s", err, out)
	}
	b := m.besides(m.dir, "--store", etcd.URL())
	m.berth("restore", file)
	b.stop()
	m.up()
	r.ready()
	same(t, before, m.containers("default"))
	if out := m.kubectl("get", "secret", "s", "-o", "jsonpath={.data.a}"); out != "Yg==" {
		t.Errorf("the Secret is %q", out)
	}
	r.write("app.yaml", deployment("app", 3))
	r.push("Three")
	r.ready()
}
