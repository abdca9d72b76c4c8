package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// shell runs a pod whose busybox has all its tools in the path.
func (m *machine) shell(name, script string, flags ...string) {
	m.t.Helper()
	args := append([]string{"run", name, "--image=berth.dev/busybox:1", "--restart=Never"}, flags...)
	m.kubectl(append(args, "--command", "--", "/bin/busybox", "sh", "-c", "/bin/busybox --install -s /bin; "+script)...)
	m.kubectl("wait", "--for=condition=Ready", "pod/"+name, "--timeout=60s")
}

// terminal is kubectl with a terminal of its own, as script gives it.
func (m *machine) terminal(args ...string) (*exec.Cmd, io.WriteCloser, *bytes.Buffer) {
	m.t.Helper()
	cmd := m.command("script", "-qefc", filepath.Join(m.binDir, "kubectl")+" "+strings.Join(args, " "), "/dev/null")
	in, err := cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	return cmd, in, &out
}

func TestAttach(t *testing.T) {
	m := boot(t)
	m.busybox()

	// Input goes in, output comes out, and nothing of it depends on Berth: it
	// is restarted in between.
	m.shell("echo", "while read line; do echo got $line; done; echo the end", "--stdin", "--attach=false", "--leave-stdin-open")
	for _, word := range []string{"one", "two"} {
		attach := m.command("kubectl", "attach", "-i", "echo")
		in, err := attach.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		var out syncBuffer
		attach.Stdout, attach.Stderr = &out, &out
		if err := attach.Start(); err != nil {
			t.Fatal(err)
		}
		m.eventually("the container answers", func() error {
			fmt.Fprintln(in, word)
			time.Sleep(300 * time.Millisecond)
			if !strings.Contains(out.String(), "got "+word+"\n") {
				return fmt.Errorf("it printed %q", out.String())
			}
			return nil
		})
		_ = attach.Process.Kill()
		_ = attach.Wait() // killed
		m.stop(syscall.SIGKILL)
		m.up()
	}
	if out := m.kubectl("get", "pod", "echo", "-o", "jsonpath={.status.phase} {.status.containerStatuses[0].restartCount}"); out != "Running 0" {
		t.Errorf("after two clients have gone the pod is %s", out)
	}
	if out := m.kubectl("logs", "echo"); !strings.Contains(out, "got one\n") || !strings.Contains(out, "got two\n") {
		t.Errorf("its log is %q", out)
	}

	// run -i --rm is a command in the cluster: its input ends, and its exit code comes back.
	once := m.command("kubectl", "run", "once", "-i", "--rm", "--restart=Never", "--image=berth.dev/busybox:1", "--command", "--",
		"/bin/busybox", "sh", "-c", "/bin/busybox tr a-z A-Z; exit 3")
	once.Stdin = strings.NewReader("from the other side\n")
	out, err := once.CombinedOutput()
	var exit *exec.ExitError
	if !strings.Contains(string(out), "FROM THE OTHER SIDE") || !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("run -i: %v\n%s", err, out)
	}
	if out, err := m.try("kubectl", "get", "pod", "once"); err == nil {
		t.Errorf("run --rm left the pod:\n%s", out)
	}

	// A terminal is one, and has the client's size.
	m.shell("tty", "while read line; do eval \"$line\"; done", "--stdin", "--tty", "--attach=false", "--leave-stdin-open")
	cmd, in, screen := m.terminal("attach", "-it", "tty")
	time.Sleep(time.Second)
	fmt.Fprintln(in, "stty rows 33 cols 77; tty; stty size; exit")
	if err := cmd.Wait(); err != nil {
		t.Errorf("attach -it: %v", err)
	}
	in.Close()
	if text := screen.String(); !strings.Contains(text, "/dev/pts/") || !strings.Contains(text, "33 77") {
		t.Errorf("attach -it printed %q", text)
	}
	if out, err := m.try("kubectl", "attach", "tty"); err == nil || !strings.Contains(out, "ompleted") && !strings.Contains(out, "not running") {
		t.Errorf("attach to a container that has ended: %v\n%s", err, out)
	}
}

