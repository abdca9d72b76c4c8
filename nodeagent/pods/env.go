package pods

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// variables collects a container's environment; the last of a name wins and
// keeps the first one's place.
type variables struct {
	order  []string
	values map[string]string
}

func (v *variables) set(name, value string) {
	if _, ok := v.values[name]; !ok {
		v.order = append(v.order, name)
	}
	v.values[name] = value
}

func (v *variables) add(pairs []string) {
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		v.set(name, value)
	}
}

func (v *variables) list() []string {
	out := make([]string, 0, len(v.order))
	for _, name := range v.order {
		out = append(out, name+"="+v.values[name])
	}
	return out
}

// environment is what a container's process finds: the image's variables, those
// of Services, envFrom, then env, each over the ones before.
func (w *worker) environment(ctx context.Context, pod *corev1.Pod, c *corev1.Container, image Image, ip netip.Addr) (*variables, error) {
	v := &variables{values: map[string]string{}}
	v.set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	v.set("HOSTNAME", hostname(pod))
	v.add(image.Env)
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	v.add(w.r.Links.ServiceEnv(pod.Namespace, links))
	for _, from := range c.EnvFrom {
		if err := w.envFrom(ctx, pod.Namespace, from, v); err != nil {
			return nil, err
		}
	}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			v.set(e.Name, expand(e.Value, v.values))
			continue
		}
		value, ok, err := w.envValue(ctx, pod, c, e.ValueFrom, ip)
		if err != nil {
			return nil, fmt.Errorf("env %s: %w", e.Name, err)
		}
		if ok {
			v.set(e.Name, value)
		}
	}
	return v, nil
}

func (w *worker) envFrom(ctx context.Context, namespace string, from corev1.EnvFromSource, v *variables) error {
	data := map[string]string{}
	switch {
	case from.ConfigMapRef != nil:
		cm, err := w.r.Config.ConfigMap(ctx, namespace, from.ConfigMapRef.Name)
		if err != nil {
			return absent(err, "ConfigMap", from.ConfigMapRef.Name, from.ConfigMapRef.Optional)
		}
		data = cm.Data
	case from.SecretRef != nil:
		secret, err := w.r.Config.Secret(ctx, namespace, from.SecretRef.Name)
		if err != nil {
			return absent(err, "Secret", from.SecretRef.Name, from.SecretRef.Optional)
		}
		for key, value := range secret.Data {
			data[key] = string(value)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(data)) {
		v.set(from.Prefix+key, data[key])
	}
	return nil
}

func (w *worker) envValue(ctx context.Context, pod *corev1.Pod, c *corev1.Container, from *corev1.EnvVarSource, ip netip.Addr) (string, bool, error) {
	switch {
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		cm, err := w.r.Config.ConfigMap(ctx, pod.Namespace, ref.Name)
		if err != nil {
			return "", false, absent(err, "ConfigMap", ref.Name, ref.Optional)
		}
		value, ok := cm.Data[ref.Key]
		return keyed(value, ok, "ConfigMap", ref.Name, ref.Key, ref.Optional)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		secret, err := w.r.Config.Secret(ctx, pod.Namespace, ref.Name)
		if err != nil {
			return "", false, absent(err, "Secret", ref.Name, ref.Optional)
		}
		value, ok := secret.Data[ref.Key]
		return keyed(string(value), ok, "Secret", ref.Name, ref.Key, ref.Optional)
	case from.ResourceFieldRef != nil && (from.ResourceFieldRef.ContainerName == "" || from.ResourceFieldRef.ContainerName == c.Name):
		value, err := ResourceOf(c, from.ResourceFieldRef)
		return value, err == nil, err
	default:
		if from.FieldRef != nil && (from.FieldRef.FieldPath == "status.hostIP" || from.FieldRef.FieldPath == "status.hostIPs") {
			return w.r.NodeIP.String(), true, nil
		}
		value, err := DownwardValue(pod, ip, from.FieldRef, from.ResourceFieldRef)
		return value, err == nil, err
	}
}

func keyed(value string, ok bool, kind, name, key string, optional *bool) (string, bool, error) {
	if !ok && (optional == nil || !*optional) {
		return "", false, &WaitError{Reason: reasonConfigError, Message: fmt.Sprintf("%s %q has no key %q: add it, or mark the reference optional", kind, name, key)}
	}
	return value, ok, nil
}

// absent is nil for an object that may be missing.
func absent(err error, kind, name string, optional *bool) error {
	if !apierrors.IsNotFound(err) {
		return err
	}
	if optional != nil && *optional {
		return nil
	}
	return &WaitError{Reason: reasonConfigError, Message: fmt.Sprintf("%s %q is not there: create it, or mark the reference optional", kind, name)}
}

// expand replaces $(NAME) by a variable that is set; $$(NAME) stands for
// $(NAME), and an unknown name stays as it is (corev1.EnvVar.Value).
func expand(s string, values map[string]string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i+1 >= len(s) {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			s = s[i+2:]
		case '(':
			end := strings.IndexByte(s[i:], ')')
			if end < 0 {
				b.WriteString(s[i:])
				return b.String()
			}
			name := s[i+2 : i+end]
			if value, ok := values[name]; ok {
				b.WriteString(value)
			} else {
				b.WriteString(s[i : i+end+1])
			}
			s = s[i+end+1:]
		default:
			b.WriteByte('$')
			s = s[i+1:]
		}
	}
}

func expandAll(in []string, values map[string]string) []string {
	out := make([]string, 0, len(in))
	for _, s := range in {
		out = append(out, expand(s, values))
	}
	return out
}
