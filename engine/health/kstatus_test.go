package health_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"

	"berth.dev/berth/engine/health"
)

// current asks kstatus whether an object is what its specification says.
func current(t *testing.T, apiVersion, kind string, obj runtime.Object) status.Status {
	t.Helper()
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{Object: m}
	u.SetAPIVersion(apiVersion)
	u.SetKind(kind)
	result, err := status.Compute(u)
	if err != nil {
		t.Fatal(err)
	}
	return result.Status
}

// TestHealthyIsWhatKstatusCallsCurrent compares the two over random objects:
// what is Healthy here is Current there, and the other way round.
func TestHealthyIsWhatKstatusCallsCurrent(t *testing.T) {
	d := rand.New(rand.NewPCG(1, 2))
	n := func() int32 { return int32(d.IntN(3)) } // small, so that numbers are often equal
	seen := map[string]int{}
	for range 20_000 {
		var h health.Health
		var obj runtime.Object
		var apiVersion, kind string
		meta := metav1.ObjectMeta{Namespace: "a", Name: "b", Generation: int64(d.IntN(2)) + 2, CreationTimestamp: metav1.NewTime(time.Now())}
		switch d.IntN(6) {
		case 0:
			replicas := n()
			o := &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Replicas: &replicas}}
			o.Status = appsv1.DeploymentStatus{ObservedGeneration: meta.Generation - int64(d.IntN(2)), Replicas: n()}
			o.Status.UpdatedReplicas, o.Status.AvailableReplicas = d.Int32N(o.Status.Replicas+1), d.Int32N(o.Status.Replicas+1)
			o.Status.ReadyReplicas = o.Status.AvailableReplicas
			o.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionTrue}}
			obj, apiVersion, kind, h = o, "apps/v1", "Deployment", health.Deployment(o, nil)
		case 1:
			replicas := n()
			o := &appsv1.ReplicaSet{ObjectMeta: meta, Spec: appsv1.ReplicaSetSpec{Replicas: &replicas}}
			o.Status = appsv1.ReplicaSetStatus{ObservedGeneration: meta.Generation - int64(d.IntN(2)), Replicas: n()}
			o.Status.AvailableReplicas = d.Int32N(o.Status.Replicas + 1)
			o.Status.ReadyReplicas, o.Status.FullyLabeledReplicas = o.Status.AvailableReplicas, o.Status.Replicas
			obj, apiVersion, kind, h = o, "apps/v1", "ReplicaSet", health.ReplicaSet(o, nil)
		case 2:
			replicas := n()
			o := &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Replicas: &replicas}}
			o.Spec.UpdateStrategy.Type = []appsv1.StatefulSetUpdateStrategyType{appsv1.RollingUpdateStatefulSetStrategyType, appsv1.OnDeleteStatefulSetStrategyType}[d.IntN(2)]
			o.Status = appsv1.StatefulSetStatus{ObservedGeneration: meta.Generation - int64(d.IntN(2)), Replicas: n(), CurrentRevision: "r1", UpdateRevision: []string{"r1", "r2"}[d.IntN(2)]}
			s := &o.Status
			s.AvailableReplicas = d.Int32N(s.Replicas + 1)
			s.ReadyReplicas, s.UpdatedReplicas = s.AvailableReplicas, d.Int32N(s.Replicas+1)
			if s.UpdateRevision == s.CurrentRevision {
				s.UpdatedReplicas = s.Replicas
			} else if s.UpdatedReplicas == s.Replicas {
				continue // the controller would have called it complete
			}
			s.CurrentReplicas = s.Replicas
			if o.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType {
				continue // kstatus looks at nothing then; here its Pods have to be available
			}
			obj, apiVersion, kind, h = o, "apps/v1", "StatefulSet", health.StatefulSet(o, nil)
		case 3:
			o := &appsv1.DaemonSet{ObjectMeta: meta}
			want := n()
			upTo := func() int32 { return d.Int32N(want + 1) }
			o.Status = appsv1.DaemonSetStatus{ObservedGeneration: meta.Generation - int64(d.IntN(2)), DesiredNumberScheduled: want, CurrentNumberScheduled: upTo(), UpdatedNumberScheduled: upTo(), NumberAvailable: upTo()}
			o.Status.NumberReady = o.Status.NumberAvailable
			obj, apiVersion, kind, h = o, "apps/v1", "DaemonSet", health.DaemonSet(o, nil)
		case 4:
			o := &batchv1.Job{ObjectMeta: meta}
			now := metav1.Now()
			if d.IntN(3) > 0 {
				o.Status.StartTime = &now
			}
			if kinds := []batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobFailed, batchv1.JobSuspended}; d.IntN(2) == 0 {
				o.Status.Conditions = []batchv1.JobCondition{{Type: kinds[d.IntN(3)], Status: corev1.ConditionTrue}}
			}
			if o.Status.StartTime == nil && len(o.Status.Conditions) > 0 && o.Status.Conditions[0].Type == batchv1.JobSuspended {
				continue // it was suspended from the start, as it should be: kstatus waits for it
			}
			obj, apiVersion, kind, h = o, "batch/v1", "Job", health.Job(o, nil)
		case 5:
			o := &corev1.PersistentVolumeClaim{ObjectMeta: meta}
			o.Status.Phase = []corev1.PersistentVolumeClaimPhase{corev1.ClaimBound, corev1.ClaimPending, corev1.ClaimLost}[d.IntN(3)]
			obj, apiVersion, kind, h = o, "v1", "PersistentVolumeClaim", health.Claim(o, false)
		}
		theirs := current(t, apiVersion, kind, obj)
		seen[fmt.Sprint(kind, h.State)]++
		if (h.State == health.Healthy) != (theirs == status.CurrentStatus) {
			t.Fatalf("%s is %v (%s) here and %s by kstatus: %+v", kind, h.State, h.Reason, theirs, obj)
		}
	}
	for _, kind := range []string{"Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "PersistentVolumeClaim"} {
		if seen[kind+"Healthy"] == 0 || seen[kind+"Progressing"]+seen[kind+"Degraded"] == 0 {
			t.Errorf("%s: not both states were seen: %v", kind, seen)
		}
	}
}
