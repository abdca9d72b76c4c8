package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// A backup is a line that names the format, a line of JSON about it, the pairs
// in the order of their keys, an empty key, and the SHA-256 of all that. Each
// part of a pair is its length, as a varint, and its bytes. Values are as the
// store keeps them: sealed ones stay sealed.
const (
	backupHead = "berth backup 1\n"
	maxKey     = 64 << 10
	maxValue   = 256 << 20
)

// BackupInfo says what a backup is of.
type BackupInfo struct {
	// Berth is the version that made it.
	Berth    string    `json:"berth"`
	Time     time.Time `json:"time"`
	Revision int64     `json:"revision"`
	Pairs    int       `json:"pairs"`
}

// Backup is the content of one that was verified.
type Backup struct {
	BackupInfo
	KVs []KV
}

// WriteBackup writes everything in a store as it is at one revision. Berth is
// the version of this program.
func WriteBackup(ctx context.Context, s Store, w io.Writer, berth string, now time.Time) (BackupInfo, error) {
	if sealed, ok := s.(*Sealed); ok {
		s = sealed.Store
	}
	page, err := s.List(ctx, ListRequest{})
	if err != nil {
		return BackupInfo{}, err
	}
	info := BackupInfo{Berth: berth, Time: now.UTC().Truncate(time.Second), Revision: page.Revision, Pairs: len(page.KVs)}
	about, err := json.Marshal(info)
	if err != nil {
		return info, err
	}
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10)
	out.WriteString(backupHead)
	out.Write(append(about, '\n'))
	part := func(b []byte) {
		out.Write(binary.AppendUvarint(nil, uint64(len(b))))
		out.Write(b)
	}
	for _, kv := range page.KVs {
		part([]byte(kv.Key))
		part(kv.Value)
	}
	part(nil)
	if err := out.Flush(); err != nil { // of any of the writes
		return info, err
	}
	_, err = w.Write(sum.Sum(nil))
	return info, err
}

var errBackup = errors.New("nothing was restored: take another copy of it")

// ReadBackup reads a whole backup and verifies it. One that was cut off, or in
// which anything was altered, is refused.
func ReadBackup(r io.Reader) (*Backup, error) {
	in := &summed{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	b, err := in.backup()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("the backup is cut off; %w", errBackup)
	case err != nil:
		return nil, fmt.Errorf("the backup is damaged: %w; %w", err, errBackup)
	}
	return b, nil
}

// summed reads and sums what it has read.
type summed struct {
	r   *bufio.Reader
	sum hash.Hash
}

func (s *summed) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.sum.Write([]byte{b})
	}
	return b, err
}

func (s *summed) line() ([]byte, error) {
	line, err := s.r.ReadSlice('\n')
	s.sum.Write(line)
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, errors.New("its head is not that of a backup")
	}
	return bytes.Clone(line), err
}

