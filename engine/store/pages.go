package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
)

// bbolt trusts its pages: on a damaged file it faults, panics, also in
// goroutines of its own, or reads something else. So the file is read here
// first, page by page and with every bound checked, by the layout that all
// versions of bbolt share:
//
//	page     id u64, flags u16, count u16, overflow u32, elements, data
//	branch   element: pos u32, ksize u32, page u64
//	leaf     element: flags u32, pos u32, ksize u32, vsize u32
//	meta     magic, version, page size, flags u32; root page, sequence,
//	         freelist, high water, transaction, checksum u64
//
// pos counts from the element; numbers are in the machine's own order.
const (
	pageHeader  = 16
	elementSize = 16
	metaSize    = 64
	flagBranch  = 1
	flagLeaf    = 2
	flagMeta    = 4
	flagBucket  = 1
	boltMagic   = 0xED0CDAED
	boltVersion = 2
	noFreelist  = ^uint64(0)
	// maxFaults is how many faults are told.
	maxFaults = 3
	maxDepth  = 64
)

type meta struct {
	pageSize                                       uint32
	root, sequence, freelist, high, txid, checksum uint64
}

// reader reads the pages that are reachable, and notes each fault it meets; it
// goes on with what is beside the fault.
type reader struct {
	file   io.ReaderAt
	size   int64
	page   int64 // size of a page
	high   uint64
	used   []bool
	faults []string
	more   int
}

func (r *reader) fault(format string, args ...any) {
	if len(r.faults) < maxFaults {
		r.faults = append(r.faults, fmt.Sprintf(format, args...))
	} else {
		r.more++
	}
}

// metas chooses the newest of the two. Both must be right: bbolt would go on
// with the other one, and so without the last transaction.
func (r *reader) metas() (meta, bool) {
	var good []meta
	for i, at := range r.metaPlaces() {
		m, fault := readMeta(r.file, at, uint64(i))
		if fault != "" {
			r.fault("meta page %d %s", i, fault)
			continue
		}
		good = append(good, m)
	}
	if len(good) == 0 {
		return meta{}, false
	}
	if len(good) == 2 && max(good[0].txid, good[1].txid)-min(good[0].txid, good[1].txid) != 1 {
		r.fault("the meta pages are of transactions %d and %d, which do not follow one another", good[0].txid, good[1].txid)
	}
	newest := slices.MaxFunc(good, func(a, b meta) int { return int(int64(a.txid - b.txid)) })
	r.page, r.high = int64(newest.pageSize), newest.high
	if need := int64(r.high) * r.page; r.high < 4 || r.high > 1<<40 || need > r.size {
		r.fault("it is %d bytes long and should be at least %d: it was cut off", r.size, need)
		r.high = min(r.high, uint64(r.size/r.page))
	}
	return newest, true
}

// metaPlaces: the second page begins where the first says, or, when the first
// cannot be read, at one of the sizes that pages have.
func (r *reader) metaPlaces() [2]int64 {
	if m, fault := readMeta(r.file, 0, 0); fault == "" {
		return [2]int64{0, int64(m.pageSize)}
	}
	for size := int64(1 << 10); size <= 1<<16; size *= 2 {
		if _, fault := readMeta(r.file, size, 1); fault == "" {
			return [2]int64{0, size}
		}
	}
	return [2]int64{0, 4096}
}

func readMeta(f io.ReaderAt, at int64, id uint64) (m meta, fault string) {
	b := make([]byte, pageHeader+metaSize)
	if _, err := f.ReadAt(b, at); err != nil {
		return m, "is missing"
	}
	order := binary.NativeEndian
	head, b := b[:pageHeader], b[pageHeader:]
	sum := fnv.New64a()
	sum.Write(b[:metaSize-8])
	m = meta{
		pageSize: order.Uint32(b[8:]), root: order.Uint64(b[16:]), sequence: order.Uint64(b[24:]), freelist: order.Uint64(b[32:]),
		high: order.Uint64(b[40:]), txid: order.Uint64(b[48:]), checksum: order.Uint64(b[56:]),
	}
	switch {
	case bytes.Equal(b, make([]byte, metaSize)):
		return m, "is all zeros"
	case order.Uint32(b) != boltMagic:
		return m, "is not that of a store"
	case m.checksum != sum.Sum64():
		return m, "has a wrong checksum"
	case order.Uint32(b[4:]) != boltVersion || m.pageSize < 1<<10 || m.pageSize > 1<<16 || m.pageSize&(m.pageSize-1) != 0:
		return m, "is of an unknown kind"
	case order.Uint64(head) != id || order.Uint16(head[8:]) != flagMeta || m.txid%2 != id:
		return m, "is in the wrong place"
	}
	return m, ""
}

