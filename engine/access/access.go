// Package access says who a request is from. It owns the token file and the
// certificates in the data directory; what a user may do is decided where it
// is done.
package access

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Role of a user.
type Role string

// Roles. A viewer sees everything but the values of Secrets.
const (
	Admin  Role = "admin"
	Viewer Role = "viewer"
)

// User is who a request is from.
type User struct {
	Name string
	Role Role
}

// cookie holds the token of a browser that has logged in.
const cookie = "berth_token"

// Tokens are the bearer tokens that open the server. The file holds only their
// hashes; the administrator's own token stands in a file of mode 0600 beside it.
type Tokens struct {
	dir string

	mu     sync.RWMutex
	byHash map[[sha256.Size]byte]User
}

// Reload reads the file anew. When that fails the tokens stay as they are.
func (t *Tokens) Reload() error {
	now, err := OpenTokens(t.dir)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byHash = now.byHash
	return nil
}

// AdminTokenFile is where OpenTokens leaves the first token of a new server.
func AdminTokenFile(dir string) string { return filepath.Join(dir, "admin.token") }

// OpenTokens reads the tokens of a data directory, and makes one for the
// administrator when there are none.
func OpenTokens(dir string) (*Tokens, error) {
	t := &Tokens{dir: dir, byHash: map[[sha256.Size]byte]User{}}
	path := filepath.Join(dir, "tokens")
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, t.create(dir, path)
	}
	if err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 {
			continue
		}
		hash, err := hex.DecodeString(fields[0])
		if len(fields) != 3 || err != nil || len(hash) != sha256.Size || (Role(fields[1]) != Admin && Role(fields[1]) != Viewer) {
			return nil, fmt.Errorf("read tokens: %s:%d is not \"sha256 role name\"; mend the line, or %s", path, n, anew)
		}
		t.byHash[[sha256.Size]byte(hash)] = User{Name: fields[2], Role: Role(fields[1])}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read tokens: %s: %w", path, err)
	}
	if len(t.byHash) == 0 {
		return nil, fmt.Errorf("read tokens: %s holds none, so nobody could log in; %s", path, anew)
	}
	return t, nil
}

// anew is what to do when the file of the tokens is of no use.
const anew = "remove the file and start again: a new administrator's token is made"

func (t *Tokens) create(dir, path string) error {
	token := NewToken()
	hash := sha256.Sum256([]byte(token))
	if err := writeSecret(AdminTokenFile(dir), token+"\n"); err != nil {
		return fmt.Errorf("write the administrator's token: %w", err)
	}
	line := fmt.Sprintf("%s %s %s\n", hex.EncodeToString(hash[:]), Admin, "admin")
	if err := writeSecret(path, line); err != nil {
		return fmt.Errorf("write tokens: %w", err)
	}
	t.byHash[hash] = User{Name: "admin", Role: Admin}
	return nil
}

// writeSecret writes a file whole or not at all, for its owner alone, whatever
// was there before.
func writeSecret(path, content string) error {
	next := path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(next, []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// NewToken makes a token of 256 random bits.
func NewToken() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b)
}

// Check finds the user of a token.
func (t *Tokens) Check(token string) (User, bool) {
	hash := sha256.Sum256([]byte(strings.TrimSpace(token)))
	t.mu.RLock()
	defer t.mu.RUnlock()
	for known, user := range t.byHash {
		if subtle.ConstantTimeCompare(hash[:], known[:]) == 1 {
			return user, true
		}
	}
	return User{}, false
}

// Request finds the user of a request: by a bearer token, by a token as the
// password of basic authentication (for git), or by the cookie of the page.
func (t *Tokens) Request(r *http.Request) (User, bool) {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return t.Check(token)
	}
	if _, password, ok := r.BasicAuth(); ok {
		return t.Check(password)
	}
	if c, err := r.Cookie(cookie); err == nil && sameOrigin(r) {
		return t.Check(c.Value)
	}
	return User{}, false
}

// sameOrigin: a cookie only counts for reading, or for what our own pages send.
func sameOrigin(r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	return r.Header.Get("Sec-Fetch-Site") == "same-origin"
}

// Login sets the cookie of a token that was checked.
func Login(w http.ResponseWriter, r *http.Request, token string) {
	http.SetCookie(w, &http.Cookie{
		Name: cookie, Value: token, Path: "/", HttpOnly: true, Secure: r.TLS != nil,
		SameSite: http.SameSiteStrictMode, MaxAge: 7 * 24 * 60 * 60,
	})
}

// Logout removes the cookie.
func Logout(w http.ResponseWriter) {
	http.SetCookie(w, &http.Cookie{Name: cookie, Path: "/", MaxAge: -1})
}

type userKey struct{}

// With notes the user in a context.
func With(ctx context.Context, u User) context.Context { return context.WithValue(ctx, userKey{}, u) }

// From is the user of a context; false when nobody has logged in.
func From(ctx context.Context) (User, bool) {
	u, ok := ctx.Value(userKey{}).(User)
	return u, ok
}
