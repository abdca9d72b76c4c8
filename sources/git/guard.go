package git

import (
	"fmt"
	"io"
	"strconv"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Bounds of what a remote says before the pack, against one that would fill the
// memory.
const (
	maxRefs      = 100_000
	maxRefsBytes = 64 << 20
	// maxPreamble is how many lines come before a pack.
	maxPreamble = 10_000
)

// ErrTooLarge says that a remote is larger than is allowed.
type ErrTooLarge struct {
	Reason string
	// Reached is how much was reached, in bytes; 0 where bytes are not the matter.
	Reached int64
}

func (e *ErrTooLarge) Error() string { return e.Reason }

// overSize names the limit, what was reached, and what to raise.
func overSize(limit, reached int64) *ErrTooLarge {
	return &ErrTooLarge{Reached: reached, Reason: fmt.Sprintf("the repository takes more than spec.maxSize (%s) allows: %.1f MiB were reached; raise spec.maxSize, or keep large files out of the repository",
		resource.NewQuantity(limit, resource.BinarySI), float64(reached)/(1<<20))}
}

// guard counts the pkt-lines that are read through it.
type guard struct {
	io.Reader
	lines, bytes int64 // that are left
	// pack: the counting ends where the pack begins.
	pack  bool
	begun bool
	over  error

	head [4]byte
	n    int // bytes of head that were read
	rest int // bytes of the line that are to come
	// first is true at the first byte of a line.
	first bool
}

func guardRefs(r io.Reader) *guard {
	return &guard{Reader: r, lines: maxRefs, bytes: maxRefsBytes,
		over: &ErrTooLarge{Reason: fmt.Sprintf("the remote has more than %d refs, or more than %d MiB of their names; delete branches and tags that nobody needs", maxRefs, maxRefsBytes>>20)}}
}

func guardPack(r io.Reader) *guard {
	return &guard{Reader: r, lines: maxPreamble, bytes: maxRefsBytes, pack: true, over: &ErrTooLarge{Reason: "the remote sends no end of lines before the objects"}}
}

// Read implements io.Reader.
func (g *guard) Read(p []byte) (int, error) {
	n, err := g.Reader.Read(p)
	if g.begun {
		return n, err
	}
	for _, b := range p[:n] {
		if g.count(b); g.begun {
			return n, err
		}
		if g.lines < 0 || g.bytes < 0 {
			return 0, g.over
		}
	}
	return n, err
}

func (g *guard) count(b byte) {
	g.bytes--
	if g.rest > 0 {
		// A band, 1 to 3, is where the pack is; 3 is the remote's error.
		g.begun = g.pack && g.first && b <= 3
		g.first = false
		g.rest--
		return
	}
	g.head[g.n] = b
	if g.n++; g.n < len(g.head) {
		return
	}
	g.n = 0
	g.lines--
	if g.begun = g.pack && string(g.head[:]) == "PACK"; g.begun {
		return
	}
	// What is no length is for the reader to refuse.
	if length, err := strconv.ParseUint(string(g.head[:]), 16, 16); err == nil && length > 4 {
		g.rest, g.first = int(length)-4, true
	}
}
