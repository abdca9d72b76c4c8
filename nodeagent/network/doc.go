// Package network gives pods their addresses: the bridge berth0, a pair of
// links per pod, the routes, and masquerade for traffic that leaves the
// cluster. It owns the links whose names begin with "berth" or "bth", the chain
// postrouting of the nftables table "ip berth", and the address files below its
// folder. It reads the list of pods that exist, and never the cluster.
//
// A pod has a /32 and reaches everything through the node's gateway address, so
// that traffic between two pods of a node is routed, never switched: it passes
// the same hooks as all other traffic, with br_netfilter or without it
// (docs/decisions/pod-network.md).
package network
