package ha

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// TestServersJoin: one file is copied, the rest comes from etcd.
func TestServersJoin(t *testing.T) {
	t.Parallel()
	c := start(t, 1, 1)
	first, second := c.servers[0], c.add()
	key := filepath.Join(second.dir, "secrets.key")
	right := second.read("secrets.key")

	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	says(t, second.failsToStart(), "seal with the key", key+" is missing: copy it from one of them")
	if _, err := os.Stat(key); err == nil {
		t.Error("it has made a key of its own")
	}
	stranger := filepath.Join(t.TempDir(), "stranger")
	makeKey(t, c.binary, stranger)
	if err := os.Rename(filepath.Join(stranger, "secrets.key"), key); err != nil {
		t.Fatal(err)
	}
	says(t, second.failsToStart(), "which is not in the key file "+key, "copy the file from one of them")
	put(t, key, right)
	put(t, filepath.Join(second.dir, "ca.crt"), []byte("another cluster's"))
	says(t, second.failsToStart(), "ca.crt is not that of the cluster whose store this is", "move ca.crt, ca.key")

	if err := os.Remove(filepath.Join(second.dir, "ca.crt")); err != nil {
		t.Fatal(err)
	}
	name := second.flags[2]
	second.flags[2] = first.name
	says(t, second.failsToStart(), "another server of this cluster is named s1 too")
	second.flags[2] = name
	second.start()
	second.await()
	for _, file := range []string{"ca.crt", "ca.key", "tokens", "admin.token"} {
		if !bytes.Equal(first.read(file), second.read(file)) {
			t.Errorf("%s differs", file)
		}
	}
	addToken(t, second, first)
	rotate(t, c, first, second)
}

// TestAServerWaitsForEtcd that is not there yet, and says so.
func TestAServerWaitsForEtcd(t *testing.T) {
	t.Parallel()
	c := start(t, 1, 1)
	s := c.add()
	elsewhere := filepath.Join(t.TempDir(), "the.key")
	if err := os.Rename(filepath.Join(s.dir, "secrets.key"), elsewhere); err != nil {
		t.Fatal(err)
	}
	s.flags = append(s.flags, "--key-file", elsewhere)
	c.etcd.Kill(0)
	s.start()
	address := strings.TrimPrefix(c.etcd.URL(), "etcd://")
	eventually(t, "the log says what it waits for", func() error {
		if log := s.logged(); !strings.Contains(log, "trying again") || !strings.Contains(log, "etcd at "+address+": connect: connection refused") {
			return fmt.Errorf("%s", log)
		}
		return nil
	})
	c.etcd.Start(0)
	s.await()
	if _, err := os.Stat(filepath.Join(s.dir, "secrets.key")); err == nil {
		t.Error("it has made a key beside the one that --key-file names")
	}
}

func says(t testing.TB, said string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(said, w) {
			t.Errorf("it says %q, and should say %q", said, w)
		}
	}
}

func put(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// makeKey makes the data directory of another cluster.
func makeKey(t testing.TB, binary, dir string) {
	t.Helper()
	cmd := exec.Command(binary, "server", "--data-dir", dir, "--listen", fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another cluster has its files", func() error {
		_, err := os.Stat(filepath.Join(dir, "admin.kubeconfig"))
		return err
	})
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // ended by a signal
}

// addToken: a token that is added at one server counts at the other.
func addToken(t *testing.T, at, counts *server) {
	t.Helper()
	hash := sha256.Sum256([]byte("open-sesame"))
	line := hex.EncodeToString(hash[:]) + " viewer ann\n"
	put(t, filepath.Join(at.dir, "tokens"), append(at.read("tokens"), line...))
	config := rest.CopyConfig(counts.config(counts.url()))
	config.BearerToken = "open-sesame"
	ann := clientset(t, config)
	eventually(t, "the token counts at the other server", func() error {
		_, err := ann.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
		return err
	})
}

