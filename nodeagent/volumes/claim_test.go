package volumes

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/nodeagent/pods"
)

// boundTo is a Config in which every claim is bound to one volume.
type boundTo struct {
	pods.Config
	pv *corev1.PersistentVolume
}

func (b boundTo) Volume(context.Context, string, string) (*corev1.PersistentVolume, error) {
	return b.pv, nil
}

func localVolume(path string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: filepath.Base(path), Annotations: map[string]string{v1alpha1.AnnotationProvisioned: v1alpha1.LocalProvisioner}},
		Spec:       corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}}},
	}
}

func TestTheFolderOfAClaim(t *testing.T) {
	dir := t.TempDir()
	v := &Volumes{Claims: dir}
	pod := &corev1.Pod{}
	path := filepath.Join(dir, "pvc-1")
	v.Config = boundTo{pv: localVolume(path)}
	for range 2 { // again changes nothing
		got, err := v.claim(t.Context(), pod, "data")
		if err != nil || got != path {
			t.Fatalf("%s, %v", got, err)
		}
		if err := os.WriteFile(filepath.Join(path, "file"), []byte("kept"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	// A volume of another data directory, and a disk that is not mounted.
	v.Config = boundTo{pv: localVolume("/elsewhere/pvc-1")}
	if _, err := v.claim(t.Context(), pod, "data"); err == nil || !strings.Contains(err.Error(), "move its data") {
		t.Errorf("another folder: %v", err)
	}
	disk := localVolume(filepath.Join(dir, "disk"))
	disk.Annotations = nil
	v.Config = boundTo{pv: disk}
	if _, err := v.claim(t.Context(), pod, "data"); err == nil || !strings.Contains(err.Error(), "mount its disk") {
		t.Errorf("no disk: %v", err)
	}
	if err := v.Remove(localVolume(path)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the data is there: %v", err)
	}
}

func TestOnlyFoldersOfClaimsAreRemoved(t *testing.T) {
	dir := t.TempDir()
	v := &Volumes{Claims: filepath.Join(dir, "claims")}
	kept := filepath.Join(dir, "kept")
	if err := os.Mkdir(kept, 0o755); err != nil {
		t.Fatal(err)
	}
	up := localVolume(kept)
	up.Name = "../kept"
	for _, pv := range []*corev1.PersistentVolume{localVolume(kept), up, {ObjectMeta: metav1.ObjectMeta{Name: "none"}}} {
		if err := v.Remove(pv); err == nil {
			t.Errorf("%s was removed", pv.Name)
		}
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
}

func TestTheGroupOfAPodOwnsItsClaim(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pvc-1")
	outside := filepath.Join(dir, "outside")
	for _, d := range []string{filepath.Join(path, "sub"), outside} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(path, "sub", "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(path, "link")); err != nil {
		t.Fatal(err)
	}
	group := int64(4321)
	pod := &corev1.Pod{Spec: corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{FSGroup: &group}}}
	v := &Volumes{Claims: dir, Config: boundTo{pv: localVolume(path)}}
	if _, err := v.claim(t.Context(), pod, "data"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]uint32{path: 4321, filepath.Join(path, "sub", "f"): 4321, outside: uint32(os.Getgid())} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Sys().(*syscall.Stat_t).Gid; got != want {
			t.Errorf("%s belongs to group %d, want %d", name, got, want)
		}
	}
	if info, _ := os.Stat(filepath.Join(path, "sub", "f")); info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v", info.Mode())
	}
}
