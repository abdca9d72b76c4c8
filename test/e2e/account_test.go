package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// inquirer loads the image of a program that asks the API from inside a pod.
func (m *machine) inquirer() {
	m.t.Helper()
	program, archive := filepath.Join(m.dir, "inquirer"), filepath.Join(m.dir, "inquirer.tar")
	for _, args := range [][]string{
		{"build", "-buildvcs=false", "-trimpath", "-o", program, "./testdata/inquirer"},
		{"run", "../../hack/image", "-name", "berth.dev/inquirer:1", "-o", archive, "-entrypoint", "/inquirer", program + "=/inquirer"},
	} {
		cmd := exec.Command("go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			m.t.Fatalf("go %s: %v\n%s", args[0], err, out)
		}
	}
	m.berth("image", "load", archive)
}

// account is a Deployment that asks as a ServiceAccount; none is the default one.
func account(name, annotations string) string {
	spec := ""
	object := ""
	if name != "default" {
		spec = "      serviceAccountName: " + name + "\n"
		object = fmt.Sprintf("---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: %s, namespace: ask, annotations: {%s}}\n", name, annotations)
	}
	return object + fmt.Sprintf(`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ask-%[1]s, namespace: ask}
spec:
  selector: {matchLabels: {app: ask-%[1]s}}
  template:
    metadata: {labels: {app: ask-%[1]s}}
    spec:
%[2]s      containers: [{name: main, image: "berth.dev/inquirer:1", imagePullPolicy: Never}]
`, name, spec)
}

const askNamespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: ask}\n"

// TestPodsAskTheAPI: a pod speaks to the API with what is mounted in it, and may
// do what Git grants its account, no more and no longer.
func TestPodsAskTheAPI(t *testing.T) {
	m := boot(t, "--listen", "0.0.0.0:7443")
	m.inquirer()
	r := m.empty("ask")
	granted := askNamespace + account("reader", `berth.dev/role: viewer`) + account("default", "")
	r.write("ask.yaml", granted)
	r.push("A reader and one without a role")
	r.ready()
	m.says("ask-reader", "200 2 pods")
	m.says("ask-default", "ServiceAccount ask/default has no role")
	before := m.containers("ask")
	// After a restart, also with another key, which makes all tokens worthless.
	m.stop(syscall.SIGKILL)
	if err := os.Remove(filepath.Join(m.dir, "service-account.key")); err != nil {
		t.Fatal(err)
	}
	m.up()
	m.says("ask-reader", "200 2 pods")

	r.write("ask.yaml", strings.Replace(granted, "berth.dev/role: viewer", "note: none", 1))
	if out := r.push("The reader reads no more"); !strings.Contains(out, "berth.dev/role") {
		t.Errorf("the push does not show the role that goes:\n%s", out)
	}
	r.ready()
	m.says("ask-reader", "ServiceAccount ask/reader has no role")
	for name, c := range m.containers("ask") {
		if before[name].id != c.id {
			t.Errorf("pod %s was made anew", name)
		}
	}
	if out := m.berth("plan", r.dir, "--source", "ask"); !strings.Contains(out, "no change") {
		t.Errorf("plan of what is applied:\n%s", out)
	}

	// A Source may declare the default account, and Berth has it again afterwards.
	declared := "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default, namespace: ask, annotations: {berth.dev/role: viewer}}\n"
	r.write("default.yaml", declared)
	r.push("The default account reads")
	r.ready()
	m.says("ask-default", "200 2 pods")
	r.write("default.yaml", "# nothing\n")
	r.push("And no more")
	r.ready()
	m.says("ask-default", "ServiceAccount ask/default has no role")
	for name, c := range m.containers("ask") {
		if before[name].id != c.id {
			t.Errorf("pod %s was made anew", name)
		}
	}

	// The account's own token from outside, and what kubectl says of it.
	token := strings.TrimSpace(m.kubectl("create", "token", "-n", "ask", "default", "--duration", "10m"))
	if out := m.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", "--token", token, "--kubeconfig", m.anonymous()); out != "system:serviceaccount:ask:default" {
		t.Errorf("whoami: %s", out)
	}
	if out, _ := m.try("kubectl", "auth", "can-i", "list", "pods", "-n", "ask", "--as", "system:serviceaccount:ask:default"); !strings.HasPrefix(out, "no") {
		t.Errorf("can-i: %s", out)
	}
}

