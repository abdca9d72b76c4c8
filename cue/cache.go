package cue

import (
	"crypto/sha256"
	"fmt"
	"sort"
	"sync"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/cue/kustomize"
)

// cache keeps what came of a file or a folder by its content. An entry lives as
// long as the last compile of some Source used it.
type cache struct {
	mu      sync.Mutex
	entries map[string]*entry
	used    map[string]map[string]bool
}

type entry struct {
	result admitted
	// reach says that the key is of the folder alone and that the result is
	// found under the key of all that the package reads.
	reach reach
	// kustomization is what a kustomization file refers to.
	kustomization *kustomize.File
	sources       int
}

func newCache() *cache {
	return &cache{entries: map[string]*entry{}, used: map[string]map[string]bool{}}
}

// key names content: the same key means the same result.
func key(what, dir string, files []revision.File) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00", what, dir)
	for _, f := range files {
		fmt.Fprintf(h, "%s\x00%s\x00", f.Path, f.Hash)
	}
	return string(h.Sum(nil))
}

func (c *cache) get(key string) (entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[key]; ok {
		return *e, true
	}
	return entry{}, false
}

func (c *cache) put(key string, e entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[key]; !ok {
		c.entries[key] = &e
	}
}

// retain says which keys the last compile of a Source used; what no Source uses
// any longer is dropped.
func (c *cache) retain(source string, keys map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range keys {
		if e := c.entries[k]; e != nil && !c.used[source][k] {
			e.sources++
		}
	}
	for k := range c.used[source] {
		if e := c.entries[k]; e != nil && !keys[k] {
			if e.sources--; e.sources <= 0 {
				delete(c.entries, k)
			}
		}
	}
	c.used[source] = keys
}

func (c *cache) forget(source string) {
	c.retain(source, nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.used, source)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
