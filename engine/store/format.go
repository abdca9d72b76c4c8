package store

import (
	"encoding/binary"
	"fmt"
	"hash/crc64"
)

// The file of a store is a bbolt file with two buckets: the pairs, and one
// record of the state that they make up together. Files of format 1 had other
// buckets, so that no damage can make one format look like the other.
const (
	formatVersion = 2
	// headerSize is what is before each value: the created and the changed
	// revision, and the sum.
	headerSize = 24
	// oldHeaderSize is that of format 1, which had no sum.
	oldHeaderSize = 16
	stateSize     = 36
)

func bucketPairs() []byte { return []byte("pairs") }
func bucketState() []byte { return []byte("state") }
func keyState() []byte    { return []byte("state") }

// Of format 1.
func bucketOldPairs() []byte { return []byte("data") }
func bucketOldMeta() []byte  { return []byte("meta") }
func keyOldRevision() []byte { return []byte("revision") }

// state is what all pairs of a store are together. The digest tells when whole
// pairs are lost, which no sum of a single pair can.
type state struct {
	revision int64
	count    uint64
	// digest is the sum, modulo 2⁶⁴, of the sums of all pairs.
	digest uint64
}

func (s *state) add(kv KV)    { s.count++; s.digest += sum(kv) }
func (s *state) remove(kv KV) { s.count--; s.digest -= sum(kv) }

// take brings the state up to an event.
func (s *state) take(e Event) {
	if e.Previous.Revision != 0 {
		s.remove(e.Previous)
	}
	if !e.Deleted() {
		s.add(e.KV)
	}
	s.revision = e.Revision
}

// sum covers everything of a pair. CRC-64 finds every burst of up to 64 bits
// and any other damage but for one case in 2⁶⁴.
func sum(kv KV) uint64 {
	table := crc64.MakeTable(crc64.ECMA)
	head := make([]byte, 0, 4+64+16)
	head = binary.BigEndian.AppendUint32(head, uint32(len(kv.Key)))
	head = append(head, kv.Key...)
	head = binary.BigEndian.AppendUint64(head, uint64(kv.Created))
	head = binary.BigEndian.AppendUint64(head, uint64(kv.Revision))
	return crc64.Update(crc64.Update(0, table, head), table, kv.Value)
}

func encodePair(kv KV) []byte {
	b := make([]byte, 0, headerSize+len(kv.Value))
	b = binary.BigEndian.AppendUint64(b, uint64(kv.Created))
	b = binary.BigEndian.AppendUint64(b, uint64(kv.Revision))
	b = binary.BigEndian.AppendUint64(b, sum(kv))
	return append(b, kv.Value...)
}

// decodePair copies what it keeps of key and b.
func decodePair(key, b []byte) (KV, error) {
	if len(b) < headerSize {
		return KV{}, fmt.Errorf("the value of %q is %d bytes, too short", key, len(b))
	}
	kv := decodeHeader(key, b, headerSize)
	if sum(kv) != binary.BigEndian.Uint64(b[16:]) {
		return KV{}, fmt.Errorf("the sum of %q is wrong: it is not what was written", key)
	}
	return kv, nil
}

func decodeOldPair(key, b []byte) (KV, error) {
	if len(b) < oldHeaderSize {
		return KV{}, fmt.Errorf("the value of %q is %d bytes, too short", key, len(b))
	}
	return decodeHeader(key, b, oldHeaderSize), nil
}

func decodeHeader(key, b []byte, size int) KV {
	return KV{
		Key:      string(key),
		Created:  int64(binary.BigEndian.Uint64(b)),
		Revision: int64(binary.BigEndian.Uint64(b[8:])),
		Value:    append([]byte{}, b[size:]...),
	}
}

func encodeState(s state) []byte {
	b := make([]byte, 0, stateSize)
	b = binary.BigEndian.AppendUint32(b, formatVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(s.revision))
	b = binary.BigEndian.AppendUint64(b, s.count)
	b = binary.BigEndian.AppendUint64(b, s.digest)
	return binary.BigEndian.AppendUint64(b, crc64.Checksum(b, crc64.MakeTable(crc64.ECMA)))
}

// NewerFormatError says that a later Berth wrote the file. It is no damage.
type NewerFormatError struct {
	Path   string
	Format uint32
}

func (e *NewerFormatError) Error() string {
	return fmt.Sprintf("%s has format %d, and this version of Berth knows formats up to %d: start a newer version", e.Path, e.Format, formatVersion)
}

func decodeState(b []byte) (state, error) {
	if len(b) != stateSize || crc64.Checksum(b[:stateSize-8], crc64.MakeTable(crc64.ECMA)) != binary.BigEndian.Uint64(b[stateSize-8:]) {
		return state{}, fmt.Errorf("the record of the store's state is damaged")
	}
	if format := binary.BigEndian.Uint32(b); format != formatVersion {
		return state{}, &NewerFormatError{Format: format}
	}
	return state{
		revision: int64(binary.BigEndian.Uint64(b[4:])),
		count:    binary.BigEndian.Uint64(b[12:]),
		digest:   binary.BigEndian.Uint64(b[20:]),
	}, nil
}
