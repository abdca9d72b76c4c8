package controllers_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/enginetest"
)

func TestReplicationControllerKeepsItsPods(t *testing.T) {
	r := start(t)
	three, labels := int32(3), map[string]string{"app": "old"}
	orphan := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "orphan", Labels: labels}}
	orphan.Spec.Containers = []corev1.Container{{Name: "c", Image: "v1"}}
	rc := &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "old"},
		Spec: corev1.ReplicationControllerSpec{Replicas: &three, Template: &corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "v1"}}},
		}},
	}
	create(t, r, orphan, rc)
	runs := func(want int32) func() string {
		return func() string {
			now := get(t, r, "old", &corev1.ReplicationController{})
			if s := now.Status; s.Replicas != want || s.ReadyReplicas != want || s.AvailableReplicas != want || s.ObservedGeneration != now.Generation {
				return fmt.Sprintf("status is %+v, want %d", s, want)
			}
			all := pods(t, r)
			for _, p := range all {
				if ref := metav1.GetControllerOf(&p); ref == nil || ref.Kind != "ReplicationController" || ref.UID != rc.UID {
					return fmt.Sprintf("pod %s belongs to %v", p.Name, ref)
				}
			}
			if len(all) != int(want) {
				return fmt.Sprintf("%d pods, want %d", len(all), want)
			}
			return ""
		}
	}
	enginetest.Eventually(t, wait, runs(3))
	if names := len(pods(t, r)); names != 3 || get(t, r, "orphan", &corev1.Pod{}).DeletionTimestamp != nil {
		t.Error("a pod with its labels was not adopted")
	}
	one := int32(1)
	now := get(t, r, "old", &corev1.ReplicationController{})
	now.Spec.Replicas, now.ResourceVersion = &one, ""
	if err := r.Update(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, runs(1))
	if err := r.Delete(t.Context(), now, client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, func() string {
		if n := len(pods(t, r)); n > 0 {
			return fmt.Sprintf("%d pods are left", n)
		}
		return ""
	})
}
