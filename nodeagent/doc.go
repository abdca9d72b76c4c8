// Package nodeagent makes one node match the Pods that are bound to it. It owns
// its Node object and Lease, and wires the parts below it: pods, containerd,
// network, proxy, dns, volumes. It sees the cluster through client.Client alone
// and never imports engine, sources or cue.
//
// The end of an agent ends nothing: containers, rules and names stay, and the
// next agent adopts them. Teardown is what removes them.
package nodeagent
