// Package e2e runs the product as a user does: the real binary, git and kubectl,
// real containers and networks, on a machine of its own that is gone afterwards.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth.dev/berth/nodeagent/testhost"
)

func TestMain(m *testing.M) { testhost.Main(m) }

// wait is how long anything may take that a user waits for.
const wait = 60 * time.Second

// machine is one running Berth.
type machine struct {
	t      testing.TB
	dir    string
	binDir string
	// program is up or server, flags are its.
	program string
	flags   []string
	server  *exec.Cmd
	log     *os.File
}

// boot starts berth up on a new data directory and loads the example's image.
func boot(t testing.TB, flags ...string) *machine {
	t.Helper()
	return bootIn(t, dataDir(t), flags...)
}

// dataDir is a new one, with a short name for the paths of Unix sockets.
func dataDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "berth")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func bootIn(t testing.TB, dir string, flags ...string) *machine {
	t.Helper()
	m := newMachine(t, dir, "up", flags...)
	m.up()
	m.berth("image", "load", filepath.Join(m.binDir, "shop.tar"))
	return m
}

// newMachine readies a machine whose server is not started yet.
func newMachine(t testing.TB, dir, program string, flags ...string) *machine {
	t.Helper()
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"berth", "containerd", "runc", "kubectl", "shop.tar", "busybox.tar"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			t.Fatalf("%v: run make test-deps build first", err)
		}
	}
	m := &machine{t: t, dir: dir, binDir: bin, program: program, flags: flags}
	if m.log, err = os.Create(filepath.Join(dir, "berth.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.stop(syscall.SIGTERM)
		if t.Failed() {
			b, _ := os.ReadFile(m.log.Name())
			t.Logf("the server's log:\n%s", b)
		}
		out, err := m.command("berth", "down", "--data-dir", dir).CombinedOutput()
		if err != nil {
			t.Errorf("berth down: %v\n%s", err, out)
		}
		m.log.Close()
	})
	return m
}

// up starts the server and waits until it answers.
func (m *machine) up() {
	m.t.Helper()
	m.server = m.command("berth", append([]string{m.program, "--data-dir", m.dir, "--listen", "127.0.0.1:7443"}, m.flags...)...)
	m.server.Stdout, m.server.Stderr = m.log, m.log
	if err := m.server.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.eventually("the server answers", func() error {
		_, err := m.try("berth", "status")
		return err
	})
}

// stop ends the server process and waits for it.
func (m *machine) stop(sig syscall.Signal) {
	if m.server == nil {
		return
	}
	_ = m.server.Process.Signal(sig) // it may have ended by itself
	_ = m.server.Wait()              // ended by a signal
	m.server = nil
}

func (m *machine) kubeconfig() string { return filepath.Join(m.dir, "admin.kubeconfig") }

