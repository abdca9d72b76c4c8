package controllers

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/live"
)

// unsettledAgain is how soon a key is looked at again whose Pods the view does
// not show as they were written. Nearly always the event of one of them is sooner.
const unsettledAgain = 200 * time.Millisecond

// horizons are, by the UID of an owner, the newest version of what its controller
// has written for it. Until the view has come so far, what is missing cannot be told
// from what was just made.
type horizons struct {
	mu sync.Mutex
	at map[types.UID]int64
}

func newHorizons() *horizons { return &horizons{at: map[types.UID]int64{}} }

// reach notes objects as they were written, or as they were deleted.
func (h *horizons) reach(owner types.UID, version int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at[owner] = max(h.at[owner], version)
}

// settled reports whether a view shows everything that was done for an owner.
func (h *horizons) settled(owner types.UID, seen interface{ Version() int64 }) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return seen.Version() >= h.at[owner]
}

// covers reports whether a version is not newer than what was last done for an owner.
func (h *horizons) covers(owner types.UID, version int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return version <= h.at[owner]
}

func (h *horizons) forget(owner types.UID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.at, owner)
}

// newest is the newest version of some objects.
func newest[T client.Object](objs ...T) int64 {
	var version int64
	for _, o := range objs {
		version = max(version, live.Version(o))
	}
	return version
}
