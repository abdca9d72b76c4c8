package config

import (
	corev1 "k8s.io/api/core/v1"
)

// Refs returns the ConfigMaps, Secrets and claims that a pod refers to, each once.
func Refs(pod *corev1.Pod) []Ref {
	var out []Ref
	seen := map[Ref]bool{}
	add := func(kind Kind, name string) {
		ref := Ref{Kind: kind, Namespace: pod.Namespace, Name: name}
		if name != "" && !seen[ref] {
			seen[ref] = true
			out = append(out, ref)
		}
	}
	for _, v := range pod.Spec.Volumes {
		switch {
		case v.ConfigMap != nil:
			add(ConfigMap, v.ConfigMap.Name)
		case v.Secret != nil:
			add(Secret, v.Secret.SecretName)
		case v.PersistentVolumeClaim != nil:
			add(Claim, v.PersistentVolumeClaim.ClaimName)
		case v.Projected != nil:
			for _, p := range v.Projected.Sources {
				if p.ConfigMap != nil {
					add(ConfigMap, p.ConfigMap.Name)
				}
				if p.Secret != nil {
					add(Secret, p.Secret.Name)
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
				add(ConfigMap, from.ConfigMapRef.Name)
			}
			if from.SecretRef != nil {
				add(Secret, from.SecretRef.Name)
			}
		}
		for _, env := range containers[i].Env {
			if from := env.ValueFrom; from != nil {
				if from.ConfigMapKeyRef != nil {
					add(ConfigMap, from.ConfigMapKeyRef.Name)
				}
				if from.SecretKeyRef != nil {
					add(Secret, from.SecretKeyRef.Name)
				}
			}
		}
	}
	for _, pull := range pod.Spec.ImagePullSecrets {
		add(Secret, pull.Name)
	}
	return out
}
