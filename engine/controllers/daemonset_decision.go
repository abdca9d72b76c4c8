package controllers

import (
	"cmp"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// daemonStep is what is done to the Pods of a DaemonSet in one transaction.
type daemonStep struct {
	status appsv1.DaemonSetStatus
	create []*corev1.Pod
	remove []*corev1.Pod
	// again is when the DaemonSet is to be looked at even if nothing happens; 0 for never.
	again time.Duration
}

// daemonDecision is a DaemonSet with its nodes and Pods, and what comes of them.
// It is pure; the rules are those of k8s.io/kubernetes/pkg/controller/daemon.
type daemonDecision struct {
	set *appsv1.DaemonSet
	now time.Time
	// hash is the label of the Pods of the present template.
	hash string
	// retry says how long the failed Pod of a node is to be left; 0 for not at all.
	retry func(*corev1.Pod) time.Duration
	daemonStep

	nodes []*daemonNode
}

// daemonNode is a node with the DaemonSet's Pods on it.
type daemonNode struct {
	node *corev1.Node
	// runs: the node is to have a Pod; keeps: one that is there may stay.
	runs, keeps bool
	// updated and old are the Pods of the present template and of earlier ones,
	// the best first; those that are being deleted are not among them.
	updated, old []*corev1.Pod
	// stopping: a Pod is being deleted, and may still run.
	stopping bool
}

// decideDaemonSet says what to do to a DaemonSet. All Pods that it controls are
// among pods.
func decideDaemonSet(set *appsv1.DaemonSet, hash string, nodes []*corev1.Node, pods []*corev1.Pod, now time.Time, retry func(*corev1.Pod) time.Duration) daemonStep {
	d := &daemonDecision{set: set, now: now, hash: hash, retry: retry}
	d.status = *set.Status.DeepCopy()
	d.observe(nodes, pods)
	if set.DeletionTimestamp == nil {
		for _, n := range d.nodes {
			d.manage(n)
		}
		if set.Spec.UpdateStrategy.Type != appsv1.OnDeleteDaemonSetStrategyType {
			d.roll()
		}
	}
	d.count()
	return d.daemonStep
}

// observe sorts the Pods by node. Those of nodes that are gone, and those that
// have failed, are removed.
func (d *daemonDecision) observe(nodes []*corev1.Node, pods []*corev1.Pod) {
	byName := map[string]*daemonNode{}
	model := &corev1.Pod{Spec: *d.set.Spec.Template.Spec.DeepCopy()}
	tolerate(&model.Spec)
	for _, n := range nodes {
		node := &daemonNode{node: n}
		node.runs, node.keeps = daemonRuns(model, n)
		byName[n.Name] = node
		d.nodes = append(d.nodes, node)
	}
	slices.SortFunc(d.nodes, func(a, b *daemonNode) int { return cmp.Compare(a.node.Name, b.node.Name) })
	for _, p := range pods {
		if !controls(d.set, p) {
			continue
		}
		n := byName[daemonTarget(p)]
		switch {
		case p.DeletionTimestamp != nil:
			if n != nil && !podStopped(p) {
				n.stopping = true
			}
		case n == nil:
			d.remove = append(d.remove, p)
		case podFinished(p):
			if wait := d.retry(p); wait > 0 {
				d.wake(wait)
				n.stopping = true // no other one until then
				continue
			}
			d.remove = append(d.remove, p)
		case p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] == d.hash:
			n.updated = append(n.updated, p)
		default:
			n.old = append(n.old, p)
		}
	}
	for _, n := range d.nodes {
		slices.SortFunc(n.updated, keepOrder)
		slices.SortFunc(n.old, keepOrder)
	}
}

func (d *daemonDecision) wake(after time.Duration) {
	if d.again == 0 || after < d.again {
		d.again = after
	}
}

// keepOrder puts first the Pod that stays when a node has too many.
func keepOrder(a, b *corev1.Pod) int {
	return cmp.Or(
		cmp.Compare(btoi(podReady(b)), btoi(podReady(a))),
		cmp.Compare(btoi(b.Spec.NodeName != ""), btoi(a.Spec.NodeName != "")),
		a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
		cmp.Compare(a.Name, b.Name),
	)
}

