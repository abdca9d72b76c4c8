package controllers

import (
	"cmp"
	"context"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"

	"berth.dev/berth/engine/strategy"
)

// Annotations of a ReplicaSet that tell for which size of its Deployment it was
// sized, as Kubernetes writes them.
const (
	annotationDesired = "deployment.kubernetes.io/desired-replicas"
	annotationMax     = "deployment.kubernetes.io/max-replicas"
)

// scaleInMid follows a change of replicas in the middle of a rollout: every
// ReplicaSet grows or shrinks by its share, so that a rollout that is stuck or
// paused takes no more of the new size than it had of the old one. It reports
// whether there was such a change.
func (d *deployments) scaleInMid(ctx context.Context, r *rollout) (bool, error) {
	var active []*appsv1.ReplicaSet
	resized := false
	want := strconv.Itoa(int(*r.deployment.Spec.Replicas))
	for _, rs := range r.all() {
		if *rs.Spec.Replicas == 0 {
			continue
		}
		active = append(active, rs)
		was := rs.Annotations[annotationDesired]
		resized = resized || was != "" && was != want
	}
	if !resized || len(active) < 2 {
		return false, nil
	}
	surge, _ := strategy.Limits(r.deployment)
	sizes := shares(active, *r.deployment.Spec.Replicas, surge)
	for i, rs := range active {
		if err := d.resize(ctx, r, rs, sizes[i], surge); err != nil {
			return true, err
		}
	}
	return true, nil
}

// shares divides the size of a Deployment among ReplicaSets, as each has been
// sized for an earlier one.
func shares(sets []*appsv1.ReplicaSet, want, surge int32) []int32 {
	allowed := want
	if want > 0 {
		allowed += surge
	}
	out := make([]int32, len(sets))
	total := int32(0)
	for i, rs := range sets {
		size := *rs.Spec.Replicas
		most, err := strconv.ParseInt(rs.Annotations[annotationMax], 10, 32)
		if err != nil || most <= 0 {
			most = int64(size)
		}
		out[i] = int32((int64(size)*int64(allowed) + most/2) / most)
		total += out[i]
	}
	// What rounding leaves over goes to the largest, and is taken from it; of
	// equals to the newest.
	order := make([]int, len(sets))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(out[b], out[a]), sets[b].CreationTimestamp.Compare(sets[a].CreationTimestamp.Time), cmp.Compare(sets[a].Name, sets[b].Name))
	})
	sum := int32(0)
	for _, rs := range sets {
		sum += *rs.Spec.Replicas
	}
	for _, i := range order {
		left := allowed - total
		if left > 0 && sum < allowed || left < 0 { // a rollout may be below its most
			moved := max(left, -out[i])
			out[i], total = out[i]+moved, total+moved
		}
	}
	return out
}

func (d *deployments) resize(ctx context.Context, r *rollout, rs *appsv1.ReplicaSet, n, surge int32) error {
	next := rs.DeepCopy()
	next.Annotations = with(with(next.Annotations, annotationDesired, strconv.Itoa(int(*r.deployment.Spec.Replicas))),
		annotationMax, strconv.Itoa(int(*r.deployment.Spec.Replicas+surge)))
	was := *rs.Spec.Replicas
	next.Spec.Replicas = &n
	if err := d.resources.Update(ctx, next); err != nil {
		return err
	}
	d.reach(r.deployment.UID, newest(next))
	*rs = *next
	if was != n {
		verb := "up"
		if n < was {
			verb = "down"
		}
		d.events.Normal(ctx, deploymentKind(), r.deployment, "ScalingReplicaSet", "Scaled %s replica set %s from %d to %d", verb, rs.Name, was, n)
	}
	return nil
}
