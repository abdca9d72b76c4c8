package health

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func waitingPod(reason, message string) *corev1.Pod {
	return &corev1.Pod{
		Spec: corev1.PodSpec{NodeName: "n1"},
		Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
			Name: "web", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}},
		}}},
	}
}

func TestPod(t *testing.T) {
	ready := &corev1.Pod{Spec: corev1.PodSpec{NodeName: "n1"}, Status: corev1.PodStatus{
		Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	}}
	unready := ready.DeepCopy()
	unready.Status.Conditions[0] = corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionFalse, Message: "container web: GET /healthz answered 503"}
	nowhere := &corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{
		{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/1 nodes fit: 1 is cordoned"},
	}}}
	gated := &corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{
		{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated, Message: "is blocked"},
	}}}
	stopping := ready.DeepCopy()
	stopping.DeletionTimestamp = &metav1.Time{}
	for name, c := range map[string]struct {
		pod  *corev1.Pod
		want Health
	}{
		"ready":       {ready, Health{State: Healthy}},
		"not ready":   {unready, Health{Progressing, "container web: GET /healthz answered 503"}},
		"no node":     {nowhere, Health{Degraded, "0/1 nodes fit: 1 is cordoned"}},
		"gated":       {gated, Health{Progressing, "is blocked"}},
		"stopping":    {stopping, Health{Progressing, "is stopping"}},
		"bad image":   {waitingPod("ErrImagePull", "not found"), Health{Degraded, "container web: ErrImagePull: not found"}},
		"being made":  {waitingPod("ContainerCreating", ""), Health{Progressing, "starts"}},
		"unscheduled": {&corev1.Pod{}, Health{Progressing, "waits for a node"}},
	} {
		if got := Pod(c.pod); got != c.want {
			t.Errorf("%s: got %v %q, want %v %q", name, got.State, got.Reason, c.want.State, c.want.Reason)
		}
	}
}

func TestDeploymentIsNotHealthyBeforeItsControllerHasSeenIt(t *testing.T) {
	n := int32(2)
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Generation: 2}, Spec: appsv1.DeploymentSpec{Replicas: &n},
		Status: appsv1.DeploymentStatus{ObservedGeneration: 1, Replicas: 2, UpdatedReplicas: 2, AvailableReplicas: 2}}
	if h := Deployment(d, nil); h.State != Progressing {
		t.Errorf("got %v, want Progressing", h)
	}
	d.Status.ObservedGeneration = 2
	if h := Deployment(d, nil); h.State != Healthy {
		t.Errorf("got %v, want Healthy", h)
	}
	d.Status.UpdatedReplicas, d.Status.Replicas = 1, 3
	broken := []*corev1.Pod{waitingPod("ImagePullBackOff", "x"), waitingPod("ImagePullBackOff", "x")}
	if h := Deployment(d, broken); h != (Health{Degraded, "2 pods: container web: ImagePullBackOff: x"}) {
		t.Errorf("got %v %q", h.State, h.Reason)
	}
}

func TestAutoscaler(t *testing.T) {
	is := func(kind autoscalingv2.HorizontalPodAutoscalerConditionType, status corev1.ConditionStatus, reason string) autoscalingv2.HorizontalPodAutoscalerCondition {
		return autoscalingv2.HorizontalPodAutoscalerCondition{Type: kind, Status: status, Reason: reason, Message: "because of " + reason}
	}
	for _, c := range []struct {
		conditions []autoscalingv2.HorizontalPodAutoscalerCondition
		seen       int64
		want       Health
	}{
		{nil, 1, Health{State: Progressing, Reason: "waits for its controller"}},
		{[]autoscalingv2.HorizontalPodAutoscalerCondition{is("AbleToScale", "True", "x"), is("ScalingActive", "True", "x"), is("ScalingLimited", "False", "x")}, 2, Health{}},
		{[]autoscalingv2.HorizontalPodAutoscalerCondition{is("AbleToScale", "False", "FailedGetScale")}, 2, Health{State: Progressing, Reason: "because of FailedGetScale"}},
		{[]autoscalingv2.HorizontalPodAutoscalerCondition{is("AbleToScale", "True", "x"), is("ScalingActive", "False", "FailedGetResourceMetric")}, 2,
			Health{Reason: "does not scale: because of FailedGetResourceMetric"}},
		{[]autoscalingv2.HorizontalPodAutoscalerCondition{is("AbleToScale", "True", "x"), is("ScalingActive", "False", "ScalingDisabled")}, 2,
			Health{Reason: "is off: its target has no replicas"}},
	} {
		a := &autoscalingv2.HorizontalPodAutoscaler{}
		a.Generation, a.Status.ObservedGeneration, a.Status.Conditions = 2, &c.seen, c.conditions
		if got := Autoscaler(a); got != c.want {
			t.Errorf("%v is %v, want %v", c.conditions, got, c.want)
		}
	}
}
