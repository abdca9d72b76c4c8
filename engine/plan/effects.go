package plan

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/strategy"
)

// effects says what a step means for the Pods that run and for the ports that
// Services have. Whether the Pods fit is for fit to say.
func (s Step) effects() []string {
	if s.hidden() {
		return s.hiddenEffects()
	}
	switch s.Action {
	case Create:
		return append(started(s.Desired), ports(nil, s.Desired)...)
	case Change:
		return append(changed(s.Live, s.Desired), ports(s.Live, s.Desired)...)
	case Replace:
		return append(replaced(s.Live, s.Desired), ports(s.Live, s.Desired)...)
	case Delete:
		return append(ended(s.Live), ports(s.Live, nil)...)
	}
	return nil
}

func started(obj client.Object) []string {
	switch o := obj.(type) {
	case *appsv1.DaemonSet:
		return []string{"starts a pod on each node that is eligible"}
	case *batchv1.CronJob:
		return []string{"starts a Job " + when(o)}
	case *autoscalingv2.HorizontalPodAutoscaler:
		return []string{"sets the replicas of " + bounds(o)}
	}
	w, ok := workloadOf(obj)
	if _, bare := obj.(*corev1.Pod); !ok || bare || w.pods == 0 {
		return nil
	}
	return []string{"starts " + countPods(w.pods) + inTurn(obj)}
}

// bounds says what an autoscaler scales, and how far.
func bounds(a *autoscalingv2.HorizontalPodAutoscaler) string {
	return fmt.Sprintf("%s %s, between %d and %d", a.Spec.ScaleTargetRef.Kind, a.Spec.ScaleTargetRef.Name, number(a.Spec.MinReplicas), a.Spec.MaxReplicas)
}

// inTurn says so when Pods start one after the other.
func inTurn(obj client.Object) string {
	s, ok := obj.(*appsv1.StatefulSet)
	if !ok || s.Spec.PodManagementPolicy == appsv1.ParallelPodManagement || number(s.Spec.Replicas) < 2 {
		return ""
	}
	return ", one after the other"
}

// when says at which times a CronJob starts its Jobs.
func when(c *batchv1.CronJob) string {
	if c.Spec.Suspend != nil && *c.Spec.Suspend {
		return "at no time while it is suspended (spec.suspend)"
	}
	zone := "UTC"
	if c.Spec.TimeZone != nil && *c.Spec.TimeZone != "" {
		zone = *c.Spec.TimeZone
	}
	return fmt.Sprintf("by the schedule %s (%s)", c.Spec.Schedule, zone)
}

// ended: what a Job still runs is not known here, and a Pod says it itself.
func ended(obj client.Object) []string {
	switch obj.(type) {
	case *appsv1.Deployment, *appsv1.ReplicaSet, *appsv1.StatefulSet, *corev1.ReplicationController:
		if w, _ := workloadOf(obj); w.pods > 0 {
			return []string{"ends " + countPods(w.pods)}
		}
	case *appsv1.DaemonSet:
		return []string{"ends its pod on each node"}
	case *autoscalingv2.HorizontalPodAutoscaler:
		return []string{"the replicas of its target are those of the repository again"}
	case *corev1.PersistentVolumeClaim:
		return []string{fmt.Sprintf("its data is deleted when the last pod that mounts it has ended, unless the volume is retained; to keep the claim: annotation %s: %s", v1alpha1.AnnotationPrune, v1alpha1.PruneDisabled)}
	}
	return nil
}

func replaced(live, now client.Object) []string {
	switch now.(type) {
	case *corev1.Pod, *batchv1.Job:
		return []string{"runs anew"}
	case *appsv1.DaemonSet:
		return []string{"its pods end, and are made anew on each node"}
	case *appsv1.Deployment, *appsv1.ReplicaSet, *appsv1.StatefulSet, *corev1.ReplicationController:
		was, _ := workloadOf(live)
		w, _ := workloadOf(now)
		out := []string{fmt.Sprintf("its %s end, and %s are made anew", countPods(was.pods), countPods(w.pods))}
		if was.pods == w.pods && w.pods == 1 {
			out[0] = "its pod is made anew"
		} else if was.pods == w.pods {
			out[0] = fmt.Sprintf("its %s are made anew", countPods(w.pods))
		}
		return out
	}
	return nil
}

func changed(live, now client.Object) []string {
	if a, ok := now.(*autoscalingv2.HorizontalPodAutoscaler); ok && bounds(a) != bounds(live.(*autoscalingv2.HorizontalPodAutoscaler)) {
		return []string{"sets the replicas of " + bounds(a)}
	}
	was, ok := workloadOf(live)
	if !ok {
		return nil
	}
	w, ok := workloadOf(now)
	if !ok {
		return nil
	}
	var out []string
	anew := !equality.Semantic.DeepEqual(was.template, w.template)
	switch obj := now.(type) {
	case *appsv1.StatefulSet:
		if anew {
			out = append(out, restartsSet(obj, min(was.pods, w.pods)))
		}
	case *appsv1.DaemonSet:
		if anew {
			out = append(out, restartsDaemon(obj))
		}
	case *batchv1.CronJob:
		return changedCron(live.(*batchv1.CronJob), obj, anew)
	case *appsv1.Deployment:
		if !equality.Semantic.DeepEqual(was.template, w.template) {
			out = append(out, restarts(obj, min(was.pods, w.pods)))
		}
	case *appsv1.ReplicaSet, *corev1.ReplicationController:
		if !equality.Semantic.DeepEqual(was.template, w.template) && was.pods > 0 {
			out = append(out, "the pods that run stay as they are; new ones have the new template")
		}
	default:
		return nil
	}
	switch {
	case w.pods > was.pods:
		out = append(out, countPods(w.pods-was.pods)+" more")
	case w.pods < was.pods:
		out = append(out, countPods(was.pods-w.pods)+" fewer")
	}
	return out
}

