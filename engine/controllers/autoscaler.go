package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/resources"
)

// autoscaleEvery is how often usage is looked at
// (--horizontal-pod-autoscaler-sync-period).
const autoscaleEvery = 15 * time.Second

// Usage tells what nodes and the Pods on them use now. What has not been
// measured yet is left out.
type Usage interface {
	Usage() ([]metricsv1beta1.NodeMetrics, []metricsv1beta1.PodMetrics)
}

// autoscalers fit the replicas of workloads to what their Pods use. The target
// and the status are written in one transaction, and only if the target is still
// the one that was looked at.
type autoscalers struct {
	*cluster
	loop  *loop
	usage Usage

	mu        sync.Mutex
	histories map[types.UID]scaleHistory
}

func newAutoscalers(c *cluster, usage Usage) *autoscalers {
	r := &autoscalers{cluster: c, usage: usage, histories: map[types.UID]scaleHistory{}}
	r.loop = newLoop(c, "horizontalpodautoscaler", r.reconcile)
	c.Autoscalers.OnChange(func(old, now *autoscalingv2.HorizontalPodAutoscaler) {
		switch {
		case now == nil:
			r.mu.Lock()
			delete(r.histories, old.UID)
			r.mu.Unlock()
		case old == nil || old.UID != now.UID || old.Generation != now.Generation:
			r.loop.add(now) // its status is written by this loop
		}
	})
	c.Deployments.OnChange(func(old, now *appsv1.Deployment) { r.targetChanged("Deployment", asObject(old), asObject(now)) })
	c.StatefulSets.OnChange(func(old, now *appsv1.StatefulSet) { r.targetChanged("StatefulSet", asObject(old), asObject(now)) })
	c.ReplicaSets.OnChange(func(old, now *appsv1.ReplicaSet) { r.targetChanged("ReplicaSet", asObject(old), asObject(now)) })
	c.Controllers.OnChange(func(old, now *corev1.ReplicationController) {
		r.targetChanged("ReplicationController", asObject(old), asObject(now))
	})
	return r
}

// asObject keeps a nil pointer from becoming an object that is not nil.
func asObject[T any, P interface {
	*T
	client.Object
}](o P) client.Object {
	if o == nil {
		return nil
	}
	return o
}

// targetChanged looks at once at a target that is new, or was switched on or
// off by its replicas: nobody waits for the next round.
func (r *autoscalers) targetChanged(kind string, old, now client.Object) {
	if now == nil || old != nil && off(old) == off(now) {
		return
	}
	for _, a := range r.Autoscalers.InNamespace(now.GetNamespace()) {
		if ref := a.Spec.ScaleTargetRef; ref.Kind == kind && ref.Name == now.GetName() {
			r.loop.add(a)
		}
	}
}

func off(target client.Object) bool {
	s, ok := resources.ScaleOf(target)
	return ok && s.Replicas() == 0
}

// Run works until the context ends.
func (r *autoscalers) Run(ctx context.Context) error {
	return r.loop.run(ctx, r.Autoscalers, r.ReplicaSets, r.Pods)
}

func autoscalerKind() schema.GroupVersionKind {
	return autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler")
}

func (r *autoscalers) reconcile(ctx context.Context, key types.NamespacedName) error {
	a, ok := r.Autoscalers.Get(key)
	if !ok {
		return nil
	}
	r.loop.queue.AddAfter(key, autoscaleEvery)
	if a.DeletionTimestamp != nil || r.going(a.Namespace) {
		return nil
	}
	target, err := r.target(ctx, a)
	if err != nil {
		return r.lacks(ctx, a, err)
	}
	scale, _ := resources.ScaleOf(target)
	step := decideScaling(scaling{
		autoscaler: a, target: scale, pods: r.podsOf(target), usage: r.measured(), rivals: r.rivals(a),
		history: r.history(a.UID), now: r.clock.Now(),
	})
	return r.carryOut(ctx, a, target, step)
}

// target reads the object that an autoscaler scales from the store: what is
// decided holds for it alone.
func (r *autoscalers) target(ctx context.Context, a *autoscalingv2.HorizontalPodAutoscaler) (client.Object, error) {
	ref := a.Spec.ScaleTargetRef
	row, ok := r.resources.ByKind(schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind))
	if !ok || !row.Scale {
		return nil, fmt.Errorf("%s (%s) has no replicas that can be set; name a Deployment, StatefulSet, ReplicaSet or ReplicationController", ref.Kind, ref.APIVersion)
	}
	obj := row.New()
	err := r.resources.Get(ctx, types.NamespacedName{Namespace: a.Namespace, Name: ref.Name}, obj)
	return obj, err
}

