package controllers

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"berth.dev/berth/engine/live"
)

// endpointsIn are the controller over some Pods.
func endpointsIn(pods ...*corev1.Pod) *endpoints {
	views := live.New()
	for i, p := range pods {
		p.UID, p.Labels = types.UID(fmt.Sprint(i)), map[string]string{"app": "web"}
		p.Namespace = "default"
		if p.Status.PodIP == "" {
			p.Status.PodIP = fmt.Sprintf("10.42.%d.%d", i/250, i%250+1)
		}
		views.Pods.Set(p)
	}
	return &endpoints{cluster: &cluster{Cluster: views}, perSlice: endpointsPerSlice}
}

func namedPod(name string, edit func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
	p.Spec.NodeName, p.Status.Phase = "n1", corev1.PodRunning
	p.Spec.Containers = []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}}}}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	edit(p)
	return p
}

func webService(edit func(*corev1.ServiceSpec)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}}
	s.Spec.Selector = map[string]string{"app": "web"}
	s.Spec.Ports = []corev1.ServicePort{{Name: "web", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("http")}}
	edit(&s.Spec)
	return s
}

// shown are the endpoints of all slices as "address:port ready serving terminating".
func shown(all []*discoveryv1.EndpointSlice) map[string]string {
	out := map[string]string{}
	for _, s := range all {
		for _, e := range s.Endpoints {
			ports := ""
			for _, p := range s.Ports {
				ports += fmt.Sprintf("%d", *p.Port)
			}
			out[e.TargetRef.Name] = fmt.Sprintf("%s %t %t %t", ports, *e.Conditions.Ready, *e.Conditions.Serving, *e.Conditions.Terminating)
		}
	}
	return out
}

func TestEndpointsOfAService(t *testing.T) {
	now := metav1.Now()
	pods := func() []*corev1.Pod {
		return []*corev1.Pod{
			namedPod("ready", func(*corev1.Pod) {}),
			namedPod("unready", func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }),
			namedPod("ends", func(p *corev1.Pod) { p.DeletionTimestamp = &now }),
			namedPod("ended", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
			namedPod("other-port", func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].ContainerPort = 9090 }),
			namedPod("no-port", func(p *corev1.Pod) { p.Spec.Containers[0].Ports = nil }),
		}
	}
	for name, c := range map[string]struct {
		service *corev1.Service
		want    map[string]string
	}{
		"a named port": {webService(func(*corev1.ServiceSpec) {}), map[string]string{
			"ready": "8080 true true false", "unready": "8080 false false false", "ends": "8080 false true true",
			"other-port": "9090 true true false", "no-port": " true true false",
		}},
		"publishNotReadyAddresses": {webService(func(s *corev1.ServiceSpec) { s.PublishNotReadyAddresses = true }), map[string]string{
			"ready": "8080 true true false", "unready": "8080 true false false", "ends": "8080 true true true",
			"other-port": "9090 true true false", "no-port": " true true false",
		}},
		"a number": {webService(func(s *corev1.ServiceSpec) { s.Ports[0].TargetPort = intstr.FromInt32(7) }), map[string]string{
			"ready": "7 true true false", "unready": "7 false false false", "ends": "7 false true true",
			"other-port": "7 true true false", "no-port": "7 true true false",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got := shown(endpointsIn(pods()...).slices(c.service))
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got  %v\nwant %v", got, c.want)
			}
		})
	}
}

func TestASliceHoldsAHundredEndpoints(t *testing.T) {
	var pods []*corev1.Pod
	for i := range 250 {
		pods = append(pods, namedPod(fmt.Sprintf("p%03d", i), func(*corev1.Pod) {}))
	}
	var sizes []int
	for _, s := range endpointsIn(pods...).slices(webService(func(*corev1.ServiceSpec) {})) {
		sizes = append(sizes, len(s.Endpoints))
	}
	if fmt.Sprint(sizes) != "[100 100 50]" {
		t.Errorf("slices of %v endpoints", sizes)
	}
	empty := endpointsIn().slices(webService(func(*corev1.ServiceSpec) {}))
	if len(empty) != 1 || len(empty[0].Endpoints) != 0 {
		t.Errorf("a Service without Pods has %d slices", len(empty))
	}
}
