package controllers

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/storage"
)

// ground is what the answer for a Pod hangs on: a claim, a class, the volume that a
// claim names, or the free volumes of a class.
type ground struct {
	kind string
	types.NamespacedName
}

func onClaim(key types.NamespacedName) ground { return ground{"claim", key} }
func onClass(name string) ground              { return ground{"class", types.NamespacedName{Name: name}} }
func onVolume(name string) ground             { return ground{"volume", types.NamespacedName{Name: name}} }
func onVolumesOf(class string) ground         { return ground{"volumes of", types.NamespacedName{Name: class}} }

// claimKeys are the claims that a Pod mounts.
func claimKeys(pod *corev1.Pod) []types.NamespacedName {
	var out []types.NamespacedName
	for _, name := range storage.ClaimsIn(pod) {
		out = append(out, types.NamespacedName{Namespace: pod.Namespace, Name: name})
	}
	return out
}

// claimants are the Pods that wait and mount claims, and which of them are to be
// looked at anew because something that their claims hang on has changed.
type claimants struct {
	pods  map[types.NamespacedName]*claimant
	by    map[ground]map[*claimant]bool
	stale map[*claimant]bool
}

type claimant struct {
	*corev1.Pod
	grounds []ground
}

func newClaimants() *claimants {
	return &claimants{pods: map[types.NamespacedName]*claimant{}, by: map[ground]map[*claimant]bool{}, stale: map[*claimant]bool{}}
}

// set adds a Pod, or takes it over as it is now, and has it looked at.
func (c *claimants) set(pod *corev1.Pod) {
	key := client.Key(pod)
	one := c.pods[key]
	if one == nil {
		one = &claimant{}
		c.pods[key] = one
	}
	one.Pod = pod
	c.stale[one] = true
}

// remove forgets a Pod, which waits no longer.
func (c *claimants) remove(key types.NamespacedName) {
	one := c.pods[key]
	if one == nil {
		return
	}
	c.rest(one, nil)
	delete(c.pods, key)
	delete(c.stale, one)
}

// rest has the answer for a Pod hang on these, and on nothing else.
func (c *claimants) rest(one *claimant, on []ground) {
	if slices.Equal(one.grounds, on) {
		return
	}
	for _, g := range one.grounds {
		delete(c.by[g], one)
		if len(c.by[g]) == 0 {
			delete(c.by, g)
		}
	}
	one.grounds = on
	for _, g := range on {
		if c.by[g] == nil {
			c.by[g] = map[*claimant]bool{}
		}
		c.by[g][one] = true
	}
}

// changed has all Pods looked at anew that hang on something.
func (c *claimants) changed(g ground) { maps.Copy(c.stale, c.by[g]) }

// again has a Pod looked at anew, if it waits.
func (c *claimants) again(key types.NamespacedName) {
	if one := c.pods[key]; one != nil {
		c.stale[one] = true
	}
}

// take returns the Pods that are to be looked at, and takes them as looked at.
func (c *claimants) take() []*claimant {
	if len(c.stale) == 0 {
		return nil
	}
	out := slices.SortedFunc(maps.Keys(c.stale), func(a, b *claimant) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	clear(c.stale)
	return out
}

// holders are the Pods that have a node, or are about to, by the claims that they mount.
type holders struct {
	of  map[types.NamespacedName]map[types.UID]string // their names
	has map[types.UID][]types.NamespacedName
}

func newHolders() *holders {
	return &holders{of: map[types.NamespacedName]map[types.UID]string{}, has: map[types.UID][]types.NamespacedName{}}
}

// add returns the claims of a Pod, none when it had them before.
func (h *holders) add(pod *corev1.Pod) []types.NamespacedName {
	claims := claimKeys(pod)
	if len(claims) == 0 || h.has[pod.UID] != nil {
		return nil
	}
	h.has[pod.UID] = claims
	for _, claim := range claims {
		if h.of[claim] == nil {
			h.of[claim] = map[types.UID]string{}
		}
		h.of[claim][pod.UID] = pod.Name
	}
	return claims
}

// remove forgets a Pod, and returns the claims that it had.
func (h *holders) remove(pod types.UID) []types.NamespacedName {
	claims := h.has[pod]
	delete(h.has, pod)
	for _, claim := range claims {
		delete(h.of[claim], pod)
		if len(h.of[claim]) == 0 {
			delete(h.of, claim)
		}
	}
	return claims
}

// other is the first Pod by name that has a claim, but for one; empty for none.
func (h *holders) other(claim types.NamespacedName, but types.UID) string {
	first := ""
	for uid, name := range h.of[claim] {
		if uid != but && (first == "" || name < first) {
			first = name
		}
	}
	return first
}
