package pods

import (
	"context"
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/client"
)

// writes are the statuses that reach the cluster.
type writes struct {
	client.Client
	to chan *corev1.Pod
}

func (w writes) UpdateStatus(_ context.Context, obj client.Object) error {
	w.to <- obj.(*corev1.Pod).DeepCopy()
	return nil
}

func podThatIs(ready corev1.ConditionStatus, reason string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "u"},
		Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, Reason: reason}}},
	}
}

// TestANodeThatIsBackSaysSoOfItsPods: while it was silent, the cluster called
// them not ready. Nothing has changed on the node, and their status is written again.
func TestANodeThatIsBackSaysSoOfItsPods(t *testing.T) {
	w := writes{to: make(chan *corev1.Pod, 10)}
	p := newPublisher(w, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.run(ctx) }()
	defer func() { stop(); <-done }()
	p.put(podThatIs(corev1.ConditionTrue, ""), &corev1.PodStatus{})
	next := func() *corev1.Pod {
		t.Helper()
		select {
		case pod := <-w.to:
			return pod
		case <-time.After(5 * time.Second):
			t.Fatal("nothing was written")
			return nil
		}
	}
	next()
	// What others say of it in another way is theirs.
	p.contradict(podThatIs(corev1.ConditionFalse, "ContainersNotReady"))
	p.contradict(podThatIs(corev1.ConditionFalse, "NodeNotReady"))
	if got := next().Status.Conditions[0]; got.Status != corev1.ConditionTrue {
		t.Errorf("it says %+v", got)
	}
	select {
	case pod := <-w.to:
		t.Errorf("and once more: %+v", pod.Status)
	case <-time.After(50 * time.Millisecond):
	}
}
