package git_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/sources/git"
)

// lfs is a Git server with the batch API, and a store on another host.
type lfs struct {
	*remote
	mu      sync.Mutex
	objects map[string]string // by oid
	seen    []string          // who asked for what
	// answer replaces what the batch API says of an object.
	answer map[string]map[string]any
	store  *httptest.Server
}

func newLFS(t *testing.T) *lfs {
	t.Helper()
	l := &lfs{remote: newRemote(t), objects: map[string]string{}, answer: map[string]map[string]any{}}
	root := filepath.Dir(l.bare)
	backend := &cgi.Handler{Path: "/usr/lib/git-core/git-http-backend", Root: "/", Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}}
	l.store = httptest.NewServer(http.HandlerFunc(l.download))
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/shop.git/info/lfs/objects/batch" {
			l.batch(w, q)
			return
		}
		backend.ServeHTTP(w, q)
	}))
	t.Cleanup(func() { web.Close(); l.store.Close() })
	l.url = web.URL + "/shop.git"
	return l
}

func (l *lfs) note(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, what)
}

func (l *lfs) noted() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := strings.Join(l.seen, "; ")
	l.seen = nil
	return seen
}

func (l *lfs) batch(w http.ResponseWriter, q *http.Request) {
	user, password, _ := q.BasicAuth()
	if password != "secret" {
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	var in struct {
		Operation string
		Objects   []struct {
			OID  string
			Size int64
		}
	}
	if q.Header.Get("Accept") != "application/vnd.git-lfs+json" || json.NewDecoder(q.Body).Decode(&in) != nil || in.Operation != "download" {
		http.Error(w, "malformed", http.StatusBadRequest)
		return
	}
	l.note(fmt.Sprintf("batch of %d by %s", len(in.Objects), user))
	var out []map[string]any
	for _, o := range in.Objects {
		said := map[string]any{"oid": o.OID, "size": o.Size, "actions": map[string]any{"download": map[string]any{"href": l.store.URL + "/" + o.OID, "header": map[string]string{"X-Ticket": "t1"}}}}
		if other := l.answer[o.OID]; other != nil {
			said = other
			said["oid"] = o.OID
		}
		out = append(out, said)
	}
	w.Header().Set("Content-Type", "application/vnd.git-lfs+json")
	_ = json.NewEncoder(w).Encode(map[string]any{"transfer": "basic", "objects": out})
}

func (l *lfs) download(w http.ResponseWriter, q *http.Request) {
	l.note(fmt.Sprintf("%s %q%q", q.URL.Path[:min(5, len(q.URL.Path))], q.Header.Get("X-Ticket"), q.Header.Get("Authorization")))
	if to := q.URL.Query().Get("to"); to != "" {
		http.Redirect(w, q, to, http.StatusFound)
		return
	}
	text, ok := l.objects[strings.TrimPrefix(q.URL.Path, "/")]
	if !ok {
		http.Error(w, "no such object", http.StatusNotFound)
		return
	}
	_, _ = w.Write([]byte(text))
}

// keep puts a content into the store and returns its pointer.
func (l *lfs) keep(text string) (oid, pointer string) {
	sum := sha256.Sum256([]byte(text))
	oid = hex.EncodeToString(sum[:])
	l.objects[oid] = text
	return oid, fmt.Sprintf("version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", oid, len(text))
}

func withLFS(url string) *v1alpha1.Source {
	s := secured(url)
	s.Spec.Path, s.Spec.LFS = "deploy", true
	return s
}

func TestLFS(t *testing.T) {
	l := newLFS(t)
	oid, pointer := l.keep(strings.Repeat("kind: large\n", 1000))
	_, outside := l.keep("not within the path")
	want := l.push(map[string]string{"deploy/a.yaml": pointer, "deploy/again.yaml": pointer, "deploy/small.yaml": "kind: small", "media/film": outside})
	dir := t.TempDir()
	f := git.New(git.Options{Dir: dir, AllowLocal: true, Credentials: func(context.Context, *v1alpha1.Source) (git.Credentials, error) {
		return git.Credentials{Username: "ann", Password: "secret"}, nil
	}})
	rev := fetch(t, f, withLFS(l.url))
	if rev.Commit != want || content(t, rev, "deploy/a.yaml") != l.objects[oid] || content(t, rev, "deploy/again.yaml") != l.objects[oid] || content(t, rev, "deploy/small.yaml") != "kind: small" {
		t.Errorf("%+v", rev)
	}
	files, err := rev.Tree.Files(t.Context())
	if err != nil || len(files) != 3 || files[0].Size != 12000 || files[0].Hash != "sha256:"+oid {
		t.Errorf("%+v %v", files, err)
	}
	if _, err := rev.Tree.Read(t.Context(), "deploy/a.yaml", 100); err == nil || !strings.Contains(err.Error(), "the file has 12000 bytes; at most 100 are read") {
		t.Errorf("%v", err)
	}
	// The ticket goes to the store, and the password does not.
	if seen := l.noted(); seen != fmt.Sprintf("batch of 1 by ann; /%.4s \"t1\"\"\"", oid) {
		t.Errorf("seen: %s", seen)
	}
	l.push(map[string]string{"deploy/small.yaml": "kind: other"})
	fetch(t, f, withLFS(l.url))
	if seen := l.noted(); seen != "" {
		t.Errorf("fetched again: %s", seen)
	}
	t.Run("damaged on the disk", func(t *testing.T) {
		file := glob(t, dir, "*/lfs/"+oid)[0]
		if err := os.WriteFile(file, []byte(strings.Repeat("x", 12000)), 0o600); err != nil {
			t.Fatal(err)
		}
		rev := fetch(t, f, withLFS(l.url))
		if _, err := rev.Tree.Read(t.Context(), "deploy/a.yaml", 1<<20); err == nil || !strings.Contains(err.Error(), "damaged on the disk") {
			t.Errorf("%v", err)
		}
		if rev := fetch(t, f, withLFS(l.url)); content(t, rev, "deploy/a.yaml") != l.objects[oid] {
			t.Error("another content")
		}
	})
	t.Run("without the field it is a pointer", func(t *testing.T) {
		s := withLFS(l.url)
		s.Spec.LFS = false
		if rev := fetch(t, f, s); content(t, rev, "deploy/a.yaml") != pointer {
			t.Error("another content")
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*/lfs/*")); len(left) != 0 {
			t.Errorf("%v is left", left)
		}
	})
}

func TestLFSThatIsRefused(t *testing.T) {
	l := newLFS(t)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		l.note(fmt.Sprintf("elsewhere %q%q", q.Header.Get("X-Ticket"), q.Header.Get("Authorization")))
		_, _ = w.Write([]byte("right"))
	}))
	defer other.Close()
	href := func(to string) map[string]any {
		return map[string]any{"actions": map[string]any{"download": map[string]any{"href": to, "header": map[string]string{"X-Ticket": "t1", "Authorization": "Bearer b"}}}}
	}
	for name, c := range map[string]struct {
		answer   func(oid string) map[string]any
		password string
		limit    string
		want     string
	}{
		"a redirect":             {func(oid string) map[string]any { return href(l.store.URL + "/" + oid + "?to=" + other.URL) }, "secret", "1Gi", ""},
		"another content":        {func(oid string) map[string]any { l.objects[oid] = "wrong"; return nil }, "secret", "1Gi", "the server sends another content (5 bytes"},
		"a longer content":       {func(oid string) map[string]any { l.objects[oid] = "right and more"; return nil }, "secret", "1Gi", "the server sends another content (6 bytes"},
		"a shorter content":      {func(oid string) map[string]any { l.objects[oid] = "ri"; return nil }, "secret", "1Gi", "the server sends another content (2 bytes"},
		"an object that is gone": {func(oid string) map[string]any { delete(l.objects, oid); return nil }, "secret", "1Gi", "answers 404: no such object"},
		"an error": {func(string) map[string]any {
			return map[string]any{"error": map[string]any{"code": 404, "message": "not here"}}
		}, "secret", "1Gi", "the server answers 404: not here; push it with git lfs push --all"},
		"nothing":          {func(string) map[string]any { return map[string]any{} }, "secret", "1Gi", "the server does not have it"},
		"a file":           {func(string) map[string]any { return href("file:///etc/passwd") }, "secret", "1Gi", "an address that is none of https"},
		"another password": {func(string) map[string]any { return nil }, "wrong", "1Gi", "refuses those that it was given"},
		"too large":        {func(string) map[string]any { return nil }, "secret", "100", "more than spec.maxSize (100) allows"},
	} {
		t.Run(name, func(t *testing.T) {
			clear(l.objects)
			clear(l.answer)
			oid, pointer := l.keep("right")
			l.push(map[string]string{"deploy/a.yaml": pointer, "deploy/b.yaml": name})
			if a := c.answer(oid); a != nil {
				l.answer[oid] = a
			}
			f := opened(t, git.Credentials{Username: "ann", Password: c.password})
			s := withLFS(l.url)
			q := resource.MustParse(c.limit)
			s.Spec.MaxSize = &q
			l.noted()
			rev, err := f.Fetch(t.Context(), s)
			seen := l.noted()
			if c.want == "" {
				if err != nil || content(t, rev, "deploy/a.yaml") != "right" || !strings.HasSuffix(seen, `elsewhere """"`) {
					t.Errorf("%v; seen: %s", err, seen)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "t1") {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	t.Run("over ssh", func(t *testing.T) {
		key, public := keyPair(t, "")
		addr, _ := sshServer(t, filepath.Dir(l.bare), public)
		_, pointer := l.keep("right")
		l.push(map[string]string{"deploy/a.yaml": pointer, "deploy/b.yaml": "ssh"})
		_, err := opened(t, git.Credentials{Key: key, InsecureIgnoreHostKey: true}).Fetch(t.Context(), withLFS("ssh://git@"+addr+"/shop.git"))
		if err == nil || !strings.Contains(err.Error(), "large files are fetched over https alone") {
			t.Errorf("%v", err)
		}
	})
}
