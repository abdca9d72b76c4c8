package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// bootOn starts Berth with its data directory on a file system of a given size.
func bootOn(t *testing.T, size string) *machine {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "berth")
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
		os.Remove(dir)
	})
	return bootIn(t, dir)
}

func TestFullDiskIsSaidAndChangesNothing(t *testing.T) {
	m := bootOn(t, "192m")
	r := m.repository("shop", "shop")
	r.ready()
	before := m.containers("shop")
	clone := filepath.Join(t.TempDir(), "shop") // the user's clone is not on the full disk
	m.run("cp", "-r", r.dir, clone)
	r.dir = clone

	filler := filepath.Join(m.dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for err == nil {
		_, err = f.Write(block)
	}
	for err = nil; err == nil; { // and the last pages
		_, err = f.Write(block[:4096])
	}
	if !strings.Contains(err.Error(), "no space left") {
		t.Fatal(err)
	}
	r.edit("deploy/shop.cue", "replicas: 3", "replicas: 4")
	out, err := r.tryPush("Four")
	if err == nil || !strings.Contains(out, "no space left on device") {
		t.Errorf("a push to a full disk: %v\n%s", err, out)
	}
	if after := m.containers("shop"); !maps.Equal(before, after) {
		t.Errorf("containers before %v, after %v", before, after)
	}
	if _, err := get(t.Context(), "http://"+m.clusterIP("shop", "front")+"/api"); err != nil {
		t.Error(err)
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	f.Close()
	r.edit("deploy/shop.cue", "replicas: 4", "replicas: 5")
	r.push("Five")
	r.ready()
}
