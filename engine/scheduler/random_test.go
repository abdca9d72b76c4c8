package scheduler

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// chance makes clusters that are small enough for everything to meet.
type chance struct{ *rand.Rand }

func (r chance) one(of ...string) string { return of[r.IntN(len(of))] }

func (r chance) maybe() bool { return r.IntN(3) == 0 }

func (r chance) node(name string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	if r.IntN(6) > 0 {
		n.Labels["zone"] = r.one("x", "y", "z")
	}
	if r.maybe() {
		n.Labels["disk"] = r.one("ssd", "hdd")
	}
	if r.IntN(4) > 0 {
		n.Labels[corev1.LabelTopologyZone] = r.one("one", "two")
	}
	if r.IntN(5) == 0 {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: r.one("k", "l"), Effect: corev1.TaintEffect(r.one("NoSchedule", "NoExecute", "PreferNoSchedule"))})
	}
	n.Spec.Unschedulable = r.IntN(12) == 0
	ready := corev1.ConditionTrue
	if r.IntN(12) == 0 {
		ready = corev1.ConditionFalse
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(r.one("1", "2", "4")), corev1.ResourceMemory: resource.MustParse(r.one("1Gi", "4Gi")), corev1.ResourcePods: resource.MustParse(r.one("5", "10")),
	}
	if r.IntN(4) == 0 {
		n.Status.Allocatable["example.org/gpu"] = resource.MustParse("2")
	}
	return n
}

func (r chance) selector() *metav1.LabelSelector {
	switch r.IntN(8) {
	case 0:
		return nil
	case 1:
		return &metav1.LabelSelector{}
	case 2:
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpNotIn, Values: []string{r.one("web", "db")}}}}
	}
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": r.one("web", "db")}}
}

func (r chance) term() corev1.PodAffinityTerm {
	t := corev1.PodAffinityTerm{TopologyKey: r.one("zone", "zone", corev1.LabelHostname, "disk"), LabelSelector: r.selector()}
	switch r.IntN(8) {
	case 0:
		t.Namespaces = []string{r.one("one", "two")}
	case 1:
		t.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": r.one("s", "t")}}
	case 2:
		t.NamespaceSelector = &metav1.LabelSelector{}
	case 3:
		if t.LabelSelector != nil {
			t.MatchLabelKeys = []string{"rev"}
		}
	}
	return t
}

func (r chance) terms() (required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
	for r.maybe() {
		required = append(required, r.term())
	}
	for r.maybe() {
		preferred = append(preferred, corev1.WeightedPodAffinityTerm{Weight: int32(1 + r.IntN(100)), PodAffinityTerm: r.term()})
	}
	return required, preferred
}

func (r chance) constraint() corev1.TopologySpreadConstraint {
	c := corev1.TopologySpreadConstraint{
		MaxSkew: int32(1 + r.IntN(2)), TopologyKey: r.one("zone", "zone", corev1.LabelHostname, "disk"), LabelSelector: r.selector(),
		WhenUnsatisfiable: corev1.UnsatisfiableConstraintAction(r.one("DoNotSchedule", "ScheduleAnyway")),
	}
	policy := func() *corev1.NodeInclusionPolicy {
		p := corev1.NodeInclusionPolicy(r.one("Honor", "Ignore"))
		return &p
	}
	if r.maybe() {
		c.NodeAffinityPolicy = policy()
	}
	if r.maybe() {
		c.NodeTaintsPolicy = policy()
	}
	if n := int32(1 + r.IntN(4)); r.maybe() && c.WhenUnsatisfiable == corev1.DoNotSchedule {
		c.MinDomains = &n
	}
	if r.maybe() && c.LabelSelector != nil {
		c.MatchLabelKeys = []string{"rev"}
	}
	return c
}

