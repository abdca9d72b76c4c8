package authorize

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"berth.dev/berth/api/upstream"
	"berth.dev/berth/api/v1alpha1"
)

// heartbeats is the namespace of the nodes' Leases.
const heartbeats = "kube-node-lease"

// node: a node's agent reads how the cluster is connected, writes its own Node,
// Lease and Pods, and reads what those Pods mount (as Kubernetes' node
// authorizer and its NodeRestriction do).
func (z *Authorizer) node(ctx context.Context, node string, a Attributes) (bool, string) {
	if a.Resource == "" || node == "" {
		return false, "nodes may not"
	}
	if shared(a) || own(node, a) {
		return true, "role node"
	}
	if a.Group == "" && a.Resource == "persistentvolumes" && a.Subresource == "" && a.Verb == "update" && a.Name != "" {
		return z.volume(ctx, node, a.Name)
	}
	if !mountable(a) && a.Resource != "pods" {
		return false, fmt.Sprintf("node %s may not %s %s", node, a.Verb, resource(a))
	}
	if a.Namespace == "" || a.Name == "" {
		return false, fmt.Sprintf("node %s may ask for %s by name alone", node, resource(a))
	}
	pods, err := z.Pods(ctx, node, a.Namespace)
	if err != nil {
		return false, fmt.Sprintf("the pods of node %s cannot be read now", node)
	}
	if slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return concerns(p, a) }) {
		return true, "a pod on the node needs it"
	}
	return false, fmt.Sprintf("no pod on node %s has to do with %s %s/%s", node, resource(a), a.Namespace, a.Name)
}

// volume: a node lets go of its own volumes, when their data is removed.
func (z *Authorizer) volume(ctx context.Context, node, name string) (bool, string) {
	pv, err := z.Volume(ctx, name)
	if err != nil {
		return false, "volume " + name + " cannot be read now"
	}
	if v1alpha1.NodeOfVolume(pv) != node || !v1alpha1.RemovableVolume(pv) {
		return false, fmt.Sprintf("volume %s is not one that node %s is to remove", name, node)
	}
	return true, "a volume on the node that is to be removed"
}

func resource(a Attributes) string {
	if a.Subresource == "" {
		return a.Resource
	}
	return a.Resource + "/" + a.Subresource
}

func writes(verb string) bool { return slices.Contains([]string{"create", "update", "patch"}, verb) }

// shared is what each node may do.
func shared(a Attributes) bool {
	switch a.Group + "/" + a.Resource {
	case "/services", "/endpoints", "/nodes", "/namespaces", "/persistentvolumes", "discovery.k8s.io/endpointslices",
		"networking.k8s.io/networkpolicies", "storage.k8s.io/storageclasses":
		return reads(a.Verb) && a.Subresource == ""
	case "/events", "events.k8s.io/events":
		return writes(a.Verb) && a.Subresource == ""
	case "authentication.k8s.io/tokenreviews", "authorization.k8s.io/subjectaccessreviews", "authorization.k8s.io/localsubjectaccessreviews":
		return a.Verb == "create"
	}
	return false
}

// own is what a node may do with what bears its name. A creation has no name
// yet; it is asked about again with the name of the object.
func own(node string, a Attributes) bool {
	mine := a.Name == node || (a.Name == "" && a.Verb == "create")
	switch a.Group + "/" + a.Resource {
	case "/nodes":
		return mine && writes(a.Verb) && (a.Subresource == "" || a.Subresource == "status")
	case "coordination.k8s.io/leases":
		return mine && a.Namespace == heartbeats && a.Subresource == "" && (writes(a.Verb) || reads(a.Verb) || a.Verb == "delete")
	case "/pods":
		return a.NodeName == node && (a.Verb == "list" || a.Verb == "watch") && a.Subresource == ""
	}
	return false
}

// mountable is what a node may read when one of its Pods refers to it.
func mountable(a Attributes) bool {
	if a.Group != "" {
		return false
	}
	switch resource(a) {
	case "secrets", "configmaps", "persistentvolumeclaims", "serviceaccounts":
		return reads(a.Verb)
	case "serviceaccounts/token":
		return a.Verb == "create"
	}
	return false
}

// concerns: the Pod is the one that is asked about, or refers to it.
func concerns(p *corev1.Pod, a Attributes) bool {
	switch a.Resource {
	case "pods":
		return p.Name == a.Name && ownPod(a)
	case "secrets":
		return slices.Contains(upstream.PodSecrets(p), a.Name)
	case "configmaps":
		return slices.Contains(upstream.PodConfigMaps(p), a.Name)
	case "serviceaccounts":
		return p.Spec.ServiceAccountName == a.Name
	case "persistentvolumeclaims":
		return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
			return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == a.Name
		})
	}
	return false
}

// ownPod is what a node may do with a Pod that is bound to it.
func ownPod(a Attributes) bool {
	if a.Group != "" {
		return false
	}
	switch a.Subresource {
	case "":
		return a.Verb == "get" || a.Verb == "delete"
	case "status":
		return a.Verb == "get" || a.Verb == "update" || a.Verb == "patch"
	case "eviction":
		return a.Verb == "create"
	}
	return false
}
