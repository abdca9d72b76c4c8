package controllers

import (
	"cmp"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// statefulStep is what is done to a StatefulSet in one transaction.
type statefulStep struct {
	status appsv1.StatefulSetStatus
	create []*corev1.Pod
	remove []*corev1.Pod
	// claims are to be made; owned are those whose owners change.
	claims, owned []*corev1.PersistentVolumeClaim
	// again is when the set is to be looked at even if nothing happens; 0 for never.
	again time.Duration
}

// ordinal is a place of the set, with the Pod that has it.
type ordinal struct {
	number int
	pod    *corev1.Pod
}

// statefulDecision is a StatefulSet with its Pods and claims, and what comes of
// them. It is pure.
//
// It keeps to the rules of k8s.io/kubernetes/pkg/controller/statefulset, but for
// one: a Pod of an earlier revision that is not available is replaced at once.
// There it is waited for, for ever if its revision is broken, unless somebody
// deletes the Pod (docs/decisions/statefulsets.md).
type statefulDecision struct {
	set *appsv1.StatefulSet
	now time.Time
	// update is the revision of the present template, current the one of before;
	// they are the same when no update is going on.
	update, current string
	// before is the template of current.
	before *corev1.PodTemplateSpec
	claim  func(name string) *corev1.PersistentVolumeClaim
	statefulStep

	// wanted are the places from the first to the last that is wanted; condemned
	// are Pods of other ordinals, the highest first.
	wanted    []ordinal
	condemned []ordinal
}

// statefulInput is what a decision is about. before is the template of the
// current revision; claim finds a claim of the set's namespace, nil for none.
type statefulInput struct {
	set             *appsv1.StatefulSet
	update, current string
	before          *corev1.PodTemplateSpec
	pods            []*corev1.Pod
	claim           func(name string) *corev1.PersistentVolumeClaim
	now             time.Time
}

// decideStatefulSet says what to do to a StatefulSet. All Pods that it controls
// are among the pods.
func decideStatefulSet(in statefulInput) statefulStep {
	d := &statefulDecision{set: in.set, now: in.now, update: in.update, current: in.current, before: in.before, claim: in.claim}
	d.status = *in.set.Status.DeepCopy()
	d.observe(in.pods)
	if in.set.DeletionTimestamp == nil {
		d.keepClaims()
		ready := d.fill()
		if !d.shrink(ready) {
			ready = false
		}
		if in.set.Spec.UpdateStrategy.Type != appsv1.OnDeleteStatefulSetStrategyType {
			d.roll(ready)
		}
	}
	d.count()
	return d.statefulStep
}

func (d *statefulDecision) replicas() int {
	if d.set.Spec.Replicas == nil {
		return 1
	}
	return int(*d.set.Spec.Replicas)
}

// inOrder: one Pod at a time, and each waits for those before it.
func (d *statefulDecision) inOrder() bool {
	return d.set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement
}

func (d *statefulDecision) observe(pods []*corev1.Pod) {
	first, n := firstOrdinal(d.set), d.replicas()
	d.wanted = make([]ordinal, n)
	for i := range d.wanted {
		d.wanted[i].number = first + i
	}
	for _, p := range pods {
		number := ordinalOf(d.set, p.Name)
		switch {
		case !controls(d.set, p) || number == noOrdinal:
		case number >= first && number < first+n:
			d.wanted[number-first].pod = p
		default:
			d.condemned = append(d.condemned, ordinal{number, p})
		}
	}
	slices.SortFunc(d.condemned, func(a, b ordinal) int { return cmp.Compare(b.number, a.number) })
}

func (d *statefulDecision) wake(after time.Duration) {
	if d.again == 0 || after < d.again {
		d.again = after
	}
}

// available looks at a Pod, and comes back when it will have been ready for long enough.
func (d *statefulDecision) available(p *corev1.Pod) bool {
	if p == nil || p.DeletionTimestamp != nil || podFinished(p) {
		return false
	}
	ok, wait := podAvailable(p, time.Duration(d.set.Spec.MinReadySeconds)*time.Second, d.now)
	if wait > 0 {
		d.wake(wait)
	}
	return ok
}

func revisionOfPod(p *corev1.Pod) string { return p.Labels[appsv1.StatefulSetRevisionLabel] }

// outdated: the Pod is to be replaced by the update, now or later.
func (d *statefulDecision) outdated(i int) bool {
	p := d.wanted[i].pod
	return p != nil && i >= d.partition() && revisionOfPod(p) != d.update
}

func (d *statefulDecision) partition() int {
	if u := d.set.Spec.UpdateStrategy.RollingUpdate; u != nil && u.Partition != nil {
		return int(*u.Partition)
	}
	return 0
}

func (d *statefulDecision) maxUnavailable() int {
	if u := d.set.Spec.UpdateStrategy.RollingUpdate; u != nil && u.MaxUnavailable != nil {
		n, _ := intstr.GetScaledValueFromIntOrPercent(u.MaxUnavailable, d.replicas(), true) // validated
		return max(n, 1)
	}
	return 1
}

// fill makes the Pods that are missing, and takes those away that have ended. It
// reports whether all that are wanted are there and available.
func (d *statefulDecision) fill() bool {
	ready := true
	for i := range d.wanted {
		p := d.wanted[i].pod
		switch {
		case p == nil:
			if d.provide(d.wanted[i].number) {
				d.create = append(d.create, d.podFor(i))
			}
		case podFinished(p) && p.DeletionTimestamp == nil:
			d.remove = append(d.remove, p)
		case d.available(p):
			continue
		case p.Status.Phase != corev1.PodRunning && p.DeletionTimestamp == nil:
			d.provide(d.wanted[i].number) // a claim of it may have been deleted
		}
		ready = false
		if d.inOrder() {
			return false
		}
	}
	return ready
}

// provide makes the claims that an ordinal lacks. It reports false when one is
// being deleted: the Pod has to wait for its successor.
func (d *statefulDecision) provide(number int) bool {
	ok := true
	for i := range d.set.Spec.VolumeClaimTemplates {
		t := &d.set.Spec.VolumeClaimTemplates[i]
		have := d.claim(claimNameOf(d.set, t.Name, number))
		switch {
		case have == nil:
			d.claims = append(d.claims, claimOfSet(d.set, t, number))
		case have.DeletionTimestamp != nil:
			ok = false
		}
	}
	return ok
}

// podFor makes the Pod of a place: of the present revision, if the update is to
// come to it and has not got stuck elsewhere.
func (d *statefulDecision) podFor(i int) *corev1.Pod {
	number := d.wanted[i].number
	if d.before != nil && d.update != d.current && d.set.Spec.UpdateStrategy.Type != appsv1.OnDeleteStatefulSetStrategyType && (i < d.partition() || d.unproven() >= d.maxUnavailable()) {
		return podOfSet(d.set, d.before, d.current, number)
	}
	return podOfSet(d.set, &d.set.Spec.Template, d.update, number)
}

// unproven counts the Pods that have the present revision, or are about to get
// it, and are not available with it.
func (d *statefulDecision) unproven() int {
	n := 0
	for _, o := range slices.Concat(d.wanted, d.condemned) {
		n += btoi(o.pod != nil && !d.available(o.pod) && (o.pod.DeletionTimestamp != nil || revisionOfPod(o.pod) == d.update))
	}
	for _, p := range d.create {
		n += btoi(revisionOfPod(p) == d.update)
	}
	return n
}

// shrink removes the Pods that are not wanted, the highest first. In order, one
// goes after the other, and only while those that stay are available; all the
// same when none is to stay. It reports whether none is left.
func (d *statefulDecision) shrink(ready bool) bool {
	for _, o := range d.condemned {
		d.release(o) // before the first one goes: one may be going already
	}
	for _, o := range d.condemned {
		if o.pod.DeletionTimestamp == nil {
			if d.inOrder() && !ready && d.replicas() > 0 {
				return false
			}
			d.remove = append(d.remove, o.pod)
		}
		if d.inOrder() {
			return false
		}
	}
	return len(d.condemned) == 0
}

// release gives the claims of a Pod that is scaled away the owners that their
// retention policy asks for.
func (d *statefulDecision) release(o ordinal) {
	for i := range d.set.Spec.VolumeClaimTemplates {
		d.own(d.claim(claimNameOf(d.set, d.set.Spec.VolumeClaimTemplates[i].Name, o.number)), o.pod)
	}
}

// keepClaims gives the claims of the Pods that are wanted their owners.
func (d *statefulDecision) keepClaims() {
	for _, o := range d.wanted {
		for i := range d.set.Spec.VolumeClaimTemplates {
			d.own(d.claim(claimNameOf(d.set, d.set.Spec.VolumeClaimTemplates[i].Name, o.number)), nil)
		}
	}
}

func (d *statefulDecision) own(c *corev1.PersistentVolumeClaim, condemned *corev1.Pod) {
	if c == nil || c.DeletionTimestamp != nil {
		return
	}
	owners := claimOwners(d.set, c.OwnerReferences, condemned)
	if !equality.Semantic.DeepEqual(owners, c.OwnerReferences) {
		next := c.DeepCopy()
		next.OwnerReferences = owners
		d.owned = append(d.owned, next)
	}
}

// roll exchanges the Pods of earlier revisions, from the highest ordinal down.
func (d *statefulDecision) roll(ready bool) {
	limit := d.maxUnavailable()
	unavailable, unproven := 0, d.unproven()
	for _, o := range d.wanted {
		unavailable += btoi(!d.available(o.pod))
	}
	// What is not available is missed by nobody. But a present revision that does
	// not become available gets no further than that.
	for i := len(d.wanted) - 1; i >= 0 && unproven < limit; i-- {
		if p := d.wanted[i].pod; d.outdated(i) && !d.available(p) && p.DeletionTimestamp == nil && !podFinished(p) {
			d.remove = append(d.remove, p)
			unproven++
		}
	}
	if d.inOrder() && !ready {
		return
	}
	for i := len(d.wanted) - 1; i >= 0 && unavailable < limit; i-- {
		if d.outdated(i) && d.available(d.wanted[i].pod) {
			d.remove = append(d.remove, d.wanted[i].pod)
			unavailable++
		}
	}
}

// count writes the status. What is made or removed in this step counts with the
// next one.
func (d *statefulDecision) count() {
	s := &d.status
	s.ObservedGeneration = d.set.Generation
	s.Replicas, s.ReadyReplicas, s.AvailableReplicas, s.CurrentReplicas, s.UpdatedReplicas = 0, 0, 0, 0, 0
	finished := 0
	for _, o := range slices.Concat(d.wanted, d.condemned) {
		p := o.pod
		if p == nil || podFinished(p) {
			continue
		}
		s.Replicas++
		s.ReadyReplicas += int32(btoi(p.DeletionTimestamp == nil && podReady(p)))
		s.AvailableReplicas += int32(btoi(d.available(p)))
		if p.DeletionTimestamp != nil {
			continue
		}
		s.CurrentReplicas += int32(btoi(revisionOfPod(p) == d.current))
		s.UpdatedReplicas += int32(btoi(revisionOfPod(p) == d.update))
	}
	for _, o := range d.wanted {
		finished += btoi(d.available(o.pod) && revisionOfPod(o.pod) == d.update)
	}
	s.UpdateRevision, s.CurrentRevision = d.update, d.current
	if d.current != d.update && finished == len(d.wanted) && len(d.condemned) == 0 {
		s.CurrentRevision, s.CurrentReplicas = d.update, s.UpdatedReplicas
	}
}
