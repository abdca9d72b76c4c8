package scheduler

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// compilePods reads what a Pod says of other Pods. What validation would refuse
// selects nothing.
func (c *Cluster) compilePods(k *class, pod *corev1.Pod) {
	if a := pod.Spec.Affinity; a != nil && a.PodAffinity != nil {
		c.compileNear(k, pod, a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
		c.compilePrefers(k, pod, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution, 1)
	}
	if a := pod.Spec.Affinity; a != nil && a.PodAntiAffinity != nil {
		for i := range a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
			t := &a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[i]
			k.apart = append(k.apart, c.term(k, newMatcher([]selected{selectedBy(pod, t)}), t.TopologyKey, nil, ""))
		}
		c.compilePrefers(k, pod, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution, -1)
	}
	c.compileSpread(k, pod)
}

// compileNear: a Pod counts for required affinity only if it matches all terms
// of it, as in Kubernetes.
func (c *Cluster) compileNear(k *class, pod *corev1.Pod, terms []corev1.PodAffinityTerm) {
	all := make([]selected, len(terms))
	for i := range terms {
		all[i] = selectedBy(pod, &terms[i])
	}
	m := newMatcher(all)
	for i := range terms {
		k.near = append(k.near, c.term(k, m, terms[i].TopologyKey, nil, ""))
		k.draws = append(k.draws, c.term(k, newMatcher(all[i:i+1]), terms[i].TopologyKey, nil, ""))
	}
	k.selfNear = len(terms) > 0 && m.selects(c, k.identity)
}

func (c *Cluster) compilePrefers(k *class, pod *corev1.Pod, terms []corev1.WeightedPodAffinityTerm, sign int32) {
	for i := range terms {
		t := &terms[i].PodAffinityTerm
		k.prefers = append(k.prefers, preference{c.term(k, newMatcher([]selected{selectedBy(pod, t)}), t.TopologyKey, nil, ""), sign * terms[i].Weight})
	}
}

func selectedBy(pod *corev1.Pod, t *corev1.PodAffinityTerm) selected {
	s := selected{namespaces: slices.Compact(slices.Sorted(slices.Values(t.Namespaces))), selector: selectorOf(t.LabelSelector)}
	switch {
	case t.NamespaceSelector != nil:
		s.among = selectorOf(t.NamespaceSelector)
	case len(t.Namespaces) == 0:
		s.namespaces = []string{pod.Namespace}
	}
	if t.LabelSelector != nil {
		s.selector = withKeys(s.selector, pod, t.MatchLabelKeys, selection.In)
		s.selector = withKeys(s.selector, pod, t.MismatchLabelKeys, selection.NotIn)
	}
	return s
}

// selectorOf: no selector selects nothing, an empty one everything.
func selectorOf(s *metav1.LabelSelector) labels.Selector {
	out, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return out
}

// withKeys narrows a selector by the Pod's own values of some labels; keys that
// it does not have are passed over.
func withKeys(s labels.Selector, pod *corev1.Pod, keys []string, op selection.Operator) labels.Selector {
	for _, key := range keys {
		value, ok := pod.Labels[key]
		if !ok {
			continue
		}
		if r, err := labels.NewRequirement(key, op, []string{value}); err == nil {
			s = s.Add(*r)
		}
	}
	return s
}

func (c *Cluster) compileSpread(k *class, pod *corev1.Pod) {
	keys := map[corev1.UnsatisfiableConstraintAction][]string{}
	for i := range pod.Spec.TopologySpreadConstraints {
		t := &pod.Spec.TopologySpreadConstraints[i]
		keys[t.WhenUnsatisfiable] = append(keys[t.WhenUnsatisfiable], t.TopologyKey)
	}
	for i := range pod.Spec.TopologySpreadConstraints {
		t := &pod.Spec.TopologySpreadConstraints[i]
		selector := selectorOf(t.LabelSelector)
		if t.LabelSelector != nil {
			selector = withKeys(selector, pod, t.MatchLabelKeys, selection.In)
		}
		m := newMatcher([]selected{{namespaces: []string{pod.Namespace}, selector: selector}})
		s, id := scopeOf(k, pod, t, keys[t.WhenUnsatisfiable])
		one := constraint{term: c.term(k, m, t.TopologyKey, s, id), maxSkew: t.MaxSkew, minDomains: 1}
		if t.MinDomains != nil {
			one.minDomains = *t.MinDomains
		}
		if m.selects(c, k.identity) {
			one.self = 1
		}
		if t.WhenUnsatisfiable == corev1.DoNotSchedule {
			k.hard = append(k.hard, one)
		} else {
			k.soft = append(k.soft, one)
		}
	}
}

// scopeOf is where a constraint counts, with a text that is the same for equal scopes.
func scopeOf(k *class, pod *corev1.Pod, t *corev1.TopologySpreadConstraint, keys []string) (*scope, string) {
	s := &scope{keys: slices.Sorted(slices.Values(keys))}
	b := []byte("spread " + strings.Join(s.keys, ",") + " ")
	if t.NodeAffinityPolicy == nil || *t.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor {
		if k.selects {
			s.affinity = &k.required
			b = set(b, pod.Spec.NodeSelector)
			if pod.Spec.Affinity != nil && pod.Spec.Affinity.NodeAffinity != nil {
				b = part(b, pod.Spec.Affinity.NodeAffinity)
			}
		}
	}
	if t.NodeTaintsPolicy != nil && *t.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor {
		s.taints, s.tolerations = true, pod.Spec.Tolerations
		b = append(b, " taints "+strconv.Itoa(len(s.tolerations))...)
		ordered := slices.SortedFunc(slices.Values(s.tolerations), func(a, b corev1.Toleration) int { return cmp.Compare(a.String(), b.String()) })
		for i := range ordered {
			b = part(b, &ordered[i])
		}
	}
	return s, string(b)
}
