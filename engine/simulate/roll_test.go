package simulate

import (
	"context"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/manifest"
	"berth.dev/berth/engine/enginetest"
)

// BenchmarkRoll rolls one Deployment of 1,000 replicas while 29 others of the
// same size stand beside it, on 1,000 nodes that make Pods ready at once: what
// is measured is the engine alone.
func BenchmarkRoll(b *testing.B) {
	const deployments, replicas = 30, 1000
	o := Options{
		TargetNamespace: "default", Nodes: deployments * replicas / 30, Zones: 3,
		CPU: resource.MustParse("64"), Memory: resource.MustParse("256Gi"), Pods: 110,
		Quiet: 2 * time.Second, Timeout: 15 * time.Minute, Clock: clock.RealClock{}, Log: enginetest.Log(b),
	}
	for i := range deployments - 1 {
		o.Set.Manifests = append(o.Set.Manifests, manifest.Manifest{Object: deploymentOf(fmt.Sprintf("app-%d", i), replicas)})
	}
	err := during(b.Context(), o, func(ctx context.Context, s *simulation) error {
		result, err := s.await(ctx)
		if err != nil {
			return err
		}
		if result.Late {
			return fmt.Errorf("the Pods were not all ready after %s", o.Timeout)
		}
		// It is of no Source, which would undo the change.
		d := &appsv1.Deployment{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(deploymentOf("rolled", replicas).Object, d); err != nil {
			return err
		}
		d.Namespace = o.TargetNamespace
		if err := s.resources.Create(ctx, d); err != nil {
			return err
		}
		if err := rolled(ctx, s, d); err != nil {
			return err
		}
		b.ResetTimer()
		for i := range b.N {
			d.Spec.Template.Spec.Containers[0].Image = fmt.Sprintf("image:%d", i+2)
			if err := s.resources.Update(ctx, d); err != nil {
				return err
			}
			if err := rolled(ctx, s, d); err != nil {
				return err
			}
		}
		b.StopTimer()
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

// rolled waits until all Pods of a Deployment are those of its template, and
// available. d is then as it is stored.
func rolled(ctx context.Context, s *simulation, d *appsv1.Deployment) error {
	tick := s.Clock.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C():
		}
		// A fresh one: what is read into keeps what the stored one leaves out.
		now := &appsv1.Deployment{}
		if err := s.resources.Get(ctx, client.Key(d), now); err != nil {
			return err
		}
		n, at := *now.Spec.Replicas, now.Status
		if at.ObservedGeneration == now.Generation && at.UpdatedReplicas == n && at.Replicas == n && at.AvailableReplicas == n {
			*d = *now
			return nil
		}
	}
}

func deploymentOf(name string, replicas int64) *unstructured.Unstructured {
	labels := map[string]any{"app": name}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": name},
		"spec": map[string]any{
			"replicas": replicas, "selector": map[string]any{"matchLabels": labels},
			"template": map[string]any{
				"metadata": map[string]any{"labels": labels},
				"spec":     map[string]any{"containers": []any{map[string]any{"name": "c", "image": "image:1"}}},
			},
		},
	}}
}
