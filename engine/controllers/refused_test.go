package controllers

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
)

// TestARefusedPodIsSaidOnce: each try has another name for the Pod, and says the
// same all the same. Else each would change the status, and that would bring the
// next try at once.
func TestARefusedPodIsSaidOnce(t *testing.T) {
	w := newStage(t)
	sets := newReplicaSets(w.begin())
	t.Cleanup(sets.loop.queue.ShutDown)
	labels := map[string]string{"app": "web"}
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: appsv1.ReplicaSetSpec{
		Replicas: new(int32(2)), Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{ServiceAccountName: "nope", Containers: []corev1.Container{{Name: "c", Image: "i"}}}},
	}}
	if err := w.r.Create(t.Context(), rs); err != nil {
		t.Fatal(err)
	}
	key, versions := client.Key(rs), map[string]bool{}
	for range 5 {
		look(w, w.views.ReplicaSets, &appsv1.ReplicaSetList{})
		if err := sets.reconcile(t.Context(), key); err == nil {
			t.Fatal("a Pod was made")
		}
		var now appsv1.ReplicaSet
		if err := w.r.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "web"}, &now); err != nil {
			t.Fatal(err)
		}
		versions[now.ResourceVersion] = true
	}
	if len(versions) != 1 {
		t.Errorf("its status was written %d times", len(versions))
	}
	var events corev1.EventList
	if err := w.r.List(t.Context(), &events, client.ListOptions{Namespace: "default"}); err != nil {
		t.Fatal(err)
	}
	const want = `Error creating: pods "web-*" is forbidden: error looking up service account default/nope: serviceaccount "nope" not found`
	if len(events.Items) != 1 || events.Items[0].Count != 5 || events.Items[0].Message != want {
		t.Errorf("%d events, the first: %+v", len(events.Items), events.Items[0])
	}
}
