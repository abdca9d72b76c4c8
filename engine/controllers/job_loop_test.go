package controllers_test

import (
	"context"
	"fmt"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/controllers"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/resources"
)

// startExits is start with images that exit: "ok" and "bad".
func startExits(t *testing.T) *resources.Resources {
	r := enginetest.Resources(t)
	enginetest.AddNode(t, r, "n1", "64", "64Gi")
	k := &enginetest.Kubelet{Client: r, Exit: map[string]int32{"ok": 0, "bad": 1}}
	views := live.New()
	enginetest.Go(t, controllers.New(controllers.Options{Resources: r, Live: views, Clock: clock.RealClock{}, Log: enginetest.Log(t)}).Run)
	enginetest.Go(t, func(ctx context.Context) error { return views.Run(ctx, r) })
	enginetest.Go(t, k.Run)
	return r
}

func job(name, image string, completions, parallelism int32) *batchv1.Job {
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: batchv1.JobSpec{
			Completions: &completions, Parallelism: &parallelism,
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: image}},
			}},
		},
	}
}

func hasCondition(t *testing.T, r *resources.Resources, name string, want batchv1.JobConditionType) func() string {
	return func() string {
		j := get(t, r, name, &batchv1.Job{})
		for _, c := range j.Status.Conditions {
			if c.Type == want && c.Status == corev1.ConditionTrue {
				return ""
			}
		}
		return fmt.Sprintf("job %s is not %s: %+v", name, want, j.Status)
	}
}

func TestManyPodsOfAJob(t *testing.T) {
	r := startExits(t)
	create(t, r, job("many", "ok", 120, 20))
	enginetest.Eventually(t, wait, hasCondition(t, r, "many", batchv1.JobComplete))
	if n := len(pods(t, r)); n != 120 {
		t.Errorf("%d pods ran, want 120", n)
	}
}

func TestAJobThatHasEndedIsRemovedWithItsPods(t *testing.T) {
	r := startExits(t)
	j := job("brief", "ok", 3, 3)
	now := int32(0)
	j.Spec.TTLSecondsAfterFinished = &now
	bad := job("bad", "bad", 1, 1)
	bad.Spec.BackoffLimit, bad.Spec.TTLSecondsAfterFinished = &now, &now
	create(t, r, j, bad)
	for _, name := range []string{"brief", "bad"} {
		enginetest.Eventually(t, wait, gone(t, r, name))
	}
	if left := pods(t, r); len(left) > 0 {
		t.Errorf("%d pods are left", len(left))
	}
}

func gone(t *testing.T, r *resources.Resources, name string) func() string {
	return func() string {
		var j batchv1.Job
		err := r.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: name}, &j)
		if apierrors.IsNotFound(err) {
			return ""
		}
		return fmt.Sprintf("job %s is there: %+v, finalizers %v, error %v", name, j.Status, j.Finalizers, err)
	}
}

func TestADeletedJobTakesItsPodsAlong(t *testing.T) {
	for _, how := range []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground, metav1.DeletePropagationOrphan} {
		t.Run(string(how), func(t *testing.T) {
			r := startExits(t)
			create(t, r, job("long", "runs", 4, 4))
			enginetest.Eventually(t, wait, func() string {
				if s := get(t, r, "long", &batchv1.Job{}).Status; s.Ready == nil || *s.Ready != 4 {
					return fmt.Sprintf("status %+v", s)
				}
				return ""
			})
			if err := r.Delete(t.Context(), job("long", "runs", 4, 4), client.DeleteOptions{Propagation: how}); err != nil {
				t.Fatal(err)
			}
			enginetest.Eventually(t, wait, gone(t, r, "long"))
			want := 0
			if how == metav1.DeletePropagationOrphan {
				want = 4
			}
			enginetest.Eventually(t, wait, func() string {
				left := pods(t, r)
				if len(left) != want || want > 0 && len(left[0].Finalizers)+len(left[0].OwnerReferences) > 0 {
					return fmt.Sprintf("%d pods are left, want %d without finalizers", len(left), want)
				}
				return ""
			})
		})
	}
}

func TestTheNamespaceOfAJobCanBeDeleted(t *testing.T) {
	r := startExits(t)
	j := job("long", "runs", 4, 4)
	j.Namespace = "batch"
	create(t, r, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "batch"}}, j)
	enginetest.Eventually(t, wait, func() string {
		var list corev1.PodList
		if err := r.List(t.Context(), &list, client.ListOptions{Namespace: "batch"}); err != nil || len(list.Items) != 4 {
			return fmt.Sprintf("%d pods, %v", len(list.Items), err)
		}
		return ""
	})
	if err := r.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "batch"}}, client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, func() string {
		err := r.Get(t.Context(), types.NamespacedName{Name: "batch"}, &corev1.Namespace{})
		if !apierrors.IsNotFound(err) {
			return fmt.Sprintf("the namespace is still there, %v", err)
		}
		return ""
	})
}
