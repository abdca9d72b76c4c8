// Package volumes makes the folders that pods mount: emptyDir, configMap, secret,
// projected, downwardAPI, hostPath and those of claims. It owns Dir/<pod's uid>/
// with the tmpfs mounts below it, and Claims/<volume's name>/. It reads ConfigMaps and Secrets through pods.Config and tokens
// through Tokens, and never starts or stops anything.
package volumes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"berth.dev/berth/nodeagent/pods"
)

// Volumes implements pods.Volumes. All fields must be set.
type Volumes struct {
	Dir string
	// Claims is the folder of the volumes of the class of Berth.
	Claims string
	Config pods.Config
	Tokens Tokens
	Log    *slog.Logger
}

var _ pods.Volumes = (*Volumes)(nil)

// Setup implements pods.Volumes. Called again, it brings what is projected up
// to date and leaves the rest alone.
func (v *Volumes) Setup(ctx context.Context, pod *corev1.Pod, ip netip.Addr) (map[string]string, error) {
	out := map[string]string{}
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		path, err := v.one(ctx, pod, ip, volume)
		if err != nil {
			return nil, fmt.Errorf("volume %q: %w", volume.Name, err)
		}
		out[volume.Name] = path
	}
	return out, nil
}

func (v *Volumes) one(ctx context.Context, pod *corev1.Pod, ip netip.Addr, volume *corev1.Volume) (string, error) {
	dir := filepath.Join(v.Dir, string(pod.UID), volume.Name)
	group := fsGroup(pod)
	switch {
	case volume.HostPath != nil:
		return volume.HostPath.Path, hostPath(volume.HostPath)
	case volume.PersistentVolumeClaim != nil:
		return v.claim(ctx, pod, volume.PersistentVolumeClaim.ClaimName)
	case volume.EmptyDir != nil:
		return dir, emptyDir(dir, volume.EmptyDir, group)
	case volume.ConfigMap != nil || volume.Secret != nil || volume.Projected != nil || volume.DownwardAPI != nil:
		files, secret, err := v.project(ctx, pod, ip, volume)
		if err != nil {
			return "", err
		}
		if secret {
			if err := tmpfs(dir, "size=8m,mode=0755"); err != nil {
				return "", err
			}
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", err
		}
		return dir, writeAtomic(dir, files, group)
	}
	return "", &pods.WaitError{Reason: "FailedMount", Message: "its kind is not one that Berth carries out: use emptyDir, persistentVolumeClaim, configMap, secret, projected, downwardAPI or hostPath"}
}

func fsGroup(pod *corev1.Pod) int {
	if sc := pod.Spec.SecurityContext; sc != nil && sc.FSGroup != nil {
		return int(*sc.FSGroup)
	}
	return -1
}

func emptyDir(dir string, source *corev1.EmptyDirVolumeSource, group int) error {
	if _, err := os.Stat(dir); err == nil && (source.Medium != corev1.StorageMediumMemory || isTmpfs(dir)) {
		return nil
	}
	if source.Medium == corev1.StorageMediumMemory {
		options := "mode=0777"
		if source.SizeLimit != nil && source.SizeLimit.Value() > 0 {
			options += fmt.Sprintf(",size=%d", source.SizeLimit.Value())
		}
		if err := tmpfs(dir, options); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	mode := os.FileMode(0o777)
	if group >= 0 {
		if err := os.Chown(dir, -1, group); err != nil {
			return err
		}
		mode |= os.ModeSetgid
	}
	return os.Chmod(dir, mode)
}

func tmpfs(dir, options string) error {
	if isTmpfs(dir) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	return nil
}

// isTmpfs tells whether dir itself is a tmpfs mount.
func isTmpfs(dir string) bool {
	var here, above unix.Stat_t
	var fs unix.Statfs_t
	if unix.Stat(dir, &here) != nil || unix.Stat(filepath.Dir(dir), &above) != nil || unix.Statfs(dir, &fs) != nil {
		return false
	}
	return fs.Type == unix.TMPFS_MAGIC && here.Dev != above.Dev
}

// hostPath checks or makes the path, as its type says.
func hostPath(source *corev1.HostPathVolumeSource) error {
	kind := corev1.HostPathUnset
	if source.Type != nil {
		kind = *source.Type
	}
	info, err := os.Stat(source.Path)
	missing := errors.Is(err, os.ErrNotExist)
	if err != nil && !missing {
		return err
	}
	switch {
	case missing && kind == corev1.HostPathDirectoryOrCreate:
		return os.MkdirAll(source.Path, 0o755)
	case missing && kind == corev1.HostPathFileOrCreate:
		f, err := os.OpenFile(source.Path, os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return err
		}
		return f.Close()
	case missing && kind == corev1.HostPathUnset:
		return os.MkdirAll(source.Path, 0o755) // as a bind mount by Docker would
	case missing:
		return &pods.WaitError{Reason: "FailedMount", Message: fmt.Sprintf("%s is not on this node and its type is %s: make it, or use %sOrCreate", source.Path, kind, kind)}
	}
	wrong := map[corev1.HostPathType]bool{
		corev1.HostPathDirectory: !info.IsDir(), corev1.HostPathDirectoryOrCreate: !info.IsDir(),
		corev1.HostPathFile: !info.Mode().IsRegular(), corev1.HostPathFileOrCreate: !info.Mode().IsRegular(),
		corev1.HostPathSocket:   info.Mode()&os.ModeSocket == 0,
		corev1.HostPathCharDev:  info.Mode()&os.ModeCharDevice == 0,
		corev1.HostPathBlockDev: info.Mode()&os.ModeDevice == 0 || info.Mode()&os.ModeCharDevice != 0,
	}
	if wrong[kind] {
		return &pods.WaitError{Reason: "FailedMount", Message: fmt.Sprintf("%s is not a %s", source.Path, strings.TrimSuffix(string(kind), "OrCreate"))}
	}
	return nil
}

// SubPath implements pods.Volumes. Links are followed inside the volume only.
func (v *Volumes) SubPath(_ context.Context, pod *corev1.Pod, volume, base, sub string) (string, error) {
	path, err := securejoin.SecureJoin(base, sub)
	if err != nil {
		return "", fmt.Errorf("volume %q: find subPath %q: %w", volume, sub, err)
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return "", fmt.Errorf("volume %q: make subPath %q: %w", volume, sub, err)
		}
		if group := fsGroup(pod); group >= 0 {
			if err := os.Chown(path, -1, group); err != nil {
				return "", err
			}
		}
		return path, os.Chmod(path, 0o777)
	}
	return path, nil
}

// Teardown implements pods.Volumes.
func (v *Volumes) Teardown(_ context.Context, uid string) error {
	v.Tokens.Drop(uid)
	dir := filepath.Join(v.Dir, uid)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		sub := filepath.Join(dir, e.Name())
		for isTmpfs(sub) {
			if err := unix.Unmount(sub, unix.MNT_DETACH); err != nil {
				return fmt.Errorf("unmount volume %q: %w", e.Name(), err)
			}
		}
	}
	return os.RemoveAll(dir)
}
