package main

import (
	"context"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
)

// forgetStopped takes back what the store says of containers that berth down
// has ended: nothing counts as ready until the agent has started it again.
func (s *server) forgetStopped(ctx context.Context) error {
	mark := stoppedFile(s.options.dataDir)
	if _, err := os.Stat(mark); err != nil {
		return nil
	}
	// Where others may lead, the leader sees from the Pods how the Sources are.
	if s.etcd == nil {
		if err := s.forgetHealth(ctx); err != nil {
			return err
		}
	}
	if err := s.forgetReadiness(ctx); err != nil {
		return err
	}
	return os.Remove(mark)
}

// forgetHealth is about Sources.
func (s *server) forgetHealth(ctx context.Context) error {
	var sources v1alpha1.SourceList
	if err := s.res.List(ctx, &sources, client.ListOptions{}); err != nil {
		return err
	}
	for i := range sources.Items {
		src := &sources.Items[i]
		for j := range src.Status.Conditions {
			c := &src.Status.Conditions[j]
			if (c.Type == v1alpha1.ConditionHealthy || c.Type == v1alpha1.ConditionReady) && c.Status == metav1.ConditionTrue {
				c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ReasonProgressing, "berth down has ended the containers; they are started again"
				c.LastTransitionTime = metav1.Now()
			}
		}
		if err := s.res.UpdateStatus(ctx, src); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("take back the status of Source %s: %w", src.Name, err)
		}
	}
	return nil
}

// forgetReadiness is about Pods.
func (s *server) forgetReadiness(ctx context.Context) error {
	var pods corev1.PodList
	if err := s.res.List(ctx, &pods, client.ListOptions{}); err != nil {
		return err
	}
	for i := range pods.Items {
		p := &pods.Items[i]
		elsewhere := s.etcd != nil && p.Spec.NodeName != s.options.nodeName
		if elsewhere || p.Spec.NodeName == "" || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		for j := range p.Status.Conditions {
			if c := &p.Status.Conditions[j]; c.Type == corev1.PodReady || c.Type == corev1.ContainersReady {
				c.Status, c.Reason, c.Message = corev1.ConditionFalse, "Stopped", "was ended by berth down"
				c.LastTransitionTime = metav1.Now()
			}
		}
		for j := range p.Status.ContainerStatuses {
			p.Status.ContainerStatuses[j].Ready = false
		}
		if err := s.res.UpdateStatus(ctx, p); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("take back the status of pod %s/%s: %w", p.Namespace, p.Name, err)
		}
	}
	return nil
}
