package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	keySize   = 32 // AES-256
	keyIDSize = 8
)

type keyID [keyIDSize]byte

func (id keyID) String() string { return hex.EncodeToString(id[:]) }

// key seals values. Its id is made from it, so a key that was changed in its
// file does not match its id.
type key struct {
	id   keyID
	raw  []byte
	aead cipher.AEAD
}

func makeKey(raw []byte) (key, error) {
	block, err := aes.NewCipher(raw)
	if err != nil {
		return key{}, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return key{}, err
	}
	sum := sha256.Sum256(append([]byte("berth.dev/key-id/"), raw...))
	return key{id: keyID(sum[:keyIDSize]), raw: raw, aead: aead}, nil
}

func newKey() (key, error) {
	raw := make([]byte, keySize)
	rand.Read(raw) // never fails
	return makeKey(raw)
}

// keyring is the keys of a file, the newest first: it seals, all open.
type keyring []key

func (r keyring) find(id keyID) (key, bool) {
	for _, k := range r {
		if k.id == id {
			return k, true
		}
	}
	return key{}, false
}

const keyFileHead = `# The keys that seal the Secrets of this cluster, the newest first. Who has this
# file and the store, or a backup, can read them: keep copies apart from both.
`

func (r keyring) encode() []byte {
	var b strings.Builder
	b.WriteString(keyFileHead)
	for _, k := range r {
		fmt.Fprintf(&b, "%s %s\n", k.id, base64.StdEncoding.EncodeToString(k.raw))
	}
	return []byte(b.String())
}

// parseKeys reads the content of a key file. No error repeats what is in it.
func parseKeys(content []byte) (keyring, error) {
	var r keyring
	n := 0
	for line := range strings.Lines(string(content)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		id, text, _ := strings.Cut(line, " ")
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
		if err != nil || len(raw) != keySize {
			return nil, fmt.Errorf("line %d is not an id and a key of %d bytes", n, keySize)
		}
		k, err := makeKey(raw)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if k.id.String() != id {
			return nil, fmt.Errorf("line %d was changed: the key does not belong to its id", n)
		}
		if _, twice := r.find(k.id); !twice {
			r = append(r, k)
		}
	}
	if len(r) == 0 {
		return nil, errors.New("it holds no key")
	}
	return r, nil
}

// readKeys reads a key file that only its owner can read.
func readKeys(path string) (keyring, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("the key file %s has mode %04o, so others may have read the keys: chmod 600 %s, and if that may be so, berth secrets rotate-key afterwards", path, mode, path)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r, err := parseKeys(content)
	if err != nil {
		return nil, fmt.Errorf("the key file %s is damaged: %w; put back your copy of it", path, err)
	}
	return r, nil
}

// writeKeys replaces a key file; it is on disk when writeKeys returns.
func writeKeys(path string, r keyring) error {
	if err := WriteFile(path, r.encode()); err != nil {
		return fmt.Errorf("write the key file: %w", words(err))
	}
	return nil
}

// WriteFile replaces a file, of mode 0600, by one that is whole and on disk, or
// leaves it as it is.
func WriteFile(path string, content []byte) error {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return err
	}
	return syncDir(filepath.Dir(path))
}
