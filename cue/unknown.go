package cue

import (
	"fmt"
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"berth.dev/berth/cue/check"
)

// instead says of kinds that Kubernetes has, or had, what Berth has in their place.
// The group is that of today, and the words follow "is not deployed: ".
func instead() map[schema.GroupKind]string {
	const (
		roles = "the kinds of rbac are not served; a ServiceAccount has its role by the annotation berth.dev/role (viewer or admin), so leave this out"
		http  = "nothing routes HTTP by host or path; use a Service of type NodePort, or run a proxy in a Deployment"
		hooks = "no webhooks are called when an object is written; leave it out"
	)
	return map[schema.GroupKind]string{
		{Kind: "PodTemplate"}: "nothing uses it; write the template in a Deployment or a Job",
		{Kind: "Node"}:        "a node joins by itself; leave it out",
		{Kind: "Event"}:       "the cluster writes its events by itself; leave it out",
		{Kind: "Endpoints"}:   "the cluster writes it for each Service with a selector; leave it out",
		{Group: "apps", Kind: "ControllerRevision"}:                                       "the cluster writes it by itself; leave it out",
		{Group: "coordination.k8s.io", Kind: "Lease"}:                                     "the cluster and its programs write their leases by themselves; leave it out",
		{Group: "networking.k8s.io", Kind: "Ingress"}:                                     http,
		{Group: "networking.k8s.io", Kind: "IngressClass"}:                                http,
		{Group: "extensions", Kind: "Ingress"}:                                            http,
		{Group: "rbac.authorization.k8s.io", Kind: "Role"}:                                roles,
		{Group: "rbac.authorization.k8s.io", Kind: "ClusterRole"}:                         roles,
		{Group: "rbac.authorization.k8s.io", Kind: "RoleBinding"}:                         roles,
		{Group: "rbac.authorization.k8s.io", Kind: "ClusterRoleBinding"}:                  roles,
		{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}:                 "kinds of your own are not served, and their objects are refused too; leave both out",
		{Group: "apiregistration.k8s.io", Kind: "APIService"}:                             "the API is not extended by other servers; leave it out",
		{Group: "admissionregistration.k8s.io", Kind: "ValidatingWebhookConfiguration"}:   hooks,
		{Group: "admissionregistration.k8s.io", Kind: "MutatingWebhookConfiguration"}:     hooks,
		{Group: "admissionregistration.k8s.io", Kind: "ValidatingAdmissionPolicy"}:        "objects are checked when they are pushed, in CUE; write the rule there and leave this out",
		{Group: "admissionregistration.k8s.io", Kind: "ValidatingAdmissionPolicyBinding"}: "objects are checked when they are pushed, in CUE; write the rule there and leave this out",
		{Group: "policy", Kind: "PodSecurityPolicy"}:                                      "Kubernetes has removed it; set securityContext in the Pods and leave this out",
		{Group: "extensions", Kind: "PodSecurityPolicy"}:                                  "Kubernetes has removed it; set securityContext in the Pods and leave this out",
	}
}

// unknown says why there is no such kind, and what to write.
func (ks kinds) unknown(gv schema.GroupVersion, name string) string {
	if why := instead()[gv.WithKind(name).GroupKind()]; why != "" {
		return fmt.Sprintf("%s is not deployed: %s", name, why)
	}
	var names []string
	groups := map[string]bool{"extensions": true}
	versions := map[string]schema.GroupVersion{}
	for gvk := range ks {
		names = append(names, gvk.Kind)
		groups[gvk.Group] = true
		versions[gvk.Kind] = gvk.GroupVersion()
	}
	sort.Strings(names)
	supported := strings.Join(names, ", ")
	to, known := versions[name]
	ofKubernetes := strings.HasSuffix(gv.Group, ".k8s.io")
	switch {
	case known && (ofKubernetes || !strings.Contains(gv.Group, ".")):
		return fmt.Sprintf("the kind %s is not in %s; use apiVersion: %s", name, gv, to)
	case ofKubernetes && !groups[gv.Group]:
		return fmt.Sprintf("the group %s of the kind %s is not supported; supported are %s", gv.Group, name, supported)
	case strings.Contains(gv.Group, ".") && !groups[gv.Group]:
		// The kinds of operators may have the names of others, and are none of them.
		return fmt.Sprintf("the group %s of the kind %s is not supported: kinds of operators are not served; supported are %s", gv.Group, name, supported)
	case known:
		return fmt.Sprintf("the kind %s is not in %s; use apiVersion: %s", name, gv, to)
	}
	if near := check.Nearest(name, names); near != "" {
		return fmt.Sprintf("unknown kind %q in %s; did you mean %s? Supported are %s", name, gv, near, supported)
	}
	return fmt.Sprintf("unknown kind %q in %s; supported are %s", name, gv, supported)
}