// podsOf are the Pods that follow from a target, and not those of another owner
// that have the same labels.
func (r *autoscalers) podsOf(target client.Object) []*corev1.Pod {
	owners := []metav1.Object{target}
	if _, ok := target.(*appsv1.Deployment); ok {
		owners = nil
		for _, rs := range r.ReplicaSets.OwnedBy(target.GetUID()) {
			if controls(target, rs) {
				owners = append(owners, rs)
			}
		}
	}
	var out []*corev1.Pod
	for _, o := range owners {
		for _, p := range r.Pods.OwnedBy(o.GetUID()) {
			if controls(o, p) {
				out = append(out, p)
			}
		}
	}
	return out
}

// rivals are the names of all autoscalers of one target, if there are several.
func (r *autoscalers) rivals(a *autoscalingv2.HorizontalPodAutoscaler) []string {
	var out []string
	for _, b := range r.Autoscalers.InNamespace(a.Namespace) {
		if b.DeletionTimestamp == nil && b.Spec.ScaleTargetRef == a.Spec.ScaleTargetRef {
			out = append(out, b.Name)
		}
	}
	if len(out) < 2 {
		return nil
	}
	slices.Sort(out)
	return out
}

func (r *autoscalers) measured() podUsage {
	if r.usage == nil {
		return nil
	}
	_, pods := r.usage.Usage()
	out := podUsage{}
	for i := range pods {
		out[pods[i].UID] = &pods[i]
	}
	return out
}

func (r *autoscalers) history(uid types.UID) scaleHistory {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.histories[uid]
}

func (r *autoscalers) remember(uid types.UID, h scaleHistory) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.histories[uid] = h
}

// lacks says that the target cannot be read.
func (r *autoscalers) lacks(ctx context.Context, a *autoscalingv2.HorizontalPodAutoscaler, why error) error {
	var status apierrors.APIStatus
	if errors.As(why, &status) && !apierrors.IsNotFound(why) {
		return fmt.Errorf("read the target: %w", why)
	}
	step := scaleStep{status: *a.Status.DeepCopy()}
	step.status.ObservedGeneration = &a.Generation
	setScaleCondition(&step.status, autoscalingv2.AbleToScale, false, "FailedGetScale",
		"the HPA controller was unable to get the target's current scale: "+why.Error(), r.clock.Now())
	step.events = []jobEvent{{corev1.EventTypeWarning, "FailedGetScale", why.Error()}}
	return r.write(ctx, a, nil, step)
}

// carryOut writes a step. When the target refuses its new size, only the status
// is written, and it says why.
func (r *autoscalers) carryOut(ctx context.Context, a *autoscalingv2.HorizontalPodAutoscaler, target client.Object, step scaleStep) error {
	err := r.write(ctx, a, target, step)
	if err == nil {
		r.remember(a.UID, step.history)
		return nil
	}
	if step.replicas == nil || !isRefusal(err) {
		return err
	}
	last := step.events[len(step.events)-1] // which says the new size
	failed := scaleStep{status: step.status, events: []jobEvent{{corev1.EventTypeWarning, "FailedRescale", last.message + "; error: " + err.Error()}}}
	failed.status.DesiredReplicas, failed.status.LastScaleTime = failed.status.CurrentReplicas, a.Status.LastScaleTime
	setScaleCondition(&failed.status, autoscalingv2.AbleToScale, false, "FailedUpdateScale",
		"the HPA controller was unable to update the target scale: "+err.Error(), r.clock.Now())
	return r.write(ctx, a, nil, failed)
}

func (r *autoscalers) write(ctx context.Context, a *autoscalingv2.HorizontalPodAutoscaler, target client.Object, step scaleStep) error {
	tx := r.resources.Begin()
	if step.replicas != nil {
		scale, _ := resources.ScaleOf(target)
		*scale.Want = step.replicas
		if err := tx.Update(ctx, target); err != nil {
			return fmt.Errorf("scale %s: %w", target.GetName(), err)
		}
	}
	if !equality.Semantic.DeepEqual(step.status, a.Status) {
		next := a.DeepCopy()
		next.Status = step.status
		if err := tx.UpdateStatus(ctx, next); err != nil {
			return fmt.Errorf("write the status: %w", err)
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	for _, e := range step.events {
		if e.kind == corev1.EventTypeWarning {
			r.events.Warning(ctx, autoscalerKind(), a, e.reason, "%s", e.message)
		} else {
			r.events.Normal(ctx, autoscalerKind(), a, e.reason, "%s", e.message)
		}
	}
	return nil
}
