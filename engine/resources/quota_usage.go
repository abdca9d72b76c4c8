package resources

import (
	"cmp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/upstream"
)

// classSuffix ends the names of resources that count the claims of one class, such
// as gold.storageclass.storage.k8s.io/requests.storage.
const classSuffix = ".storageclass.storage.k8s.io/"

// countName is how a quota counts the objects of a kind (count/deployments.apps).
func countName(row *Resource) corev1.ResourceName {
	if row.Group == "" {
		return corev1.ResourceName("count/" + row.Plural)
	}
	return corev1.ResourceName("count/" + row.Plural + "." + row.Group)
}

// legacyCounts are the kinds that a quota counts by their name alone as well.
func legacyCounts() []string {
	return []string{"services", "secrets", "configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas"}
}

// mentions reports whether a quota limits anything of a kind.
func mentions(hard corev1.ResourceList, row *Resource) bool {
	for name := range hard {
		text := string(name)
		var kind string
		switch {
		case strings.HasPrefix(text, "count/"):
			if name == countName(row) {
				return true
			}
			continue
		case row.Group != "":
			continue
		case text == "requests.storage", strings.Contains(text, classSuffix):
			kind = "persistentvolumeclaims"
		case strings.HasPrefix(text, "services"):
			kind = "services"
		case slices.Contains(legacyCounts(), text):
			kind = text
		default:
			kind = "pods"
		}
		if row.Plural == kind {
			return true
		}
	}
	return false
}

// usageOf is what an object takes of quotas, by all names that one can have
// (https://kubernetes.io/docs/concepts/policy/resource-quotas/).
func usageOf(row *Resource, obj client.Object, now time.Time) corev1.ResourceList {
	out := corev1.ResourceList{countName(row): *resource.NewQuantity(1, resource.DecimalSI)}
	if row.Group == "" && slices.Contains(legacyCounts(), row.Plural) {
		out[corev1.ResourceName(row.Plural)] = *resource.NewQuantity(1, resource.DecimalSI)
	}
	switch o := obj.(type) {
	case *corev1.Pod:
		podUsage(out, o, now)
	case *corev1.Service:
		serviceUsage(out, o)
	case *corev1.PersistentVolumeClaim:
		claimUsage(out, o)
	}
	return out
}

// podUsage: a Pod that has ended takes nothing any more, nor one that had to be
// gone by now: its node is silent.
func podUsage(out corev1.ResourceList, p *corev1.Pod, now time.Time) {
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return
	}
	if p.DeletionTimestamp != nil && now.After(p.DeletionTimestamp.Time) { // which includes its grace period
		return
	}
	out[corev1.ResourcePods] = *resource.NewQuantity(1, resource.DecimalSI)
	for name, q := range upstream.PodRequests(p) {
		if name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage {
			out[name] = q
		}
		out["requests."+name] = q
	}
	for name, q := range upstream.PodLimits(p) {
		out["limits."+name] = q
	}
}

func serviceUsage(out corev1.ResourceList, s *corev1.Service) {
	ports := int64(0)
	switch s.Spec.Type {
	case corev1.ServiceTypeLoadBalancer:
		out[corev1.ResourceServicesLoadBalancers] = *resource.NewQuantity(1, resource.DecimalSI)
		for _, p := range s.Spec.Ports {
			if p.NodePort != 0 || s.Spec.AllocateLoadBalancerNodePorts == nil || *s.Spec.AllocateLoadBalancerNodePorts {
				ports++
			}
		}
	case corev1.ServiceTypeNodePort:
		ports = int64(len(s.Spec.Ports))
	}
	out[corev1.ResourceServicesNodePorts] = *resource.NewQuantity(ports, resource.DecimalSI)
}

func claimUsage(out corev1.ResourceList, c *corev1.PersistentVolumeClaim) {
	class := ""
	if c.Spec.StorageClassName != nil {
		class = *c.Spec.StorageClassName
	}
	size, asks := c.Spec.Resources.Requests[corev1.ResourceStorage]
	if asks {
		out[corev1.ResourceRequestsStorage] = size
	}
	if class == "" {
		return
	}
	out[corev1.ResourceName(class+classSuffix+"persistentvolumeclaims")] = *resource.NewQuantity(1, resource.DecimalSI)
	if asks {
		out[corev1.ResourceName(class+classSuffix+"requests.storage")] = size
	}
}

// unspecified names what each container of a Pod must say because a quota limits
// it, and the containers that do not.
func unspecified(hard corev1.ResourceList, p *corev1.Pod) string {
	var out []string
	for _, name := range []corev1.ResourceName{
		corev1.ResourceCPU, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory,
		corev1.ResourceMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory,
	} {
		if _, ok := hard[name]; !ok {
			continue
		}
		limits := strings.HasPrefix(string(name), "limits.")
		of := corev1.ResourceName(strings.TrimPrefix(strings.TrimPrefix(string(name), "limits."), "requests."))
		var missing []string
		for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
			list := c.Resources.Requests
			if limits {
				list = c.Resources.Limits
			}
			if _, ok := list[of]; !ok && !saidForPod(p, of, limits) {
				missing = append(missing, c.Name)
			}
		}
		if len(missing) > 0 {
			slices.Sort(missing)
			out = append(out, string(name)+" for: "+strings.Join(missing, ","))
		}
	}
	return strings.Join(out, "; ")
}

func saidForPod(p *corev1.Pod, name corev1.ResourceName, limits bool) bool {
	r := p.Spec.Resources
	if r == nil {
		return false
	}
	list := r.Requests
	if limits {
		list = r.Limits
	}
	_, ok := list[name]
	return ok
}

// covers reports whether an object is in all scopes of a quota. With scopes only
// Pods are.
func covers(q *corev1.ResourceQuota, obj client.Object) bool {
	var all []corev1.ScopedResourceSelectorRequirement
	for _, s := range q.Spec.Scopes {
		all = append(all, corev1.ScopedResourceSelectorRequirement{ScopeName: s, Operator: corev1.ScopeSelectorOpExists})
	}
	if s := q.Spec.ScopeSelector; s != nil {
		all = append(all, s.MatchExpressions...)
	}
	if len(all) == 0 {
		return true
	}
	pod, ok := obj.(*corev1.Pod)
	return ok && !slices.ContainsFunc(all, func(r corev1.ScopedResourceSelectorRequirement) bool { return !inScope(pod, r) })
}

func inScope(p *corev1.Pod, r corev1.ScopedResourceSelectorRequirement) bool {
	switch r.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return p.Spec.ActiveDeadlineSeconds != nil
	case corev1.ResourceQuotaScopeNotTerminating:
		return p.Spec.ActiveDeadlineSeconds == nil
	case corev1.ResourceQuotaScopeBestEffort:
		return upstream.PodQOS(p) == corev1.PodQOSBestEffort
	case corev1.ResourceQuotaScopeNotBestEffort:
		return upstream.PodQOS(p) != corev1.PodQOSBestEffort
	case corev1.ResourceQuotaScopePriorityClass:
		class := p.Spec.PriorityClassName
		switch cmp.Or(r.Operator, corev1.ScopeSelectorOpExists) {
		case corev1.ScopeSelectorOpIn:
			return slices.Contains(r.Values, class)
		case corev1.ScopeSelectorOpNotIn:
			return !slices.Contains(r.Values, class)
		case corev1.ScopeSelectorOpDoesNotExist:
			return class == ""
		}
		return class != ""
	}
	return false // api/support refuses the others
}
