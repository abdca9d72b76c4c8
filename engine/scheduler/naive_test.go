package scheduler

import (
	"maps"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// naive decides as the documentation of each field says, by looking at all
// nodes and all Pods each time.
type naive struct {
	nodes      map[string]*corev1.Node
	pods       map[string]*corev1.Pod // with spec.nodeName
	namespaces map[string]map[string]string
	// held are Pods for which room is held on a node, with spec.nodeName.
	held map[types.UID]*corev1.Pod
}

// against are those for which room is held against a Pod.
func (w *naive) against(p *corev1.Pod) []*corev1.Pod {
	var out []*corev1.Pod
	for id, h := range w.held {
		if id != p.UID && Priority(h) >= Priority(p) && w.nodes[h.Spec.NodeName] != nil {
			out = append(out, h)
		}
	}
	return out
}

// fits: a Pod can be on a node as things are, and once those are there for which
// room is held.
func (w *naive) fits(p *corev1.Pod, n *corev1.Node) bool {
	later := *w
	later.pods = maps.Clone(w.pods)
	for _, h := range w.against(p) {
		later.pods["held "+string(h.UID)] = h
	}
	return w.fitsNow(p, n) && later.fitsNow(p, n)
}

func (w *naive) selects(t *corev1.PodAffinityTerm, of, pod *corev1.Pod) bool {
	inNamespace := slices.Contains(t.Namespaces, pod.Namespace)
	if t.NamespaceSelector != nil {
		s, _ := metav1.LabelSelectorAsSelector(t.NamespaceSelector)
		inNamespace = inNamespace || s.Matches(labels.Set(w.namespaces[pod.Namespace]))
	} else if len(t.Namespaces) == 0 {
		inNamespace = pod.Namespace == of.Namespace
	}
	s, _ := metav1.LabelSelectorAsSelector(t.LabelSelector)
	for _, key := range t.MatchLabelKeys {
		if v, ok := of.Labels[key]; ok && pod.Labels[key] != v {
			return false
		}
	}
	return inNamespace && s.Matches(labels.Set(pod.Labels))
}

// same: two nodes have one value of a topology.
func (w *naive) same(key, a string, b *corev1.Node) bool {
	n := w.nodes[a]
	if n == nil {
		return false
	}
	va, oka := n.Labels[key]
	vb, okb := b.Labels[key]
	return oka && okb && va == vb
}

func parts(p *corev1.Pod) (near, apart []corev1.PodAffinityTerm, prefer []corev1.WeightedPodAffinityTerm) {
	if a := p.Spec.Affinity; a != nil && a.PodAffinity != nil {
		near = a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution
		prefer = append(prefer, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution...)
	}
	if a := p.Spec.Affinity; a != nil && a.PodAntiAffinity != nil {
		apart = a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
		for _, t := range a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
			t.Weight = -t.Weight
			prefer = append(prefer, t)
		}
	}
	return near, apart, prefer
}

func (w *naive) fitsNow(p *corev1.Pod, n *corev1.Node) bool {
	if n.Spec.Unschedulable || !isReady(n) {
		return false
	}
	if _, bad := untolerated(n, p.Spec.Tolerations); bad {
		return false
	}
	if ok, _ := nodeaffinity.GetRequiredNodeAffinity(p).Match(n); !ok {
		return false
	}
	used := PodRequests(p)
	for _, o := range w.pods {
		if o.Spec.NodeName == n.Name {
			used.Add(PodRequests(o))
		}
	}
	for name, need := range PodRequests(p) {
		q := n.Status.Allocatable[name]
		if need > 0 && used[name] > amount(name, q) {
			return false
		}
	}
	return w.nearAndApart(p, n) && w.spreads(p, n)
}

func (w *naive) nearAndApart(p *corev1.Pod, n *corev1.Node) bool {
	near, apart, _ := parts(p)
	all := func(o *corev1.Pod) bool {
		return !slices.ContainsFunc(near, func(t corev1.PodAffinityTerm) bool { return !w.selects(&t, p, o) })
	}
	anywhere := false // a Pod that counts for any of the terms
	for _, o := range w.pods {
		for _, t := range near {
			if m := w.nodes[o.Spec.NodeName]; m != nil && all(o) {
				_, ok := m.Labels[t.TopologyKey]
				anywhere = anywhere || ok
			}
		}
	}
	first := len(near) > 0 && !anywhere && all(p)
	for _, t := range near {
		if _, ok := n.Labels[t.TopologyKey]; !ok {
			return false
		}
		here := false
		for _, o := range w.pods {
			here = here || all(o) && w.same(t.TopologyKey, o.Spec.NodeName, n)
		}
		if !here && !first {
			return false
		}
	}
	for i := range apart {
		for _, o := range w.pods {
			if w.selects(&apart[i], p, o) && w.same(apart[i].TopologyKey, o.Spec.NodeName, n) {
				return false
			}
		}
	}
	for _, o := range w.pods {
		_, theirs, _ := parts(o)
		for i := range theirs {
			if w.selects(&theirs[i], o, p) && w.same(theirs[i].TopologyKey, o.Spec.NodeName, n) {
				return false
			}
		}
	}
	return true
}

