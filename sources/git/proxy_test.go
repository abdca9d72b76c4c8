package git_test

import (
	"context"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/sources/git"
)

// proxy is one on this machine that connects every name to one address.
type proxy struct {
	mu    sync.Mutex
	asked []string
	to    string
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, q.Method+" "+q.Host)
	p.mu.Unlock()
	far, err := net.Dial("tcp", p.to)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer far.Close()
	near, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer near.Close()
	_, _ = io.WriteString(near, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() { _, _ = io.Copy(far, near) }()
	_, _ = io.Copy(near, far)
}

func (p *proxy) seen() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := strings.Join(p.asked, ", ")
	p.asked = nil
	return seen
}

// TestProxy: HTTPS_PROXY and NO_PROXY count. The proxy may be on this machine, for
// the operator has chosen it; what it is asked for may not.
func TestProxy(t *testing.T) {
	r := newRemote(t)
	want := r.push(map[string]string{"a.yaml": "a"})
	backend := &cgi.Handler{Path: "/usr/lib/git-core/git-http-backend", Root: "/", Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(r.bare), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}}
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if strings.HasPrefix(q.URL.Path, "/away") {
			http.Redirect(w, q, "https://169.254.169.254/x.git/info/refs?service=git-upload-pack", http.StatusFound)
			return
		}
		backend.ServeHTTP(w, q)
	}))
	defer web.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	p := &proxy{to: web.Listener.Addr().String()}
	relay := httptest.NewServer(p)
	defer relay.Close()
	t.Setenv("HTTPS_PROXY", relay.URL)
	t.Setenv("NO_PROXY", "direct.invalid")
	// httptest's certificate is for example.com.
	strict := func() *git.Fetcher {
		return git.New(git.Options{Dir: t.TempDir(), Credentials: func(context.Context, *v1alpha1.Source) (git.Credentials, error) { return git.Credentials{CA: ca}, nil }})
	}
	f := strict()
	if rev := fetch(t, f, secured("https://example.com/shop.git")); rev.Commit != want || content(t, rev, "a.yaml") != "a" {
		t.Errorf("%+v", rev)
	}
	if seen := p.seen(); !strings.Contains(seen, "CONNECT example.com:443") {
		t.Errorf("the proxy was asked for %q", seen)
	}
	for url, want := range map[string]string{
		"https://169.254.169.254/x.git":  "not allowed as a source",
		"https://[::1]/x.git":            "not allowed as a source",
		"https://db.localhost/x.git":     "not allowed as a source",
		"https://localhost:7443/x.git":   "not allowed as a source",
		"https://direct.invalid/x.git":   "direct.invalid",
		"https://example.com/away/x.git": "not allowed as a source",
	} {
		_, err := f.Fetch(t.Context(), secured(url))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", url, err)
		}
		if seen := p.seen(); seen != "" && !strings.Contains(url, "example.com") || strings.Contains(seen, "169.254") {
			t.Errorf("%s: the proxy was asked for %q", url, seen)
		}
	}
	relay.Close()
	if _, err := strict().Fetch(t.Context(), secured("https://example.com/shop.git")); err == nil || !strings.Contains(err.Error(), "proxyconnect") {
		t.Errorf("without the proxy: %v", err)
	}
}
