package e2e

import (
	"bufio"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// busybox loads an image with a shell in it.
func (m *machine) busybox() {
	m.t.Helper()
	m.berth("image", "load", filepath.Join(m.binDir, "busybox.tar"))
}

func TestExecAndPortForward(t *testing.T) {
	m := boot(t)
	m.busybox()
	m.kubectl("run", "shell", "--image=berth.dev/busybox:1", "--restart=Never", "--command", "--", "/bin/busybox", "sh", "-c",
		"mkdir /www && echo hello > /www/index.html && exec /bin/busybox httpd -f -p 8080 -h /www")
	m.kubectl("wait", "--for=condition=Ready", "pod/shell", "--timeout=60s")

	if out := m.kubectl("exec", "shell", "--", "/bin/busybox", "cat", "/www/index.html"); out != "hello\n" {
		t.Errorf("exec printed %q", out)
	}
	out, err := m.try("kubectl", "exec", "shell", "--", "/bin/busybox", "sh", "-c", "echo out; echo err >&2; exit 7")
	if err == nil || !strings.Contains(out, "out\n") || !strings.Contains(out, "err\n") || !strings.Contains(out, "exit code 7") {
		t.Errorf("exec of a failing command: %v\n%s", err, out)
	}
	in := m.command("kubectl", "exec", "-i", "shell", "--", "/bin/busybox", "tr", "a-z", "A-Z")
	in.Stdin = strings.NewReader("from the other side\n")
	if out, err := in.Output(); err != nil || string(out) != "FROM THE OTHER SIDE\n" {
		t.Errorf("exec -i printed %q, %v", out, err)
	}
	// script gives kubectl a terminal of its own.
	tty := m.command("script", "-qec", filepath.Join(m.binDir, "kubectl")+" exec -it shell -- /bin/busybox tty", "/dev/null")
	if out, err := tty.CombinedOutput(); err != nil || !strings.Contains(string(out), "/dev/pts/") {
		t.Errorf("exec -it printed %q, %v", out, err)
	}
	if out, err := m.try("kubectl", "exec", "shell", "--", "/nowhere"); err == nil || !strings.Contains(out, "/nowhere") {
		t.Errorf("exec of a program that is not there: %v\n%s", err, out)
	}

	// Whoever goes away leaves nothing running.
	long := m.command("kubectl", "exec", "shell", "--", "/bin/busybox", "sh", "-c", "echo started; exec /bin/busybox sleep 4242")
	pipe, err := long.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := long.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(pipe).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	_ = long.Process.Signal(syscall.SIGKILL)
	_ = long.Wait() // killed
	m.eventually("the command of a client that is gone has ended", func() error {
		if out, err := exec.Command("pgrep", "-fa", "sleep 4242").Output(); err == nil {
			return fmt.Errorf("it runs: %s", out)
		}
		return nil
	})

	forward := m.command("kubectl", "port-forward", "pod/shell", "18080:8080")
	if err := forward.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = forward.Process.Kill()
		_ = forward.Wait() // killed
	}()
	m.eventually("the forwarded port answers", func() error {
		body, err := get(t.Context(), "http://127.0.0.1:18080/index.html")
		if err == nil && body != "hello\n" {
			err = fmt.Errorf("it says %q", body)
		}
		return err
	})
	for range 20 {
		if _, err := get(t.Context(), "http://127.0.0.1:18080/index.html"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLogsFollowAndPrevious(t *testing.T) {
	m := boot(t)
	m.busybox()
	m.kubectl("run", "counter", "--image=berth.dev/busybox:1", "--command", "--", "/bin/busybox", "sh", "-c",
		"i=0; while [ $i -lt 20 ]; do echo line $i; i=$((i+1)); /bin/busybox sleep 0.1; done; exit 3")
	m.eventually("it runs", func() error {
		_, err := m.try("kubectl", "logs", "counter")
		return err
	})
	follow := m.command("kubectl", "logs", "-f", "counter")
	began := time.Now()
	out, err := follow.Output()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if want := fmt.Sprintf("line %d\n", i); strings.Count(string(out), want) != 1 {
			t.Errorf("logs -f has %q %d times", want, strings.Count(string(out), want))
		}
	}
	if time.Since(began) > wait {
		t.Error("logs -f did not end with the container")
	}
	m.eventually("the former run can be read", func() error {
		out, err := m.try("kubectl", "logs", "counter", "--previous", "--tail=1")
		if err == nil && out != "line 19\n" {
			err = fmt.Errorf("it says %q", out)
		}
		return err
	})
}