// counts are the Pods of a constraint by the values that count.
func (w *naive) counts(p *corev1.Pod, c *corev1.TopologySpreadConstraint) (counts map[string]int64, self bool) {
	selector, _ := metav1.LabelSelectorAsSelector(c.LabelSelector)
	match := func(o *corev1.Pod) bool {
		for _, key := range c.MatchLabelKeys {
			if v, ok := p.Labels[key]; ok && o.Labels[key] != v {
				return false
			}
		}
		return o.Namespace == p.Namespace && selector.Matches(labels.Set(o.Labels))
	}
	counts = map[string]int64{}
	for _, n := range w.nodes {
		if !w.counted(p, c, n) {
			continue
		}
		counts[n.Labels[c.TopologyKey]] += 0
		for _, o := range w.pods {
			if o.Spec.NodeName == n.Name && o.DeletionTimestamp == nil && match(o) {
				counts[n.Labels[c.TopologyKey]]++
			}
		}
	}
	return counts, match(p)
}

func (w *naive) counted(p *corev1.Pod, c *corev1.TopologySpreadConstraint, n *corev1.Node) bool {
	for _, o := range p.Spec.TopologySpreadConstraints {
		if _, ok := n.Labels[o.TopologyKey]; !ok && o.WhenUnsatisfiable == c.WhenUnsatisfiable {
			return false
		}
	}
	if c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor {
		if ok, _ := nodeaffinity.GetRequiredNodeAffinity(p).Match(n); !ok {
			return false
		}
	}
	if c.NodeTaintsPolicy != nil && *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor {
		if _, bad := untolerated(n, p.Spec.Tolerations); bad || n.Spec.Unschedulable || !isReady(n) {
			return false // nobody here tolerates those
		}
	}
	return true
}

func (w *naive) spreads(p *corev1.Pod, n *corev1.Node) bool {
	for i := range p.Spec.TopologySpreadConstraints {
		c := &p.Spec.TopologySpreadConstraints[i]
		if c.WhenUnsatisfiable != corev1.DoNotSchedule {
			continue
		}
		value, ok := n.Labels[c.TopologyKey]
		if !ok {
			return false
		}
		counts, self := w.counts(p, c)
		least := int64(math.MaxInt64)
		for _, n := range counts {
			least = min(least, n)
		}
		if len(counts) == 0 || (c.MinDomains != nil && len(counts) < int(*c.MinDomains)) {
			least = 0
		}
		skew := counts[value] - least
		if self {
			skew++
		}
		if skew > int64(c.MaxSkew) {
			return false
		}
	}
	return true
}

// decide is the best node, or "".
func (w *naive) decide(p *corev1.Pod) string {
	if h := w.held[p.UID]; h != nil && w.nodes[h.Spec.NodeName] != nil && w.fits(p, w.nodes[h.Spec.NodeName]) {
		return h.Spec.NodeName
	}
	var fit []string
	near, crowd := map[string]int64{}, map[string]int64{}
	prefer := int64(0)
	for _, name := range sortedKeys(w.nodes) {
		if w.fits(p, w.nodes[name]) {
			fit = append(fit, name)
			near[name] = w.nearness(p, w.nodes[name])
			prefer = max(prefer, preferred(p, w.nodes[name]))
			if c, ok := w.crowdedness(p, w.nodes[name]); ok {
				crowd[name] = c
			}
		}
	}
	minNear, maxNear := bounds(near)
	minCrowd, maxCrowd := bounds(crowd)
	soft := slices.ContainsFunc(p.Spec.TopologySpreadConstraints, func(c corev1.TopologySpreadConstraint) bool { return c.WhenUnsatisfiable == corev1.ScheduleAnyway })
	best, bestTotal := "", [4]int64{}
	for _, name := range fit {
		n := w.nodes[name]
		wish := w.ownWish(p, n)
		if prefer > 0 {
			wish += 2 * (100 * preferred(p, n) / prefer)
		}
		if maxNear > minNear {
			wish += 2 * (100 * (near[name] - minNear) / (maxNear - minNear))
		}
		if c, ok := crowd[name]; soft && ok {
			if maxCrowd == 0 {
				wish += 200
			} else {
				wish += 2 * (100 * (maxCrowd + minCrowd - c) / maxCrowd)
			}
		}
		total := [4]int64{wish, -w.inZone(p, n), -w.owned(p, name), w.room(p, n)}
		if best == "" || slices.Compare(total[:], bestTotal[:]) > 0 {
			best, bestTotal = name, total
		}
	}
	return best
}

