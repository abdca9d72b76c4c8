package upstream_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"berth.dev/berth/api/upstream"
)

// TestHugeQuantitiesEnd: Kubernetes' own validation of them does not.
func TestHugeQuantitiesEnd(t *testing.T) {
	u, err := upstream.New()
	if err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]string{"1e99999999999": "spec.containers[0].resources.limits[cpu]", "2": "", "1500m": ""} {
		var spec corev1.PodSpec
		text := "containers: [{name: c, image: i, resources: {limits: {cpu: \"" + value + "\"}}}]"
		if err := yaml.UnmarshalStrict([]byte(text), &spec); err != nil {
			t.Logf("%s is not read at all: %v", value, err)
			continue
		}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: spec}
		u.Default(pod)
		done := make(chan string, 1)
		go func() {
			got := ""
			if errs := u.ValidateCreate(pod); len(errs) > 0 {
				got = errs[0].Field
			}
			done <- got
		}()
		select {
		case got := <-done:
			if got != want {
				t.Errorf("%s: fault at %q, want %q", value, got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: validation does not end", value)
		}
	}
}
