package sync_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/v1alpha1"
)

const bounds = `apiVersion: v1
kind: ResourceQuota
metadata: {name: q}
spec: {hard: {configmaps: "%d"}}
---
apiVersion: v1
kind: LimitRange
metadata: {name: l}
spec: {limits: [{type: Container, defaultRequest: {cpu: 10m}}]}
---
`

const barePod = `apiVersion: v1
kind: Pod
metadata: {name: bare}
spec: {containers: [{name: c, image: v1}]}
---
`

func TestACommitThatExceedsItsQuotaIsRefusedWhole(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", fmt.Sprintf(bounds, 9)+configMap("a", "1"), ready())
	var q corev1.ResourceQuota
	if err := f.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "q"}, &q); err != nil {
		t.Fatal(err)
	}
	n := q.Status.Used["configmaps"]
	room := int(n.Value()) + 1
	f.push(t, "c2", "", fmt.Sprintf(bounds, room)+configMap("a", "2")+"---\n"+configMap("b", "1")+"---\n"+configMap("c", "1"), metav1.Condition{
		Type: "Ready", Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonCompileFailed, Message: fmt.Sprintf("exceeded quota: q, requested: configmaps=1, used: configmaps=%d, limited: configmaps=%d", room, room),
	})
	if got := f.configMaps(t); !strings.Contains(got, "a=1") || strings.Contains(got, "b=1") {
		t.Errorf("config maps %s", got)
	}
	f.push(t, "c3", "", fmt.Sprintf(bounds, room)+configMap("a", "2")+"---\n"+configMap("b", "1"), ready())
}

func TestWhatALimitRangeFillsInIsNoDrift(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", fmt.Sprintf(bounds, 9)+barePod, ready())
	var p corev1.Pod
	if err := f.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "bare"}, &p); err != nil {
		t.Fatal(err)
	}
	if q := p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU]; q.String() != "10m" {
		t.Fatalf("the limit range of the same commit gives it %s", q.String())
	}
	out, err := f.engine.Check(t.Context(), f.source(t), f.revision("c2", fmt.Sprintf(bounds, 9)+barePod))
	if err != nil || !out.Plan.Empty() {
		t.Errorf("%v\n%s", err, out.Plan.Text())
	}
}

const controller = `apiVersion: v1
kind: ReplicationController
metadata: {name: old}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: old}}
    spec: {containers: [{name: c, image: %s}]}
`

func TestAReplicationControllerIsDeployedAndWatched(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", fmt.Sprintf(controller, "v1"), ready())
	var rc corev1.ReplicationController
	if err := f.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "old"}, &rc); err != nil || rc.Status.AvailableReplicas != 2 {
		t.Errorf("%v: status %+v", err, rc.Status)
	}
	f.push(t, "c2", "Berth-Allow-Prune: true", strings.Replace(fmt.Sprintf(controller, "broken"), "name: old}", "name: new}", 1), metav1.Condition{
		Type: "Ready", Status: metav1.ConditionFalse, Reason: "Progressing", Message: "ReplicationController default/new: 0 of 2 pods are available",
	})
}
