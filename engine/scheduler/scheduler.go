// Package scheduler decides on which node a Pod runs, and says why when there
// is none. It is pure: what it knows of the cluster is handed in, and the same
// input gives the same answer, however it came about.
//
// A Cluster holds nodes, the Pods on them and what follows from both, and is
// kept up to date by every change, so that one decision rebuilds nothing. A
// Queue holds the Pods that wait, in the order in which they are to be decided,
// and knows which of them a change can help. Neither is safe for concurrent use.
package scheduler

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Pod is a Pod with what the scheduler cannot read from it.
type Pod struct {
	*corev1.Pod
	// Volumes are the claims of the Pod that only some nodes can reach. All must be reached.
	Volumes []Volume
	// Blocked says why no node will do at the moment, such as a claim that is
	// missing; empty when nothing is in the way.
	Blocked string
}

// Volume is a claim with the nodes that reach it: those of its volume
// (PersistentVolume.spec.nodeAffinity.required).
type Volume struct {
	Claim string
	Nodes *corev1.NodeSelector
}

// Decision is the answer for one Pod. Node is empty when none fits; then
// Message says why, such as "0/3 nodes fit: 2 lack memory (need 2Gi, free 1Gi), 1 is cordoned".
type Decision struct {
	Node    string
	Message string
	// Reasons are all that stand against some node, to compare refusals by.
	Reasons Reasons
}

// Reasons are kinds of reasons against a node.
type Reasons uint16

// The kinds of reasons.
const (
	NotReady Reasons = 1 << iota
	Cordoned
	Tainted
	NodeAffinity
	VolumeAffinity
	HostPorts
	Resources
	PodAffinity
	PodAntiAffinity
	// Repelled: by the anti-affinity of a Pod that is there.
	Repelled
	TopologySpread
	// Unlabelled: the node lacks a topology label that the Pod needs.
	Unlabelled
	// Held: the Pod cannot be beside one for which room is held.
	Held
	// Blocked: the Pod waits for something that is no node's.
	Blocked
	NoNodes
)

// lasting are the reasons that the removal of Pods does not end.
const lasting = NotReady | Cordoned | Tainted | NodeAffinity | VolumeAffinity | Unlabelled | Blocked | NoNodes

// apart are the reasons that come from Pods on other nodes, too.
const apart = PodAffinity | PodAntiAffinity | Repelled | TopologySpread | Held

// Owner is the UID of a Pod's controller, or empty.
func Owner(pod *corev1.Pod) types.UID {
	for _, o := range pod.OwnerReferences {
		if o.Controller != nil && *o.Controller {
			return o.UID
		}
	}
	return ""
}

// Priority is that of a Pod, 0 where none is said.
func Priority(pod *corev1.Pod) int32 {
	if pod.Spec.Priority != nil {
		return *pod.Spec.Priority
	}
	return 0
}

// identityOf tells Pods apart: by UID, or by name where they have none.
func identityOf(pod *corev1.Pod) types.UID {
	if pod.UID != "" {
		return pod.UID
	}
	return types.UID(pod.Namespace + "/" + pod.Name)
}
