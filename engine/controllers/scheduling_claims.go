package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/storage"
)

// noVolumeError: a claim cannot have its volume on a node.
type noVolumeError struct{ why string }

func (e *noVolumeError) Error() string { return e.why }

func noVolume(format string, args ...any) error { return &noVolumeError{fmt.Sprintf(format, args...)} }

func (s *scheduling) volumeChanged(old, now *corev1.PersistentVolume) {
	if old != nil && now != nil && equality.Semantic.DeepEqual(old.Spec, now.Spec) && maps.Equal(old.Labels, now.Labels) &&
		(old.DeletionTimestamp == nil) == (now.DeletionTimestamp == nil) && old.UID == now.UID {
		return // its status is nothing that a Pod waits for
	}
	s.offers.Forget()
	for _, pv := range []*corev1.PersistentVolume{old, now} {
		if pv != nil {
			s.storageChanged(onVolume(pv.Name), onVolumesOf(pv.Spec.StorageClassName))
		}
	}
}

// storageChanged: the Pods that hang on these are looked at anew, and what a node
// could not give before, it may give now.
func (s *scheduling) storageChanged(on ...ground) {
	for _, g := range on {
		s.claimants.changed(g)
	}
	for pod := range s.unbindable {
		s.claimants.again(pod)
	}
	clear(s.unbindable)
}

// handedOn: other Pods may want these claims that are for one Pod at a time, and
// one has got them or let go of them.
func (s *scheduling) handedOn(claims []types.NamespacedName) {
	for _, key := range claims {
		if claim, ok := s.Claims.Get(key); ok && storage.ForOnePod(claim) {
			s.claimants.changed(onClaim(key))
		}
	}
}

// lookAtClaims brings the Pods that wait up to date whose claims mean something
// else by now.
func (s *scheduling) lookAtClaims() {
	for _, one := range s.claimants.take() {
		s.claimants.rest(one, s.groundsOf(one.Pod))
		s.queue.Add(s.input(one.Pod))
	}
}

// groundsOf are what the claims of a Pod hang on.
func (s *scheduling) groundsOf(pod *corev1.Pod) []ground {
	var out []ground
	for _, key := range claimKeys(pod) {
		out = append(out, onClaim(key))
		claim, ok := s.Claims.Get(key)
		if !ok {
			continue
		}
		if claim.Spec.VolumeName != "" {
			out = append(out, onVolume(claim.Spec.VolumeName))
			continue
		}
		class := storage.ClassOf(claim)
		out = append(out, onClass(class))
		if c, ok := s.Classes.Get(types.NamespacedName{Name: class}); ok && c.Provisioner != v1alpha1.LocalProvisioner { // which needs none that are free
			out = append(out, onVolumesOf(class))
		}
	}
	return out
}

// bindClaims gives the claims of a Pod that have none their volumes on its node,
// all or none. A Conflict says that the Pod is to be decided on anew, a
// *noVolumeError that it is not to come to this node.
func (s *scheduling) bindClaims(ctx context.Context, pod *corev1.Pod, node string) error {
	s.mu.Lock()
	claims := s.offers.Of(pod, s.holders.other)
	s.mu.Unlock()
	if claims.Waits != "" {
		return apierrors.NewConflict(corev1.Resource("pods"), pod.Name, errors.New(claims.Waits))
	}
	// Another Pod of the same claim may have got its volume since this was decided.
	if n, ok := s.Nodes.Get(types.NamespacedName{Name: node}); ok {
		if claim := claims.OutOfReach(n); claim != "" {
			return apierrors.NewConflict(corev1.Resource("pods"), pod.Name, fmt.Errorf("node %s does not reach the volume of claim %s", node, claim))
		}
	}
	err := s.volumesFor(ctx, claims.Unbound, node)
	if apierrors.IsNotFound(err) {
		return apierrors.NewConflict(corev1.Resource("pods"), pod.Name, err) // it is not the Pod that is gone
	}
	return err
}

