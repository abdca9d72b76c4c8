package volumes

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"berth.dev/berth/nodeagent/pods"
)

// file is a file of a projected volume.
type file struct {
	data []byte
	mode int32
	// owner is a user, or -1 for root.
	owner int
}

const defaultMode = 0o644

// project gathers the files of a volume that is made of objects' contents;
// secret says that it must not reach a disk.
func (v *Volumes) project(ctx context.Context, pod *corev1.Pod, ip netip.Addr, volume *corev1.Volume) (_ map[string]file, secret bool, err error) {
	mode := int32(defaultMode)
	var sources []corev1.VolumeProjection
	switch {
	case volume.ConfigMap != nil:
		mode = value(volume.ConfigMap.DefaultMode, mode)
		sources = []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: volume.ConfigMap.LocalObjectReference, Items: volume.ConfigMap.Items, Optional: volume.ConfigMap.Optional}}}
	case volume.Secret != nil:
		mode = value(volume.Secret.DefaultMode, mode)
		sources = []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: volume.Secret.SecretName}, Items: volume.Secret.Items, Optional: volume.Secret.Optional}}}
	case volume.DownwardAPI != nil:
		mode = value(volume.DownwardAPI.DefaultMode, mode)
		sources = []corev1.VolumeProjection{{DownwardAPI: &corev1.DownwardAPIProjection{Items: volume.DownwardAPI.Items}}}
	case volume.Projected != nil:
		mode = value(volume.Projected.DefaultMode, mode)
		sources = volume.Projected.Sources
	}
	out := map[string]file{}
	for _, source := range sources {
		files, err := v.source(ctx, pod, ip, volume.Name, source, mode)
		if err != nil {
			return nil, false, err
		}
		secret = secret || source.Secret != nil || source.ServiceAccountToken != nil
		maps.Copy(out, files)
	}
	for name := range out {
		if err := checkName(name); err != nil {
			return nil, false, err
		}
	}
	return out, secret, nil
}

func (v *Volumes) source(ctx context.Context, pod *corev1.Pod, ip netip.Addr, volume string, s corev1.VolumeProjection, mode int32) (map[string]file, error) {
	switch {
	case s.ServiceAccountToken != nil:
		return v.token(ctx, pod, volume, s.ServiceAccountToken, mode)
	case s.ConfigMap != nil:
		cm, err := v.Config.ConfigMap(ctx, pod.Namespace, s.ConfigMap.Name)
		if err != nil {
			return nil, missing(err, "ConfigMap", s.ConfigMap.Name, s.ConfigMap.Optional)
		}
		data := map[string][]byte{}
		for key, text := range cm.Data {
			data[key] = []byte(text)
		}
		maps.Copy(data, cm.BinaryData)
		return pick(data, s.ConfigMap.Items, mode, "ConfigMap "+s.ConfigMap.Name, isTrue(s.ConfigMap.Optional))
	case s.Secret != nil:
		secret, err := v.Config.Secret(ctx, pod.Namespace, s.Secret.Name)
		if err != nil {
			return nil, missing(err, "Secret", s.Secret.Name, s.Secret.Optional)
		}
		return pick(secret.Data, s.Secret.Items, mode, "Secret "+s.Secret.Name, isTrue(s.Secret.Optional))
	case s.DownwardAPI != nil:
		out := map[string]file{}
		for _, item := range s.DownwardAPI.Items {
			text, err := pods.DownwardValue(pod, ip, item.FieldRef, item.ResourceFieldRef)
			if err != nil {
				return nil, err
			}
			out[item.Path] = file{[]byte(text), value(item.Mode, mode), -1}
		}
		return out, nil
	}
	return nil, &pods.WaitError{Reason: "FailedMount", Message: "a projected source is of a kind that Berth does not carry out: use configMap, secret, serviceAccountToken or downwardAPI"}
}

// missing is nil for an object that may be missing.
func missing(err error, kind, name string, optional *bool) error {
	if !apierrors.IsNotFound(err) {
		return err
	}
	if isTrue(optional) {
		return nil
	}
	return &pods.WaitError{Reason: "FailedMount", Message: fmt.Sprintf("%s %q is not there: create it, or mark it optional", kind, name)}
}

// pick takes all keys, or those that items name.
func pick(data map[string][]byte, items []corev1.KeyToPath, mode int32, from string, optional bool) (map[string]file, error) {
	out := map[string]file{}
	if len(items) == 0 {
		for key, bytes := range data {
			out[key] = file{bytes, mode, -1}
		}
		return out, nil
	}
	for _, item := range items {
		bytes, ok := data[item.Key]
		if !ok && optional {
			continue
		}
		if !ok {
			keys := slices.Sorted(maps.Keys(data))
			return nil, &pods.WaitError{Reason: "FailedMount", Message: fmt.Sprintf("%s has no key %q (it has %s)", from, item.Key, cmp.Or(strings.Join(keys, ", "), "none"))}
		}
		out[item.Path] = file{bytes, value(item.Mode, mode), -1}
	}
	return out, nil
}

// checkName keeps a projected file inside its volume.
func checkName(name string) error {
	if name == "" || path.IsAbs(name) || path.Clean(name) != name || strings.HasPrefix(name, "..") || strings.Contains(name, "/../") {
		return fmt.Errorf("path %q leads out of the volume or is not in its plain form", name)
	}
	return nil
}

func value(p *int32, otherwise int32) int32 {
	if p == nil {
		return otherwise
	}
	return *p
}

func isTrue(p *bool) bool { return p != nil && *p }
