package access

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Tokens are the bearer tokens of people, programs and nodes. Their file holds
// only hashes, and who writes it is heeded at once, another process too; the
// administrator's own token stands in a file of mode 0600 beside it. It is safe
// for concurrent use.
type Tokens struct {
	dir string

	mu     sync.Mutex
	byHash map[[sha256.Size]byte]TokenInfo
	// read is the file that byHash was read from.
	read os.FileInfo
}

// TokenInfo is what is kept about a token.
type TokenInfo struct {
	Name string `json:"name"`
	Role Role   `json:"role"`
	// Created is zero for a token of an older version.
	Created time.Time `json:"created,omitzero"`
}

// AdminTokenFile is where OpenTokens leaves the first token of a new server.
func AdminTokenFile(dir string) string { return filepath.Join(dir, "admin.token") }

// anew is what to do when the file of the tokens is of no use.
const anew = "remove the file and start again: a new administrator's token is made"

// OpenTokens reads the tokens of a data directory, and makes one for the
// administrator when there are none.
func OpenTokens(dir string) (*Tokens, error) {
	t := &Tokens{dir: dir, byHash: map[[sha256.Size]byte]TokenInfo{}}
	err := t.load()
	if errors.Is(err, fs.ErrNotExist) {
		return t, t.first()
	}
	return t, err
}

func (t *Tokens) path() string { return filepath.Join(t.dir, "tokens") }

// first makes the administrator's token.
func (t *Tokens) first() error {
	token := NewToken()
	if err := writeSecret(AdminTokenFile(t.dir), token+"\n"); err != nil {
		return fmt.Errorf("write the administrator's token: %w", err)
	}
	return t.write(map[[sha256.Size]byte]TokenInfo{sha256.Sum256([]byte(token)): {Name: "admin", Role: Admin}})
}

// load reads the file. The caller holds mu, or is alone.
func (t *Tokens) load() error {
	content, err := os.ReadFile(t.path())
	if err != nil {
		return fmt.Errorf("read tokens: %w", err)
	}
	info, err := os.Stat(t.path())
	if err != nil {
		return fmt.Errorf("read tokens: %w", err)
	}
	byHash, err := parseTokens(t.path(), content)
	if err != nil {
		return fmt.Errorf("read tokens: %w", err)
	}
	t.byHash, t.read = byHash, info
	return nil
}

// parseTokens reads lines of "sha256 role name [created]".
func parseTokens(path string, content []byte) (map[[sha256.Size]byte]TokenInfo, error) {
	byHash := map[[sha256.Size]byte]TokenInfo{}
	n := 0
	for line := range bytes.Lines(content) {
		n++
		fields := strings.Fields(string(line))
		if len(fields) == 0 {
			continue
		}
		hash, info, ok := parseToken(fields)
		if !ok {
			return nil, fmt.Errorf("%s:%d is not \"sha256 role name\"; mend the line, or %s", path, n, anew)
		}
		byHash[hash] = info
	}
	if len(byHash) == 0 {
		return nil, fmt.Errorf("%s holds none, so nobody could log in; %s", path, anew)
	}
	return byHash, nil
}

func parseToken(fields []string) (sum [sha256.Size]byte, info TokenInfo, ok bool) {
	if len(fields) != 3 && len(fields) != 4 {
		return sum, info, false
	}
	hash, err := hex.DecodeString(fields[0])
	info = TokenInfo{Role: Role(fields[1]), Name: fields[2]}
	if err != nil || len(hash) != sha256.Size || !slices.Contains([]Role{Admin, Viewer, Node}, info.Role) {
		return sum, info, false
	}
	if len(fields) == 4 {
		if info.Created, err = time.Parse(time.RFC3339, fields[3]); err != nil {
			return sum, info, false
		}
	}
	return [sha256.Size]byte(hash), info, true
}

