package controllers

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/scheduler"
)

// podClaims are the claims of a Pod as the scheduler needs them.
type podClaims struct {
	// reaches are those that bind the Pod to certain nodes.
	reaches []scheduler.Volume
	// unbound get their volume with the Pod's node.
	unbound []*corev1.PersistentVolumeClaim
	// waits says why the Pod cannot have a node yet, empty if it can.
	waits string
}

// claimsOf looks at the claims of a Pod.
func (c *cluster) claimsOf(pod *corev1.Pod) podClaims {
	var out podClaims
	for _, name := range claimsIn(pod) {
		claim, ok := c.Claims.Get(types.NamespacedName{Namespace: pod.Namespace, Name: name})
		switch {
		case !ok:
			out.waits = fmt.Sprintf("persistentvolumeclaim %q not found", name)
		case claim.DeletionTimestamp != nil:
			out.waits = fmt.Sprintf("persistentvolumeclaim %q is being deleted", name)
		case claim.Status.Phase == corev1.ClaimLost:
			out.waits = fmt.Sprintf("persistentvolumeclaim %q has lost its volume %s", name, claim.Spec.VolumeName)
		case claim.Spec.VolumeName != "":
			out.bound(c, claim)
		default:
			out.open(c, claim)
		}
		if out.waits == "" && slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteOncePod) {
			if other := c.mounted(pod.Namespace, name, pod.UID); other != nil {
				out.waits = fmt.Sprintf("persistentvolumeclaim %q is ReadWriteOncePod, and pod %s has it", name, other.Name)
			}
		}
		if out.waits != "" {
			return out
		}
	}
	return out
}

// bound adds a claim that has its volume.
func (p *podClaims) bound(c *cluster, claim *corev1.PersistentVolumeClaim) {
	pv, ok := c.Volumes.Get(types.NamespacedName{Name: claim.Spec.VolumeName})
	if !ok {
		p.waits = fmt.Sprintf("volume %s of persistentvolumeclaim %q is not there", claim.Spec.VolumeName, claim.Name)
		return
	}
	if a := pv.Spec.NodeAffinity; a != nil && a.Required != nil {
		p.reaches = append(p.reaches, scheduler.Volume{Claim: claim.Name, Nodes: a.Required})
	}
}

// open adds a claim whose volume is chosen, or made, for the Pod's node.
func (p *podClaims) open(c *cluster, claim *corev1.PersistentVolumeClaim) {
	class, ok := c.Classes.Get(types.NamespacedName{Name: classOf(claim)})
	if !ok || !waitsForPod(class) {
		p.waits = fmt.Sprintf("persistentvolumeclaim %q is not bound to a volume yet", claim.Name)
		return
	}
	p.unbound = append(p.unbound, claim)
	if class.Provisioner == v1alpha1.LocalProvisioner {
		return
	}
	nodes := &corev1.NodeSelector{}
	for _, pv := range candidates(claim, c.Volumes.All()) {
		if pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
			return // one that every node reaches
		}
		// The terms of a selector are alternatives.
		nodes.NodeSelectorTerms = append(nodes.NodeSelectorTerms, pv.Spec.NodeAffinity.Required.NodeSelectorTerms...)
	}
	if len(nodes.NodeSelectorTerms) == 0 {
		p.waits = fmt.Sprintf("no free volume of class %s is large enough for persistentvolumeclaim %q", class.Name, claim.Name)
		return
	}
	p.reaches = append(p.reaches, scheduler.Volume{Claim: claim.Name, Nodes: nodes})
}

// bindClaims gives the claims of a Pod that have none their volumes on its node,
// all or none.
func (c *cluster) bindClaims(ctx context.Context, unbound []*corev1.PersistentVolumeClaim, nodeName string) error {
	if len(unbound) == 0 {
		return nil
	}
	node, ok := c.Nodes.Get(types.NamespacedName{Name: nodeName})
	if !ok {
		return fmt.Errorf("node %s is gone", nodeName)
	}
	tx := c.resources.Begin()
	left := c.Volumes.All()
	for _, claim := range unbound {
		next := claim.DeepCopy()
		if pv := smallest(claim, left, node); pv != nil {
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
		}
		if err := tx.Update(ctx, next); err != nil {
			return fmt.Errorf("bind claim %s: %w", claim.Name, err)
		}
	}
	return tx.Commit(ctx)
}

// volumeFor makes a volume on a node: a folder, which the agent makes when it
// is mounted. Its name follows from the claim, so a claim has one.
func (c *cluster) volumeFor(claim *corev1.PersistentVolumeClaim, node *corev1.Node) (*corev1.PersistentVolume, error) {
	class, ok := c.Classes.Get(types.NamespacedName{Name: classOf(claim)})
	if !ok || class.Provisioner != v1alpha1.LocalProvisioner {
		return nil, fmt.Errorf("the volume that was chosen for claim %s on node %s is taken", claim.Name, node.Name)
	}
	folder := node.Annotations[v1alpha1.AnnotationClaims]
	if folder == "" {
		return nil, fmt.Errorf("node %s does not say where it keeps volumes (annotation %s): its agent is of an earlier version", node.Name, v1alpha1.AnnotationClaims)
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
