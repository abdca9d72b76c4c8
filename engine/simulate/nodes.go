package simulate

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/resources"
)

// beat is how often a node says that it is there, and lasts how long that holds.
const (
	beat  = 10 * time.Second
	lasts = int32(40)
)

func serviceRange() netip.Prefix { return netip.MustParsePrefix("10.43.0.0/16") }

func (s *simulation) nodeName(i int) string {
	return fmt.Sprintf("node-%0*d", len(fmt.Sprint(s.Nodes)), i+1)
}

// together is how many nodes are written at a time.
const together = 500

// write adds something of each node to transactions, and commits them.
func (s *simulation) write(ctx context.Context, add func(tx *resources.Tx, node string, i int) error) error {
	for from := 0; from < s.Nodes; from += together {
		tx := s.resources.Begin()
		for i := from; i < min(from+together, s.Nodes); i++ {
			if err := add(tx, s.nodeName(i), i); err != nil {
				return fmt.Errorf("write node %s: %w", s.nodeName(i), err)
			}
		}
		if err := tx.Commit(ctx); err != nil {
			return fmt.Errorf("write nodes: %w", err)
		}
	}
	return nil
}

func (s *simulation) createNodes(ctx context.Context) error {
	capacity := corev1.ResourceList{
		corev1.ResourceCPU: s.CPU, corev1.ResourceMemory: s.Memory, corev1.ResourcePods: *resource.NewQuantity(s.Pods, resource.DecimalSI),
	}
	return s.write(ctx, func(tx *resources.Tx, name string, i int) error {
		n := &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
				corev1.LabelHostname: name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64",
				corev1.LabelTopologyZone: fmt.Sprintf("zone-%d", i%s.Zones+1),
			}, Annotations: map[string]string{v1alpha1.AnnotationClaims: "/simulated"}},
			Status: corev1.NodeStatus{
				Capacity: capacity, Allocatable: capacity,
				Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Simulated", LastHeartbeatTime: metav1.NewTime(s.Clock.Now())}},
			},
		}
		if err := tx.Create(ctx, n); err != nil {
			return err
		}
		return tx.Create(ctx, s.lease(name))
	})
}

func (s *simulation) lease(node string) *coordinationv1.Lease {
	now, seconds := metav1.NewMicroTime(s.Clock.Now()), lasts
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: node},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &node, RenewTime: &now, LeaseDurationSeconds: &seconds},
	}
}

// heartbeats keep the nodes alive until the context ends.
func (s *simulation) heartbeats(ctx context.Context) error {
	tick := s.Clock.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C():
		}
		err := s.write(ctx, func(tx *resources.Tx, name string, _ int) error { return tx.Update(ctx, s.lease(name)) })
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
}
