package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/store"
)

// podRanges are the keys that say which node has which range of addresses.
const podRanges = "/berth/podcidr/"

// podRange gives a node a /24 of the cluster's range that no other has, the same
// each time: the one that its Node names, if there is one.
func podRange(ctx context.Context, s store.Store, c client.Client, cluster netip.Prefix, node string) (netip.Prefix, error) {
	var known corev1.Node
	err := c.Get(ctx, types.NamespacedName{Name: node}, &known)
	if err != nil && !apierrors.IsNotFound(err) {
		return netip.Prefix{}, fmt.Errorf("read node %s: %w", node, err)
	}
	for {
		taken, err := s.List(ctx, store.ListRequest{Prefix: podRanges})
		if err != nil {
			return netip.Prefix{}, fmt.Errorf("read which node has which addresses: %w", err)
		}
		byRange := map[string]string{}
		for _, kv := range taken.KVs {
			if string(kv.Value) == node {
				return netip.ParsePrefix(kv.Key[len(podRanges):])
			}
			byRange[kv.Key[len(podRanges):]] = string(kv.Value)
		}
		free, err := freeRange(cluster, known.Spec.PodCIDR, byRange)
		if err != nil {
			return netip.Prefix{}, err
		}
		_, err = s.Txn(ctx, []store.Op{{Key: podRanges + free.String(), Value: []byte(node), Expect: store.Absent}})
		var conflict *store.ConflictError
		if !errors.As(err, &conflict) { // otherwise another node was first: the next one
			return free, err
		}
	}
}

// freeRange is the range that a node wants, or the first that nobody has.
func freeRange(cluster netip.Prefix, wanted string, taken map[string]string) (netip.Prefix, error) {
	if wanted != "" {
		if other := taken[wanted]; other != "" {
			return netip.Prefix{}, fmt.Errorf("this node and node %s both have the addresses %s: delete the Node of one of them that runs no pods, and start it again", other, wanted)
		}
		return netip.ParsePrefix(wanted)
	}
	first := binary.BigEndian.Uint32(cluster.Addr().AsSlice())
	for i := range uint32(1) << (24 - cluster.Bits()) {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], first+i<<8)
		p := netip.PrefixFrom(netip.AddrFrom4(b), 24)
		if taken[p.String()] == "" {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("all addresses of --cluster-cidr %s are taken by other nodes", cluster)
}
