package sync

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/plan"
	"berth.dev/berth/engine/scheduler"
	"berth.dev/berth/engine/storage"
)

// maxLooks bounds how often a node is looked at for one plan.
const maxLooks = 1_000_000

// room asks the scheduler where the Pods of a plan would go, over the nodes and
// Pods as they are now. It is filled with the first question.
type room struct {
	engine  *Engine
	cluster *scheduler.Cluster
	filled  bool
	looks   int
	// planned counts the Pods that were placed.
	planned int
	// gone are Pods that were taken off.
	gone map[types.UID]bool
	// last is the Pod that was asked about, and what it is with its defaults.
	last, complete *corev1.Pod
}

var _ plan.Room = (*room)(nil)

// room is nil until it is known what there is.
func (e *Engine) room() plan.Room {
	for _, v := range []interface{ Ready() <-chan struct{} }{e.Live.Nodes, e.Live.Namespaces, e.Live.Pods, e.Live.ReplicaSets, e.Live.Claims, e.Live.Volumes, e.Live.Classes} {
		select {
		case <-v.Ready():
		default:
			return nil
		}
	}
	return &room{engine: e, cluster: scheduler.New(), gone: map[types.UID]bool{}}
}

// takesRoom: the Pod is on a node and has not ended, as the scheduler counts it.
func takesRoom(p *corev1.Pod) bool {
	return p.Spec.NodeName != "" && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
}

func (r *room) fill() {
	if r.filled {
		return
	}
	r.filled = true
	views := r.engine.Live
	for _, ns := range views.Namespaces.All() {
		r.cluster.SetNamespace(ns.Name, ns.Labels)
	}
	for _, n := range views.Nodes.All() {
		r.cluster.SetNode(n)
	}
	for _, p := range views.Pods.All() {
		if takesRoom(p) {
			r.cluster.Add(scheduler.Pod{Pod: p}, p.Spec.NodeName)
		}
	}
}

// put counts one more of a Pod that does not exist yet on a node.
func (r *room) put(p *corev1.Pod, node string) {
	r.planned++
	one := *p
	one.UID = types.UID(fmt.Sprintf("planned-%d", r.planned))
	r.cluster.Add(scheduler.Pod{Pod: &one}, node)
}

// PodsOf implements plan.Room.
func (r *room) PodsOf(live client.Object) []*corev1.Pod {
	views := r.engine.Live
	var out []*corev1.Pod
	switch obj := live.(type) {
	case *appsv1.Deployment:
		for _, rs := range views.ReplicaSets.OwnedBy(obj.UID) {
			out = append(out, views.Pods.OwnedBy(rs.UID)...)
		}
	case *appsv1.ReplicaSet:
		out = views.Pods.OwnedBy(obj.UID)
	case *batchv1.Job, *appsv1.StatefulSet, *appsv1.DaemonSet, *corev1.ReplicationController:
		out = views.Pods.OwnedBy(live.GetUID())
	case *corev1.Pod:
		if p, ok := views.Pods.Get(client.Key(obj)); ok {
			out = []*corev1.Pod{p}
		}
	}
	out = slices.DeleteFunc(slices.Clone(out), func(p *corev1.Pod) bool { return !takesRoom(p) || r.gone[p.UID] })
	slices.SortFunc(out, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Remove implements plan.Room.
func (r *room) Remove(p *corev1.Pod) {
	r.fill()
	if !r.gone[p.UID] {
		r.gone[p.UID] = true
		r.cluster.Remove(p.UID)
	}
}

// nobody has a claim.
func nobody(types.NamespacedName, types.UID) string { return "" }

// Place implements plan.Room.
func (r *room) Place(p *corev1.Pod) (why string, ended []string, known bool) {
	r.fill()
	if r.looks += r.cluster.Nodes(); r.looks > maxLooks {
		return "", nil, false
	}
	if r.last != p {
		r.last, r.complete = p, p.DeepCopy()
		r.engine.Resources.ValidateCreate(r.complete)                       // for the defaults: a mistake was found before
		_ = r.engine.Resources.Prioritize(context.Background(), r.complete) // a class that the plan makes first is not known yet
	}
	if p.Spec.NodeName != "" { // it is bound by hand, and nobody asks whether it fits
		r.put(r.complete, p.Spec.NodeName)
		return "", nil, true
	}
	// A claim that the plan makes first is no bar, nor is one that another Pod has for now.
	pod := scheduler.Pod{Pod: r.complete, Volumes: storage.NewOffers(r.engine.Live).Of(r.complete, nobody).Reaches}
	d := r.cluster.Decide(pod)
	if d.Node == "" {
		made := r.cluster.Preempt(pod, scheduler.Budgets(r.engine.Live.Budgets.All()))
		if made.Node == "" {
			return d.Message, nil, true
		}
		for _, victim := range made.Victims {
			r.Remove(victim)
			ended = append(ended, victim.Namespace+"/"+victim.Name)
		}
		d.Node = made.Node
	}
	r.put(r.complete, d.Node)
	return "", ended, true
}
