package controllers

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/resources"
	"berth.dev/berth/engine/storage"
)

// noProvisioner is the provisioner of classes whose volumes people make.
const noProvisioner = "kubernetes.io/no-provisioner"

// claims binds claims to volumes that people made, keeps their status, and keeps
// a claim that is being deleted until no Pod mounts it. Claims that wait for the
// first Pod are bound with that Pod's node, by scheduling.
type claims struct {
	*cluster
	loop *loop
}

func newClaims(c *cluster) *claims {
	r := &claims{cluster: c}
	r.loop = newLoop(c, "claim", r.reconcile)
	c.Claims.OnChange(func(_, now *corev1.PersistentVolumeClaim) {
		if now != nil {
			r.loop.add(now)
		}
	})
	c.Volumes.OnChange(func(old, now *corev1.PersistentVolume) {
		for _, v := range []*corev1.PersistentVolume{old, now} {
			if v != nil && v.Spec.ClaimRef != nil {
				r.loop.queue.Add(types.NamespacedName{Namespace: v.Spec.ClaimRef.Namespace, Name: v.Spec.ClaimRef.Name})
			}
		}
		if now != nil && now.Spec.ClaimRef == nil {
			r.unbound(now.Spec.StorageClassName)
			r.asking(now.Name)
		}
	})
	c.Classes.OnChange(func(_, now *storagev1.StorageClass) {
		if now != nil {
			r.unbound(now.Name)
			r.unbound("") // it may be the default one
		}
	})
	c.Pods.OnChange(func(old, now *corev1.Pod) {
		if now != nil && !podFinished(now) {
			return
		}
		for _, p := range []*corev1.Pod{old, now} {
			if p != nil {
				for _, name := range storage.ClaimsIn(p) {
					r.loop.queue.Add(types.NamespacedName{Namespace: p.Namespace, Name: name})
				}
			}
		}
	})
	return r
}

// unbound looks at the claims of a class again that have no volume.
func (r *claims) unbound(class string) {
	for _, c := range r.Claims.All() {
		if c.Spec.VolumeName == "" && storage.ClassOf(c) == class {
			r.loop.add(c)
		}
	}
}

// asking looks at the claims again that name a volume.
func (r *claims) asking(volume string) {
	for _, c := range r.Claims.All() {
		if c.Spec.VolumeName == volume {
			r.loop.add(c)
		}
	}
}

// Run works until the context ends.
func (r *claims) Run(ctx context.Context) error {
	return r.loop.run(ctx, r.Claims, r.Volumes, r.Classes, r.Pods)
}

func (r *claims) reconcile(ctx context.Context, key types.NamespacedName) error {
	c, ok := r.Claims.Get(key)
	switch {
	case !ok:
		return nil
	case c.DeletionTimestamp != nil:
		return r.letGo(ctx, c)
	case c.Spec.VolumeName == "":
		return r.bind(ctx, c)
	}
	return r.settle(ctx, c)
}

// letGo ends the protection of a claim that is being deleted. A Pod that has no
// node yet does not hold it: it gets none while its claim is going.
func (r *claims) letGo(ctx context.Context, c *corev1.PersistentVolumeClaim) error {
	if !slices.Contains(c.Finalizers, v1alpha1.ProtectClaim) || storage.Held(r.Cluster, c) {
		return nil
	}
	// The store is asked: a Pod may be newer than the view.
	var pods corev1.PodList
	if err := r.resources.List(ctx, &pods, client.ListOptions{Namespace: c.Namespace}); err != nil {
		return fmt.Errorf("look whether claim %s is mounted: %w", c.Name, err)
	}
	for i := range pods.Items {
		if p := &pods.Items[i]; storage.HasNode(p) && storage.Mounts(p, c.Name) {
			return nil
		}
	}
	next := c.DeepCopy()
	next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == v1alpha1.ProtectClaim })
	return ignoreNotFound(r.resources.Update(ctx, next))
}

// bind gives a claim a volume that people made, or says what it waits for. The
// class that a claim and a volume name need not exist: it is a name that the two
// have in common then, as in Kubernetes.
func (r *claims) bind(ctx context.Context, c *corev1.PersistentVolumeClaim) error {
	if c.Spec.StorageClassName == nil { // there was no default class when it was made
		if class := resources.DefaultClass(r.Classes.All()); class != nil {
			next := c.DeepCopy()
			next.Spec.StorageClassName = class
			return r.resources.Update(ctx, next)
		}
	}
	name := storage.ClassOf(c)
	class, there := r.Classes.Get(types.NamespacedName{Name: name})
	if there && storage.WaitsForPod(class) {
		return r.wait(ctx, c, "WaitForFirstConsumer", "waiting for first consumer to be created before binding")
	}
	if pv := storage.Smallest(c, r.Volumes.All(), nil); pv != nil {
		return r.join(ctx, c, pv)
	}
	switch {
	case name == "":
		return r.wait(ctx, c, "FailedBinding", "no persistent volumes available for this claim and no storage class is set")
	case !there:
		return r.wait(ctx, c, "ProvisioningFailed", fmt.Sprintf("storageclass.storage.k8s.io %q not found", name))
	case class.Provisioner == noProvisioner:
		return r.wait(ctx, c, "FailedBinding", "no persistent volume of class "+name+" is free and large enough; make one")
	}
	return r.wait(ctx, c, "ProvisioningFailed", fmt.Sprintf("storage class %s has the provisioner %s, which is not here; use a class of %s, such as %s",
		name, class.Provisioner, v1alpha1.LocalProvisioner, v1alpha1.LocalClass))
}

