// Package scheduler decides on which node a Pod runs, and says why when there
// is none. It is pure: what it knows of the cluster is handed in, and the same
// input gives the same answer.
package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// Node is a node with what runs on it.
type Node struct {
	Node *corev1.Node
	// Used is the sum of the requests of the Pods that are on it.
	Used Requests
	// Owners counts those Pods by the UID of their controller.
	Owners map[types.UID]int
	// HostPorts counts the Pods on each port that is taken, as "TCP/8080".
	HostPorts map[string]int
}

// Decision is the answer for one Pod. Node is empty when none fits; then
// Message says why, such as "0/3 nodes fit: 2 lack memory (need 2Gi), 1 is cordoned".
type Decision struct {
	Node    string
	Message string
}

// reason why a node does not fit. Equal reasons are counted together.
type reason struct {
	// one and many are the verb phrases for one node and for several.
	one, many string
}

// Place picks the node for a Pod: of those that fit, the one that has the
// fewest Pods of the same controller, then the one with the most room, then
// the first by name.
func Place(pod *corev1.Pod, nodes []Node) Decision {
	if len(nodes) == 0 {
		return Decision{Message: "0/0 nodes fit: the cluster has no node yet"}
	}
	need := PodRequests(pod)
	var best *Node
	refused := map[reason]int{}
	for i := range nodes {
		n := &nodes[i]
		if why, ok := fits(pod, need, n); !ok {
			for _, r := range why {
				refused[r]++
			}
			continue
		}
		if best == nil || better(pod, need, n, best) {
			best = n
		}
	}
	if best == nil {
		return Decision{Message: explain(len(nodes), refused)}
	}
	return Decision{Node: best.Node.Name}
}

// fits lists every reason against a node, so that the user need not find them
// one by one.
func fits(pod *corev1.Pod, need Requests, n *Node) ([]reason, bool) {
	var why []reason
	node := n.Node
	switch {
	case node.Spec.Unschedulable && !toleratesCordon(pod):
		why = append(why, reason{"is cordoned", "are cordoned"})
	case !ready(node):
		why = append(why, reason{"is not ready", "are not ready"})
	}
	if taint, untolerated := untolerated(pod, node); untolerated {
		text := "a taint that the pod does not tolerate (" + taint.ToString() + ")"
		why = append(why, reason{"has " + text, "have " + text})
	}
	match, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node)
	if err != nil {
		why = append(why, reason{"cannot be matched: " + err.Error(), "cannot be matched: " + err.Error()})
	} else if !match {
		text := "not match the pod's node selector or node affinity"
		why = append(why, reason{"does " + text, "do " + text})
	}
	for _, p := range hostPorts(pod) {
		if n.HostPorts[p] > 0 {
			why = append(why, reason{"has host port " + p + " taken", "have host port " + p + " taken"})
		}
	}
	for _, l := range need.lacking(node.Status.Allocatable, n.Used) {
		why = append(why, reason{"lacks " + l, "lack " + l})
	}
	return why, len(why) == 0
}

func toleratesCordon(pod *corev1.Pod) bool {
	taint := corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}
	return corev1helpers.TolerationsTolerateTaint(klog.Background(), pod.Spec.Tolerations, &taint, false)
}

func untolerated(pod *corev1.Pod, node *corev1.Node) (corev1.Taint, bool) {
	return corev1helpers.FindMatchingUntoleratedTaint(klog.Background(), node.Spec.Taints, pod.Spec.Tolerations, func(t *corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
	}, false)
}

func ready(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// HostPorts are the ports of the node that a Pod takes, as "TCP/8080".
func HostPorts(pod *corev1.Pod) []string { return hostPorts(pod) }

func hostPorts(pod *corev1.Pod) []string {
	var out []string
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			port := p.HostPort
			if port == 0 && pod.Spec.HostNetwork {
				port = p.ContainerPort
			}
			if port != 0 {
				out = append(out, fmt.Sprintf("%s/%d", cmp.Or(p.Protocol, corev1.ProtocolTCP), port))
			}
		}
	}
	return out
}

func better(pod *corev1.Pod, need Requests, a, b *Node) bool {
	owner := Owner(pod)
	if owner != "" && a.Owners[owner] != b.Owners[owner] {
		return a.Owners[owner] < b.Owners[owner]
	}
	fa, fb := need.free(a.Node.Status.Allocatable, a.Used), need.free(b.Node.Status.Allocatable, b.Used)
	if fa != fb {
		return fa > fb
	}
	return a.Node.Name < b.Node.Name
}

// Owner is the UID of a Pod's controller, or empty.
func Owner(pod *corev1.Pod) types.UID {
	for _, o := range pod.OwnerReferences {
		if o.Controller != nil && *o.Controller {
			return o.UID
		}
	}
	return ""
}

func explain(total int, refused map[reason]int) string {
	type counted struct {
		text string
		n    int
	}
	var parts []counted
	for r, n := range refused {
		text := r.many
		if n == 1 {
			text = r.one
		}
		parts = append(parts, counted{text, n})
	}
	slices.SortFunc(parts, func(a, b counted) int {
		return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.text, b.text))
	})
	words := make([]string, len(parts))
	for i, p := range parts {
		words[i] = fmt.Sprintf("%d %s", p.n, p.text)
	}
	return fmt.Sprintf("0/%d nodes fit: %s", total, strings.Join(words, ", "))
}
