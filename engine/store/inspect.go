package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
)

// content is what a file holds.
type content struct {
	pairs *tree
	state state
	// old says that it is of format 1.
	old bool
}

// inspect reads and verifies a whole file without changing it. With any fault
// it returns a *DamagedError, never a part of the content as the whole.
func inspect(f *os.File) (*content, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read store: %w", err)
	}
	r := &reader{file: f, size: info.Size()}
	c := &content{pairs: new(tree)}
	if info.Size() == 0 {
		r.fault("it is empty, so its content was lost")
	} else if err := r.content(c); err != nil {
		var newer *NewerFormatError
		if errors.As(err, &newer) {
			newer.Path = f.Name()
		}
		return nil, err
	}
	if len(r.faults) == 0 {
		return c, nil
	}
	what := strings.Join(r.faults, "; ")
	if r.more > 0 {
		what += fmt.Sprintf("; and %d more faults", r.more)
	}
	return nil, &DamagedError{Path: f.Name(), What: what, intact: c.pairs.Values()}
}

// content fills c. Its error is one that is no damage.
func (r *reader) content(c *content) (err error) {
	defer func() {
		if p := recover(); p != nil { // a bound that was forgotten here
			r.fault("it cannot be read: %v", p)
		}
	}()
	m, ok := r.metas()
	if !ok {
		return nil
	}
	r.used = make([]bool, r.high)
	buckets := map[string][]byte{}
	r.walk(m.root, nil, nil, 0, func(flags uint32, key, value []byte) {
		if flags != flagBucket {
			r.fault("the list of buckets is damaged at %q", key)
			return
		}
		buckets[string(key)] = bytes.Clone(value)
	})
	if m.freelist != noFreelist {
		r.load(m.freelist)
	}
	pairs, isNew := buckets[string(bucketPairs())]
	oldPairs, isOld := buckets[string(bucketOldPairs())]
	switch {
	case isNew && !isOld:
		return r.pairs(c, pairs, buckets[string(bucketState())])
	case isOld && !isNew:
		c.old = true
		r.oldPairs(c, oldPairs, buckets[string(bucketOldMeta())])
	default:
		r.fault("it does not hold what a store holds")
	}
	return nil
}

func (r *reader) pairs(c *content, pairs, about []byte) error {
	var said *state
	var newer error
	r.bucket("the state", about, func(key, value []byte) {
		s, err := decodeState(value)
		switch {
		case errors.As(err, new(*NewerFormatError)):
			newer = err
		case err != nil:
			r.fault("%v", err)
		case bytes.Equal(key, keyState()):
			said = &s
		}
	})
	if newer != nil {
		return newer
	}
	var found state
	r.bucket("the pairs", pairs, func(key, value []byte) {
		kv, err := decodePair(key, value)
		if err != nil {
			r.fault("%v", err)
			return
		}
		found.add(kv)
		found.revision = max(found.revision, kv.Revision)
		c.pairs.Set(kv.Key, kv)
	})
	switch {
	case said == nil:
		r.fault("the record of the store's state is missing")
	case found.count != said.count:
		r.fault("it should hold %d pairs and holds %d", said.count, found.count)
	case found.digest != said.digest:
		r.fault("its pairs are not those that were written")
	case found.revision > said.revision:
		r.fault("a pair is at revision %d, beyond the store's %d", found.revision, said.revision)
	default:
		c.state = *said
	}
	return nil
}

func (r *reader) oldPairs(c *content, pairs, about []byte) {
	known := false
	r.bucket("the state", about, func(key, value []byte) {
		if bytes.Equal(key, keyOldRevision()) && len(value) == 8 {
			c.state.revision, known = int64(binary.BigEndian.Uint64(value)), true
		}
	})
	r.bucket("the pairs", pairs, func(key, value []byte) {
		kv, err := decodeOldPair(key, value)
		if err != nil {
			r.fault("%v", err)
			return
		}
		if kv.Revision > c.state.revision {
			r.fault("%q is at revision %d, beyond the store's %d", kv.Key, kv.Revision, c.state.revision)
		}
		c.pairs.Set(kv.Key, kv)
		c.state.add(kv)
	})
	if !known && c.state.count > 0 {
		r.fault("the record of the store's revision is missing")
	}
}
