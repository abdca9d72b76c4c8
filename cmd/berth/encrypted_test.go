package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	gosync "sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/upstream"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/cue"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/resources"
	"berth.dev/berth/engine/store"
	"berth.dev/berth/engine/sync"
	"berth.dev/berth/sources/archive"
	"berth.dev/berth/sources/receive"
	"berth.dev/berth/sources/worktree"
)

// buffer takes what is logged.
type buffer struct {
	mu gosync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// cluster is a built-in endpoint with an engine that applies what is pushed, over
// a data directory on the disk.
type cluster struct {
	*pusher
	*resources.Resources
	data      string
	log       *buffer
	endpoints *endpoints
	// said is all that git push has printed.
	said strings.Builder
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	p := newPusher(t)
	c := &cluster{pusher: p, data: t.TempDir(), log: &buffer{}}
	log := slog.New(slog.NewTextHandler(c.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	bolt, err := store.OpenBolt(filepath.Join(c.data, storeFile))
	if err != nil {
		t.Fatal(err)
	}
	enginetest.Go(t, bolt.Run)
	sealed, err := store.Seal(t.Context(), bolt, filepath.Join(c.data, keysFile), resources.Sealed()...)
	if err != nil {
		t.Fatal(err)
	}
	up, err := upstream.New()
	if err != nil {
		t.Fatal(err)
	}
	c.Resources = resources.New(resources.Options{Store: sealed, Upstream: up, Clock: clock.RealClock{}, ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16")})
	compiler, err := cue.New()
	if err != nil {
		t.Fatal(err)
	}
	views := live.New()
	gate := &pushGate{views: views, resources: c.Resources, log: log}
	builtIn := receive.New(receive.Options{Dir: filepath.Join(c.data, "git"), Gate: gate, Log: log})
	gate.engine = sync.New(sync.Options{
		Resources: c.Resources, Live: views, Clock: clock.RealClock{}, Log: log,
		Fetcher: &revisions{builtIn: builtIn}, Compiler: &manifests{compiler: compiler},
	})
	c.endpoints = &endpoints{engine: gate.engine, views: views, log: log}
	enginetest.Go(t, func(ctx context.Context) error { return views.Run(ctx, c.Resources) })
	enginetest.Go(t, gate.engine.Run)
	web := httptest.NewServer(builtIn)
	t.Cleanup(web.Close)
	p.run("git", "remote", "set-url", "origin", web.URL+"/git/shop.git")
	for _, name := range []string{"default", "keys"} {
		c.make(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	return c
}

func (c *cluster) make(t *testing.T, obj client.Object) {
	t.Helper()
	if err := c.Create(t.Context(), obj); err != nil {
		t.Fatal(err)
	}
}

// commit writes files, each the content of a fixture or the text itself, and
// pushes them. "" removes a file.
func (c *cluster) commit(t *testing.T, files map[string]string) (string, error) {
	t.Helper()
	for name, from := range files {
		at := filepath.Join(c.dir, name)
		content, err := os.ReadFile(filepath.Join("testdata/encrypted", from))
		if err != nil {
			content = []byte(from)
		}
		if from == "" {
			err = os.Remove(at)
		} else {
			err = os.WriteFile(at, content, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	c.run("git", "add", "-A")
	c.run("git", "commit", "-q", "--allow-empty", "-m", "change")
	out, err := c.push("HEAD:main")
	c.said.WriteString(out)
	return out, err
}

// awaits waits until the Source says something of a condition.
func (c *cluster) awaits(t *testing.T, kind, text string) {
	t.Helper()
	enginetest.Eventually(t, 20*time.Second, func() string {
		var src v1alpha1.Source
		if err := c.Get(t.Context(), types.NamespacedName{Name: "shop"}, &src); err != nil {
			return err.Error()
		}
		for _, cond := range src.Status.Conditions {
			if cond.Type == kind && strings.Contains(cond.Message, text) {
				return ""
			}
		}
		return fmt.Sprintf("%+v", src.Status.Conditions)
	})
}

func (c *cluster) password(t *testing.T, want string) {
	t.Helper()
	enginetest.Eventually(t, 20*time.Second, func() string {
		var s corev1.Secret
		if err := c.Get(t.Context(), types.NamespacedName{Namespace: "shop", Name: "db"}, &s); err != nil {
			return err.Error()
		}
		if string(s.Data["password"]) != want {
			return "it is another one"
		}
		return ""
	})
}

const shopNamespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"

// TestEncryptedFilesFromPushToCluster goes the way of encrypted files, and then
// looks everywhere for what was in them.
func TestEncryptedFilesFromPushToCluster(t *testing.T) {
	c := newCluster(t)
	out, err := c.commit(t, map[string]string{"ns.yaml": shopNamespace, "secret.yaml": "secret1.yaml"})
	if err == nil || !strings.Contains(out, "secret.yaml:11") || !strings.Contains(out, "set spec.decryption") {
		t.Errorf("without spec.decryption: %v\n%s", err, out)
	}
	c.pusherSource(t, &v1alpha1.Source{
		ObjectMeta: metav1.ObjectMeta{Name: "shop"},
		Spec:       v1alpha1.SourceSpec{Decryption: &v1alpha1.Decryption{SecretName: "age", SecretNamespace: "keys"}},
	})
	if out, err = c.commit(t, nil); err == nil || !strings.Contains(out, "the Secret keys/age, which spec.decryption of the Source names, is not there") {
		t.Errorf("without the Secret: %v\n%s", err, out)
	}
	key, err := os.ReadFile("testdata/encrypted/alice.agekey")
	if err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "keys", Name: "age"}, Data: map[string][]byte{"other": key}}
	c.make(t, secret)
	if out, err = c.commit(t, nil); err == nil || !strings.Contains(out, "has no key whose name ends with .agekey") {
		t.Errorf("a key of another name: %v\n%s", err, out)
	}
	secret.Data = map[string][]byte{"age.agekey": key}
	if err := c.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	if out, err = c.commit(t, map[string]string{"config.yaml": "config.yaml"}); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c.password(t, "hunter2-secret")

	out, err = c.commit(t, map[string]string{"secret.yaml": "secret2.yaml"})
	if err != nil || !strings.Contains(out, "data.password changed") || strings.Contains(out, "data.user") {
		t.Errorf("a changed value: %v\n%s", err, out)
	}
	c.password(t, "hunter2-changed")
	c.plans(t)

	// Who cannot be believed is refused, and what runs stays.
	if out, err = c.commit(t, map[string]string{"secret.yaml": "bob.yaml"}); err == nil || !strings.Contains(out, "no key that Berth has opens it") {
		t.Errorf("for another key: %v\n%s", err, out)
	}
	damaged, err := os.ReadFile("testdata/encrypted/secret1.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if out, err = c.commit(t, map[string]string{"secret.yaml": strings.Replace(string(damaged), "name: db", "name: db\n    labels: {a: b}", 1)}); err == nil || !strings.Contains(out, "the checksum of the file") {
		t.Errorf("changed by hand: %v\n%s", err, out)
	}
	c.password(t, "hunter2-changed")

	// The key goes while a commit that was accepted is there: what runs stays.
	if err := c.Delete(t.Context(), secret, client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.sourceChanged(t)
	c.awaits(t, v1alpha1.ConditionCompiled, "is not there")
	c.awaits(t, v1alpha1.ConditionReady, "is not there")
	c.password(t, "hunter2-changed")
	secret.ResourceVersion, secret.UID = "", ""
	c.make(t, secret)
	c.sourceChanged(t)
	c.awaits(t, v1alpha1.ConditionReady, "")
	if out, err = c.commit(t, map[string]string{"secret.yaml": "secret1.yaml"}); err != nil {
		t.Errorf("put right: %v\n%s", err, out)
	}
	c.password(t, "hunter2-secret")

	// A commit that ends the encryption shows nothing of what was encrypted.
	out, err = c.commit(t, map[string]string{"config.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {url: https://open.example}\n"})
	if err != nil || !strings.Contains(out, "data.url changed") || strings.Contains(out, "open.example") {
		t.Errorf("the end of the encryption: %v\n%s", err, out)
	}
	c.awaits(t, v1alpha1.ConditionApplied, "1 to change")
	c.nothingIsShown(t)
}

// pusherSource makes the Source, and waits until the engine has seen it.
func (c *cluster) pusherSource(t *testing.T, src *v1alpha1.Source) {
	t.Helper()
	c.make(t, src)
	enginetest.Eventually(t, 20*time.Second, func() string {
		if _, ok := c.endpoints.views.Sources.Get(types.NamespacedName{Name: src.Name}); !ok {
			return "the Source is not seen"
		}
		return ""
	})
}

// sourceChanged makes the engine compile the newest commit again.
func (c *cluster) sourceChanged(t *testing.T) {
	t.Helper()
	enginetest.Eventually(t, 20*time.Second, func() string {
		var src v1alpha1.Source
		err := c.Get(t.Context(), types.NamespacedName{Name: "shop"}, &src)
		if err == nil {
			src.Spec.HealthTimeout = &metav1.Duration{Duration: src.Spec.HealthTimeout.Duration + time.Second}
			err = c.Update(t.Context(), &src)
		}
		if err != nil {
			return err.Error()
		}
		return ""
	})
}

// plans asks for a plan of the working tree, as berth plan does.
func (c *cluster) plans(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, "secret.yaml"), mustRead(t, "testdata/encrypted/secret1.yaml"), 0o644); err != nil {
		t.Fatal(err)
	}
	rev, _, err := worktree.Open(t.Context(), c.dir)
	if err != nil {
		t.Fatal(err)
	}
	var body bytes.Buffer
	if err := archive.Write(t.Context(), &body, rev); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	c.endpoints.plan(w, httptest.NewRequest(http.MethodPost, "/berth/v1/plan?source=shop&verbose=true", &body))
	answer := w.Body.String()
	if w.Code != http.StatusOK || !strings.Contains(answer, "data.password changed") || strings.Contains(answer, "hunter2") {
		t.Errorf("%d %s", w.Code, answer)
	}
}

func mustRead(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// nothingIsShown looks for the values of the encrypted files, and for the key, in
// all that was printed, logged, told, and written to the disk.
func (c *cluster) nothingIsShown(t *testing.T) {
	t.Helper()
	search := func(where string, content []byte) {
		for _, value := range []string{"hunter2", base64.StdEncoding.EncodeToString([]byte("hunter2-secret")), base64.StdEncoding.EncodeToString([]byte("hunter2-changed")), "AGE-SECRET-KEY"} {
			if bytes.Contains(content, []byte(value)) {
				t.Errorf("%s holds %s", where, value)
			}
		}
	}
	search("the output of git push", []byte(c.said.String()))
	search("the log", []byte(c.log.String()))
	var events corev1.EventList
	var sources v1alpha1.SourceList
	for where, list := range map[string]client.ObjectList{"an event": &events, "the status": &sources} {
		if err := c.List(t.Context(), list, client.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		search(where, b)
	}
	if len(events.Items) == 0 || len(sources.Items) == 0 {
		t.Error("there are no events, or no Source")
	}
	files := 0
	err := filepath.WalkDir(c.data, func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		search(at, mustRead(t, at))
		return nil
	})
	if err != nil || files < 3 {
		t.Errorf("%d files: %v", files, err)
	}
}

// TestEncryptedFilesInAWorkingTree: validate opens files with a key, and passes over
// them without one; plan --against tells a changed value without any key.
func TestEncryptedFilesInAWorkingTree(t *testing.T) {
	p := newPusher(t)
	t.Setenv(ageKeyEnv, "")
	put := func(name, from string) {
		if err := os.WriteFile(filepath.Join(p.dir, name), mustRead(t, filepath.Join("testdata/encrypted", from)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run := func(keys ageKeys) (string, error) {
		decryption, err := keys.decryption()
		if err != nil {
			return "", err
		}
		var out bytes.Buffer
		err = validate(t.Context(), p.dir, "text", decryption, &out, &out)
		return out.String(), err
	}
	put("secret.yaml", "secret1.yaml")
	put("config.yaml", "config.yaml")
	key, err := filepath.Abs("testdata/encrypted/alice.agekey")
	if err != nil {
		t.Fatal(err)
	}
	out, err := run(ageKeys{file: key})
	if err != nil || strings.Contains(out, "looked into") || strings.Contains(out, "hunter2") {
		t.Errorf("with the key: %v\n%s", err, out)
	}
	out, err = run(ageKeys{})
	if err != nil || !strings.Contains(out, "secret.yaml:11: warning: the file is encrypted with SOPS") || !strings.Contains(out, "--age-key-file") {
		t.Errorf("without: %v\n%s", err, out)
	}
	t.Setenv(ageKeyEnv, key)
	put("secret.yaml", "bob.yaml")
	if out, err = run(ageKeys{}); err == nil || !strings.Contains(out, "no key that Berth has opens it") {
		t.Errorf("with another key: %v\n%s", err, out)
	}
	if _, err := run(ageKeys{file: filepath.Join(p.dir, "secret.yaml")}); err == nil || strings.Contains(err.Error(), "ENC[") {
		t.Errorf("a file that holds no key: %v", err)
	}
	put("secret.yaml", "secret1.yaml")
	p.run("git", "add", "-A")
	p.run("git", "commit", "-q", "-m", "one")
	put("secret.yaml", "secret2.yaml")
	for _, file := range []string{"", key} {
		t.Setenv(ageKeyEnv, file)
		var out bytes.Buffer
		err := planAgainst(t.Context(), planOptions{dir: p.dir, source: "shop", output: "text", color: colorNever, verbose: true, against: "HEAD", stdout: &out, stderr: &out})
		if err != exitChanges || !strings.Contains(out.String(), "data.password changed") || strings.Contains(out.String(), "data.user") || strings.Contains(out.String(), "hunter2") {
			t.Errorf("key %q: %v\n%s", file, err, out.String())
		}
	}
}

// TestSimulateEncryptedFiles: a tree with encrypted files is simulated with a key, and
// without one.
func TestSimulateEncryptedFiles(t *testing.T) {
	t.Setenv(ageKeyEnv, "")
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		"secret.yaml": mustRead(t, "testdata/encrypted/secret1.yaml"),
		"web.yaml": []byte(`apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec:
  containers:
  - {name: web, image: "example.org/web:1", env: [{name: P, valueFrom: {secretKeyRef: {name: db, key: password}}}]}
`),
		"ns.yaml": []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for key, skipped := range map[string]bool{"": true, "testdata/encrypted/alice.agekey": false} {
		var out, said bytes.Buffer
		o := simulateOptions{nodes: 1, zones: 1, cpu: "4", memory: "8Gi", pods: 110, quiet: 50 * time.Millisecond, timeout: time.Minute,
			output: "text", targetNamespace: "default", keys: ageKeys{file: key}}
		err := o.run(t.Context(), dir, &out, &said)
		if err != nil || !strings.Contains(out.String(), "all 1 pod fit") || strings.Contains(out.String()+said.String(), "hunter2") {
			t.Errorf("key %q: %v\n%s%s", key, err, out.String(), said.String())
		}
		if strings.Contains(said.String(), "secret.yaml:11: warning: the file is encrypted with SOPS") != skipped {
			t.Errorf("key %q: it says %s", key, said.String())
		}
	}
}
