package controllers_test

import (
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/resources"
)

// sizes are the replicas of the ReplicaSets of an image.
func sizes(t *testing.T, r *resources.Resources) map[string]int32 {
	t.Helper()
	var list appsv1.ReplicaSetList
	if err := r.List(t.Context(), &list, client.ListOptions{Namespace: "default"}); err != nil {
		t.Fatal(err)
	}
	out := map[string]int32{}
	for _, rs := range list.Items {
		out[rs.Spec.Template.Spec.Containers[0].Image] = *rs.Spec.Replicas
	}
	return out
}

func edit(t *testing.T, r *resources.Resources, name string, change func(*appsv1.DeploymentSpec)) {
	t.Helper()
	d := get(t, r, name, &appsv1.Deployment{})
	change(&d.Spec)
	d.ResourceVersion = ""
	if err := r.Update(t.Context(), d); err != nil {
		t.Fatal(err)
	}
}

func eventuallySizes(t *testing.T, r *resources.Resources, want map[string]int32) {
	t.Helper()
	enginetest.Eventually(t, wait, func() string {
		if got := sizes(t, r); fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Sprintf("sizes %v, want %v", got, want)
		}
		return ""
	})
}

// TestScalingInMidRolloutIsProportional: a rollout that is stuck takes its share
// of a new size and no more, so that scaling up brings Pods that work.
func TestScalingInMidRolloutIsProportional(t *testing.T) {
	r := start(t, "broken")
	create(t, r, deployment("web", "v1", 10))
	enginetest.Eventually(t, wait, isComplete(t, r, "web", "v1", 10))
	edit(t, r, "web", func(s *appsv1.DeploymentSpec) { s.Template.Spec.Containers[0].Image = "broken" })
	eventuallySizes(t, r, map[string]int32{"v1": 8, "broken": 5}) // 25% more, 25% fewer
	n := int32(20)
	edit(t, r, "web", func(s *appsv1.DeploymentSpec) { s.Replicas = &n })
	eventuallySizes(t, r, map[string]int32{"v1": 15, "broken": 10})
	n = 10
	edit(t, r, "web", func(s *appsv1.DeploymentSpec) { s.Replicas = &n })
	eventuallySizes(t, r, map[string]int32{"v1": 8, "broken": 5})
	// The fix takes over from both.
	edit(t, r, "web", func(s *appsv1.DeploymentSpec) { s.Template.Spec.Containers[0].Image = "v3" })
	enginetest.Eventually(t, wait, isComplete(t, r, "web", "v3", 10))
}

func TestAPausedRolloutIsScaledInProportion(t *testing.T) {
	r := start(t, "broken")
	create(t, r, deployment("web", "v1", 4))
	enginetest.Eventually(t, wait, isComplete(t, r, "web", "v1", 4))
	edit(t, r, "web", func(s *appsv1.DeploymentSpec) { s.Template.Spec.Containers[0].Image = "broken" })
	eventuallySizes(t, r, map[string]int32{"v1": 3, "broken": 2})
	n := int32(8)
	edit(t, r, "web", func(s *appsv1.DeploymentSpec) { s.Paused = true })
	edit(t, r, "web", func(s *appsv1.DeploymentSpec) { s.Replicas = &n })
	eventuallySizes(t, r, map[string]int32{"v1": 6, "broken": 4})
}
