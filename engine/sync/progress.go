package sync

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/health"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/plan"
	"berth.dev/berth/engine/storage"
	"berth.dev/berth/engine/strategy"
)

// followHealth wakes the Source that an object belongs to when it changes.
func (e *Engine) followHealth() {
	e.Live.Deployments.OnChange(func(old, now *appsv1.Deployment) { e.touched(cmp.Or(now, old)) })
	e.Live.ReplicaSets.OnChange(func(old, now *appsv1.ReplicaSet) { e.touched(e.root(cmp.Or(now, old))) })
	e.Live.Controllers.OnChange(func(old, now *corev1.ReplicationController) { e.touched(cmp.Or(now, old)) })
	e.Live.StatefulSets.OnChange(func(old, now *appsv1.StatefulSet) { e.touched(cmp.Or(now, old)) })
	e.Live.DaemonSets.OnChange(func(old, now *appsv1.DaemonSet) { e.touched(cmp.Or(now, old)) })
	e.Live.Claims.OnChange(func(old, now *corev1.PersistentVolumeClaim) { e.touched(cmp.Or(now, old)) })
	e.Live.Jobs.OnChange(func(old, now *batchv1.Job) {
		if now == nil {
			e.removed(old)
		}
		e.touched(cmp.Or(now, old))
	})
	e.Live.Autoscalers.OnChange(func(old, now *autoscalingv2.HorizontalPodAutoscaler) { e.touched(cmp.Or(now, old)) })
	e.Live.Pods.OnChange(func(old, now *corev1.Pod) { e.touched(e.root(cmp.Or(now, old))) })
}

// root follows the controllers of an object to the top.
func (e *Engine) root(obj client.Object) client.Object {
	for range 3 {
		ref := metav1.GetControllerOf(obj)
		if ref == nil {
			return obj
		}
		key := client.Key(obj)
		key.Name = ref.Name
		switch ref.Kind {
		case "ReplicaSet":
			rs, ok := e.Live.ReplicaSets.Get(key)
			if !ok {
				return obj
			}
			obj = rs
		case "ReplicationController":
			rc, ok := e.Live.Controllers.Get(key)
			if !ok {
				return obj
			}
			obj = rc
		case "Deployment":
			d, ok := e.Live.Deployments.Get(key)
			if !ok {
				return obj
			}
			obj = d
		case "StatefulSet":
			s, ok := e.Live.StatefulSets.Get(key)
			if !ok {
				return obj
			}
			obj = s
		case "DaemonSet":
			d, ok := e.Live.DaemonSets.Get(key)
			if !ok {
				return obj
			}
			obj = d
		case "Job":
			j, ok := e.Live.Jobs.Get(key)
			if !ok {
				return obj
			}
			obj = j
		default:
			return obj
		}
	}
	return obj
}

func (e *Engine) touched(obj client.Object) {
	if r := e.runnerOf(obj); r != nil {
		signal(r.changed)
	}
}