// write replaces the file and what is known.
func (t *Tokens) write(byHash map[[sha256.Size]byte]TokenInfo) error {
	var lines []string
	for hash, info := range byHash {
		line := fmt.Sprintf("%s %s %s", hex.EncodeToString(hash[:]), info.Role, info.Name)
		if !info.Created.IsZero() {
			line += " " + info.Created.UTC().Format(time.RFC3339)
		}
		lines = append(lines, line+"\n")
	}
	slices.Sort(lines)
	if err := writeSecret(t.path(), strings.Join(lines, "")); err != nil {
		return fmt.Errorf("write tokens: %w", err)
	}
	return t.load()
}

// refresh takes in what another has written. A file that cannot be read changes
// nothing: nobody is locked out by half a file.
func (t *Tokens) refresh() {
	info, err := os.Stat(t.path())
	if err != nil || (os.SameFile(info, t.read) && info.ModTime().Equal(t.read.ModTime()) && info.Size() == t.read.Size()) {
		return
	}
	_ = t.load() // what was read before goes on to count
}

// Reload reads the file anew. When that fails the tokens stay as they are.
func (t *Tokens) Reload() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.load()
}

// Check finds the user of a token.
func (t *Tokens) Check(token string) (User, bool) {
	hash := sha256.Sum256([]byte(strings.TrimSpace(token)))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refresh()
	for known, info := range t.byHash {
		if subtle.ConstantTimeCompare(hash[:], known[:]) == 1 {
			return named(info.Name, info.Role), true
		}
	}
	return User{}, false
}

// List tells what tokens there are, sorted by name.
func (t *Tokens) List() []TokenInfo {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refresh()
	out := make([]TokenInfo, 0, len(t.byHash))
	for _, info := range t.byHash {
		out = append(out, info)
	}
	slices.SortFunc(out, func(a, b TokenInfo) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// UserError is a mistake of the caller, in words for them.
type UserError string

func (e UserError) Error() string { return string(e) }

// Create makes a token. It is returned once and cannot be had again.
func (t *Tokens) Create(name string, role Role, now time.Time) (string, error) {
	if err := checkUser(name, role); err != nil {
		return "", err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refresh()
	next := map[[sha256.Size]byte]TokenInfo{}
	for hash, info := range t.byHash {
		if info.Name == name {
			return "", UserError(fmt.Sprintf("there is a token %s already: choose another name, or delete that one first", name))
		}
		next[hash] = info
	}
	token := NewToken()
	next[sha256.Sum256([]byte(token))] = TokenInfo{Name: name, Role: role, Created: now}
	return token, t.write(next)
}

// checkUser says what is wrong with the name and role of a new user.
func checkUser(name string, role Role) error {
	if !slices.Contains([]Role{Admin, Viewer, Node}, role) {
		return UserError(fmt.Sprintf("role %q is none of admin, viewer, node", role))
	}
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		return UserError(fmt.Sprintf("%q cannot be the name of a user: use lower case letters, digits, - and .; for a node, its name", name))
	}
	return nil
}

// Delete makes a token invalid at once. The last administrator's stays.
func (t *Tokens) Delete(name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refresh()
	next := map[[sha256.Size]byte]TokenInfo{}
	var gone *[sha256.Size]byte
	admins := 0
	for hash, info := range t.byHash {
		if info.Name == name {
			gone = &hash
			continue
		}
		if next[hash] = info; info.Role == Admin {
			admins++
		}
	}
	if gone == nil {
		return UserError(fmt.Sprintf("there is no token %s", name))
	}
	if admins == 0 {
		return UserError(fmt.Sprintf("%s is the last token of an administrator: make another one first", name))
	}
	if err := t.write(next); err != nil {
		return err
	}
	return t.forgetFile(*gone)
}

// forgetFile removes the administrator's file when it holds a token that was deleted.
func (t *Tokens) forgetFile(hash [sha256.Size]byte) error {
	b, err := os.ReadFile(AdminTokenFile(t.dir))
	if err != nil || sha256.Sum256(bytes.TrimSpace(b)) != hash {
		return nil
	}
	return os.Remove(AdminTokenFile(t.dir))
}

// role of a token by its user's name; None when there is no such token.
func (t *Tokens) role(user string) Role {
	for _, info := range t.List() {
		if named(info.Name, info.Role).Name == user {
			return info.Role
		}
	}
	return None
}