func (s *summed) part(most uint64) ([]byte, error) {
	n, err := binary.ReadUvarint(s)
	if err != nil {
		return nil, err
	}
	if n > most {
		return nil, fmt.Errorf("a part of it is said to be %d bytes long", n)
	}
	var b bytes.Buffer // grows with what is there, not with what is said
	if _, err := io.CopyN(io.MultiWriter(&b, s.sum), s.r, int64(n)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func (s *summed) backup() (*Backup, error) {
	head, err := s.line()
	if string(head) != backupHead {
		if err == nil || len(head) > len(backupHead) || !bytes.HasPrefix([]byte(backupHead), head) {
			return nil, errors.New("it does not begin as a backup of Berth does")
		}
		return nil, err
	}
	about, err := s.line()
	if err != nil {
		return nil, err
	}
	b := &Backup{}
	if err := json.Unmarshal(about, &b.BackupInfo); err != nil {
		return nil, fmt.Errorf("its second line: %w", err)
	}
	for before := ""; ; {
		key, err := s.part(maxKey)
		if err != nil {
			return nil, err
		}
		if len(key) == 0 {
			break
		}
		value, err := s.part(maxValue)
		if err != nil {
			return nil, err
		}
		if string(key) <= before {
			return nil, errors.New("its keys are not in order")
		}
		before = string(key)
		if value == nil {
			value = []byte{}
		}
		b.KVs = append(b.KVs, KV{Key: before, Value: value})
	}
	want := s.sum.Sum(nil)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(s.r, got); err != nil {
		return nil, err
	}
	if !bytes.Equal(got, want) {
		return nil, errors.New("its sum is wrong")
	}
	if _, err := s.r.ReadByte(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows its end")
	}
	if len(b.KVs) != b.Pairs {
		return nil, fmt.Errorf("it should hold %d pairs and holds %d", b.Pairs, len(b.KVs))
	}
	return b, nil
}

// Replacement says what a restore did.
type Replacement struct {
	Written int `json:"written"`
	Deleted int `json:"deleted"`
	Same    int `json:"same"`
	// Revision of the store now.
	Revision int64 `json:"revision"`
}

// Replace makes the store hold kvs and nothing else, in one transaction, but for
// what belongs to the servers of the store itself.
// Revisions go on upward; what is as it was is left alone.
func (b *Bolt) Replace(ctx context.Context, kvs []KV) (Replacement, error) {
	var r Replacement
	_, err := b.transact(ctx, func(t *tree) []Op {
		var ops []Op
		r, ops = difference(t, kvs)
		return ops
	})
	r.Revision = b.Revision()
	return r, err
}

func difference(t *tree, kvs []KV) (r Replacement, ops []Op) {
	wanted := make(map[string]bool, len(kvs))
	for _, kv := range kvs {
		wanted[kv.Key] = true
		if have, ok := t.Get(kv.Key); ok && bytes.Equal(have.Value, kv.Value) {
			r.Same++
			continue
		}
		r.Written++
		ops = append(ops, Op{Key: kv.Key, Value: kv.Value, Expect: Any})
	}
	t.Scan(func(key string, _ KV) bool {
		if !wanted[key] && !isOwn(key) {
			r.Deleted++
			ops = append(ops, Op{Key: key, Expect: Any})
		}
		return true
	})
	return r, ops
}

// replacer is a Store that can exchange all it holds at once.
type replacer interface {
	Replace(ctx context.Context, kvs []KV) (Replacement, error)
}

var (
	_ replacer = (*Bolt)(nil)
	_ replacer = (*Etcd)(nil)
)

// ErrNoRestore says that the kind of store cannot be restored this way.
var ErrNoRestore = errors.New("this store cannot be replaced by a backup")

// ownPrefixes are the keys that belong to the servers of the store itself: those
// of the leader, and what the servers share. They are no part of a restore.
func ownPrefixes() []string { return []string{"/election/", "/berth/shared/", keyNote} }

func isOwn(key string) bool {
	return slices.ContainsFunc(ownPrefixes(), func(p string) bool { return strings.HasPrefix(key, p) })
}

// Restore replaces everything with a backup. keyFile is the content of the key
// file of the time of the backup, when that is no longer the present one; nil
// otherwise. A backup with a Secret that no key opens is refused. What was sealed
// with another key is sealed with the present one.
func (s *Sealed) Restore(ctx context.Context, b *Backup, keyFile []byte) (Replacement, error) {
	inner, ok := s.Store.(replacer)
	if !ok {
		return Replacement{}, ErrNoRestore
	}
	s.rotating.Lock()
	defer s.rotating.Unlock()
	var old keyring
	if len(keyFile) > 0 {
		var err error
		if old, err = parseKeys(keyFile); err != nil {
			return Replacement{}, fmt.Errorf("read the key file: %w; nothing was restored", err)
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	kvs := make([]KV, 0, len(b.KVs))
	for _, kv := range b.KVs {
		if isOwn(kv.Key) {
			continue
		}
		if s.covers(kv.Key) {
			var err error
			if kv.Value, err = s.sealedAnew(kv, append(slices.Clip(s.keys), old...)); err != nil {
				return Replacement{}, fmt.Errorf("%w; nothing was restored: give the copy of the key file that was made with the backup", err)
			}
		}
		kvs = append(kvs, kv)
	}
	return inner.Replace(ctx, kvs)
}

// sealedAnew is a value under the present key. The caller holds mu.
func (s *Sealed) sealedAnew(kv KV, keys keyring) ([]byte, error) {
	plain, err := openValue(keys, kv.Key, kv.Value)
	if err != nil {
		return nil, err
	}
	if id, _, sealed := sealedWith(kv.Value); sealed && id == s.keys[0].id {
		return kv.Value, nil // as it is, so that what is the same is seen to be
	}
	return sealValue(s.keys[0], kv.Key, plain), nil
}

// Create writes a new store file that holds a backup. Nothing may be at path.
func (b *Backup) Create(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%s is there already", path), err)
	}
	pairs := new(tree)
	st := state{revision: b.Revision + RevisionGap}
	for _, kv := range b.KVs {
		if isOwn(kv.Key) {
			continue
		}
		st.revision++
		kv.Created, kv.Revision = st.revision, st.revision
		pairs.Set(kv.Key, kv)
		st.add(kv)
	}
	db, err := build(path, pairs, st, nil)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, words(err))
	}
	defer db.Close()
	return install(path)
}

// RevisionGap is how far a store that is not a continuation of the former one
// begins above its last known revision: no client may take what it has seen of
// the former one for the present.
const RevisionGap = 10_000_000