// restarts says in which order the Pods of a Deployment are exchanged.
func restarts(d *appsv1.Deployment, pods int) string {
	if d.Spec.Paused {
		return "no pod restarts while it is paused (spec.paused)"
	}
	if pods == 0 {
		return "no pod runs: none restarts"
	}
	if strategy.Recreates(d) {
		return "restarts " + countPods(pods) + ", all at once (Recreate)"
	}
	surge, unavailable := strategy.Limits(d)
	var steps []string
	if surge > 0 {
		steps = append(steps, fmt.Sprintf("%d more", surge))
	}
	if unavailable > 0 {
		steps = append(steps, fmt.Sprintf("%d fewer", unavailable))
	}
	pace := "up to " + strings.Join(steps, " and ")
	if surge+unavailable == 1 {
		pace = strings.Replace(steps[0], "1", "one", 1)
	}
	return fmt.Sprintf("restarts %s, %s at a time (maxSurge %d, maxUnavailable %d)", countPods(pods), pace, surge, unavailable)
}

// restartsSet says in which order the Pods of a StatefulSet are exchanged.
func restartsSet(s *appsv1.StatefulSet, pods int) string {
	u := s.Spec.UpdateStrategy
	if u.Type == appsv1.OnDeleteStatefulSetStrategyType {
		return "no pod restarts by itself (OnDelete): one that is deleted gets the new template"
	}
	limit := "one at a time"
	if u.RollingUpdate != nil && u.RollingUpdate.MaxUnavailable != nil && u.RollingUpdate.MaxUnavailable.String() != "1" {
		limit = "up to " + u.RollingUpdate.MaxUnavailable.String() + " at a time"
	}
	keep := 0
	if u.RollingUpdate != nil && u.RollingUpdate.Partition != nil {
		keep = min(int(*u.RollingUpdate.Partition), pods)
	}
	switch {
	case pods == 0:
		return "no pod runs: none restarts"
	case keep == pods:
		return fmt.Sprintf("no pod restarts: the partition (%d) keeps all as they are", *u.RollingUpdate.Partition)
	case keep > 0:
		return fmt.Sprintf("restarts %s of %d, %s from the highest down; the partition keeps the others", countPods(pods-keep), pods, limit)
	case pods == 1:
		return "restarts its pod"
	}
	return fmt.Sprintf("restarts %s, %s from the highest down", countPods(pods), limit)
}

// restartsDaemon says how the Pods of a DaemonSet are exchanged.
func restartsDaemon(d *appsv1.DaemonSet) string {
	u := d.Spec.UpdateStrategy
	if u.Type == appsv1.OnDeleteDaemonSetStrategyType {
		return "no pod restarts by itself (OnDelete): one that is deleted gets the new template"
	}
	if r := u.RollingUpdate; r != nil && r.MaxSurge != nil && r.MaxSurge.String() != "0" && r.MaxSurge.String() != "0%" {
		return fmt.Sprintf("restarts the pod of each node, up to %s more at a time (maxSurge)", r.MaxSurge)
	}
	limit := "1"
	if u.RollingUpdate != nil && u.RollingUpdate.MaxUnavailable != nil {
		limit = u.RollingUpdate.MaxUnavailable.String()
	}
	return fmt.Sprintf("restarts the pod of each node, up to %s at a time (maxUnavailable)", limit)
}

func changedCron(was, now *batchv1.CronJob, anew bool) []string {
	var out []string
	if when(was) != when(now) {
		out = append(out, "starts a Job "+when(now)+"; slots that are over are not made up for")
	}
	if anew {
		out = append(out, "the next Job has the new template; Jobs that run stay as they are")
	}
	return out
}

// ports that a Service gains and loses.
func ports(live, now client.Object) []string {
	was, is := portsOf(live), portsOf(now)
	var out []string
	for _, p := range is {
		if !slices.Contains(was, p) {
			out = append(out, "gains port "+p)
		}
	}
	for _, p := range was {
		if !slices.Contains(is, p) {
			out = append(out, "loses port "+p)
		}
	}
	return out
}

// portsOf are the ports of a Service by number and protocol, and those that it
// has on every node.
func portsOf(obj client.Object) []string {
	s, ok := obj.(*corev1.Service)
	if !ok {
		return nil
	}
	var out []string
	for _, p := range s.Spec.Ports {
		protocol := p.Protocol
		if protocol == "" {
			protocol = corev1.ProtocolTCP
		}
		out = append(out, fmt.Sprintf("%d/%s", p.Port, protocol))
		if p.NodePort != 0 {
			out = append(out, fmt.Sprintf("%d/%s of every node", p.NodePort, protocol))
		}
	}
	return out
}