func (r chance) pod(name string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: name, UID: types.UID(name), Namespace: r.one("one", "two"), Labels: map[string]string{"app": r.one("web", "db", "other")},
	}}
	if r.maybe() {
		p.Labels["rev"] = r.one("1", "2")
	}
	if r.maybe() {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{UID: types.UID(r.one("o", "p")), Controller: &yes}}
	}
	requests := corev1.ResourceList{}
	if r.IntN(4) > 0 {
		requests[corev1.ResourceCPU] = resource.MustParse(r.one("100m", "300m"))
		requests[corev1.ResourceMemory] = resource.MustParse(r.one("64Mi", "256Mi"))
	}
	if r.IntN(12) == 0 {
		requests["example.org/gpu"] = resource.MustParse("1")
	}
	p.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: requests}}}
	if r.IntN(5) == 0 {
		p.Spec.NodeSelector = map[string]string{"disk": r.one("ssd", "hdd")}
	}
	if r.maybe() {
		p.Spec.Tolerations = []corev1.Toleration{{Key: r.one("k", "l"), Operator: corev1.TolerationOpExists}}
	}
	for r.maybe() {
		p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, r.constraint())
	}
	if r.maybe() {
		near, apart := &corev1.PodAffinity{}, &corev1.PodAntiAffinity{}
		near.RequiredDuringSchedulingIgnoredDuringExecution, near.PreferredDuringSchedulingIgnoredDuringExecution = r.terms()
		apart.RequiredDuringSchedulingIgnoredDuringExecution, apart.PreferredDuringSchedulingIgnoredDuringExecution = r.terms()
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: near, PodAntiAffinity: apart}
		if r.maybe() {
			p.Spec.Affinity.NodeAffinity = &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{
				{Weight: int32(1 + r.IntN(100)), Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{r.one("x", "y")}}}}},
				{Weight: int32(1 + r.IntN(100)), Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "disk", Operator: corev1.NodeSelectorOpIn, Values: []string{"ssd"}}}}},
			}}
		}
	}
	return p
}

// TestAClusterThatIsKeptDecidesAsOneThatIsReadAnew: whatever changes, in whatever order.
func TestAClusterThatIsKeptDecidesAsOneThatIsReadAnew(t *testing.T) {
	for seed := range uint64(60) {
		r := chance{rand.New(rand.NewPCG(seed, 1))}
		c := New()
		w := &naive{nodes: map[string]*corev1.Node{}, pods: map[string]*corev1.Pod{}, namespaces: map[string]map[string]string{}, held: map[types.UID]*corev1.Pod{}}
		var kinds []*corev1.Pod // some are asked about again and again
		for i := range 8 {
			kinds = append(kinds, r.pod(fmt.Sprint("kind-", i)))
		}
		for step := range 250 {
			r.change(c, w, kinds, step)
			p := kinds[r.IntN(len(kinds))]
			if r.maybe() {
				p = r.pod("fresh")
			} else if h := w.held["held-1"]; h != nil && r.maybe() {
				p = h
			}
			want := w.decide(p)
			d := c.Decide(Pod{Pod: p})
			if d.Node != want {
				t.Fatalf("seed %d, step %d: %q (%s), want %q, for %+v", seed, step, d.Node, d.Message, want, p.Spec)
			}
		}
	}
}

// change does one thing to both.
func (r chance) change(c *Cluster, w *naive, kinds []*corev1.Pod, step int) {
	name := fmt.Sprint("n", r.IntN(8))
	switch r.IntN(10) {
	case 0, 1:
		n := r.node(name)
		w.nodes[name] = n
		c.SetNode(n)
	case 2:
		if r.maybe() {
			delete(w.nodes, name)
			c.RemoveNode(name)
			maps.DeleteFunc(w.held, func(_ types.UID, p *corev1.Pod) bool { return p.Spec.NodeName == name })
		}
	case 3:
		ns := r.one("one", "two")
		w.namespaces[ns] = map[string]string{"team": r.one("s", "t")}
		c.SetNamespace(ns, w.namespaces[ns])
	case 4, 5, 6:
		for _, key := range sortedKeys(w.pods) {
			if r.maybe() {
				c.Remove(w.pods[key].UID)
				delete(w.pods, key)
				break
			}
		}
	case 7:
		for _, key := range sortedKeys(w.pods) {
			if r.maybe() {
				p := w.pods[key].DeepCopy()
				if now := metav1.Now(); r.maybe() {
					p.DeletionTimestamp = &now
				} else {
					p.Labels = map[string]string{"app": r.one("web", "db")}
				}
				w.pods[key] = p
				c.Add(Pod{Pod: p}, p.Spec.NodeName)
				break
			}
		}
	}
	if w.held != nil {
		r.hold(c, w, kinds, name)
	}
	p := kinds[r.IntN(len(kinds))].DeepCopy()
	p.Name = fmt.Sprint("p", step)
	p.UID = types.UID(p.Name)
	if p.Spec.NodeName = c.Decide(Pod{Pod: p}).Node; p.Spec.NodeName == "" {
		p.Spec.NodeName = name // by hand, perhaps on a node that is not known
	}
	w.pods[p.Name] = p
	c.Add(Pod{Pod: p}, p.Spec.NodeName)
}

// hold holds room for a Pod on a node, or lets it go.
func (r chance) hold(c *Cluster, w *naive, kinds []*corev1.Pod, node string) {
	id := types.UID(r.one("held-1", "held-2"))
	switch r.IntN(8) {
	case 0:
		if w.nodes[node] == nil {
			return
		}
		p := kinds[r.IntN(len(kinds))].DeepCopy()
		p.UID, p.Name, p.Spec.NodeName = id, string(id), node
		w.held[id] = p
		c.Reserve(Pod{Pod: p}, node)
	case 1, 2:
		delete(w.held, id)
		c.Unreserve(id)
	}
}

