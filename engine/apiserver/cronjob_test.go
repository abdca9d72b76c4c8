package apiserver_test

import (
	"encoding/json"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/v1alpha1"
)

// TestACronJobInGitIsStartedByHand: kubectl create job --from=cronjob/NAME runs
// what Git says; a Job that is not what the CronJob would start is refused.
func TestACronJobInGitIsStartedByHand(t *testing.T) {
	s := serve(t)
	create(t, s, &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	managed := map[string]string{v1alpha1.LabelSource: "shop"}
	origin := map[string]string{v1alpha1.AnnotationOrigin: "a.yaml:1"}
	create(t, s, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "mine", Labels: managed, Annotations: origin}})
	c := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "mine", Name: "nightly", Labels: managed, Annotations: origin}}
	c.Spec.Schedule = "@daily"
	c.Spec.JobTemplate.Spec.Template.Spec = corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}
	create(t, s, c)
	yes := true
	ref := metav1.OwnerReference{APIVersion: "batch/v1", Kind: "CronJob", Name: c.Name, UID: c.UID, Controller: &yes}
	for _, test := range []struct {
		name string
		edit func(*batchv1.Job)
		want int32
	}{
		{"as-it-is", func(*batchv1.Job) {}, 201},
		{"other-image", func(j *batchv1.Job) { j.Spec.Template.Spec.Containers[0].Image = "evil" }, 403},
		{"no-owner", func(j *batchv1.Job) { j.OwnerReferences = nil }, 403},
		{"another-owner", func(j *batchv1.Job) { j.OwnerReferences[0].UID = "u" }, 403},
	} {
		job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "mine", Name: test.name, OwnerReferences: []metav1.OwnerReference{ref}}, Spec: *c.Spec.JobTemplate.Spec.DeepCopy()}
		test.edit(job)
		body, err := json.Marshal(job)
		if err != nil {
			t.Fatal(err)
		}
		if code, text := s.do(t, admin, "POST", "/apis/batch/v1/namespaces/mine/jobs", string(body)); int32(code) != test.want {
			t.Errorf("%s: %d %s", test.name, code, text)
		}
	}
}