// passed reports whether what a Pod is said to wait for has come meanwhile, or is
// there though the view does not show it yet, as a claim that was made with its Pod:
// then it is decided on anew, and there is nothing to tell.
func (s *scheduling) passed(ctx context.Context, pod *corev1.Pod, message string) (bool, error) {
	for _, key := range claimKeys(pod) {
		if _, ok := s.Claims.Get(key); ok {
			continue
		}
		err := s.resources.Get(ctx, key, &corev1.PersistentVolumeClaim{})
		if err == nil {
			return true, nil
		}
		if !apierrors.IsNotFound(err) {
			return false, fmt.Errorf("look up claim %s: %w", key, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.input(pod).Blocked != message, nil
}

// volumesFor gives claims their volumes on a node.
func (c *cluster) volumesFor(ctx context.Context, unbound []*corev1.PersistentVolumeClaim, nodeName string) error {
	if len(unbound) == 0 {
		return nil
	}
	node, ok := c.Nodes.Get(types.NamespacedName{Name: nodeName})
	if !ok {
		return fmt.Errorf("node %s is gone", nodeName)
	}
	tx := c.resources.Begin()
	left := c.Volumes.All()
	made := map[*corev1.PersistentVolumeClaim]string{}
	for _, claim := range unbound {
		next := claim.DeepCopy()
		if pv := storage.Smallest(claim, left, node); pv != nil {
			left = slices.DeleteFunc(left, func(v *corev1.PersistentVolume) bool { return v.Name == pv.Name })
			taken := pv.DeepCopy()
			taken.Spec.ClaimRef = referenceTo(claim)
			if err := tx.Update(ctx, taken); err != nil {
				return fmt.Errorf("bind volume %s: %w", pv.Name, err)
			}
			next.Spec.VolumeName = pv.Name
		} else {
			pv, err := c.volumeFor(claim, node)
			if err != nil {
				return err
			}
			if err := tx.Create(ctx, pv); err != nil {
				return fmt.Errorf("make a volume for claim %s: %w", claim.Name, err)
			}
			next.Spec.VolumeName = pv.Name
			made[claim] = pv.Name
		}
		if err := tx.Update(ctx, next); err != nil {
			return fmt.Errorf("bind claim %s: %w", claim.Name, err)
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	for claim, volume := range made {
		c.events.Normal(ctx, corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"), claim, "ProvisioningSucceeded", "Successfully provisioned volume %s", volume)
	}
	return nil
}

// volumeFor makes a volume on a node: a folder, which the agent makes when it
// is mounted. Its name follows from the claim, so a claim has one.
func (c *cluster) volumeFor(claim *corev1.PersistentVolumeClaim, node *corev1.Node) (*corev1.PersistentVolume, error) {
	class, ok := c.Classes.Get(types.NamespacedName{Name: storage.ClassOf(claim)})
	if !ok || class.Provisioner != v1alpha1.LocalProvisioner {
		return nil, noVolume("the volume that was chosen for claim %s on node %s is taken", claim.Name, node.Name)
	}
	folder := node.Annotations[v1alpha1.AnnotationClaims]
	if folder == "" {
		return nil, noVolume("node %s does not say where it keeps volumes (annotation %s): its agent is of an earlier version", node.Name, v1alpha1.AnnotationClaims)
	}
	policy := corev1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		policy = *class.ReclaimPolicy
	}
	name := "pvc-" + string(claim.UID)
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Finalizers: []string{v1alpha1.FinalizerVolume},
			Annotations: map[string]string{v1alpha1.AnnotationProvisioned: v1alpha1.LocalProvisioner},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: policy,
			StorageClassName:              class.Name,
			VolumeMode:                    claim.Spec.VolumeMode,
			ClaimRef:                      referenceTo(claim),
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: folder + "/" + name}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node.Name},
				}},
			}}}},
		},
	}, nil
}
