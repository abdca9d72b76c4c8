package sync_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/revision"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/sync"
)

const migrate = `apiVersion: batch/v1
kind: Job
metadata: {name: migrate}
spec:
  backoffLimit: 0
  %s
  template:
    spec: {restartPolicy: Never, containers: [{name: c, image: %s}]}
`

func (f *fixture) job(t *testing.T) *batchv1.Job {
	t.Helper()
	var j batchv1.Job
	err := f.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "migrate"}, &j)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return &j
}

// ran waits until the Job has succeeded, and returns its UID.
func (f *fixture) ran(t *testing.T) types.UID {
	t.Helper()
	var uid types.UID
	enginetest.Eventually(t, wait, func() string {
		j := f.job(t)
		if j == nil || j.Status.CompletionTime == nil {
			return fmt.Sprintf("job %+v", j)
		}
		uid = j.UID
		return ""
	})
	return uid
}

// runs counts how often a Pod of the Job was made, by the events.
func (f *fixture) runs(t *testing.T) int {
	t.Helper()
	var list corev1.EventList
	if err := f.List(t.Context(), &list, client.ListOptions{Namespace: "default"}); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range list.Items {
		if e.Reason == "SuccessfulCreate" && e.InvolvedObject.Kind == "Job" {
			n++
		}
	}
	return n
}

func (f *fixture) check(t *testing.T, id string) sync.Outcome {
	t.Helper()
	out, err := f.engine.Check(t.Context(), f.source(t), revision.Revision{Commit: id})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAJobRunsOncePerContent(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", fmt.Sprintf(migrate, "", "ok"), ready())
	first := f.ran(t)
	f.push(t, "c2", "", fmt.Sprintf(migrate, "", "ok")+"---\n"+configMap("a", "1"), ready())
	if out := f.check(t, "c2"); !out.Plan.Empty() {
		t.Errorf("the same content again: %s", out.Plan.Text())
	}
	f.push(t, "c3", "", fmt.Sprintf(migrate, "completions: 1\n  completionMode: NonIndexed\n  parallelism: 1", "ok"), ready())
	if f.ran(t) != first || f.runs(t) != 1 {
		t.Error("it ran again without a change")
	}
	f.remote.push("c4", "", fmt.Sprintf(migrate, "", "ok2"))
	plan := f.check(t, "c4").Plan.Text()
	if !strings.Contains(plan, "± Job default/migrate") || !strings.Contains(plan, "spec.template cannot be changed in place, so the Job runs anew") ||
		!strings.Contains(plan, `image: "ok" → "ok2"`) || strings.Contains(plan, "uid") {
		t.Errorf("plan:\n%s", plan)
	}
	f.push(t, "c4", "", fmt.Sprintf(migrate, "", "ok2"), ready())
	if f.ran(t) == first || f.runs(t) != 2 {
		t.Error("it did not run anew")
	}
	// The Pods of the first one have gone with it.
	enginetest.Eventually(t, wait, func() string {
		var list corev1.PodList
		if err := f.List(t.Context(), &list, client.ListOptions{Namespace: "default"}); err != nil || len(list.Items) != 1 {
			return fmt.Sprintf("%d pods, %v", len(list.Items), err)
		}
		return ""
	})
}

func TestWhatItsTTLRemovedIsNotRunAgain(t *testing.T) {
	f := start(t)
	createSource(t, f)
	brief := func(image string) string {
		return fmt.Sprintf(migrate, "ttlSecondsAfterFinished: 0", image)
	}
	removed := func(runs int) {
		t.Helper()
		enginetest.Eventually(t, wait, func() string {
			if j := f.job(t); j != nil || f.runs(t) != runs {
				return fmt.Sprintf("%d runs, job %+v", f.runs(t), j)
			}
			return ""
		})
	}
	f.push(t, "c1", "", brief("ok"), ready())
	removed(1)
	f.push(t, "c2", "", brief("ok")+"---\n"+configMap("a", "1"), ready())
	f.engine.Recheck()
	if out := f.check(t, "c2"); !out.Plan.Empty() || out.Objects["Job"] != 1 || out.Plan.Unchanged != 2 {
		t.Errorf("%s, objects %v", out.Plan.Text(), out.Objects)
	}
	time.Sleep(100 * time.Millisecond) // for what must not happen
	removed(1)

	f.push(t, "c3", "", brief("ok2")+"---\n"+configMap("a", "1"), ready())
	removed(2)
	// Another time limit is no other content.
	f.push(t, "c4", "", fmt.Sprintf(migrate, "ttlSecondsAfterFinished: 60", "ok2")+"---\n"+configMap("a", "1"), ready())
	removed(2)
	// One that was taken out of the repository and comes back runs.
	f.push(t, "c5", "", configMap("a", "1"), ready())
	f.push(t, "c6", "", brief("ok2")+"---\n"+configMap("a", "1"), ready())
	removed(3)
}

func TestWhatASourceLeftBehindIsForgotten(t *testing.T) {
	f := start(t)
	createSource(t, f)
	body := fmt.Sprintf(migrate, "ttlSecondsAfterFinished: 0", "ok")
	f.push(t, "c1", "", body, ready())
	enginetest.Eventually(t, wait, func() string {
		if j := f.job(t); j != nil || f.runs(t) != 1 {
			return fmt.Sprintf("%d runs, job %+v", f.runs(t), j)
		}
		return ""
	})
	if err := f.Delete(t.Context(), f.source(t), client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	var ns corev1.Namespace
	if err := f.Get(t.Context(), types.NamespacedName{Name: "default"}, &ns); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, func() string {
		if _, known, err := f.Finished(t.Context(), "shop", ns.UID, "migrate"); known || err != nil {
			return fmt.Sprintf("known %v, %v", known, err)
		}
		return ""
	})
}

func TestAJobThatFailsDegradesItsSource(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", fmt.Sprintf(migrate, "", "bad"), metav1.Condition{
		Type: "Ready", Status: metav1.ConditionFalse, Reason: "Degraded",
		Message: "Job default/migrate: BackoffLimitExceeded: Job has reached the specified backoff limit (pod migrate-",
	})
	// Another content runs, and the Source is well again.
	f.push(t, "c2", "", fmt.Sprintf(migrate, "", "ok"), ready())
	f.ran(t)
}

