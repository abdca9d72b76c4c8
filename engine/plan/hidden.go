package plan

import (
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"berth.dev/berth/api/v1alpha1"
)

// hidden: no value of the object may be shown, and numbers, ports and times are some.
// A commit that ends the encryption must not show what was there before, so either
// side counts.
func (s Step) hidden() bool { return v1alpha1.Hidden(s.Live) || v1alpha1.Hidden(s.Desired) }

// hiddenEffects say what happens to Pods, and not how many they are, and what
// happens to data.
func (s Step) hiddenEffects() []string {
	was, _ := workloadOf(s.Live)
	now, runs := workloadOf(s.Desired)
	anew := s.Action == Change && !equality.Semantic.DeepEqual(was.template, now.template)
	switch obj := s.Desired.(type) {
	case nil:
		if _, isClaim := s.Live.(*corev1.PersistentVolumeClaim); s.Action == Delete && isClaim {
			return ended(s.Live)
		}
		if _, ran := workloadOf(s.Live); s.Action == Delete && ran {
			return []string{"ends its pods"}
		}
		return nil
	case *corev1.Pod:
		if s.Action == Replace {
			return []string{"runs anew"}
		}
		return nil
	case *batchv1.CronJob:
		var out []string
		if before, ok := s.Live.(*batchv1.CronJob); !ok || when(before) != when(obj) {
			out = append(out, "starts Jobs by a new schedule")
		}
		if anew {
			out = append(out, "the next Job has the new template; Jobs that run stay as they are")
		}
		return out
	case *appsv1.ReplicaSet, *corev1.ReplicationController:
		if anew {
			return []string{"the pods that run stay as they are; new ones have the new template"}
		}
	}
	switch {
	case s.Action == Create && runs:
		return []string{"starts its pods"}
	case s.Action == Replace && runs:
		return []string{"its pods are made anew"}
	case anew:
		return []string{"restarts its pods"}
	}
	return nil
}