// manage gives a node its one Pod, and takes away what is too many. During an
// update with maxSurge a node has one of each.
func (d *daemonDecision) manage(n *daemonNode) {
	switch {
	case !n.keeps:
		d.discard(&n.updated, 0)
		d.discard(&n.old, 0)
	case !n.runs && len(n.updated)+len(n.old) == 0: // it gets none
	case !n.runs:
		d.discard(&n.updated, 1)
		d.discard(&n.old, 1)
	default:
		d.discard(&n.updated, 1)
		d.discard(&n.old, 1)
		if len(n.updated) == 1 && len(n.old) == 1 && d.surge() == 0 {
			d.discard(&n.old, 0)
		}
		if len(n.updated)+len(n.old) == 0 && !n.stopping {
			d.start(n)
		}
	}
}

// discard removes all but the first some of a node's Pods.
func (d *daemonDecision) discard(pods *[]*corev1.Pod, keep int) {
	if len(*pods) > keep {
		d.remove = append(d.remove, (*pods)[keep:]...)
		*pods = (*pods)[:keep]
	}
}

func (d *daemonDecision) start(n *daemonNode) {
	d.create = append(d.create, podOfDaemon(d.set, d.hash, n.node.Name))
}

func (d *daemonDecision) desired() int {
	count := 0
	for _, n := range d.nodes {
		count += btoi(n.runs)
	}
	return count
}

func (d *daemonDecision) surge() int {
	if u := d.set.Spec.UpdateStrategy.RollingUpdate; u != nil && u.MaxSurge != nil {
		n, _ := intstr.GetScaledValueFromIntOrPercent(u.MaxSurge, d.desired(), true) // validated
		return n
	}
	return 0
}

func (d *daemonDecision) maxUnavailable() int {
	if u := d.set.Spec.UpdateStrategy.RollingUpdate; u != nil && u.MaxUnavailable != nil {
		n, _ := intstr.GetScaledValueFromIntOrPercent(u.MaxUnavailable, d.desired(), true) // validated
		return n
	}
	return 1
}

// available looks at a Pod, and comes back when it will have been ready for long enough.
func (d *daemonDecision) available(p *corev1.Pod) bool {
	ok, wait := podAvailable(p, time.Duration(d.set.Spec.MinReadySeconds)*time.Second, d.now)
	if wait > 0 {
		d.wake(wait)
	}
	return ok
}

// roll exchanges Pods of earlier templates, those that are not available first:
// they are missed by nobody.
func (d *daemonDecision) roll() {
	surge := d.surge()
	if surge > 0 {
		d.rollWithSurge(surge)
		return
	}
	room := d.maxUnavailable()
	var candidates []*daemonNode
	for _, n := range d.nodes {
		switch {
		case !n.runs:
		case len(n.old) == 0:
			if len(n.updated) == 0 || !d.available(n.updated[0]) {
				room--
			}
		case !d.available(n.old[0]):
			room--
			d.discard(&n.old, 0)
		default:
			candidates = append(candidates, n)
		}
	}
	for _, n := range candidates {
		if room <= 0 {
			return
		}
		room--
		d.discard(&n.old, 0)
	}
}

// rollWithSurge starts a Pod beside the one of the earlier template, which goes
// when the new one is available.
func (d *daemonDecision) rollWithSurge(room int) {
	var candidates []*daemonNode
	for _, n := range d.nodes {
		switch {
		case !n.runs || len(n.old) == 0:
		case len(n.updated) > 0:
			if d.available(n.updated[0]) {
				d.discard(&n.old, 0)
			} else {
				room--
			}
		case n.stopping:
		case !d.available(n.old[0]):
			d.discard(&n.old, 0)
			d.start(n)
		default:
			candidates = append(candidates, n)
		}
	}
	for _, n := range candidates {
		if room <= 0 {
			return
		}
		room--
		d.start(n)
	}
}

