package storage

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/scheduler"
)

// Claims are the claims of a Pod as the scheduler needs them.
type Claims struct {
	// Reaches are those that bind the Pod to certain nodes.
	Reaches []scheduler.Volume
	// Unbound get their volume with the Pod's node.
	Unbound []*corev1.PersistentVolumeClaim
	// Waits says why the Pod cannot have a node yet, empty if it can.
	Waits string
}

// Holder says which Pod other than one has a claim; empty for none.
type Holder func(claim types.NamespacedName, but types.UID) (name string)

// Of looks at the claims of a Pod.
func (o *Offers) Of(pod *corev1.Pod, holder Holder) Claims {
	var out Claims
	for _, name := range ClaimsIn(pod) {
		key := types.NamespacedName{Namespace: pod.Namespace, Name: name}
		claim, ok := o.views.Claims.Get(key)
		switch {
		case !ok:
			out.Waits = fmt.Sprintf("persistentvolumeclaim %q not found", name)
		case claim.DeletionTimestamp != nil:
			out.Waits = fmt.Sprintf("persistentvolumeclaim %q is being deleted", name)
		case claim.Status.Phase == corev1.ClaimLost:
			out.Waits = fmt.Sprintf("persistentvolumeclaim %q has lost its volume %s", name, claim.Spec.VolumeName)
		case claim.Spec.VolumeName != "":
			out.bound(o.views, claim)
		default:
			out.open(o, claim)
		}
		if out.Waits == "" && ForOnePod(claim) {
			if other := holder(key, pod.UID); other != "" {
				out.Waits = fmt.Sprintf("persistentvolumeclaim %q is ReadWriteOncePod, and pod %s has it", name, other)
			}
		}
		if out.Waits != "" {
			return out
		}
	}
	return out
}

// OutOfReach is the first claim whose volume a node does not reach; empty for none.
func (p *Claims) OutOfReach(node *corev1.Node) string {
	for _, v := range p.Reaches {
		if !selects(v.Nodes, node) {
			return v.Claim
		}
	}
	return ""
}

// bound adds a claim that names its volume. The volume may not be its own: people
// can name any.
func (p *Claims) bound(c *live.Cluster, claim *corev1.PersistentVolumeClaim) {
	pv, ok := c.Volumes.Get(types.NamespacedName{Name: claim.Spec.VolumeName})
	if !ok {
		p.Waits = fmt.Sprintf("volume %s of persistentvolumeclaim %q is not there", claim.Spec.VolumeName, claim.Name)
		return
	}
	if ref := pv.Spec.ClaimRef; ref == nil || ref.UID != claim.UID {
		p.Waits = fmt.Sprintf("persistentvolumeclaim %q is not bound to volume %s, which it names", claim.Name, pv.Name)
		return
	}
	if a := pv.Spec.NodeAffinity; a != nil && a.Required != nil {
		p.Reaches = append(p.Reaches, scheduler.Volume{Claim: claim.Name, Nodes: a.Required})
	}
}

// open adds a claim whose volume is chosen, or made, for the Pod's node.
func (p *Claims) open(o *Offers, claim *corev1.PersistentVolumeClaim) {
	class, ok := o.views.Classes.Get(types.NamespacedName{Name: ClassOf(claim)})
	if !ok || !WaitsForPod(class) {
		p.Waits = fmt.Sprintf("persistentvolumeclaim %q is not bound to a volume yet", claim.Name)
		return
	}
	p.Unbound = append(p.Unbound, claim)
	if class.Provisioner == v1alpha1.LocalProvisioner {
		return
	}
	switch offered := o.to(claim); {
	case offered.everywhere:
	case offered.nodes == nil:
		p.Waits = fmt.Sprintf("no free volume of class %s is large enough for persistentvolumeclaim %q", class.Name, claim.Name)
	default:
		p.Reaches = append(p.Reaches, scheduler.Volume{Claim: claim.Name, Nodes: offered.nodes})
	}
}

// WaitsForPod: the volumes of a class are chosen, or made, for the node of the
// first Pod. Those of Berth's provisioner always are.
func WaitsForPod(class *storagev1.StorageClass) bool {
	return class.Provisioner == v1alpha1.LocalProvisioner ||
		class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

// ClassOf is the storage class of a claim, empty for none.
func ClassOf(c *corev1.PersistentVolumeClaim) string {
	if c.Spec.StorageClassName == nil {
		return ""
	}
	return *c.Spec.StorageClassName
}

// ClaimsIn are the names of the claims that a Pod mounts.
func ClaimsIn(p *corev1.Pod) []string {
	var out []string
	for _, v := range p.Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			out = append(out, v.PersistentVolumeClaim.ClaimName)
		}
	}
	return out
}

// ForOnePod: a claim is for one Pod at a time.
func ForOnePod(c *corev1.PersistentVolumeClaim) bool {
	return slices.Contains(c.Spec.AccessModes, corev1.ReadWriteOncePod)
}

// Mounts: the Pod has not ended, and names the claim.
func Mounts(p *corev1.Pod, claim string) bool {
	ended := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	return !ended && slices.Contains(ClaimsIn(p), claim)
}

// HasNode: the Pod has what it mounts. One that waits has nothing yet.
func HasNode(p *corev1.Pod) bool { return p.Spec.NodeName != "" }

// Held reports whether a Pod that has a node mounts a claim.
func Held(views *live.Cluster, claim *corev1.PersistentVolumeClaim) bool {
	return slices.ContainsFunc(views.Pods.InNamespace(claim.Namespace), func(p *corev1.Pod) bool { return HasNode(p) && Mounts(p, claim.Name) })
}
