package support

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// serviceEntries are fields of how Pods are reached.
func serviceEntries() []Entry {
	const (
		noBalancer = "there is no load balancer; the Service is reached at its node port on every node"
		onlyIPv4   = "addresses are IPv4; leave the field out"
		affinity   = "a client stays with a Pod as long as the Service's Pods are the same"
		nearest    = "traffic goes to all Pods alike"
	)
	ipv6 := func(f []corev1.IPFamily) bool { return slices.Contains(f, corev1.IPv6Protocol) }
	return []Entry{
		ignore[corev1.ServiceSpec]("type", noBalancer).of(string(corev1.ServiceTypeLoadBalancer)),
		ignore[corev1.ServiceSpec]("loadBalancerIP", noBalancer),
		ignore[corev1.ServiceSpec]("loadBalancerClass", noBalancer),
		refuse[corev1.ServiceSpec]("loadBalancerSourceRanges", "every client is let in; limit them in front of the node"),
		refuse[corev1.ServiceSpec]("externalTrafficPolicy", "traffic from outside goes to Pods on all nodes, and they see a node's address for the client's; use hostNetwork where that matters").
			of(string(corev1.ServiceExternalTrafficPolicyLocal)),
		refuse[corev1.ServiceSpec]("healthCheckNodePort", "nothing answers there, for externalTrafficPolicy: Local is not carried out"),
		refuse[corev1.ServiceSpec]("internalTrafficPolicy", "traffic goes to Pods on all nodes").of(string(corev1.ServiceInternalTrafficPolicyLocal)),
		ignore[corev1.ServiceSpec]("trafficDistribution", nearest),
		only(refuse[corev1.ServiceSpec]("ipFamilies", onlyIPv4), "with IPv6", ipv6),
		refuse[corev1.ServiceSpec]("ipFamilyPolicy", onlyIPv4).of(string(corev1.IPFamilyPolicyRequireDualStack)),
		only(ignore[corev1.ServiceSpec]("sessionAffinityConfig.clientIP.timeoutSeconds", affinity), "other than 10800",
			func(n int32) bool { return n != corev1.DefaultClientIPServiceAffinitySeconds }),
		refuse[discoveryv1.EndpointSlice]("addressType", "only endpoints with IPv4 addresses are used").other(string(discoveryv1.AddressTypeIPv4)),
		ignore[discoveryv1.Endpoint]("hints", nearest),
		ignore[discoveryv1.Endpoint]("deprecatedTopology", nearest),
	}
}