// says waits until the last line of a Deployment's log holds a text.
func (m *machine) says(deployment, text string) {
	m.t.Helper()
	m.eventually(deployment+" says "+text, func() error {
		out, err := m.try("kubectl", "logs", "-n", "ask", "deployment/"+deployment, "--tail=1")
		if err == nil && !strings.Contains(out, text) {
			err = fmt.Errorf("it says\n%s", out)
		}
		return err
	})
}

// anonymous is a kubeconfig without credentials.
func (m *machine) anonymous() string {
	path := filepath.Join(m.dir, "anonymous.kubeconfig")
	m.berth("kubeconfig", "--user", "nobody", "--token", "none", "-o", path)
	return path
}

// TestCertificatesOfPeople uses a client certificate with kubectl and berth.
func TestCertificatesOfPeople(t *testing.T) {
	m := boot(t)
	ann := filepath.Join(m.dir, "ann.kubeconfig")
	m.berth("kubeconfig", "--user", "ann", "--role", "admin", "--certificate", "--life", "1h", "-o", ann)
	if out := m.kubectl("--kubeconfig", ann, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username} {.status.userInfo.groups}"); out != `ann ["system:masters","system:authenticated"]` {
		t.Errorf("whoami: %s", out)
	}
	if out := m.berth("token", "list", "--kubeconfig", ann); !strings.Contains(out, "admin") {
		t.Errorf("token list:\n%s", out)
	}
	if _, err := m.try("berth", "kubeconfig", "--user", "ann", "--certificate", "--life", "100000h"); err == nil || !strings.Contains(err.Error(), "lasts from a minute to 90 days") {
		t.Errorf("too long a life: %v", err)
	}
}

// TestTokensOfPeople makes, uses and deletes a token on a running server.
func TestTokensOfPeople(t *testing.T) {
	m := boot(t)
	vic := filepath.Join(m.dir, "vic.kubeconfig")
	m.berth("kubeconfig", "--user", "vic", "--role", "viewer", "-o", vic)
	for _, c := range []struct{ args, want string }{
		{"get namespaces -o name", "namespace/default"},
		{"auth whoami", "vic"},
		{"auth can-i list pods", "yes"},
		{"auth can-i get secrets", "no"},
		{"auth can-i create pods", "no"},
		{"auth can-i get pods --subresource=exec", "no"},
		{"auth can-i --list", "selfsubjectreviews.authentication.k8s.io"},
		{"get secrets -A", "vic has the role viewer, which does not allow it"},
		{"--as ann get pods", "only an administrator may act as another user"},
	} {
		out, _ := m.try("kubectl", append([]string{"--kubeconfig", vic}, strings.Fields(c.args)...)...)
		if !strings.Contains(out, c.want) {
			t.Errorf("kubectl %s: want %q:\n%s", c.args, c.want, out)
		}
	}
	if out := m.berth("token", "list"); !strings.Contains(out, "vic") || !strings.Contains(out, "admin") {
		t.Errorf("token list:\n%s", out)
	}
	m.berth("token", "delete", "vic")
	if out, err := m.try("kubectl", "--kubeconfig", vic, "get", "namespaces"); err == nil {
		t.Errorf("a deleted token still opens:\n%s", out)
	}
	hashes, err := os.ReadFile(filepath.Join(m.dir, "tokens"))
	if err != nil || strings.Contains(string(hashes), "vic") {
		t.Errorf("%v: the file still knows vic", err)
	}
}
