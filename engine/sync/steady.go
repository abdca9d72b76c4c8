package sync

import (
	"fmt"
	"hash/maphash"
	gosync "sync"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/plan"
)

// steady remembers which live objects were found to be what their manifests say.
// As long as neither has changed, that is so still, and need not be found again:
// most objects of most commits are such. It holds no object.
type steady struct {
	seed maphash.Seed

	mu       gosync.Mutex
	bySource map[string]map[plan.Key]steadyObject
}

// steadyObject is a manifest and the version of the live object that is like it.
type steadyObject struct {
	digest  uint64
	version string
}

func newSteady() *steady {
	return &steady{seed: maphash.MakeSeed(), bySource: map[string]map[plan.Key]steadyObject{}}
}

// of is what is remembered for a Source. It must not be changed.
func (s *steady) of(source string) map[plan.Key]steadyObject {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bySource[source]
}

// keep replaces what is remembered for a Source; nothing forgets it.
func (s *steady) keep(source string, objects map[plan.Key]steadyObject) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(objects) == 0 {
		delete(s.bySource, source)
		return
	}
	s.bySource[source] = objects
}

// describe is a manifest of a Source beside a live object, which may be nil.
// scaled: an autoscaler has the replicas.
func (s *steady) describe(src *v1alpha1.Source, m manifest.Manifest, live client.Object, scaled bool) (steadyObject, bool) {
	if live == nil {
		return steadyObject{}, false
	}
	var h maphash.Hash
	h.SetSeed(s.seed)
	fmt.Fprintf(&h, "%s/%d/%s/%d/%t", src.UID, src.Generation, m.Origin.Path, m.Origin.Line, scaled)
	return steadyObject{h.Sum64() + s.digest(m.Object.Object), live.GetResourceVersion()}, true
}

// digest of a JSON value. The fields of an object count in any order.
func (s *steady) digest(v any) uint64 {
	switch v := v.(type) {
	case map[string]any:
		sum := uint64(len(v)) + 1
		for k, item := range v {
			sum += maphash.Comparable(s.seed, [2]uint64{maphash.String(s.seed, k), s.digest(item)})
		}
		return sum
	case []any:
		sum := uint64(2)
		for _, item := range v {
			sum = maphash.Comparable(s.seed, [2]uint64{sum, s.digest(item)})
		}
		return sum
	case string:
		return maphash.String(s.seed, v)
	}
	return maphash.String(s.seed, fmt.Sprintf("%T %v", v, v)) // numbers, truth values and null
}