// count writes the status. A Pod that is made or removed in this step counts
// with the next one.
func (d *daemonDecision) count() {
	s := &d.status
	s.ObservedGeneration = d.set.Generation
	s.CurrentNumberScheduled, s.NumberMisscheduled, s.DesiredNumberScheduled = 0, 0, 0
	s.NumberReady, s.UpdatedNumberScheduled, s.NumberAvailable = 0, 0, 0
	for _, n := range d.nodes {
		pods := slices.Concat(n.updated, n.old)
		if !n.runs {
			s.NumberMisscheduled += int32(btoi(len(pods) > 0))
			continue
		}
		s.DesiredNumberScheduled++
		if len(pods) == 0 {
			continue
		}
		s.CurrentNumberScheduled++
		s.NumberReady += int32(btoi(slices.ContainsFunc(pods, podReady)))
		s.NumberAvailable += int32(btoi(slices.ContainsFunc(pods, d.available)))
		s.UpdatedNumberScheduled += int32(btoi(len(n.updated) > 0))
	}
	s.NumberUnavailable = s.DesiredNumberScheduled - s.NumberAvailable
}

// daemonTarget is the node that a Pod is on, or is meant for.
func daemonTarget(p *corev1.Pod) string {
	if p.Spec.NodeName != "" {
		return p.Spec.NodeName
	}
	if p.Spec.Affinity == nil || p.Spec.Affinity.NodeAffinity == nil || p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return ""
	}
	for _, t := range p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, f := range t.MatchFields {
			if f.Key == metav1.ObjectNameField && len(f.Values) == 1 {
				return f.Values[0]
			}
		}
	}
	return ""
}

// daemonRuns says whether a node is to have a Pod like model, and whether one
// that is there may stay: a node that is cordoned has one, too.
func daemonRuns(model *corev1.Pod, n *corev1.Node) (runs, keeps bool) {
	match, err := nodeaffinity.GetRequiredNodeAffinity(model).Match(n)
	if err != nil || !match || model.Spec.NodeName != "" && model.Spec.NodeName != n.Name {
		return false, false
	}
	effect := func(effects ...corev1.TaintEffect) bool {
		_, found := corev1helpers.FindMatchingUntoleratedTaint(klog.Background(), n.Spec.Taints, model.Spec.Tolerations, func(t *corev1.Taint) bool {
			return slices.Contains(effects, t.Effect)
		}, false)
		return found
	}
	return !effect(corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute), !effect(corev1.TaintEffectNoExecute)
}

// tolerate adds what the Pods of every DaemonSet tolerate: they stay where a
// node is in trouble, for they serve the node
// (k8s.io/kubernetes/pkg/controller/daemon/util, AddOrUpdateDaemonPodTolerations).
func tolerate(s *corev1.PodSpec) {
	add := func(key string, effect corev1.TaintEffect) {
		t := corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect}
		if !slices.Contains(s.Tolerations, t) {
			s.Tolerations = append(s.Tolerations, t)
		}
	}
	add(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute)
	add(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute)
	add(corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)
	if s.HostNetwork {
		add(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule)
	}
}

// podOfDaemon makes the Pod for a node. The scheduler binds it there, once it fits.
func podOfDaemon(set *appsv1.DaemonSet, hash, node string) *corev1.Pod {
	t := set.Spec.Template.DeepCopy()
	tolerate(&t.Spec)
	t.Spec.Affinity = onNode(t.Spec.Affinity, node)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: set.Namespace, GenerateName: set.Name + "-",
			Labels: with(t.Labels, appsv1.DefaultDaemonSetUniqueLabelKey, hash), Annotations: t.Annotations, Finalizers: t.Finalizers,
			OwnerReferences: []metav1.OwnerReference{ownerRef(daemonSetKind(), set)},
		},
		Spec: t.Spec,
	}
}

// onNode replaces the required node affinity, which the node was chosen by, with
// the node itself.
func onNode(a *corev1.Affinity, node string) *corev1.Affinity {
	if a == nil {
		a = &corev1.Affinity{}
	}
	if a.NodeAffinity == nil {
		a.NodeAffinity = &corev1.NodeAffinity{}
	}
	a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchFields: []corev1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
	}}}
	return a
}
