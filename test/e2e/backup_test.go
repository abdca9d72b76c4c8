package e2e

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestBackupAndRestoreOnARunningServer(t *testing.T) {
	m := boot(t)
	r := m.repository("shop", "shop")
	r.ready()
	m.kubectl("create", "namespace", "mine")
	m.kubectl("create", "secret", "generic", "login", "-n", "mine", "--from-literal=password=hunter2-first")
	m.kubectl("create", "configmap", "notes", "-n", "mine", "--from-literal=a=1")
	before := m.containers("shop")
	oldKeys, err := os.ReadFile(filepath.Join(m.dir, "secrets.key"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(m.dir, "shop.backup")
	if out := m.berth("backup", file); !strings.Contains(out, "keep a copy of the server's secrets.key") {
		t.Errorf("berth backup says %q", out)
	}
	m.holdsNoPlainSecret(file)
	m.holdsNoPlainSecret(filepath.Join(m.dir, "store.db"))

	// A rotation, and changes that the restore takes back.
	if out := m.berth("secrets", "rotate-key"); !strings.Contains(out, " sealed values (Secrets, ConfigMaps and what is kept of commits) are encrypted with a new key") || strings.HasPrefix(out, "0 ") {
		t.Errorf("rotate-key says %q", out)
	}
	newKeys, _ := os.ReadFile(filepath.Join(m.dir, "secrets.key"))
	if bytes.Equal(oldKeys, newKeys) {
		t.Error("the key is the same")
	}
	m.kubectl("delete", "configmap", "notes", "-n", "mine")
	m.kubectl("create", "configmap", "later", "-n", "mine")
	m.kubectl("patch", "secret", "login", "-n", "mine", "-p", `{"stringData":{"password":"hunter2-second"}}`)

	for name, change := range map[string]func([]byte) []byte{
		"cut off": func(b []byte) []byte { return b[:len(b)/2] },
		"altered": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
	} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		bad := filepath.Join(m.dir, "bad.backup")
		if err := os.WriteFile(bad, change(b), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := m.try("berth", "restore", bad); err == nil || !strings.Contains(out, "nothing was restored") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	if out, err := m.try("berth", "restore", file); err == nil || !strings.Contains(out, "give the copy of the key file") {
		t.Errorf("without the old key: %v\n%s", err, out)
	}
	m.kubectl("get", "configmap", "later", "-n", "mine") // nothing was changed so far
	keyCopy := filepath.Join(m.dir, "old.key")
	if err := os.WriteFile(keyCopy, oldKeys, 0o600); err != nil {
		t.Fatal(err)
	}
	out := m.berth("restore", file, "--key-file", keyCopy)
	t.Log(out)
	m.checkRestored()
	if _, err := m.try("kubectl", "get", "configmap", "later", "-n", "mine"); err == nil {
		t.Error("what was written after the backup is still there")
	}
	r.ready()
	if after := m.containers("shop"); !maps.Equal(before, after) {
		t.Errorf("containers before %v, after %v", before, after)
	}
	// The next commit is applied as ever.
	r.edit("deploy/shop.cue", "replicas: 3", "replicas: 2")
	r.push("Two")
	r.ready()

	// And a new server can be made of it.
	fresh := t.TempDir()
	m.berth("restore", file, "--data-dir", fresh, "--key-file", keyCopy)
	if out, err := m.try("berth", "restore", file, "--data-dir", fresh); err == nil || !strings.Contains(out, "is there already") {
		t.Errorf("over a store: %v\n%s", err, out)
	}
	m.stop(syscall.SIGTERM)
	for _, name := range []string{"store.db", "secrets.key"} {
		b, err := os.ReadFile(filepath.Join(fresh, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(m.dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.up()
	m.checkRestored()
	r.ready()
}

func (m *machine) checkRestored() {
	m.t.Helper()
	got := m.kubectl("get", "secret", "login", "-n", "mine", "-o", "jsonpath={.data.password}")
	if b, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(got)); string(b) != "hunter2-first" {
		m.t.Errorf("the Secret is %q", b)
	}
	m.kubectl("get", "configmap", "notes", "-n", "mine")
}

func (m *machine) holdsNoPlainSecret(file string) {
	m.t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		m.t.Fatal(err)
	}
	if bytes.Contains(b, []byte("hunter2")) {
		m.t.Errorf("%s holds a Secret in plain text", file)
	}
	if _, err := os.Stat(file + ".part"); !errors.Is(err, fs.ErrNotExist) {
		m.t.Errorf("a part of a backup was left: %v", err)
	}
}
