package controllers_test

import (
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/resources"
)

func uids(t *testing.T, r *resources.Resources) map[string]bool {
	out := map[string]bool{}
	for _, p := range pods(t, r) {
		out[string(p.UID)] = true
	}
	return out
}

// orphan deletes an owner and leaves what it owns.
func orphan(t *testing.T, r *resources.Resources, o client.Object) {
	t.Helper()
	if err := r.Delete(t.Context(), o, client.DeleteOptions{Propagation: metav1.DeletePropagationOrphan}); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, func() string {
		if err := r.Get(t.Context(), client.Key(o), o); err == nil {
			return "the owner is there"
		}
		return ""
	})
}

// TestPodsOfNobodyAreTakenOnAndNoneIsMade: not for a moment either.
func TestPodsOfNobodyAreTakenOnAndNoneIsMade(t *testing.T) {
	for round := range 5 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			r := start(t)
			create(t, r, deployment("web", "v1", 3))
			enginetest.Eventually(t, wait, isComplete(t, r, "web", "v1", 3))
			orphan(t, r, deployment("web", "v1", 3))
			var sets appsv1.ReplicaSetList
			if err := r.List(t.Context(), &sets, client.ListOptions{Namespace: "default"}); err != nil {
				t.Fatal(err)
			}
			orphan(t, r, &sets.Items[0])
			create(t, r, deployment("web", "v1", 3))
			enginetest.Eventually(t, wait, isComplete(t, r, "web", "v1", 3))
			var events corev1.EventList
			if err := r.List(t.Context(), &events, client.ListOptions{Namespace: "default"}); err != nil {
				t.Fatal(err)
			}
			made := 0
			for _, e := range events.Items {
				if e.InvolvedObject.Kind == "ReplicaSet" && (e.Reason == "SuccessfulCreate" || e.Reason == "SuccessfulDelete") {
					made += int(e.Count)
				}
			}
			if made != 3 {
				t.Errorf("%d Pods were made and deleted, want 3 made", made)
			}
		})
	}
}

func TestADeploymentThatComesBackTakesItsPodsOn(t *testing.T) {
	r := start(t)
	create(t, r, deployment("web", "v1", 3))
	enginetest.Eventually(t, wait, isComplete(t, r, "web", "v1", 3))
	before := uids(t, r)
	orphan(t, r, deployment("web", "v1", 3))
	create(t, r, deployment("web", "v1", 3))
	enginetest.Eventually(t, wait, isComplete(t, r, "web", "v1", 3))
	for uid := range uids(t, r) {
		if !before[uid] {
			t.Errorf("pod %s was made anew", uid)
		}
	}
	// And rolls them as before.
	d := get(t, r, "web", &appsv1.Deployment{})
	d.Spec.Template.Spec.Containers[0].Image, d.ResourceVersion = "v2", ""
	if err := r.Update(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, isComplete(t, r, "web", "v2", 3))
}

func TestAPodWhoseLabelsChangeIsLetGoAndReplaced(t *testing.T) {
	r := start(t)
	create(t, r, deployment("web", "v1", 2))
	enginetest.Eventually(t, wait, isComplete(t, r, "web", "v1", 2))
	p := pods(t, r)[0]
	p.Labels["app"] = "quarantine"
	if err := r.Update(t.Context(), &p); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, func() string {
		all := pods(t, r)
		free := 0
		for _, q := range all {
			if metav1.GetControllerOf(&q) == nil {
				free++
			}
		}
		if len(all) != 3 || free != 1 {
			return fmt.Sprintf("%d pods, %d without an owner", len(all), free)
		}
		return ""
	})
	// With its labels back it is one too many.
	q := get(t, r, p.Name, &corev1.Pod{})
	q.Labels["app"] = "web"
	if err := r.Update(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, func() string {
		if n := len(pods(t, r)); n != 2 {
			return fmt.Sprintf("%d pods", n)
		}
		return ""
	})
}

func TestTwoDeploymentsWithOneSelectorStaySteady(t *testing.T) {
	r := start(t)
	a, b := deployment("a", "v1", 3), deployment("b", "v2", 2)
	b.Spec.Selector, b.Spec.Template.Labels = a.Spec.Selector, a.Spec.Template.Labels
	create(t, r, a, b)
	steady := func(name string, n int32) {
		t.Helper()
		enginetest.Eventually(t, wait, func() string {
			if s := get(t, r, name, &appsv1.Deployment{}).Status; s.AvailableReplicas != n || s.Replicas != n {
				return fmt.Sprintf("%s: %+v", name, s)
			}
			return ""
		})
	}
	steady("a", 3)
	steady("b", 2)
	before := uids(t, r)
	for range 20 { // nothing moves
		time.Sleep(20 * time.Millisecond)
		after := uids(t, r)
		if len(after) != 5 {
			t.Fatalf("%d pods", len(after))
		}
		for uid := range after {
			if !before[uid] {
				t.Fatal("a pod was replaced")
			}
		}
	}
}

func TestAStatefulSetThatComesBackTakesItsPodsOn(t *testing.T) {
	r := start(t)
	set := func() *appsv1.StatefulSet {
		d := deployment("db", "v1", 2)
		return &appsv1.StatefulSet{ObjectMeta: d.ObjectMeta, Spec: appsv1.StatefulSetSpec{
			Replicas: d.Spec.Replicas, Selector: d.Spec.Selector, Template: d.Spec.Template, ServiceName: "db",
		}}
	}
	ready := func() {
		t.Helper()
		enginetest.Eventually(t, wait, func() string {
			if s := get(t, r, "db", &appsv1.StatefulSet{}).Status; s.AvailableReplicas != 2 || s.CurrentRevision != s.UpdateRevision {
				return fmt.Sprintf("%+v", s)
			}
			return ""
		})
	}
	create(t, r, set())
	ready()
	before := uids(t, r)
	orphan(t, r, set())
	create(t, r, set())
	ready()
	for uid := range uids(t, r) {
		if !before[uid] {
			t.Errorf("pod %s was made anew", uid)
		}
	}
}