func (m *machine) token() string {
	b, err := os.ReadFile(filepath.Join(m.dir, "admin.token"))
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// command is a program with the environment of a user of this machine.
func (m *machine) command(name string, args ...string) *exec.Cmd {
	path := name
	if name == "berth" || name == "kubectl" {
		path = filepath.Join(m.binDir, name)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+m.kubeconfig(), "GIT_SSL_CAINFO="+filepath.Join(m.dir, "ca.crt"),
		"HOME="+m.dir, "GIT_CONFIG_NOSYSTEM=1", "NO_PROXY=*", "no_proxy=*")
	return cmd
}

// try runs a program and returns what it printed. One that does not end is
// killed, so that a test never hangs.
func (m *machine) try(name string, args ...string) (string, error) {
	cmd := m.command(name, args...)
	cmd.WaitDelay = time.Second
	kill := time.AfterFunc(2*wait, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), err
}

func (m *machine) run(name string, args ...string) string {
	m.t.Helper()
	out, err := m.try(name, args...)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

func (m *machine) berth(args ...string) string {
	m.t.Helper()
	return m.run("berth", args...)
}

func (m *machine) kubectl(args ...string) string {
	m.t.Helper()
	return m.run("kubectl", args...)
}

// eventually tries until check is content.
func (m *machine) eventually(what string, check func() error) {
	m.t.Helper()
	deadline := time.Now().Add(wait)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("%s: not after %v: %v", what, wait, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// repository is a user's clone with the built-in endpoint as its remote.
type repository struct {
	m    *machine
	dir  string
	name string
}

// repository makes a clone out of an example and pushes it.
func (m *machine) repository(name, example string) *repository {
	m.t.Helper()
	r := &repository{m: m, dir: filepath.Join(m.dir, "clone-"+name), name: name}
	m.run("cp", "-r", filepath.Join("../../examples", example), r.dir)
	r.git("init", "-q", "-b", "main")
	r.git("config", "user.name", "Ada")
	r.git("config", "user.email", "ada@example.org")
	r.git("remote", "add", "origin", fmt.Sprintf("https://admin:%s@127.0.0.1:7443/git/%s.git", m.token(), name))
	r.push("The first commit")
	return r
}

func (r *repository) git(args ...string) string {
	r.m.t.Helper()
	return r.m.run("git", append([]string{"-C", r.dir}, args...)...)
}

// push commits everything and pushes it.
func (r *repository) push(message string) string {
	r.m.t.Helper()
	out, err := r.tryPush(message)
	if err != nil {
		r.m.t.Fatal(err)
	}
	return out
}

func (r *repository) tryPush(message string) (string, error) {
	r.m.t.Helper()
	r.git("add", "-A")
	r.git("commit", "-q", "-m", message)
	return r.m.try("git", "-C", r.dir, "push", "origin", "main")
}

// edit replaces text in a file.
func (r *repository) edit(file, old, now string) {
	r.m.t.Helper()
	path := filepath.Join(r.dir, file)
	b, err := os.ReadFile(path)
	if err != nil {
		r.m.t.Fatal(err)
	}
	if !bytes.Contains(b, []byte(old)) {
		r.m.t.Fatalf("%s does not hold %q", file, old)
	}
	r.write(file, strings.Replace(string(b), old, now, 1))
}

func (r *repository) write(file, content string) {
	r.m.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, file), []byte(content), 0o644); err != nil {
		r.m.t.Fatal(err)
	}
}

// ready waits until the newest commit is applied and healthy.
func (r *repository) ready() {
	r.m.t.Helper()
	head := strings.TrimSpace(r.git("rev-parse", "HEAD"))
	r.m.eventually(r.name+" is ready", func() error {
		s := r.m.source(r.name)
		if s.Status.Healthy.ID != head || s.condition("Ready").Status != "True" {
			return fmt.Errorf("healthy %q, want %q: %+v", s.Status.Healthy.ID, head, s.condition("Ready"))
		}
		return nil
	})
}

// source is what berth status -o json says.
type source struct {
	Status struct {
		Applied, Healthy struct{ ID string }
		Conditions       []condition
		Timeline         []struct {
			Name, Message string
			Time          time.Time
		}
	}
}

type condition struct{ Type, Status, Reason, Message string }

func (s source) condition(kind string) condition {
	for _, c := range s.Status.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return condition{}
}

func (m *machine) source(name string) source {
	m.t.Helper()
	var s source
	if err := json.Unmarshal([]byte(m.berth("status", name, "-o", "json")), &s); err != nil {
		m.t.Fatal(err)
	}
	return s
}

// container is one container of a Pod, as the API shows it.
type container struct {
	pod, id  string
	restarts int
	ready    bool
}

// containers of a namespace, by Pod name.
func (m *machine) containers(namespace string) map[string]container {
	m.t.Helper()
	var list struct {
		Items []struct {
			Metadata struct {
				Name              string
				DeletionTimestamp *time.Time
			}
			Status struct {
				ContainerStatuses []struct {
					ContainerID  string
					RestartCount int
					Ready        bool
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(m.kubectl("get", "pods", "-n", namespace, "-o", "json")), &list); err != nil {
		m.t.Fatal(err)
	}
	out := map[string]container{}
	for _, p := range list.Items {
		c := container{pod: p.Metadata.Name}
		if p.Metadata.DeletionTimestamp != nil {
			continue
		}
		if s := p.Status.ContainerStatuses; len(s) > 0 {
			c.id, c.restarts, c.ready = s[0].ContainerID, s[0].RestartCount, s[0].Ready
		}
		out[c.pod] = c
	}
	return out
}

// clusterIP of a Service.
func (m *machine) clusterIP(namespace, name string) string {
	m.t.Helper()
	return strings.TrimSpace(m.kubectl("get", "service", "-n", namespace, name, "-o", "jsonpath={.spec.clusterIP}"))
}

// get asks over a connection of its own, so that each call is balanced anew.
func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Do(q)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = errors.New(r.Status)
	}
	return string(b), err
}
