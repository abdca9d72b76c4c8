package apiserver_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
)

func bare(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "c"}}},
	}
}

func TestBinding(t *testing.T) {
	s := serve(t)
	enginetest.AddNode(t, s, "n1", "1", "1Gi")
	create(t, s, bare("web"))
	path := "/api/v1/namespaces/default/pods/web/binding"
	for _, c := range []struct {
		body string
		want int
	}{
		{`{"target":{"kind":"Node","name":"none"}}`, 404},
		{`{"target":{"kind":"Pod","name":"n1"}}`, 422},
		{`{"metadata":{"name":"other"},"target":{"kind":"Node","name":"n1"}}`, 400},
		{`{"metadata":{"name":"web"},"target":{"kind":"Node","name":"n1"}}`, 201},
		{`{"metadata":{"name":"web"},"target":{"kind":"Node","name":"n1"}}`, 409},
	} {
		if code, text := s.do(t, admin, "POST", path, c.body); code != c.want {
			t.Errorf("%s: %d %s, want %d", c.body, code, text, c.want)
		}
	}
	var pod corev1.Pod
	if err := s.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "web"}, &pod); err != nil || pod.Spec.NodeName != "n1" {
		t.Errorf("node %q (%v), want n1", pod.Spec.NodeName, err)
	}
}

func TestEvictionLeavesWhatASourceOwns(t *testing.T) {
	s := serve(t)
	owned := bare("owned")
	owned.Labels = map[string]string{v1alpha1.LabelSource: "shop"}
	owned.Annotations = map[string]string{v1alpha1.AnnotationOrigin: "deploy/pod.yaml:1"}
	create(t, s, owned, bare("free"), &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	evict := func(name string) (int, string) {
		return s.do(t, admin, "POST", "/api/v1/namespaces/default/pods/"+name+"/eviction", `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"`+name+`"}}`)
	}
	if code, text := evict("owned"); code != 403 || !strings.Contains(text, "deploy/pod.yaml:1") {
		t.Errorf("what a Source owns: %d %s, want 403 with the place", code, text)
	}
	if code, text := evict("free"); code != 201 {
		t.Errorf("another: %d %s, want 201", code, text)
	}
}

func TestMetrics(t *testing.T) {
	s := serve(t)
	create(t, s, configMap("a", nil))
	s.do(t, viewer, "GET", configMaps+"/a", "")
	s.do(t, viewer, "GET", configMaps+"/none", "")
	s.do(t, viewer, "DELETE", configMaps+"/a", "")
	s.do(t, viewer, "DELETE", "/api/v1/namespaces/default/nonsense/a", "")
	if code, _ := s.do(t, "", "GET", "/metrics", ""); code != 401 {
		t.Errorf("without credentials: %d, want 401", code)
	}
	_, text := s.do(t, viewer, "GET", "/metrics", "")
	for _, want := range []string{
		`apiserver_request_total{code="200",group="",resource="configmaps",subresource="",verb="get",version="v1"} 1`,
		`apiserver_request_total{code="404",group="",resource="configmaps",subresource="",verb="get",version="v1"} 1`,
		`apiserver_request_total{code="403",group="",resource="configmaps",subresource="",verb="delete",version="v1"} 1`,
		"apiserver_request_duration_seconds_bucket", "berth_store_revision", "process_resident_memory_bytes",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if strings.Contains(text, "nonsense") {
		t.Error("what a client invents becomes a label")
	}
}
