// Package forge speaks with the services that host repositories. It takes their
// webhooks: a call that says "look now", and is believed only if it carries a
// signature made with a shared secret. It never trusts what a call says beyond
// that: what is deployed is what a fetch finds.
package forge

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

const (
	// maxBody is the largest body of a call: the largest that GitHub sends.
	maxBody = 25 << 20
	// spacing is the least time between two looks that calls cause.
	spacing = time.Second
	// maxHints bounds how many Sources wait for their look.
	maxHints = 10_000
)

// ErrNoSecret says that a Source takes no calls.
var ErrNoSecret = errors.New("no secret is configured for its webhook")

// Options of Hooks. All must be set.
type Options struct {
	// Secret returns what the calls for a Source are signed with, or an error:
	// ErrNoSecret where there is none.
	Secret func(ctx context.Context, source string) ([]byte, error)
	// Look asks for a look at the repository of a Source.
	Look  func(ctx context.Context, source string) error
	Clock clock.Clock
	Log   *slog.Logger
}

// Hooks takes calls at …/{source}. Any number of calls costs one look a second.
type Hooks struct {
	Options
	mu    sync.Mutex
	hints map[string]bool
	woken chan struct{}
}

// NewHooks makes Hooks, whose Run must be called.
func NewHooks(o Options) *Hooks {
	return &Hooks{Options: o, hints: map[string]bool{}, woken: make(chan struct{}, 1)}
}

// Run asks for the looks until the context ends.
func (h *Hooks) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.woken:
		}
		for _, source := range h.take() {
			if err := h.Look(ctx, source); err != nil && ctx.Err() == nil {
				h.Log.Warn("look after a webhook", "source", source, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-h.Clock.After(spacing):
		}
	}
}

func (h *Hooks) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]string, 0, len(h.hints))
	for source := range h.hints {
		out = append(out, source)
	}
	clear(h.hints)
	return out
}

// hint notes that a Source is to be looked at; false when too many are.
func (h *Hooks) hint(source string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.hints) >= maxHints && !h.hints[source] {
		return false
	}
	h.hints[source] = true
	select {
	case h.woken <- struct{}{}:
	default:
	}
	return true
}

// ServeHTTP takes a call. A Source that does not exist, one without a secret and
// a wrong signature get the same answer.
func (h *Hooks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	source := r.PathValue("source")
	if r.ContentLength > maxBody {
		http.Error(w, "the body is too large", http.StatusRequestEntityTooLarge)
		return
	}
	secret, err := h.Secret(r.Context(), source)
	if err != nil {
		h.Log.Info("webhook refused", "source", source, "reason", err)
		refuse(w)
		return
	}
	// The body is not kept: nothing in it is believed.
	mac := hmac.New(sha256.New, secret)
	_, err = io.Copy(mac, http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		http.Error(w, "the body is too large", http.StatusRequestEntityTooLarge)
	case err != nil:
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
	case !signed(r.Header, secret, mac.Sum(nil)):
		h.Log.Info("webhook refused", "source", source, "reason", "the signature is missing or wrong")
		refuse(w)
	case !h.hint(source):
		http.Error(w, "too many Sources wait; the next poll finds the change", http.StatusServiceUnavailable)
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}

func refuse(w http.ResponseWriter) {
	http.Error(w, "the signature does not match: give the forge the secret that spec.webhook of the Source names", http.StatusUnauthorized)
}

// signed checks the signature, in the header that each forge has for it: GitHub,
// Bitbucket, Gitea and Forgejo sign the body; GitLab sends the secret itself.
func signed(header http.Header, secret, sum []byte) bool {
	if token := header.Get("X-Gitlab-Token"); token != "" {
		return subtle.ConstantTimeCompare([]byte(token), secret) == 1
	}
	for _, name := range []string{"X-Hub-Signature-256", "X-Hub-Signature", "X-Gitea-Signature", "X-Forgejo-Signature"} {
		value := header.Get(name)
		if value == "" {
			continue
		}
		// Only SHA-256: GitHub's older header may hold another one, and comes along.
		value, prefixed := strings.CutPrefix(value, "sha256=")
		if !prefixed && strings.HasPrefix(name, "X-Hub-") {
			continue
		}
		got, err := hex.DecodeString(value)
		return err == nil && hmac.Equal(got, sum)
	}
	return false
}
