package controllers_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/enginetest"
)

func TestEvictionsObeyTheBudget(t *testing.T) {
	c := start(t)
	two := intstr.FromInt32(2)
	labels := map[string]string{"app": "db"}
	budget := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db"},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &two, Selector: &metav1.LabelSelector{MatchLabels: labels}},
	}
	if err := c.Create(t.Context(), budget); err != nil {
		t.Fatal(err)
	}
	key := func(i int) types.NamespacedName {
		return types.NamespacedName{Namespace: "default", Name: fmt.Sprintf("db-%d", i)}
	}
	for i := range 3 {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: key(i).Name, Labels: labels},
			Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "db", Image: "db"}}},
		}
		if err := c.Create(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
		pod.ResourceVersion = "" // the scheduler notes its word on it meanwhile
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		if err := c.UpdateStatus(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
	}
	allowed := func(want int32) {
		t.Helper()
		enginetest.Eventually(t, 10*time.Second, func() string {
			var b policyv1.PodDisruptionBudget
			if err := c.Get(t.Context(), client.Key(budget), &b); err != nil {
				return err.Error()
			}
			if b.Status.DisruptionsAllowed != want || b.Status.ExpectedPods != 3 || b.Status.DesiredHealthy != 2 {
				return fmt.Sprintf("%+v, want %d allowed", b.Status, want)
			}
			return ""
		})
	}
	allowed(1)
	if err := c.Evict(t.Context(), key(0), client.DeleteOptions{}, true); err != nil {
		t.Errorf("a dry run: %v", err)
	}
	if err := c.Evict(t.Context(), key(0), client.DeleteOptions{}, false); err != nil {
		t.Fatal(err)
	}
	// At once, before any controller has seen the first: the budget was charged
	// in the same write.
	err := c.Evict(t.Context(), key(1), client.DeleteOptions{}, false)
	if !apierrors.IsTooManyRequests(err) || !strings.Contains(fmt.Sprint(err.(apierrors.APIStatus).Status().Details.Causes), "needs 2 healthy pods") {
		t.Errorf("the second eviction: %v, want too many requests that name the budget", err)
	}
	var pod corev1.Pod
	if err := c.Get(t.Context(), key(1), &pod); err != nil || pod.DeletionTimestamp != nil {
		t.Errorf("the second pod: deleted at %v (%v), want it to stay", pod.DeletionTimestamp, err)
	}
	allowed(0)
}

// TestABudgetCountsWhatAStatefulSetWants: a percentage is of its replicas, also
// while a Pod of it is missing.
func TestABudgetCountsWhatAStatefulSetWants(t *testing.T) {
	r := start(t, "broken")
	d := deployment("db", "v1", 4)
	create(t, r, &appsv1.StatefulSet{ObjectMeta: d.ObjectMeta, Spec: appsv1.StatefulSetSpec{
		Replicas: d.Spec.Replicas, Selector: d.Spec.Selector, Template: d.Spec.Template, ServiceName: "db", PodManagementPolicy: appsv1.ParallelPodManagement,
	}})
	half := intstr.FromString("50%")
	create(t, r, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db"},
		Spec:       policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &half, Selector: d.Spec.Selector},
	})
	allowed := func(expected, want int32) {
		t.Helper()
		enginetest.Eventually(t, wait, func() string {
			if s := get(t, r, "db", &policyv1.PodDisruptionBudget{}).Status; s.ExpectedPods != expected || s.DisruptionsAllowed != want {
				return fmt.Sprintf("%+v, want %d of %d allowed", s, want, expected)
			}
			return ""
		})
	}
	allowed(4, 2)
	set := get(t, r, "db", &appsv1.StatefulSet{})
	n := int32(8)
	set.Spec.Replicas, set.Spec.Template.Spec.Containers[0].Image, set.ResourceVersion = &n, "broken", ""
	set.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType}
	if err := r.Update(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	allowed(8, 0) // four are ready, and half of eight must be
}
