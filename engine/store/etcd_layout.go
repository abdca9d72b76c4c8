package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// positionBits of a revision are the place of an operation in its transaction,
// the others etcd's own revision, which all operations of a transaction share.
const positionBits = 17

// maxOps is the largest number of operations in one transaction.
const maxOps = 1<<positionBits - 1

func revisionOf(etcd int64, position int) int64 { return etcd<<positionBits | int64(position) }

// etcdKeys are the keys below the prefix:
//
//	data/KEY            the pairs
//	head                who wrote last, and how many operations; in every transaction
//	session/WRITER      there as long as the writer lives, by a lease
//	lock                which writer carries out a large transaction
//	staging/ID/N        its operations
//	commit              it is decided; what is staged counts from here on
type etcdKeys struct{ prefix string }

func (k etcdKeys) data(key string) string       { return k.prefix + "data" + key }
func (k etcdKeys) head() string                 { return k.prefix + "head" }
func (k etcdKeys) session(writer string) string { return k.prefix + "session/" + writer }
func (k etcdKeys) lock() string                 { return k.prefix + "lock" }
func (k etcdKeys) commit() string               { return k.prefix + "commit" }
func (k etcdKeys) staging(id string) string     { return k.prefix + "staging/" + id }
func (k etcdKeys) chunk(id string, n int) string {
	return k.staging(id) + "/" + strconv.Itoa(n)
}

// isData cuts a key of a pair out of a key of etcd.
func (k etcdKeys) isData(key string) (string, bool) { return strings.CutPrefix(key, k.prefix+"data") }

// isChunk takes the key of a part of a large transaction apart.
func (k etcdKeys) isChunk(key string) (id string, n int, ok bool) {
	rest, ok := strings.CutPrefix(key, k.prefix+"staging/")
	if !ok {
		return "", 0, false
	}
	id, number, ok := strings.Cut(rest, "/")
	n, err := strconv.Atoi(number)
	return id, n, ok && err == nil
}

// The first byte of a value says what follows.
const (
	// formatPlain: the position in the transaction that wrote it, and the
	// revision of creation, 0 when the key was created by that transaction.
	formatPlain = 'p'
	// formatLater: both revisions; it was written after the large transaction
	// that it belongs to.
	formatLater = 'l'
)

func plainValue(position int, created int64, value []byte) string {
	return string(append(header(formatPlain, uint64(position), created), value...))
}

func laterValue(kv KV) string {
	return string(append(header(formatLater, uint64(kv.Revision), kv.Created), kv.Value...))
}

func header(format byte, n uint64, created int64) []byte {
	b := make([]byte, 1, 1+2*binary.MaxVarintLen64)
	b[0] = format
	return binary.AppendUvarint(binary.AppendUvarint(b, n), uint64(created))
}

// parseValue makes a pair out of a value that etcd has at its own revision. later
// says that the pair is older than that.
func parseValue(key string, b []byte, etcd int64) (kv KV, later bool, err error) {
	bad := fmt.Errorf("the value of %q in etcd was not written by Berth", key)
	if len(b) == 0 || (b[0] != formatPlain && b[0] != formatLater) {
		return KV{}, false, bad
	}
	rest := b[1:]
	n, size := binary.Uvarint(rest)
	created, size2 := binary.Uvarint(rest[max(size, 0):])
	if size <= 0 || size2 <= 0 {
		return KV{}, false, bad
	}
	kv = KV{Key: key, Value: rest[size+size2:], Created: int64(created)}
	if b[0] == formatLater {
		kv.Revision = int64(n)
		return kv, true, nil
	}
	kv.Revision = revisionOf(etcd, int(n))
	if kv.Created == 0 {
		kv.Created = kv.Revision
	}
	return kv, false, nil
}

// headRecord is the value of the key head: the writer's own number of the
// transaction, by which it knows it again, and how many operations it had.
type headRecord struct {
	writer   string
	sequence uint64
	ops      int
}

func (h headRecord) String() string { return fmt.Sprintf("%s %d %d", h.writer, h.sequence, h.ops) }

func parseHead(b []byte) (headRecord, error) {
	var h headRecord
	if _, err := fmt.Sscanf(string(b), "%s %d %d", &h.writer, &h.sequence, &h.ops); err != nil {
		return h, fmt.Errorf("the key head in etcd was not written by Berth: %q", b)
	}
	return h, nil
}

// lockRecord is the value of the key lock: a writer and its large transaction.
type lockRecord struct{ writer, id string }

func (l lockRecord) String() string { return l.writer + " " + l.id }

func parseLock(b []byte) lockRecord {
	writer, id, _ := strings.Cut(string(b), " ")
	return lockRecord{writer, id}
}

// commitRecord is the value of the key commit.
type commitRecord struct {
	id     string
	chunks int
}

func (c commitRecord) String() string { return fmt.Sprintf("%s %d", c.id, c.chunks) }

func parseCommit(b []byte) (commitRecord, error) {
	var c commitRecord
	if _, err := fmt.Sscanf(string(b), "%s %d", &c.id, &c.chunks); err != nil {
		return c, fmt.Errorf("the key commit in etcd was not written by Berth: %q", b)
	}
	return c, nil
}

// chunkBytes is how much of a large transaction goes into one key.
const chunkBytes = 512 << 10

// encodeOps lays operations out in parts that etcd takes.
func encodeOps(ops []Op) [][]byte {
	var chunks [][]byte
	var b []byte
	for _, op := range ops {
		if len(b) > 0 && len(b)+len(op.Key)+len(op.Value) > chunkBytes {
			chunks = append(chunks, b)
			b = nil
		}
		b = binary.AppendUvarint(b, uint64(len(op.Key)))
		b = append(b, op.Key...)
		// 0 is a deletion, so that an empty value is not one.
		if op.Value == nil {
			b = append(b, 0)
			continue
		}
		b = binary.AppendUvarint(b, uint64(len(op.Value))+1)
		b = append(b, op.Value...)
	}
	return append(chunks, b)
}

func decodeOps(b []byte) ([]Op, error) {
	var ops []Op
	field := func() ([]byte, uint64, bool) {
		n, size := binary.Uvarint(b)
		if size <= 0 {
			return nil, 0, false
		}
		b = b[size:]
		return b, n, true
	}
	for len(b) > 0 {
		rest, n, ok := field()
		if !ok || n > uint64(len(rest)) {
			return nil, errChunk
		}
		op := Op{Key: string(rest[:n])}
		b = rest[n:]
		if rest, n, ok = field(); !ok || n > uint64(len(rest))+1 {
			return nil, errChunk
		}
		if n > 0 {
			// A copy: a value that lives long must not hold the whole part.
			op.Value = bytes.Clone(rest[:n-1])
			b = rest[n-1:]
		}
		ops = append(ops, op)
	}
	return ops, nil
}

var errChunk = errors.New("a part of a large transaction in etcd is damaged")
