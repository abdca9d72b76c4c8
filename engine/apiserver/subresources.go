package apiserver

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"berth.dev/berth/engine/resources"
)

// Subresource is a path below an object.
type Subresource struct {
	Name string
	// GroupVersionKind of what is sent there.
	schema.GroupVersionKind
	Verbs []string
}

// Subresources are those of a kind, in the order of discovery.
func Subresources(row *resources.Resource) []Subresource {
	core := func(kind string) schema.GroupVersionKind { return schema.GroupVersionKind{Version: "v1", Kind: kind} }
	writes := []string{"get", "patch", "update"}
	var list []Subresource
	if row.Measured {
		return nil
	}
	switch row.Kind {
	case "Pod":
		list = []Subresource{
			{"attach", core("PodAttachOptions"), []string{"create", "get"}},
			{"binding", core("Binding"), []string{"create"}},
			{ephemeralContainers, core("Pod"), writes},
			{"eviction", schema.GroupVersionKind{Group: "policy", Version: "v1", Kind: "Eviction"}, []string{"create"}},
			{"exec", core("PodExecOptions"), []string{"create", "get"}},
			{"log", core("Pod"), []string{"get"}},
			{"portforward", core("PodPortForwardOptions"), []string{"create", "get"}},
			{"proxy", core("PodProxyOptions"), []string{"create", "delete", "get", "patch", "update"}},
		}
	case "Service":
		list = []Subresource{{"proxy", core("ServiceProxyOptions"), []string{"create", "delete", "get", "patch", "update"}}}
	case "ServiceAccount":
		list = []Subresource{{"token", schema.GroupVersionKind{Group: "authentication.k8s.io", Version: "v1", Kind: "TokenRequest"}, []string{"create"}}}
	case "Namespace":
		list = []Subresource{{"finalize", core("Namespace"), []string{"update"}}}
	}
	if row.Scale {
		list = append(list, Subresource{"scale", schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}, writes})
	}
	if row.Status {
		list = append(list, Subresource{"status", row.GroupVersionKind, writes})
	}
	return list
}

// Verbs of a kind.
func Verbs(row *resources.Resource) []string {
	if row.Review {
		return []string{"create"}
	}
	if row.Measured {
		return []string{"get", "list"}
	}
	if row.ReadOnly {
		return []string{"get", "list", "watch"}
	}
	return []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
}
