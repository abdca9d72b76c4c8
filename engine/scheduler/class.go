package scheduler

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// class is what Pods that are alike to the scheduler have in common: where one
// of them fits, its equals do.
type class struct {
	key  string
	refs int // Pods that are placed or wait

	need     []need
	ports    []port
	images   []string
	owner    types.UID
	priority int32
	never    bool // it preempts nobody
	blocked  string

	selects     bool // it has a node selector or node affinity
	required    nodeaffinity.RequiredNodeAffinity
	only        []string // the names that node affinity leaves, sorted; nil for all
	preferred   *nodeaffinity.PreferredSchedulingTerms
	weight      [2]int64 // of CPU and memory, what it counts for when nodes are compared
	volumes     []volume
	tolerations []corev1.Toleration

	identity *identity
	cache    *cache
	uses     []*term
	// near are the terms of required pod affinity; each counts the Pods that match all of them.
	near     []*term
	selfNear bool // it matches them itself
	apart    []*term
	draws    []*term // the terms of near one by one
	prefers  []preference
	hard     []constraint
	soft     []constraint
}

type need struct {
	id int
	n  int64
}

type volume struct {
	claim string
	nodes *nodeaffinity.LazyErrorNodeSelector
}

// preference is a term of preferred pod affinity, or of anti-affinity with a
// weight below 0.
type preference struct {
	*term
	weight int32
}

// constraint is a topology spread constraint.
type constraint struct {
	*term
	maxSkew, minDomains int32
	self                int32 // 1 when the Pod counts itself
}

// sweepAt is how many classes there may be beyond twice those in use.
const sweepAt = 1000

func (c *Cluster) classOf(pod Pod) *class {
	c.key = appendKey(c.key[:0], pod)
	if k := c.classes[string(c.key)]; k != nil {
		return k
	}
	if len(c.classes) > 2*c.live+sweepAt {
		c.sweep()
	}
	k := c.newClass(string(c.key), pod)
	c.classes[k.key] = k
	return k
}

// sweep forgets the classes that no Pod is of.
func (c *Cluster) sweep() {
	for key, k := range c.classes {
		if k.refs == 0 {
			delete(c.classes, key)
			c.release(k)
		}
	}
	c.live = len(c.classes)
}

// release gives back what a class holds.
func (c *Cluster) release(k *class) {
	for _, t := range k.uses {
		c.unuse(t)
	}
	if k.identity.refs--; k.identity.refs == 0 {
		c.forgetIdentity(k.identity)
	}
	if k.cache != nil && k.cache.class == k {
		k.cache.class = nil
	}
}

func (c *Cluster) newClass(key string, pod Pod) *class {
	spec := &pod.Spec
	k := &class{
		key: key, owner: Owner(pod.Pod), priority: Priority(pod.Pod), blocked: pod.Blocked,
		never:       spec.PreemptionPolicy != nil && *spec.PreemptionPolicy == corev1.PreemptNever,
		tolerations: spec.Tolerations, ports: portsOf(pod.Pod),
	}
	for name, n := range PodRequests(pod.Pod) {
		if n != 0 {
			k.need = append(k.need, need{c.resource.id(name), n})
		}
	}
	slices.SortFunc(k.need, func(a, b need) int { return a.id - b.id })
	k.weight = weightOf(pod.Pod)
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			k.images = append(k.images, fullImage(list[i].Image))
		}
	}
	slices.Sort(k.images)
	k.images = slices.Compact(k.images)
	k.compileNodes(pod)
	k.identity = c.identityFor(pod.Namespace, pod.Labels)
	k.identity.refs++
	c.compilePods(k, pod.Pod)
	return k
}

// compileNodes reads what the Pod says of nodes.
func (k *class) compileNodes(pod Pod) {
	k.required = nodeaffinity.GetRequiredNodeAffinity(pod.Pod)
	k.selects = len(pod.Spec.NodeSelector) > 0
	for _, v := range pod.Volumes {
		if v.Nodes != nil {
			k.volumes = append(k.volumes, volume{v.Claim, nodeaffinity.NewLazyErrorNodeSelector(v.Nodes)})
		}
	}
	if pod.Spec.Affinity == nil || pod.Spec.Affinity.NodeAffinity == nil {
		return
	}
	affinity := pod.Spec.Affinity.NodeAffinity
	if r := affinity.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
		k.selects = true
		k.only = named(r)
	}
	if terms := affinity.PreferredDuringSchedulingIgnoredDuringExecution; len(terms) > 0 {
		k.preferred, _ = nodeaffinity.NewPreferredSchedulingTerms(terms) // a term that cannot be read was refused by validation
	}
}

// named are the nodes that a selector names one by one, as those of a
// DaemonSet's Pods do; nil when it does not.
func named(r *corev1.NodeSelector) []string {
	var out []string
	for _, t := range r.NodeSelectorTerms {
		i := slices.IndexFunc(t.MatchFields, func(f corev1.NodeSelectorRequirement) bool {
			return f.Key == metav1.ObjectNameField && f.Operator == corev1.NodeSelectorOpIn
		})
		if i < 0 {
			return nil
		}
		out = append(out, t.MatchFields[i].Values...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// identity is what the terms of other Pods look at: a namespace and labels.
type identity struct {
	namespace string
	key       string
	labels    labels.Set
	// terms are those that select it.
	terms []*term
	// changed is when they last were found anew.
	changed uint64
	refs    int
}

func (c *Cluster) identityFor(namespace string, l map[string]string) *identity {
	key := labelKey(l)
	of := c.identities[namespace]
	if of == nil {
		of = map[string]*identity{}
		c.identities[namespace] = of
	}
	id := of[key]
	if id == nil {
		id = &identity{namespace: namespace, key: key, labels: l}
		of[key] = id
		c.match(id)
	}
	return id
}

func (c *Cluster) forgetIdentity(id *identity) {
	delete(c.identities[id.namespace], id.key)
	if len(c.identities[id.namespace]) == 0 {
		delete(c.identities, id.namespace)
	}
}

func labelKey(l map[string]string) string {
	var b strings.Builder
	for _, k := range sortedKeys(l) {
		b.WriteString(k)
		b.WriteByte('=')
		b.WriteString(l[k])
		b.WriteByte(0)
	}
	return b.String()
}
