package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/nodeagent/pods"
)

// claim finds the folder of the volume that a claim is bound to. Those of the
// class of Berth are made with the first pod that mounts them, all others must
// be there: one that is missing is a disk that is not mounted.
func (v *Volumes) claim(ctx context.Context, pod *corev1.Pod, name string) (string, error) {
	pv, err := v.Config.Volume(ctx, pod.Namespace, name)
	if err != nil {
		return "", missing(err, "PersistentVolumeClaim", name, nil)
	}
	switch {
	case pv.Spec.HostPath != nil:
		return pv.Spec.HostPath.Path, hostPath(pv.Spec.HostPath)
	case pv.Spec.Local == nil:
		return "", &pods.WaitError{Reason: "FailedMount", Message: fmt.Sprintf("volume %q is of a kind that Berth does not mount: use local or hostPath", pv.Name)}
	}
	path := pv.Spec.Local.Path
	if pv.Annotations[v1alpha1.AnnotationProvisioned] == v1alpha1.LocalProvisioner {
		if path != filepath.Join(v.Claims, pv.Name) {
			return "", &pods.WaitError{Reason: "FailedMount", Message: fmt.Sprintf("volume %q is in %s, and this node keeps volumes in %s: move its data, or start the agent with the data directory of before", pv.Name, path, v.Claims)}
		}
		if err := makeFolder(path); err != nil {
			return "", err
		}
	} else if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return "", &pods.WaitError{Reason: "FailedMount", Message: fmt.Sprintf("%s of volume %q is not a folder of this node: mount its disk", path, pv.Name)}
	}
	if group := fsGroup(pod); group >= 0 {
		return path, shareWith(path, group)
	}
	return path, nil
}

// makeFolder makes the folder of a volume, which anybody may write to: what runs
// in the container is seldom root.
func makeFolder(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o777); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil
		}
		return err
	}
	return os.Chmod(path, 0o777)
}

// shareWith gives a volume to the pod's group, all that is in it with the folder
// itself; when that is so already, nothing is looked at.
func shareWith(path string, group int) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if owned(info, group) && info.Mode()&os.ModeSetgid != 0 {
		return nil
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	defer root.Close()
	return share(root, ".", group)
}

// Remove deletes the data of a volume of the class of Berth on this node. Again
// for the same volume changes nothing.
func (v *Volumes) Remove(pv *corev1.PersistentVolume) error {
	if pv.Spec.Local == nil || pv.Spec.Local.Path != filepath.Join(v.Claims, pv.Name) || filepath.Base(pv.Name) != pv.Name {
		return fmt.Errorf("volume %s is in %q, which is not a folder of %s: remove its data by hand, and then its finalizer %s", pv.Name, localPath(pv), v.Claims, v1alpha1.FinalizerVolume)
	}
	return os.RemoveAll(pv.Spec.Local.Path)
}

func localPath(pv *corev1.PersistentVolume) string {
	if pv.Spec.Local == nil {
		return ""
	}
	return pv.Spec.Local.Path
}