// TestNobodyWaitsWhoFits: no change that helps is missed, and no Pod gets lost.
func TestNobodyWaitsWhoFits(t *testing.T) {
	for seed := range uint64(25) {
		r := chance{rand.New(rand.NewPCG(seed, 2))}
		c := New()
		q := NewQueue(c)
		w := &naive{nodes: map[string]*corev1.Node{}, pods: map[string]*corev1.Pod{}, namespaces: map[string]map[string]string{}, held: map[types.UID]*corev1.Pod{}}
		var kinds []*corev1.Pod
		for i := range 12 {
			p := r.pod(fmt.Sprint("kind-", i))
			priority := int32(r.IntN(3))
			p.Spec.Priority = &priority
			kinds = append(kinds, p)
		}
		waiting := map[types.UID]*corev1.Pod{}
		for step := range 150 {
			r.change(c, w, kinds, step)
			for range r.IntN(3) {
				p := kinds[r.IntN(len(kinds))].DeepCopy()
				p.UID = types.UID(fmt.Sprint("waits-", step, "-", r.IntN(1000)))
				p.Name = string(p.UID)
				waiting[p.UID] = p
				q.Add(Pod{Pod: p})
			}
			for {
				p, refused, ok := q.Next()
				if !ok {
					break
				}
				if refused != nil {
					continue
				}
				d := c.Decide(p)
				if d.Node == "" {
					q.Park(p.UID, d)
					continue
				}
				placed := p.DeepCopy()
				placed.Spec.NodeName = d.Node
				w.pods[placed.Name] = placed
				c.Add(Pod{Pod: placed}, d.Node)
				q.Remove(p.UID)
				delete(waiting, p.UID)
			}
			if q.Len() != len(waiting) {
				t.Fatalf("seed %d, step %d: %d wait, want %d", seed, step, q.Len(), len(waiting))
			}
			for _, id := range sortedKeys(waiting) {
				if d := c.Decide(Pod{Pod: waiting[id]}); d.Node != "" {
					t.Fatalf("seed %d, step %d: %s waits, though it fits on %s", seed, step, id, d.Node)
				}
			}
		}
	}
}

// TestPreemptionMakesRoomAndNoMore: without the victims the Pod fits, and with
// any of them it does not.
func TestPreemptionMakesRoomAndNoMore(t *testing.T) {
	found := 0
	for seed := range uint64(40) {
		r := chance{rand.New(rand.NewPCG(seed, 3))}
		c := New()
		w := &naive{nodes: map[string]*corev1.Node{}, pods: map[string]*corev1.Pod{}, namespaces: map[string]map[string]string{}, held: map[types.UID]*corev1.Pod{}}
		var kinds []*corev1.Pod
		for i := range 12 {
			p := r.pod(fmt.Sprint("kind-", i))
			priority := int32(r.IntN(4))
			p.Spec.Priority = &priority
			kinds = append(kinds, p)
		}
		for step := range 100 {
			r.change(c, w, kinds, step)
			p := Pod{Pod: kinds[r.IntN(len(kinds))].DeepCopy()}
			p.UID = "new"
			if c.Decide(p).Node != "" {
				continue
			}
			made := c.Preempt(p, nil)
			if made.Node == "" {
				continue
			}
			found++
			if !w.fitsWithout(p.Pod, made, -1) {
				t.Fatalf("seed %d, step %d: it does not fit on %s without %d victims", seed, step, made.Node, len(made.Victims))
			}
			for i := range made.Victims {
				if Priority(made.Victims[i]) >= Priority(p.Pod) || w.fitsWithout(p.Pod, made, i) {
					t.Errorf("seed %d, step %d: %s need not go", seed, step, made.Victims[i].Name)
				}
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d preemptions were found", found)
	}
}

// fitsWithout reports whether a Pod fits once its victims are gone, but for one
// that is kept.
func (w *naive) fitsWithout(p *corev1.Pod, made Preemption, keep int) bool {
	there := *w
	there.pods = maps.Clone(w.pods)
	maps.DeleteFunc(there.pods, func(_ string, o *corev1.Pod) bool {
		return o.Spec.NodeName == made.Node && o.DeletionTimestamp != nil && Priority(o) < Priority(p) // it ends anyway
	})
	for i, v := range made.Victims {
		if i != keep {
			delete(there.pods, v.Name)
		}
	}
	return there.fits(p, there.nodes[made.Node])
}
