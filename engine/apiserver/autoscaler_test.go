package apiserver_test

import (
	"net/http"
	"strings"
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestAutoscalersOfV1: the older version is the same object in other words, and what
// it has no field for is kept when it is changed through it.
func TestAutoscalersOfV1(t *testing.T) {
	s := serve(t)
	const v1, v2 = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers", "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
	body := `{"apiVersion":"autoscaling/v1","kind":"HorizontalPodAutoscaler","metadata":{"name":"web"},"spec":{"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"web"},"minReplicas":2,"maxReplicas":5,"targetCPUUtilizationPercentage":60}}`
	if code, answer := s.do(t, admin, "POST", v1, body); code != http.StatusCreated || !strings.Contains(answer, `"apiVersion":"autoscaling/v1"`) {
		t.Fatalf("%d %s", code, answer)
	}
	now := get[autoscalingv2.HorizontalPodAutoscaler](t, s, v2+"/web")
	if *now.Spec.MinReplicas != 2 || now.Spec.MaxReplicas != 5 || len(now.Spec.Metrics) != 1 || *now.Spec.Metrics[0].Resource.Target.AverageUtilization != 60 {
		t.Errorf("in v2: %+v", now.Spec)
	}
	if list := get[autoscalingv1.HorizontalPodAutoscalerList](t, s, v1); len(list.Items) != 1 || *list.Items[0].Spec.TargetCPUUtilizationPercentage != 60 {
		t.Errorf("in v1: %+v", list.Items)
	}
	memory := `{"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","metadata":{"name":"mem"},"spec":{"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"web"},"maxReplicas":5,` +
		`"metrics":[{"type":"Resource","resource":{"name":"memory","target":{"type":"Utilization","averageUtilization":70}}}],"behavior":{"scaleDown":{"stabilizationWindowSeconds":7}}}}`
	if code, answer := s.do(t, admin, "POST", v2, memory); code != http.StatusCreated {
		t.Fatalf("%d %s", code, answer)
	}
	if code, answer := s.do(t, admin, "PATCH", v1+"/mem", `{"spec":{"maxReplicas":9}}`, "Content-Type", "application/merge-patch+json"); code != http.StatusOK {
		t.Fatalf("%d %s", code, answer)
	}
	now = get[autoscalingv2.HorizontalPodAutoscaler](t, s, v2+"/mem")
	if now.Spec.MaxReplicas != 9 || len(now.Spec.Metrics) != 1 || now.Spec.Metrics[0].Resource.Name != "memory" || *now.Spec.Behavior.ScaleDown.StabilizationWindowSeconds != 7 || now.Generation != 2 {
		t.Errorf("changed through v1: %+v, generation %d", now.Spec, now.Generation)
	}
	// Both versions take part in server-side apply.
	for _, path := range []string{v1, v2} {
		version := strings.Split(path, "/")[3]
		applied := `{"apiVersion":"autoscaling/` + version + `","kind":"HorizontalPodAutoscaler","metadata":{"name":"mem","labels":{"by":"` + version + `"}}}`
		code, answer := s.do(t, admin, "PATCH", path+"/mem?fieldManager=m-"+version+"&force=true", applied, "Content-Type", "application/apply-patch+yaml")
		if code != http.StatusOK || !strings.Contains(answer, `"by":"`+version+`"`) || !strings.Contains(answer, `"apiVersion":"autoscaling/`+version+`"`) {
			t.Errorf("%s: %d %s", path, code, answer)
		}
	}
	if now = get[autoscalingv2.HorizontalPodAutoscaler](t, s, v2+"/mem"); now.Spec.MaxReplicas != 9 || len(now.Spec.Metrics) != 1 {
		t.Errorf("applied: %+v", now.Spec)
	}
	if code, answer := s.do(t, admin, "POST", v1, strings.Replace(body, `"maxReplicas":5`, `"maxReplicas":1`, 1)); code != http.StatusUnprocessableEntity || !strings.Contains(answer, "maxReplicas") {
		t.Errorf("an invalid one: %d %s", code, answer)
	}
	if code, _ := s.do(t, admin, "DELETE", v1+"/web", ""); code != http.StatusOK {
		t.Errorf("deleted: %d", code)
	}
	group := get[metav1.APIGroup](t, s, "/apis/autoscaling")
	if group.PreferredVersion.Version != "v2" || len(group.Versions) != 2 {
		t.Errorf("%+v", group)
	}
}
