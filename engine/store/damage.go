package store

import (
	"fmt"
	"slices"
)

// DamagedError says that a store's file is not what was written to it. Nothing
// was changed. Such a file is never taken for an empty store.
type DamagedError struct {
	Path string
	// What was found, in words.
	What string

	intact []KV
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("the store %s is damaged: %s", e.Path, e.What)
}

// Intact are the pairs that could still be read and whose sums are right, by
// key. There may have been others.
func (e *DamagedError) Intact() []KV { return slices.Clone(e.intact) }