// runnerOf is the loop of the Source that an object belongs to, or nil.
func (e *Engine) runnerOf(obj client.Object) *runner {
	name := obj.GetLabels()[v1alpha1.LabelSource]
	if name == "" {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.runners[name]
}

// progress is how far the workloads of a Source have come.
type progress struct {
	health health.Health
	object string
	// others counts the objects that are as bad.
	others    int
	scheduled bool
	started   bool
}

// look assesses what was applied and writes what changed.
func (r *runner) look(ctx context.Context, src *v1alpha1.Source) {
	r.readOver(ctx)
	if r.status.Applied != nil {
		p := r.engine.assess(r.name, r.expected, r.over.jobs, all)
		now := r.engine.Clock.Now()
		if r.watching && r.current() {
			r.noteStages(p, now)
		}
		if r.watching && p.health.State == health.Healthy {
			p = r.after(ctx, src, p)
		}
		if r.watching && p.health.State == health.Healthy {
			r.watching = false
			r.status.Healthy = r.status.Applied.DeepCopy()
			r.outcome("", now)
		}
		r.report(src, p, now)
		r.overdue(src, p, now)
	}
	r.sayWave(src)
	r.sayHook(src)
	r.conclude(src)
	r.write(ctx, src)
	r.tidy(ctx)
}

// after runs the post hooks of a commit whose objects are healthy. While they
// run it is not, and when one fails it has failed.
func (r *runner) after(ctx context.Context, src *v1alpha1.Source, p progress) progress {
	commit := r.status.Applied.ID
	if len(r.post) == 0 {
		return p
	}
	// Those of a newer commit run: they would be stopped.
	if len(r.running) > 0 {
		p.health, p.object = health.Health{State: health.Progressing, Reason: "its post hooks wait for those of a newer commit"}, "commit "+short(commit)
		return p
	}
	defer func() { r.running = nil }()
	state, err := r.runHooks(ctx, commit, v1alpha1.HookPost, r.post, nil)
	switch {
	case err != nil:
		state.waits = "the post hooks cannot be run: " + err.Error() + "; trying again"
	case state.failed != "":
		r.failed(commit, state.failed)
		if r.current() {
			r.rollBack(src, commit, state.failed)
		}
		p.health, p.object = health.Health{State: health.Degraded, Reason: state.failed}, "commit "+short(commit)
		return p
	}
	if state.waits != "" {
		p.health, p.object = health.Health{State: health.Progressing, Reason: state.waits}, "commit "+short(commit)
	}
	return p
}

// current: the timeline is that of the applied commit.
func (r *runner) current() bool {
	return r.status.Observed != nil && r.status.Observed.ID == r.status.Applied.ID
}

func (r *runner) noteStages(p progress, now time.Time) {
	healthy := p.health.State == health.Healthy
	if p.scheduled || healthy {
		r.stage(v1alpha1.StageScheduled, now, "")
	}
	if (p.scheduled && p.started) || healthy {
		r.stage(v1alpha1.StageStarted, now, "")
	}
	if healthy {
		r.stage(v1alpha1.StageReady, now, r.took(now))
	}
}

// took is the time from the push, or the fetch, until now.
func (r *runner) took(now time.Time) string {
	if len(r.status.Timeline) == 0 {
		return ""
	}
	first := r.status.Timeline[0]
	return fmt.Sprintf("%s after it was %s", now.Sub(first.Time.Time).Round(time.Millisecond), first.Name)
}

func (r *runner) report(src *v1alpha1.Source, p progress, now time.Time) {
	reason, message := v1alpha1.ReasonSucceeded, ""
	status := metav1.ConditionTrue
	switch p.health.State {
	case health.Progressing:
		status, reason = metav1.ConditionFalse, v1alpha1.ReasonProgressing
		if timeout := src.Spec.HealthTimeout.Duration; r.watching && now.Sub(r.appliedAt) > timeout {
			reason = v1alpha1.ReasonTimeout
		}
	case health.Degraded:
		status, reason = metav1.ConditionFalse, v1alpha1.ReasonDegraded
	}
	if p.health.State != health.Healthy {
		message = p.object + ": " + p.health.Reason
		if p.others > 0 {
			message += fmt.Sprintf(" (%d more %s)", p.others, p.health.State)
		}
	}
	r.condition(src, v1alpha1.ConditionHealthy, status, reason, message)
}

// conclude makes Ready out of the other conditions, in one place, so that what
// is said of it does not depend on which of them was looked at last: the first
// that is not as it should be is the reason.
func (r *runner) conclude(src *v1alpha1.Source) {
	if src.Suspended() {
		r.condition(src, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonSuspended, suspended(src))
		return
	}
	for _, kind := range []string{v1alpha1.ConditionFetched, v1alpha1.ConditionVerified, v1alpha1.ConditionCompiled, v1alpha1.ConditionApplied, v1alpha1.ConditionHealthy} {
		c := meta.FindStatusCondition(r.status.Conditions, kind)
		if c == nil || c.Status == metav1.ConditionTrue || kind == v1alpha1.ConditionHealthy && r.status.RolledBack != nil {
			continue // without a condition no pass has come that far
		}
		message := c.Message
		if kind == v1alpha1.ConditionCompiled {
			message = r.refusal() + message
		}
		if b := r.status.RolledBack; b != nil && r.status.Applied != nil && r.status.Applied.ID == b.To {
			message = rolledBack(b) + "; and " + message
		}
		r.condition(src, v1alpha1.ConditionReady, c.Status, c.Reason, message)
		return
	}
	if b := r.status.RolledBack; b != nil && (r.status.Applied == nil || r.status.Applied.ID != b.To) {
		r.condition(src, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing,
			fmt.Sprintf("goes back from commit %s to %s, %s", short(b.From), short(b.To), b.Reason))
		return
	}
	if r.status.RolledBack != nil {
		r.condition(src, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonRolledBack, rolledBack(r.status.RolledBack))
		return
	}
	if r.status.Applied != nil {
		r.condition(src, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded, "")
	}
}

// refusal begins what is said of a commit with errors, which may be applied: what
// it needs from others can go, and its limits can become narrower.
func (r *runner) refusal() string {
	if r.status.Applied != nil && r.current() {
		return "the newest commit was applied, and has errors by now: "
	}
	return "the newest commit has errors and was not applied: "
}

// suspended says by whom and why, if that is known, and how to go on.
func suspended(src *v1alpha1.Source) string {
	message := "suspended"
	if why := src.Annotations[v1alpha1.AnnotationSuspended]; why != "" {
		message += " " + why
	}
	return message + "; to go on: berth resume " + src.Name
}

// all is for assess: every object.
func all(client.Object) bool { return true }

// assess looks at those workloads of a Source that only lets through. expected
// are the versions that were written: an older object says nothing yet. over are
// Jobs that had failed when their time was over.
func (e *Engine) assess(source string, expected map[plan.Key]int64, over []*batchv1.Job, only func(client.Object) bool) progress {
	out := progress{scheduled: true, started: true}
	note := func(h health.Health, object string) {
		switch {
		case h.Worse(out.health):
			out.health, out.object, out.others = h, object, 0
		case h.State == out.health.State && h.State != health.Healthy:
			out.others++
		}
	}
	for _, d := range ofSource(e.Live.Deployments.All(), source, only) {
		key := plan.KeyOf(appsv1.SchemeGroupVersion.WithKind("Deployment"), d)
		if behind(d, expected[key]) || d.Status.ObservedGeneration < d.Generation {
			note(health.Health{State: health.Progressing, Reason: "waits for its controller"}, key.String())
			out.scheduled, out.started = false, false
			continue
		}
		pods := e.currentPods(d)
		note(health.Deployment(d, pods), key.String())
		out.count(pods, int(*d.Spec.Replicas))
	}
	for _, rs := range ofSource(e.Live.ReplicaSets.All(), source, only) {
		key := plan.KeyOf(appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), rs)
		pods := e.Live.Pods.OwnedBy(rs.UID)
		note(health.ReplicaSet(rs, pods), key.String())
		out.count(pods, int(*rs.Spec.Replicas))
	}
	for _, rc := range ofSource(e.Live.Controllers.All(), source, only) {
		key := plan.KeyOf(corev1.SchemeGroupVersion.WithKind("ReplicationController"), rc)
		pods := e.Live.Pods.OwnedBy(rc.UID)
		note(health.ReplicaSet(strategy.AsReplicaSet(rc), pods), key.String())
		out.count(pods, int(*rc.Spec.Replicas))
	}
	for _, s := range ofSource(e.Live.StatefulSets.All(), source, only) {
		key := plan.KeyOf(appsv1.SchemeGroupVersion.WithKind("StatefulSet"), s)
		if behind(s, expected[key]) || s.Status.ObservedGeneration < s.Generation {
			note(health.Health{State: health.Progressing, Reason: "waits for its controller"}, key.String())
			out.scheduled, out.started = false, false
			continue
		}
		pods := e.Live.Pods.OwnedBy(s.UID)
		note(health.StatefulSet(s, pods), key.String())
		out.count(pods, int(*s.Spec.Replicas))
	}
	for _, d := range ofSource(e.Live.DaemonSets.All(), source, only) {
		key := plan.KeyOf(appsv1.SchemeGroupVersion.WithKind("DaemonSet"), d)
		if behind(d, expected[key]) || d.Status.ObservedGeneration < d.Generation {
			note(health.Health{State: health.Progressing, Reason: "waits for its controller"}, key.String())
			out.scheduled, out.started = false, false
			continue
		}
		pods := e.Live.Pods.OwnedBy(d.UID)
		note(health.DaemonSet(d, pods), key.String())
		out.count(pods, int(d.Status.DesiredNumberScheduled))
	}
	for _, c := range ofSource(e.Live.Claims.All(), source, only) {
		class, ok := e.Live.Classes.Get(types.NamespacedName{Name: storage.ClassOf(c)})
		note(health.Claim(c, ok && storage.WaitsForPod(class)), plan.KeyOf(corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"), c).String())
	}
	for _, a := range ofSource(e.Live.Autoscalers.All(), source, only) {
		key := plan.KeyOf(autoscalerKind(), a)
		if behind(a, expected[key]) {
			note(health.Health{State: health.Progressing, Reason: "waits for its controller"}, key.String())
			continue
		}
		note(health.Autoscaler(a), key.String())
	}
	for _, j := range ofSource(e.Live.Jobs.All(), source, func(o client.Object) bool { return hookOf(o) == "" && only(o) }) {
		key := plan.KeyOf(batchv1.SchemeGroupVersion.WithKind("Job"), j)
		if behind(j, expected[key]) {
			note(health.Health{State: health.Progressing, Reason: "waits for its controller"}, key.String())
			out.scheduled, out.started = false, false
			continue
		}
		pods := e.Live.Pods.OwnedBy(j.UID)
		note(health.Job(j, pods), key.String())
		out.count(pods, int(j.Status.Active))
		ran := j.Status.StartTime != nil || j.Spec.Suspend != nil && *j.Spec.Suspend
		out.scheduled, out.started = out.scheduled && ran, out.started && ran
	}
	for _, j := range over {
		if _, again := e.Live.Jobs.Get(client.Key(j)); !again && only(j) {
			note(failedBefore(j), plan.KeyOf(batchv1.SchemeGroupVersion.WithKind("Job"), j).String())
		}
	}
	for _, p := range ofSource(e.Live.Pods.All(), source, only) {
		key := plan.KeyOf(corev1.SchemeGroupVersion.WithKind("Pod"), p)
		if behind(p, expected[key]) {
			note(health.Health{State: health.Progressing, Reason: "waits for the node"}, key.String())
			out.scheduled, out.started = false, false
			continue
		}
		note(health.Pod(p), key.String())
		out.count([]*corev1.Pod{p}, 1)
	}
	if missing := e.missing(expected); missing != "" {
		note(health.Health{State: health.Progressing, Reason: "is being created"}, missing)
		out.scheduled, out.started = false, false
	}
	return out
}

// missing finds a workload that was written but is not in the views yet.
func (e *Engine) missing(expected map[plan.Key]int64) string {
	for key, version := range expected {
		name := client.Key(&metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name})
		found := true
		switch key.Kind {
		case "Deployment":
			_, found = e.Live.Deployments.Get(name)
		case "ReplicaSet":
			_, found = e.Live.ReplicaSets.Get(name)
		case "ReplicationController":
			_, found = e.Live.Controllers.Get(name)
		case "StatefulSet":
			_, found = e.Live.StatefulSets.Get(name)
		case "DaemonSet":
			_, found = e.Live.DaemonSets.Get(name)
		case "Job": // one that is not there any more has ended, and its time is over
			_, found = e.Live.Jobs.Get(name)
			found = found || e.Live.Jobs.Version() >= version
		case "HorizontalPodAutoscaler":
			_, found = e.Live.Autoscalers.Get(name)
		case "Pod":
			_, found = e.Live.Pods.Get(name)
		}
		if !found {
			return key.String()
		}
	}
	return ""
}

func behind(obj client.Object, version int64) bool {
	return live.Version(obj) < version
}

func ofSource[T client.Object](all []T, source string, only func(client.Object) bool) []T {
	out := slices.DeleteFunc(all, func(o T) bool { return o.GetLabels()[v1alpha1.LabelSource] != source || !only(o) })
	slices.SortFunc(out, func(a, b T) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return out
}

// currentPods are those of the Deployment's newest ReplicaSet.
func (e *Engine) currentPods(d *appsv1.Deployment) []*corev1.Pod {
	const revision = "deployment.kubernetes.io/revision"
	for _, rs := range e.Live.ReplicaSets.OwnedBy(d.UID) {
		if rs.Annotations[revision] == d.Annotations[revision] {
			return e.Live.Pods.OwnedBy(rs.UID)
		}
	}
	return nil
}

// count looks whether all of the Pods that are wanted have a node and run.
func (p *progress) count(pods []*corev1.Pod, want int) {
	scheduled, started := 0, 0
	for _, pod := range pods {
		if pod.DeletionTimestamp != nil {
			continue
		}
		if pod.Spec.NodeName != "" {
			scheduled++
		}
		if running(pod) {
			started++
		}
	}
	p.scheduled = p.scheduled && scheduled >= want
	p.started = p.started && started >= want
}

func running(p *corev1.Pod) bool {
	if p.Status.Phase == corev1.PodSucceeded {
		return true
	}
	for _, s := range p.Status.ContainerStatuses {
		if s.State.Running == nil {
			return false
		}
	}
	return len(p.Status.ContainerStatuses) == len(p.Spec.Containers)
}
