package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// maxCauses bounds how many kinds of causes one message names.
const maxCauses = 10

// cause is why a node does not fit. Equal causes are counted together.
type cause struct {
	why Reasons
	// id is the resource, and text what else tells causes apart.
	id   int
	text string
}

// tally counts the nodes of one cause. For resources least and most are what
// the nodes have free.
type tally struct {
	nodes       int
	least, most int64
	last        *node // a node counts once
}

// refusal collects what stands against the nodes, all of it, so that the user
// need not find it one by one.
type refusal struct {
	class   *class
	names   []corev1.ResourceName
	tallies map[cause]*tally
	// lacks are the tallies of the class's needs, which are noted most.
	lacks   []*tally
	reasons Reasons
	now     *node // the one that is looked at
	noted   bool  // something stands against it
}

func (c *Cluster) refuse(k *class, held []*placed) Decision {
	if k.blocked != "" {
		return Decision{Message: k.blocked, Reasons: Blocked}
	}
	nodes := c.inOrder()
	if len(nodes) == 0 {
		return Decision{Message: "0/0 nodes fit: the cluster has no node yet", Reasons: NoNodes}
	}
	r := &refusal{class: k, names: c.resource.list, tallies: map[cause]*tally{}, lacks: make([]*tally, len(k.need))}
	checks := c.checks(k, nil)
	beside := map[*node]bool{}
	if len(held) > 0 {
		c.beside(held, func() {
			later := c.checks(k, nil)
			for _, n := range nodes {
				beside[n] = passes(later, n.slot)
			}
		})
	}
	for _, n := range nodes {
		r.node(n)
		for i := range checks {
			if why := checks[i].fails(n.slot); why != 0 {
				one := cause{why: why, text: checks[i].topology}
				if why == TopologySpread {
					one.id = int(checks[i].maxSkew)
				}
				r.note(one, 0)
			}
		}
		if !r.noted && len(held) > 0 && !beside[n] {
			r.note(cause{why: Held}, 0)
		}
	}
	return Decision{Message: fmt.Sprintf("0/%d nodes fit: %s", len(nodes), r.text()), Reasons: r.reasons}
}

func (r *refusal) note(c cause, free int64) {
	r.noteIn(r.tallies[c], c, free)
}

// noteIn counts in the tally of a cause, or in a new one, and returns it.
func (r *refusal) noteIn(t *tally, c cause, free int64) *tally {
	r.noted = true
	if t == nil {
		r.reasons |= c.why
		t = &tally{least: free, most: free}
		r.tallies[c] = t
	}
	if t.last != r.now {
		t.nodes, t.last = t.nodes+1, r.now
	}
	t.least, t.most = min(t.least, free), max(t.most, free)
	return t
}

// node notes what stands against a node by itself.
func (r *refusal) node(n *node) {
	r.now, r.noted = n, false
	k := r.class
	standing := k.standing(n)
	switch {
	case standing&Cordoned != 0:
		r.note(cause{why: Cordoned}, 0)
	case standing&NotReady != 0:
		r.note(cause{why: NotReady}, 0)
	}
	if standing&Tainted != 0 {
		taint, _ := untolerated(n.node, k.tolerations)
		r.note(cause{why: Tainted, text: taint.ToString()}, 0)
	}
	if standing&NodeAffinity != 0 {
		r.note(cause{why: NodeAffinity}, 0)
	}
	if standing&VolumeAffinity != 0 {
		i := slices.IndexFunc(k.volumes, func(v volume) bool { return !v.reaches(n) })
		r.note(cause{why: VolumeAffinity, text: k.volumes[i].claim}, 0)
	}
	if p, taken := n.portTaken(k); taken {
		r.note(cause{why: HostPorts, text: p.String()}, 0)
	}
	for i, need := range k.need {
		free := at(n.free, need.id)
		if len(n.reserved) > 0 {
			free -= n.held(k, need.id)
		}
		if free >= need.n {
			continue
		}
		if need.id == podCount {
			free = at(n.alloc, podCount) // the limit says more than that nothing is free
		}
		r.lacks[i] = r.noteIn(r.lacks[i], cause{why: Resources, id: need.id}, max(0, free))
	}
}

// text names the causes, the commonest first.
func (r *refusal) text() string {
	type part struct {
		text  string
		nodes int
	}
	parts := make([]part, 0, len(r.tallies))
	for c, t := range r.tallies {
		parts = append(parts, part{r.phrase(c, t), t.nodes})
	}
	slices.SortFunc(parts, func(a, b part) int {
		return cmp.Or(cmp.Compare(b.nodes, a.nodes), cmp.Compare(a.text, b.text))
	})
	var words []string
	for i, p := range parts {
		if i == maxCauses {
			words = append(words, fmt.Sprintf("and %d more reasons", len(parts)-i))
			break
		}
		words = append(words, fmt.Sprintf("%d %s", p.nodes, p.text))
	}
	return strings.Join(words, ", ")
}

// phrase is what a cause is in words, after the number of nodes.
func (r *refusal) phrase(c cause, t *tally) string {
	is, has, lacks, does, cannot := "is", "has", "lacks", "does", "cannot"
	if t.nodes > 1 {
		is, has, lacks, does = "are", "have", "lack", "do"
	}
	switch c.why {
	case Cordoned:
		return is + " cordoned"
	case NotReady:
		return is + " not ready"
	case Tainted:
		return has + " a taint that the pod does not tolerate (" + c.text + ")"
	case NodeAffinity:
		return does + " not match the pod's node selector or node affinity"
	case VolumeAffinity:
		return cannot + " reach the volume of claim " + c.text
	case HostPorts:
		return has + " host port " + c.text + " taken"
	case PodAffinity:
		return has + " no pod in the same " + c.text + " that the pod's affinity asks for"
	case PodAntiAffinity:
		return has + " a pod in the same " + c.text + " that the pod's anti-affinity keeps away from"
	case Repelled:
		return has + " a pod in the same " + c.text + " whose anti-affinity keeps the pod away"
	case TopologySpread:
		return has + fmt.Sprintf(" more pods in the same %s than topology spread allows (maxSkew %d)", c.text, c.id)
	case Held:
		return has + " room held for a pod of the same or a higher priority that the pod cannot be beside"
	case Unlabelled:
		return lacks + " the label " + c.text + " that the pod's affinity or topology spread goes by"
	}
	return lacks + " " + r.resource(c.id, t)
}

func (r *refusal) resource(id int, t *tally) string {
	name := r.names[id]
	free := quantity(name, t.most)
	if id == podCount {
		if t.least != t.most {
			return "room for one more pod (limit up to " + free + ")"
		}
		return "room for one more pod (limit " + free + ")"
	}
	word := "free"
	if t.least != t.most {
		word = "most free"
	}
	i := slices.IndexFunc(r.class.need, func(n need) bool { return n.id == id })
	return fmt.Sprintf("%s (need %s, %s %s)", name, quantity(name, r.class.need[i].n), word, free)
}
