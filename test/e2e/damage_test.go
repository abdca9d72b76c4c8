package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A store that is damaged or gone is never taken for an empty cluster: the
// containers run on, and everything of the Source comes back.
func TestDamagedStoreIsRebuilt(t *testing.T) {
	m := boot(t)
	r := m.repository("shop", "shop")
	r.ready()
	m.kubectl("create", "namespace", "mine")
	m.kubectl("create", "deployment", "own", "-n", "mine", "--image=shop:1", "--", "/shop", "back")
	before := m.containers("shop")
	objects := m.kubectl("get", "deploy,svc,cm,secret", "-n", "shop", "-o", "name")
	file := filepath.Join(m.dir, "store.db")
	for i, c := range []struct {
		name   string
		damage func([]byte) []byte
	}{
		{"cut in half", func(b []byte) []byte { return b[:len(b)/2] }},
		{"empty", func([]byte) []byte { return []byte{} }},
		{"zeros", func(b []byte) []byte { return make([]byte, len(b)) }},
		// In each place: some are in pages that are free.
		{"flipped bits", func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("shop"), []byte("shkp")) }},
		{"gone", nil},
	} {
		// What is to be rebuilt must have been noted.
		m.eventually("the recovery file names the Source and the Deployment", func() error {
			b, err := os.ReadFile(filepath.Join(m.dir, "recovery.json"))
			for _, want := range []string{`"kind":"Source"`, `"name":"own"`} {
				if err == nil && !strings.Contains(string(b), want) {
					err = fmt.Errorf("no %s in it", want)
				}
			}
			return err
		})
		m.stop(syscall.SIGKILL)
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if c.damage == nil {
			err = os.Remove(file)
		} else {
			err = os.WriteFile(file, c.damage(b), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		m.up()
		r.ready()
		if after := m.containers("shop"); !maps.Equal(before, after) {
			t.Errorf("%s: containers before %v, after %v", c.name, before, after)
		}
		if now := m.kubectl("get", "deploy,svc,cm,secret", "-n", "shop", "-o", "name"); now != objects {
			t.Errorf("%s: objects before:\n%safter:\n%s", c.name, objects, now)
		}
		m.kubectl("get", "deployment", "own", "-n", "mine") // kept although no Source has it
		aside, err := filepath.Glob(file + ".damaged-*")
		if want := min(i+1, 4); err != nil || len(aside) != want {
			t.Errorf("%s: %d damaged files are kept (%v), want %d", c.name, len(aside), err, want)
		}
	}
	r.edit("deploy/shop.cue", "replicas: 3", "replicas: 2")
	r.push("Two")
	r.ready()
}