func bounds(m map[string]int64) (least, most int64) {
	all := slices.Sorted(maps.Values(m))
	if len(all) == 0 {
		return 0, 0
	}
	return all[0], all[len(all)-1]
}

func (w *naive) nearness(p *corev1.Pod, n *corev1.Node) int64 {
	var sum int64
	_, _, mine := parts(p)
	for _, o := range w.pods {
		for i := range mine {
			if t := &mine[i].PodAffinityTerm; w.selects(t, p, o) && w.same(t.TopologyKey, o.Spec.NodeName, n) {
				sum += int64(mine[i].Weight)
			}
		}
		near, _, theirs := parts(o)
		for i := range near {
			if w.selects(&near[i], o, p) && w.same(near[i].TopologyKey, o.Spec.NodeName, n) {
				sum++
			}
		}
		for i := range theirs {
			if t := &theirs[i].PodAffinityTerm; w.selects(t, o, p) && w.same(t.TopologyKey, o.Spec.NodeName, n) {
				sum += int64(theirs[i].Weight)
			}
		}
	}
	return sum
}

func (w *naive) crowdedness(p *corev1.Pod, n *corev1.Node) (int64, bool) {
	var sum int64
	for i := range p.Spec.TopologySpreadConstraints {
		c := &p.Spec.TopologySpreadConstraints[i]
		if c.WhenUnsatisfiable != corev1.ScheduleAnyway {
			continue
		}
		value, ok := n.Labels[c.TopologyKey]
		if !ok {
			return 0, false
		}
		counts, _ := w.counts(p, c)
		sum += counts[value]*int64(math.Round(1024*math.Log(float64(len(counts)+2)))) + int64(c.MaxSkew-1)*1024
	}
	return sum, true
}

func (w *naive) ownWish(p *corev1.Pod, n *corev1.Node) int64 {
	var wish int64
	for _, t := range n.Spec.Taints {
		tolerated := slices.ContainsFunc(p.Spec.Tolerations, func(o corev1.Toleration) bool { return o.Key == t.Key })
		if t.Effect == corev1.TaintEffectPreferNoSchedule && !tolerated {
			wish -= 300
		}
	}
	return wish
}

// preferred is what a node scores by preferred node affinity.
func preferred(p *corev1.Pod, n *corev1.Node) (score int64) {
	if a := p.Spec.Affinity; a != nil && a.NodeAffinity != nil {
		for _, t := range a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
			if slices.Contains(t.Preference.MatchExpressions[0].Values, n.Labels[t.Preference.MatchExpressions[0].Key]) {
				score += int64(t.Weight)
			}
		}
	}
	return score
}

// inZone counts the Pods of the same controller in the zone of a node, for a Pod
// that says nothing of topology spread.
func (w *naive) inZone(p *corev1.Pod, n *corev1.Node) int64 {
	if len(p.Spec.TopologySpreadConstraints) > 0 {
		return 0
	}
	var count int64
	for name := range w.nodes {
		if w.same(corev1.LabelTopologyZone, name, n) {
			count += w.owned(p, name)
		}
	}
	return count
}

func (w *naive) owned(p *corev1.Pod, node string) int64 {
	var n int64
	for _, o := range w.pods {
		if o.Spec.NodeName == node && Owner(p) != "" && Owner(o) == Owner(p) {
			n++
		}
	}
	return n
}

// weighed is what a Pod of one container counts for when nodes are compared.
func weighed(p *corev1.Pod) Requests {
	out := Requests{corev1.ResourceCPU: 100, corev1.ResourceMemory: 200 << 20}
	for name, q := range p.Spec.Containers[0].Resources.Requests {
		out[name] = amount(name, q)
	}
	return out
}

func (w *naive) room(p *corev1.Pod, n *corev1.Node) int64 {
	used := weighed(p)
	for _, o := range w.pods {
		if o.Spec.NodeName == n.Name {
			used.Add(weighed(o))
		}
	}
	room := int64(1000)
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if have := amount(name, n.Status.Allocatable[name]); have > 0 {
			room = min(room, (have-used[name])*1000/have)
		}
	}
	return max(room, -1000)
}
