package config

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/nodeagent/pods"
)

// Volume implements pods.Config: the volume that a claim is bound to. Where its
// data is never changes, so the copy on disk is as good as an answer.
func (s *Store) Volume(ctx context.Context, namespace, claim string) (*corev1.PersistentVolume, error) {
	obj, err := s.get(ctx, Ref{Kind: Claim, Namespace: namespace, Name: claim}, &corev1.PersistentVolumeClaim{})
	if err != nil {
		return nil, err
	}
	c := obj.(*corev1.PersistentVolumeClaim)
	if c.Spec.VolumeName == "" {
		return nil, &pods.WaitError{Reason: "FailedMount", Message: fmt.Sprintf("claim %q is not bound to a volume yet", claim)}
	}
	pv := &corev1.PersistentVolume{}
	file := s.file(Ref{Kind: volume, Name: c.Spec.VolumeName})
	if data, err := os.ReadFile(file); err == nil && json.Unmarshal(data, pv) == nil && claimedBy(pv, c) {
		return pv, nil
	}
	if err := s.client.Get(ctx, types.NamespacedName{Name: c.Spec.VolumeName}, pv); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, &pods.WaitError{Reason: "FailedMount", Message: fmt.Sprintf("volume %q of claim %q is not there any more", c.Spec.VolumeName, claim)}
		}
		return nil, fmt.Errorf("read volume %s: %w", c.Spec.VolumeName, err)
	}
	if !claimedBy(pv, c) {
		return nil, &pods.WaitError{Reason: "FailedMount", Message: fmt.Sprintf("volume %q belongs to another claim than %q", pv.Name, claim)}
	}
	return pv, s.save(Ref{Kind: volume, Name: pv.Name}, pv)
}

func claimedBy(pv *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) bool {
	ref := pv.Spec.ClaimRef
	return ref != nil && ref.Namespace == c.Namespace && ref.Name == c.Name && ref.UID == c.UID
}
