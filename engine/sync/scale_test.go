package sync_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/engine/enginetest"
)

const scaler = `apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: %d
  maxReplicas: 9
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
`

func (f *fixture) replicas(t *testing.T) int32 {
	t.Helper()
	var d appsv1.Deployment
	if err := f.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "web"}, &d); err != nil {
		t.Fatal(err)
	}
	return *d.Spec.Replicas
}

func (f *fixture) scaled(t *testing.T, want int32) {
	t.Helper()
	enginetest.Eventually(t, wait, func() string {
		if n := f.replicas(t); n != want {
			return fmt.Sprintf("%d replicas, want %d", n, want)
		}
		return ""
	})
}

// applied pushes a commit and waits until it is applied.
func (f *fixture) applied(t *testing.T, id, message, body string) {
	t.Helper()
	f.remote.push(id, message, body)
	f.engine.Pushed("shop", time.Now())
	enginetest.Eventually(t, wait, func() string {
		if a := f.source(t).Status.Applied; a == nil || a.ID != id {
			return fmt.Sprintf("applied is %+v", a)
		}
		return ""
	})
}

func TestReplicasOfAnAutoscalerAreLeftToIt(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", fmt.Sprintf(web, 2, "v1"), ready())
	// The autoscaler raises it to its minimum, although Git says 2 and has the object.
	f.applied(t, "c2", "", fmt.Sprintf(web, 2, "v1")+"---\n"+fmt.Sprintf(scaler, 4))
	f.scaled(t, 4)
	for name, body := range map[string]string{
		"another number": fmt.Sprintf(web, 7, "v1") + "---\n" + fmt.Sprintf(scaler, 4),
		"no number":      strings.Replace(fmt.Sprintf(web, 7, "v1"), "  replicas: 7\n", "", 1) + "---\n" + fmt.Sprintf(scaler, 4),
	} {
		out, err := f.engine.Check(t.Context(), f.source(t), f.revision("x", body))
		if err != nil || !out.Plan.Empty() {
			t.Errorf("%s is a change: %v\n%s", name, err, out.Plan.Text())
		}
	}
	// Another change of the object leaves them alone, too.
	f.applied(t, "c3", "", fmt.Sprintf(web, 2, "v2")+"---\n"+fmt.Sprintf(scaler, 4))
	if n := f.replicas(t); n != 4 {
		t.Errorf("a new image set %d replicas, the autoscaler had 4", n)
	}
	// Without the autoscaler they are the repository's.
	f.push(t, "c4", "Berth-Allow-Prune: true", fmt.Sprintf(web, 2, "v2"), ready())
	f.scaled(t, 2)
}

func TestZeroReplicasInGitSwitchTheAutoscalerOffAndOn(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.applied(t, "c1", "", fmt.Sprintf(web, 2, "v1")+"---\n"+fmt.Sprintf(scaler, 4))
	f.scaled(t, 4)
	f.applied(t, "c2", "", fmt.Sprintf(web, 0, "v1")+"---\n"+fmt.Sprintf(scaler, 4))
	f.scaled(t, 0)
	f.await(t, "c2", ready()) // one that is off is well
	f.applied(t, "c3", "", fmt.Sprintf(web, 1, "v1")+"---\n"+fmt.Sprintf(scaler, 4))
	f.scaled(t, 4)
}
