// Package access says who a request is from: by a token, a client certificate
// or the token of a service account. It owns the token file, the certificates
// and the key of the service accounts in the data directory. What a user may do
// is decided in engine/authorize.
package access

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io/fs"
	"net/http"
	"os"
)

// cookie holds the token of a browser that has logged in.
const cookie = "berth_token"

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

// sameOrigin: a cookie only counts for reading, or for what our own pages send.
// A GET that opens a stream is no mere reading.
func sameOrigin(r *http.Request) bool {
	if r.Header.Get("Upgrade") == "" && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
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

// Withhold takes the credentials for this server off a request that goes on to
// another one.
func Withhold(h http.Header) {
	h.Del("Authorization")
	cookies := (&http.Request{Header: h}).Cookies()
	h.Del("Cookie")
	for _, c := range cookies {
		if c.Name != cookie {
			h.Add("Cookie", c.String())
		}
	}
}

// KeepOut takes off another server's answer what would log the client in here
// as somebody else.
func KeepOut(h http.Header) {
	set := h.Values("Set-Cookie")
	h.Del("Set-Cookie")
	for _, line := range set {
		if c, err := http.ParseSetCookie(line); err == nil && c.Name != cookie {
			h.Add("Set-Cookie", line)
		}
	}
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