// load reads a page with what overflows from it, once.
func (r *reader) load(id uint64) ([]byte, bool) {
	if id < 2 || id >= r.high {
		r.fault("page %d is referred to, but there is none", id)
		return nil, false
	}
	head := make([]byte, pageHeader)
	if _, err := r.file.ReadAt(head, int64(id)*r.page); err != nil {
		r.fault("page %d cannot be read: %v", id, err)
		return nil, false
	}
	overflow := uint64(binary.NativeEndian.Uint32(head[12:]))
	if got := binary.NativeEndian.Uint64(head); got != id {
		if bytes.Equal(head, make([]byte, pageHeader)) {
			r.fault("page %d is all zeros", id)
		} else {
			r.fault("page %d says that it is page %d", id, got)
		}
		return nil, false
	}
	if overflow >= r.high-id {
		r.fault("page %d is said to be longer than the file", id)
		return nil, false
	}
	for i := id; i <= id+overflow; i++ {
		if r.used[i] {
			r.fault("page %d is used twice", i)
			return nil, false
		}
	}
	for i := id; i <= id+overflow; i++ {
		r.used[i] = true
	}
	b := make([]byte, int64(overflow+1)*r.page)
	if _, err := r.file.ReadAt(b, int64(id)*r.page); err != nil {
		r.fault("page %d cannot be read: %v", id, err)
		return nil, false
	}
	return b, true
}

// walk visits the elements of a tree's leaves. All keys must be at least low
// and, when high is not nil, below it.
func (r *reader) walk(id uint64, low, high []byte, depth int, visit func(flags uint32, key, value []byte)) {
	if depth > maxDepth {
		r.fault("page %d is too deep", id)
		return
	}
	if b, ok := r.load(id); ok {
		r.visit(id, b, low, high, depth, visit)
	}
}

func (r *reader) visit(id uint64, b, low, high []byte, depth int, visit func(flags uint32, key, value []byte)) {
	order := binary.NativeEndian
	flags, count := order.Uint16(b[8:]), int(order.Uint16(b[10:]))
	if flags != flagBranch && flags != flagLeaf {
		r.fault("page %d is of an unknown kind", id)
		return
	}
	if pageHeader+count*elementSize > len(b) || (flags == flagBranch && count == 0) {
		r.fault("page %d holds an impossible number of elements", id)
		return
	}
	elements := make([]element, 0, count)
	before := low
	for i := range count {
		e, ok := elementAt(b, i, flags)
		if !ok || bytes.Compare(e.key, before) < 0 || (i > 0 && bytes.Equal(e.key, before)) || (high != nil && bytes.Compare(e.key, high) >= 0) {
			r.fault("element %d of page %d is damaged", i, id)
			continue
		}
		before = e.key
		elements = append(elements, e)
	}
	for i, e := range elements {
		if flags == flagLeaf {
			visit(e.flags, e.key, e.value)
			continue
		}
		next := high
		if i+1 < len(elements) {
			next = elements[i+1].key
		}
		r.walk(e.page, e.key, next, depth+1, visit)
	}
}

type element struct {
	flags      uint32
	key, value []byte
	page       uint64
}

func elementAt(b []byte, i int, flags uint16) (element, bool) {
	order := binary.NativeEndian
	at := uint64(pageHeader + i*elementSize)
	head := b[at:]
	var e element
	var pos, ksize, vsize uint64
	if flags == flagBranch {
		pos, ksize, e.page = uint64(order.Uint32(head)), uint64(order.Uint32(head[4:])), order.Uint64(head[8:])
	} else {
		e.flags = order.Uint32(head)
		pos, ksize, vsize = uint64(order.Uint32(head[4:])), uint64(order.Uint32(head[8:])), uint64(order.Uint32(head[12:]))
	}
	if end := at + pos + ksize + vsize; pos < elementSize || end > uint64(len(b)) {
		return e, false
	}
	e.key = b[at+pos : at+pos+ksize]
	e.value = b[at+pos+ksize : at+pos+ksize+vsize]
	return e, true
}

// bucket visits the pairs of a bucket, given as the value that names it.
func (r *reader) bucket(name string, value []byte, visit func(key, value []byte)) {
	plain := func(flags uint32, key, value []byte) {
		if flags != 0 {
			r.fault("%q in %s is of an unknown kind", key, name)
			return
		}
		visit(key, value)
	}
	if len(value) < 16 {
		r.fault("the head of %s is damaged", name)
		return
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		r.walk(root, nil, nil, 0, plain)
		return
	}
	inline := value[16:] // a small bucket is a page within its parent's
	if len(inline) < pageHeader || binary.NativeEndian.Uint64(inline) != 0 || binary.NativeEndian.Uint16(inline[8:]) != flagLeaf {
		r.fault("the head of %s is damaged", name)
		return
	}
	r.visit(0, inline, nil, nil, 0, plain)
}