func TestDebugCopyAndProxy(t *testing.T) {
	m := boot(t)
	m.busybox()
	m.shell("web", "mkdir -p /www/sub && echo hello > /www/index.html && echo below > '/www/sub/a b.html' && exec httpd -f -p 8080 -h /www",
		"--port=8080", "--labels=app=web")
	m.kubectl("expose", "pod", "web", "--port=80", "--target-port=8080")

	// An ephemeral container sees the processes of the one it is for, and is
	// none of the pod's own. The server may not listen yet.
	debug := m.command("kubectl", "debug", "web", "-i", "--image=berth.dev/busybox:1", "--target=web", "-c", "look", "--",
		"/bin/busybox", "sh", "-c", "read word; echo $word; until /bin/busybox wget -qO- http://localhost:8080/; do /bin/busybox sleep 0.2; done; /bin/busybox ps")
	debug.Stdin = strings.NewReader("typed\n")
	if out, err := debug.CombinedOutput(); err != nil || !strings.Contains(string(out), "typed") || !strings.Contains(string(out), "httpd -f") || !strings.Contains(string(out), "hello") {
		t.Errorf("debug printed: %v\n%s", err, out)
	}
	m.eventually("the ephemeral container has ended, and the pod goes on", func() error {
		out := m.kubectl("get", "pod", "web", "-o", "jsonpath={.status.ephemeralContainerStatuses[0].state.terminated.reason} {.status.phase} {.status.containerStatuses[0].restartCount}")
		if out != "Completed Running 0" {
			return fmt.Errorf("it is %s", out)
		}
		return nil
	})
	if out := m.kubectl("logs", "web", "-c", "look"); !strings.Contains(out, "httpd -f") {
		t.Errorf("the log of the ephemeral container is %q", out)
	}
	if out, err := m.try("kubectl", "debug", "web", "--image=berth.dev/busybox:1", "-c", "web", "--", "/bin/busybox", "true"); err == nil {
		t.Errorf("an ephemeral container took another one's name:\n%s", out)
	}

	// cp, both ways.
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, bytes.Repeat([]byte("0123456789abcdef"), 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	m.kubectl("cp", file, "web:/www/copy")
	m.kubectl("cp", "web:/www/copy", file+".back")
	if out, err := exec.Command("cmp", file, file+".back").CombinedOutput(); err != nil {
		t.Errorf("a file that was copied there and back is another one: %s", out)
	}

	// The proxy of the API, as kubectl proxy and get --raw reach it.
	base := "/api/v1/namespaces/default/"
	for path, want := range map[string]string{
		base + "pods/web:8080/proxy/":                    "hello\n",
		base + "pods/web/proxy/":                         "hello\n",
		base + "pods/http:web:8080/proxy/sub/a%20b.html": "below\n",
		base + "services/web/proxy/":                     "hello\n",
		base + "services/web:80/proxy/index.html":        "hello\n",
	} {
		m.eventually("the proxy answers at "+path, func() error {
			out, err := m.try("kubectl", "get", "--raw", path)
			if err == nil && out != want {
				err = fmt.Errorf("it says %q", out)
			}
			return err
		})
	}
	if out, err := m.try("kubectl", "get", "--raw", base+"pods/web:81/proxy/"); err == nil || !strings.Contains(out, "81") {
		t.Errorf("the proxy to a closed port: %v\n%s", err, out)
	}
	if out, err := m.try("kubectl", "get", "--raw", base+"services/web:nowhere/proxy/"); err == nil || !strings.Contains(out, `no port "nowhere"`) {
		t.Errorf("the proxy to a port that is not there: %v\n%s", err, out)
	}
}

// syncBuffer is a buffer that is read while a command writes to it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
