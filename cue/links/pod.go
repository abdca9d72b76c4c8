package links

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	noStart  = "the container does not start without it"
	noPod    = "no pod is made without it"
	noPull   = "a private image cannot be pulled without it"
	noVolume = "the pod does not start without it"
)

func (f *finder) pod(s *corev1.PodSpec, at []any) {
	for _, list := range []struct {
		name  string
		items []corev1.Container
	}{{"initContainers", s.InitContainers}, {"containers", s.Containers}} {
		for i := range list.items {
			f.container(&list.items[i], under(at, list.name, i))
		}
	}
	for i := range s.Volumes {
		f.volume(&s.Volumes[i], under(at, "volumes", i))
	}
	for i, r := range s.ImagePullSecrets {
		f.name(Core("Secret"), r.Name, noPull, under(at, "imagePullSecrets", i, "name")...)
	}
	if s.ServiceAccountName != "default" { // every Namespace has that one
		f.name(Core("ServiceAccount"), s.ServiceAccountName, noPod, under(at, "serviceAccountName")...)
	}
	if !strings.HasPrefix(s.PriorityClassName, "system-") { // built in
		f.name(schema.GroupKind{Group: "scheduling.k8s.io", Kind: "PriorityClass"}, s.PriorityClassName, noPod, under(at, "priorityClassName")...)
	}
}

func (f *finder) container(c *corev1.Container, at []any) {
	for i, e := range c.EnvFrom {
		from := under(at, "envFrom", i)
		if r := e.ConfigMapRef; r != nil && !is(r.Optional) {
			f.name(Core("ConfigMap"), r.Name, noStart, under(from, "configMapRef", "name")...)
		}
		if r := e.SecretRef; r != nil && !is(r.Optional) {
			f.name(Core("Secret"), r.Name, noStart, under(from, "secretRef", "name")...)
		}
	}
	for i, e := range c.Env {
		if e.ValueFrom == nil {
			continue
		}
		from := under(at, "env", i, "valueFrom")
		if r := e.ValueFrom.ConfigMapKeyRef; r != nil && !is(r.Optional) {
			at := under(from, "configMapKeyRef")
			f.key(Core("ConfigMap"), r.Name, r.Key, noStart, under(at, "name"), under(at, "key"))
		}
		if r := e.ValueFrom.SecretKeyRef; r != nil && !is(r.Optional) {
			at := under(from, "secretKeyRef")
			f.key(Core("Secret"), r.Name, r.Key, noStart, under(at, "name"), under(at, "key"))
		}
	}
}

func (f *finder) volume(v *corev1.Volume, at []any) {
	if c := v.PersistentVolumeClaim; c != nil {
		f.name(Core("PersistentVolumeClaim"), c.ClaimName, noVolume, under(at, "persistentVolumeClaim", "claimName")...)
	}
	if c := v.ConfigMap; c != nil && !is(c.Optional) {
		f.files(Core("ConfigMap"), c.Name, c.Items, under(at, "configMap"), "name")
	}
	if s := v.Secret; s != nil && !is(s.Optional) {
		f.files(Core("Secret"), s.SecretName, s.Items, under(at, "secret"), "secretName")
	}
	if v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil {
		f.claim(&v.Ephemeral.VolumeClaimTemplate.Spec, under(at, "ephemeral", "volumeClaimTemplate", "spec"))
	}
	if v.Projected == nil {
		return
	}
	for i, p := range v.Projected.Sources {
		from := under(at, "projected", "sources", i)
		if c := p.ConfigMap; c != nil && !is(c.Optional) {
			f.files(Core("ConfigMap"), c.Name, c.Items, under(from, "configMap"), "name")
		}
		if s := p.Secret; s != nil && !is(s.Optional) {
			f.files(Core("Secret"), s.Name, s.Items, under(from, "secret"), "name")
		}
	}
}

// files names an object that is mounted, and each key of it that is asked for.
func (f *finder) files(to schema.GroupKind, name string, items []corev1.KeyToPath, at []any, field string) {
	if len(items) == 0 {
		f.name(to, name, noVolume, under(at, field)...)
	}
	for i, item := range items {
		f.key(to, name, item.Key, noVolume, under(at, field), under(at, "items", i, "key"))
	}
}

func is(b *bool) bool { return b != nil && *b }