func TestTheNewRunWaitsForTheOldOneToStop(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", fmt.Sprintf(migrate, "", "runs"), ready())
	enginetest.Eventually(t, wait, func() string {
		if j := f.job(t); j == nil || j.Status.Ready == nil || *j.Status.Ready != 1 {
			return fmt.Sprintf("job %+v", j)
		}
		return ""
	})
	w := &versions{seen: map[types.UID]string{}}
	follow(t, f, w)
	f.push(t, "c2", "", fmt.Sprintf(migrate, "", "ok"), ready())
	f.ran(t)
	if w.together.Load() {
		t.Error("pods of both runs were there at one time")
	}
}

// versions notes whether Pods of two images ran at one time.
type versions struct {
	seen     map[types.UID]string
	together atomic.Bool
}

// Synced implements client.Follower.
func (v *versions) Synced() {}

// Gone implements client.Follower.
func (v *versions) Gone(obj client.Object) { delete(v.seen, obj.GetUID()) }

// Set implements client.Follower.
func (v *versions) Set(obj client.Object) {
	// One that its node has given up does not run, though it is still counted.
	if grace := obj.GetDeletionGracePeriodSeconds(); obj.GetDeletionTimestamp() != nil && grace != nil && *grace == 0 {
		delete(v.seen, obj.GetUID())
		return
	}
	v.seen[obj.GetUID()] = obj.(*corev1.Pod).Spec.Containers[0].Image
	for _, image := range v.seen {
		if image != v.seen[obj.GetUID()] {
			v.together.Store(true)
		}
	}
}

func follow(t *testing.T, f *fixture, v *versions) {
	enginetest.Go(t, func(ctx context.Context) error {
		return client.Follow(ctx, f, &corev1.PodList{}, client.ListOptions{Namespace: "default"}, v)
	})
}

// TestAJobThatFailedHasFailedStillWhenItsTTLRemovesIt: until its content runs anew,
// or is in the repository no longer; and what comes in a later wave waits.
func TestAJobThatFailedHasFailedStillWhenItsTTLRemovesIt(t *testing.T) {
	f := start(t)
	createSource(t, f)
	degraded := metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "Degraded", Message: "Job default/migrate: BackoffLimitExceeded: Job has reached the specified backoff limit"}
	over := degraded
	over.Message = "; its ttlSecondsAfterFinished has removed it since"
	brief := func(image string) string { return fmt.Sprintf(migrate, "ttlSecondsAfterFinished: 0", image) }
	f.push(t, "c1", "", brief("fails"), over)
	if j := f.job(t); j != nil {
		t.Errorf("it is there: %+v", j.Status)
	}
	f.push(t, "c2", "", brief("fails")+"---\n"+configMap("a", "1"), over)
	time.Sleep(100 * time.Millisecond) // for what must not happen
	f.await(t, "c2", over)
	if f.runs(t) != 1 {
		t.Errorf("%d runs", f.runs(t))
	}
	later := strings.Replace(configMap("later", "1"), "metadata: {", `metadata: {annotations: {berth.dev/wave: "1"}, `, 1)
	rest := "---\n" + configMap("a", "1") + "---\n" + later
	f.push(t, "c3", "", brief("fails")+rest, metav1.Condition{Type: "Applied", Status: metav1.ConditionFalse, Reason: "WaitsForWave", Message: "removed it since"})
	f.push(t, "c4", "", brief("ok")+rest, ready())
	f.push(t, "c5", "", brief("fails")+rest, over)
	f.push(t, "c6", "", strings.TrimPrefix(rest, "---\n"), ready())
}
