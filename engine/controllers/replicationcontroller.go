package controllers

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/strategy"
)

// newReplicationControllers keeps as many Pods as a ReplicationController wants.
// It is a ReplicaSet of an older form, so one controller carries out both.
func newReplicationControllers(c *cluster) *replicaSets {
	r := newPodSets(c, "replicationcontroller", setForm{
		kind: corev1.SchemeGroupVersion.WithKind("ReplicationController"), view: controllersAsSets{c.Controllers},
		object: func(rs *appsv1.ReplicaSet) client.Object {
			return &corev1.ReplicationController{ObjectMeta: rs.ObjectMeta}
		},
		put: func(ctx context.Context, rs *appsv1.ReplicaSet) error {
			status := rs.Status.DeepCopy()
			return c.resources.UpdateStatus(ctx, &corev1.ReplicationController{ObjectMeta: rs.ObjectMeta, Status: strategy.ControllerStatus(status)})
		},
	})
	c.Controllers.OnChange(func(old, now *corev1.ReplicationController) { r.changed(asObject(old), asObject(now)) })
	return r
}

// controllersAsSets shows ReplicationControllers as ReplicaSets.
type controllersAsSets struct {
	*live.View[*corev1.ReplicationController]
}

var _ setView = controllersAsSets{}

// Get implements setView.
func (v controllersAsSets) Get(key types.NamespacedName) (*appsv1.ReplicaSet, bool) {
	rc, ok := v.View.Get(key)
	if !ok {
		return nil, false
	}
	return strategy.AsReplicaSet(rc), true
}

// InNamespace implements setView.
func (v controllersAsSets) InNamespace(namespace string) []*appsv1.ReplicaSet {
	var out []*appsv1.ReplicaSet
	for _, rc := range v.View.InNamespace(namespace) {
		out = append(out, strategy.AsReplicaSet(rc))
	}
	return out
}