func (r *claims) wait(ctx context.Context, c *corev1.PersistentVolumeClaim, reason, message string) error {
	kind := corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim")
	if reason == "WaitForFirstConsumer" {
		r.events.Normal(ctx, kind, c, reason, "%s", message)
	} else {
		r.events.Warning(ctx, kind, c, reason, "%s", message)
	}
	return nil
}

// join binds a claim and a volume to each other.
func (r *claims) join(ctx context.Context, c *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) error {
	tx := r.resources.Begin()
	nextVolume, nextClaim := pv.DeepCopy(), c.DeepCopy()
	nextVolume.Spec.ClaimRef = referenceTo(c)
	nextClaim.Spec.VolumeName = pv.Name
	if err := tx.Update(ctx, nextVolume); err != nil {
		return fmt.Errorf("bind volume %s: %w", pv.Name, err)
	}
	if err := tx.Update(ctx, nextClaim); err != nil {
		return fmt.Errorf("bind claim %s: %w", c.Name, err)
	}
	return tx.Commit(ctx)
}

func referenceTo(c *corev1.PersistentVolumeClaim) *corev1.ObjectReference {
	return &corev1.ObjectReference{
		APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: c.Namespace, Name: c.Name, UID: c.UID,
	}
}

// settle keeps the status of a claim that names a volume.
func (r *claims) settle(ctx context.Context, c *corev1.PersistentVolumeClaim) error {
	pv, ok := r.Volumes.Get(types.NamespacedName{Name: c.Spec.VolumeName})
	if !ok {
		pv = &corev1.PersistentVolume{}
		err := r.resources.Get(ctx, types.NamespacedName{Name: c.Spec.VolumeName}, pv)
		switch {
		case apierrors.IsNotFound(err) && c.Status.Phase != corev1.ClaimBound && c.Status.Phase != corev1.ClaimLost:
			return r.wait(ctx, c, "FailedBinding", fmt.Sprintf("volume %s, which spec.volumeName asks for, is not there yet", c.Spec.VolumeName))
		case apierrors.IsNotFound(err):
			return r.lost(ctx, c)
		}
		if err != nil {
			return err
		}
	}
	status := corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending, Conditions: c.Status.Conditions}
	switch ref := pv.Spec.ClaimRef; {
	case ref == nil || ref.UID == "" && ref.Namespace == c.Namespace && ref.Name == c.Name:
		if why := storage.Unfit(c, pv); why != "" {
			return r.wait(ctx, c, "VolumeMismatch", fmt.Sprintf("volume %s, which spec.volumeName asks for, %s", pv.Name, why))
		}
		next := pv.DeepCopy()
		next.Spec.ClaimRef = referenceTo(c)
		return r.resources.Update(ctx, next)
	case ref.UID != c.UID:
		return r.wait(ctx, c, "FailedBinding", fmt.Sprintf("volume %s belongs to claim %s/%s", pv.Name, ref.Namespace, ref.Name))
	}
	if pv.Annotations[v1alpha1.AnnotationProvisioned] == v1alpha1.LocalProvisioner {
		if want, have := c.Spec.Resources.Requests[corev1.ResourceStorage], pv.Spec.Capacity[corev1.ResourceStorage]; want.Cmp(have) > 0 {
			next := pv.DeepCopy()
			next.Spec.Capacity[corev1.ResourceStorage] = want
			return r.resources.Update(ctx, next) // its event brings the claim back
		}
	}
	status.Phase, status.AccessModes, status.Capacity = corev1.ClaimBound, pv.Spec.AccessModes, pv.Spec.Capacity
	return r.update(ctx, c, status)
}

// lost: the volume was deleted, and what was in it with it.
func (r *claims) lost(ctx context.Context, c *corev1.PersistentVolumeClaim) error {
	if c.Status.Phase == corev1.ClaimLost {
		return nil
	}
	if err := r.wait(ctx, c, "ClaimLost", fmt.Sprintf("volume %s is not there any more; delete the claim and make it anew", c.Spec.VolumeName)); err != nil {
		return err
	}
	return r.update(ctx, c, corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimLost})
}

func (r *claims) update(ctx context.Context, c *corev1.PersistentVolumeClaim, status corev1.PersistentVolumeClaimStatus) error {
	if equality.Semantic.DeepEqual(status, c.Status) {
		return nil
	}
	next := c.DeepCopy()
	next.Status = status
	return ignoreNotFound(r.resources.UpdateStatus(ctx, next))
}