// rotate: the key of Secrets changes while one server is left, and the others
// come back with a copy of the file.
func rotate(t *testing.T, c *cluster, first, second *server) {
	t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"a": "b"}, Data: map[string][]byte{"a": []byte("b")}}
	if _, err := second.client().CoreV1().Secrets("default").Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	out, err := first.berth("secrets", "rotate-key")
	if err == nil {
		t.Errorf("rotated beside another server: %s", out)
	}
	says(t, out, "the servers s2 read Secrets with the present key", "stop them")
	second.stop()
	eventually(t, "the key is rotated", func() error {
		out, err := first.berth("secrets", "rotate-key")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	says(t, second.failsToStart(), "older than the last rotation; copy the file")
	second.copyKey(first)
	second.start()
	second.await()
	for _, s := range c.servers {
		got, err := s.client().CoreV1().Secrets("default").Get(t.Context(), "s", metav1.GetOptions{})
		if err != nil || string(got.Data["a"]) != "b" {
			t.Errorf("%s reads %v, %v", s.name, got.Data, err)
		}
	}
}

// TestEveryServerAnswers: what a client may ask of any server, and what one says
// that only another could do.
func TestEveryServerAnswers(t *testing.T) {
	t.Parallel()
	c := start(t, 1, 2)
	leader := c.leader(c.servers...)
	other := c.without(leader)[0]
	for _, s := range c.servers {
		eventually(t, s.name+" names the leader", func() error {
			out, err := s.berth("status")
			if err == nil && !strings.Contains(out, "server "+leader.name+" leads") {
				err = fmt.Errorf("%s", out)
			}
			return err
		})
	}
	if _, body := other.readyz(); !strings.Contains(body, "[+]leader ok: "+leader.name+"\n") {
		t.Errorf("readyz of another: %s", body)
	}
	if code, body := other.get("/readyz"); code != http.StatusOK || body != "ok" {
		t.Errorf("readyz: %d %q", code, body)
	}

	client := other.client()
	node(t, client)
	pod, err := client.CoreV1().Pods("default").Create(t.Context(), deploymentPod("p"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Pod has a node", func() error {
		pod, err = client.CoreV1().Pods("default").Get(t.Context(), "p", metav1.GetOptions{})
		if err == nil && pod.Spec.NodeName == "" {
			err = fmt.Errorf("none yet")
		}
		return err
	})
	_, err = client.CoreV1().Pods("default").GetLogs("p", &corev1.PodLogOptions{}).Stream(t.Context())
	if err == nil || !strings.Contains(err.Error(), "the pod is on node n1") {
		t.Errorf("logs of a pod elsewhere: %v", err)
	}
	pushIsRefused(t, other)
	restore(t, c, leader, other)
}

// pushIsRefused with a sentence and the remedy.
func pushIsRefused(t *testing.T, s *server) {
	t.Helper()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "m.yaml"), []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n"))
	script := `git init -q -b main . && git add -A && git -c user.name=A -c user.email=a@example.org commit -qm one &&
git push "https://admin:$(cat "$DIR/admin.token")@127.0.0.1:$PORT/git/shop.git" main`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DIR="+s.dir, fmt.Sprintf("PORT=%d", s.port), "GIT_SSL_CAINFO="+filepath.Join(s.dir, "ca.crt"), "NO_PROXY=*", "HOME="+dir)
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Errorf("a push was taken: %s", out)
	}
	says(t, strings.Join(strings.Fields(string(out)), " "), "push to a Git server, and name it in the url of a Source")
}

// restore makes a backup at one server and brings it back at another; the leader
// then acts on what was restored.
func restore(t *testing.T, c *cluster, leader, other *server) {
	t.Helper()
	client := other.client()
	runKubelet(t, client)
	if _, err := client.AppsV1().Deployments("default").Create(t.Context(), deployment("web", 3), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	rolledOut(t, client, "web")
	file := filepath.Join(t.TempDir(), "saved")
	if out, err := other.berth("backup", file); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	background := metav1.DeletePropagationBackground
	if err := client.AppsV1().Deployments("default").Delete(t.Context(), "web", metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Pods are gone", func() error {
		list, err := client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
		if err == nil && len(list.Items) > 0 {
			err = fmt.Errorf("%d are left", len(list.Items))
		}
		return err
	})
	out, err := leader.berth("restore", file)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Log(strings.TrimSpace(out))
	rolledOut(t, client, "web")
	scale(t, client, 5)
	rolledOut(t, client, "web")
	c.leader(c.servers...)
}
