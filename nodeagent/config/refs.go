package config

import (
	corev1 "k8s.io/api/core/v1"
)

// Refs returns the ConfigMaps and Secrets that a pod refers to, each once.
func Refs(pod *corev1.Pod) []Ref {
	var out []Ref
	seen := map[Ref]bool{}
	add := func(secret bool, name string) {
		ref := Ref{Secret: secret, Namespace: pod.Namespace, Name: name}
		if name != "" && !seen[ref] {
			seen[ref] = true
			out = append(out, ref)
		}
	}
	for _, v := range pod.Spec.Volumes {
		switch {
		case v.ConfigMap != nil:
			add(false, v.ConfigMap.Name)
		case v.Secret != nil:
			add(true, v.Secret.SecretName)
		case v.Projected != nil:
			for _, p := range v.Projected.Sources {
				if p.ConfigMap != nil {
					add(false, p.ConfigMap.Name)
				}
				if p.Secret != nil {
					add(true, p.Secret.Name)
				}
			}
		}
	}
	containers := append(append([]corev1.Container{}, pod.Spec.InitContainers...), pod.Spec.Containers...)
	for _, c := range pod.Spec.EphemeralContainers {
		containers = append(containers, corev1.Container(c.EphemeralContainerCommon))
	}
	for i := range containers {
		for _, from := range containers[i].EnvFrom {
			if from.ConfigMapRef != nil {
				add(false, from.ConfigMapRef.Name)
			}
			if from.SecretRef != nil {
				add(true, from.SecretRef.Name)
			}
		}
		for _, env := range containers[i].Env {
			if from := env.ValueFrom; from != nil {
				if from.ConfigMapKeyRef != nil {
					add(false, from.ConfigMapKeyRef.Name)
				}
				if from.SecretKeyRef != nil {
					add(true, from.SecretKeyRef.Name)
				}
			}
		}
	}
	for _, pull := range pod.Spec.ImagePullSecrets {
		add(true, pull.Name)
	}
	return out
}
