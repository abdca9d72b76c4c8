package forge_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/utils/clock"

	"berth.dev/berth/sources/forge"
)

const secret = "hunter2"

func hooks(looks *atomic.Int32, log io.Writer) *forge.Hooks {
	return forge.NewHooks(forge.Options{
		Secret: func(_ context.Context, source string) ([]byte, error) {
			if source != "shop" {
				return nil, forge.ErrNoSecret
			}
			return []byte(secret), nil
		},
		Look:  func(context.Context, string) error { looks.Add(1); return nil },
		Clock: clock.RealClock{}, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
}

func sign(body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil))
}

func call(t *testing.T, h http.Handler, source string, body io.Reader, header map[string]string) (int, string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("POST /berth/v1/hooks/{source}", h)
	r := httptest.NewRequest(http.MethodPost, "/berth/v1/hooks/"+source, body)
	for k, v := range header {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestSignatures(t *testing.T) {
	const body = `{"ref": "refs/heads/main"}`
	old := hmac.New(sha1.New, []byte(secret))
	old.Write([]byte(body))
	for _, c := range []struct {
		name, source string
		header       map[string]string
		want         int
	}{
		{"GitHub", "shop", map[string]string{"X-Hub-Signature-256": "sha256=" + sign(body), "X-Hub-Signature": "sha1=" + hex.EncodeToString(old.Sum(nil))}, 202},
		{"Bitbucket", "shop", map[string]string{"X-Hub-Signature": "sha256=" + sign(body)}, 202},
		{"Gitea", "shop", map[string]string{"X-Gitea-Signature": sign(body)}, 202},
		{"Forgejo", "shop", map[string]string{"X-Forgejo-Signature": sign(body)}, 202},
		{"GitLab", "shop", map[string]string{"X-Gitlab-Token": secret}, 202},
		{"none", "shop", nil, 401},
		{"SHA-1 alone", "shop", map[string]string{"X-Hub-Signature": "sha1=" + hex.EncodeToString(old.Sum(nil))}, 401},
		{"of another body", "shop", map[string]string{"X-Hub-Signature-256": "sha256=" + sign(body+" ")}, 401},
		{"no hexadecimal", "shop", map[string]string{"X-Gitea-Signature": "zz"}, 401},
		{"a wrong one beside a right one", "shop", map[string]string{"X-Hub-Signature-256": "sha256=00", "X-Gitea-Signature": sign(body)}, 401},
		{"another token", "shop", map[string]string{"X-Gitlab-Token": "hunter3"}, 401},
		{"without a secret", "other", map[string]string{"X-Hub-Signature-256": "sha256=" + sign(body)}, 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			code, answer := call(t, hooks(new(atomic.Int32), &log), c.source, strings.NewReader(body), c.header)
			if code != c.want {
				t.Errorf("answered %d, want %d", code, c.want)
			}
			if strings.Contains(answer+log.String(), secret) {
				t.Errorf("the secret is told: %s %s", answer, log.String())
			}
		})
	}
}

// zeros is a body that takes no memory.
type zeros struct{ left int }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), z.left)
	z.left -= n
	return n, nil
}

func TestLargeBodiesAreRefused(t *testing.T) {
	z := &zeros{left: 200 << 20}
	code, _ := call(t, hooks(new(atomic.Int32), io.Discard), "shop", z, map[string]string{"X-Gitlab-Token": secret})
	if code != http.StatusRequestEntityTooLarge {
		t.Errorf("answered %d", code)
	}
	if read := 200<<20 - z.left; read > 26<<20 {
		t.Errorf("%d bytes of it were read", read)
	}
}

// TestManyCallsAreFewLooks: the first is at once, and the last is not lost.
func TestManyCallsAreFewLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int32
		h := hooks(&looks, io.Discard)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go h.Run(ctx)
		for i := range 250 { // one in 10 ms
			if code, _ := call(t, h, "shop", strings.NewReader(fmt.Sprint(i)), map[string]string{"X-Gitlab-Token": secret}); code != 202 {
				t.Fatalf("answered %d", code)
			}
			synctest.Wait()
			if i == 0 && looks.Load() != 1 {
				t.Errorf("%d looks after the first call", looks.Load())
			}
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := looks.Load(); n < 3 || n > 4 {
			t.Errorf("%d looks for 250 calls in 2.5 s", n)
		}
	})
}
