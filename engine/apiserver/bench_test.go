package apiserver_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/resources"
)

// storedPods is how many Pods the promises of the documentation are made for.
const storedPods = 10_000

// typicalPod is as big as what a Deployment of a web service makes.
func typicalPod(i int) *corev1.Pod {
	yes := true
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: fmt.Sprintf("web-7d9c6b5f4-%05d", i),
			Labels:          map[string]string{"app": "web", "pod-template-hash": "7d9c6b5f4", "tier": "front", "n": fmt.Sprint(i % 100)},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-7d9c6b5f4", UID: types.UID(fmt.Sprintf("%036d", i%200)), Controller: &yes, BlockOwnerDeletion: &yes}},
		},
		Spec: corev1.PodSpec{NodeName: fmt.Sprintf("node-%d", i%50)},
	}
	for _, name := range []string{"web", "sidecar"} {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{
			Name: name, Image: "registry.example.org/team/" + name + ":v1.2.3", Args: []string{"--listen=:8080", "--verbose"},
			Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
			Env:   []corev1.EnvVar{{Name: "GREETING", Value: "hello"}, {Name: "BACKEND", Value: "http://backend.default.svc.cluster.local"}},
			Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
			},
			ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(8080)}}},
		})
		p.Spec.Containers[len(p.Spec.Containers)-1].Ports[0].Name = name
	}
	return p
}

func typicalStatus(p *corev1.Pod) {
	now := metav1.Now()
	p.Status.Phase, p.Status.PodIP, p.Status.HostIP = corev1.PodRunning, "10.42.0.7", "192.0.2.4"
	p.Status.PodIPs, p.Status.HostIPs = []corev1.PodIP{{IP: "10.42.0.7"}}, []corev1.HostIP{{IP: "192.0.2.4"}}
	p.Status.StartTime = &now
	for _, t := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	for _, c := range p.Spec.Containers {
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, ImageID: "registry.example.org/team/web@sha256:9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0",
			ContainerID: "containerd://2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
			Ready:       true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		})
	}
}

// fill stores n typical Pods, with their status.
func fill(b testing.TB, r *resources.Resources, n int) {
	b.Helper()
	for from := 0; from < n; from += 500 {
		var objs []client.Object
		for i := from; i < min(n, from+500); i++ {
			objs = append(objs, typicalPod(i))
		}
		if err := r.CreateAll(context.Background(), objs); err != nil {
			b.Fatal(err)
		}
		t := r.Begin()
		for _, o := range objs {
			typicalStatus(o.(*corev1.Pod))
			if err := t.UpdateStatus(context.Background(), o); err != nil {
				b.Fatal(err)
			}
		}
		if err := t.Commit(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkList10000(b *testing.B) {
	s := serve(b)
	fill(b, s.Resources, storedPods)
	for _, accept := range []string{"application/json", "application/vnd.kubernetes.protobuf", "application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"} {
		b.Run(accept, func(b *testing.B) {
			for b.Loop() {
				req, err := http.NewRequest("GET", s.url+"/api/v1/pods", nil)
				if err != nil {
					b.Fatal(err)
				}
				req.Header.Set("Accept", accept)
				req.Header.Set("Authorization", "Bearer "+admin)
				resp, err := s.client.Do(req)
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != 200 {
					b.Fatal(resp.Status, err)
				}
				b.ReportMetric(float64(n)/1e6, "MB")
			}
		})
	}
}
