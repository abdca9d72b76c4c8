package git_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/sources/git"
)

// host is a Git server with several repositories, which notes who asks for what.
type host struct {
	*remote
	root string
	mu   sync.Mutex
	seen map[string]string // user by repository
}

func newHost(t *testing.T) *host {
	t.Helper()
	r := newRemote(t)
	h := &host{remote: r, root: filepath.Dir(r.bare), seen: map[string]string{}}
	backend := &cgi.Handler{Path: "/usr/lib/git-core/git-http-backend", Root: "/", Env: []string{"GIT_PROJECT_ROOT=" + h.root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		name, _, _ := strings.Cut(strings.TrimPrefix(q.URL.Path, "/"), "/")
		user, _, _ := q.BasicAuth()
		h.mu.Lock()
		h.seen[name] += user + ","
		h.mu.Unlock()
		backend.ServeHTTP(w, q)
	}))
	t.Cleanup(web.Close)
	h.url = web.URL
	return h
}

// repository makes another one and returns a way to push to it.
func (h *host) repository(name string) *remote {
	h.t.Helper()
	r := &remote{t: h.t, work: filepath.Join(h.root, name), bare: filepath.Join(h.root, name+".git"), url: h.url + "/" + name + ".git"}
	r.git(h.root, "init", "-q", "--bare", "-b", "main", r.bare)
	r.git(h.root, "init", "-q", "-b", "main", r.work)
	r.git(r.work, "remote", "add", "origin", r.bare)
	return r
}

// module adds a submodule at a commit, without a working tree of it.
func (r *remote) module(path, url, commit string) {
	r.t.Helper()
	file := filepath.Join(r.work, ".gitmodules")
	old, _ := os.ReadFile(file) // the first one makes it
	text := fmt.Sprintf("%s[submodule %q]\n\tpath = %s\n\turl = %s\n", old, path, path, url)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(r.work, path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	r.git(r.work, "update-index", "--add", "--cacheinfo", "160000,"+commit+","+path)
}

// commit pushes what is in the index.
func (r *remote) commit() string {
	r.t.Helper()
	r.git(r.work, "add", "-A", "--", ".gitmodules")
	r.git(r.work, "commit", "-q", "-m", "a change")
	r.git(r.work, "push", "-q", "--force", "origin", "HEAD:main")
	return r.git(r.work, "rev-parse", "HEAD")
}

func withModules(url, path string) *v1alpha1.Source {
	s := secured(url)
	s.Spec.Path, s.Spec.Submodules = path, true
	return s
}

func listing(t *testing.T, rev revision.Revision) string {
	t.Helper()
	files, err := rev.Tree.Files(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		name := f.Path
		if f.Kind == revision.Submodule {
			name += "@"
		}
		out = append(out, name)
	}
	return strings.Join(out, " ")
}

// TestSubmodules: those within the path, and within one another, at the commits
// that are pinned, and with the credentials of their own host alone.
func TestSubmodules(t *testing.T) {
	ours, theirs := newHost(t), newHost(t)
	inner := theirs.repository("inner")
	innerCommit := inner.push(map[string]string{"in.yaml": "inner 1"})
	inner.push(map[string]string{"in.yaml": "inner 2"}) // not the one that is pinned
	lib := ours.repository("lib")
	lib.push(map[string]string{"lib.yaml": "lib 1", "deep/base/b.yaml": "base"})
	lib.module("deep/inner", inner.url, innerCommit)
	libCommit := lib.commit()
	shop := ours.repository("app")
	shop.push(map[string]string{"deploy/a.yaml": "a", "README": "x"})
	shop.module("deploy/lib", "../lib.git", libCommit)
	shop.module("elsewhere", "https://192.0.2.1/nowhere.git", libCommit)
	want := shop.commit()

	dir := t.TempDir()
	open := func() *git.Fetcher {
		return git.New(git.Options{Dir: dir, AllowLocal: true, Credentials: func(context.Context, *v1alpha1.Source) (git.Credentials, error) {
			return git.Credentials{Username: "ann", Password: "secret"}, nil
		}})
	}
	f := open()
	rev := fetch(t, f, withModules(shop.url, "deploy"))
	if got := listing(t, rev); rev.Commit != want || got != "deploy/a.yaml deploy/lib/.gitmodules deploy/lib/deep/base/b.yaml deploy/lib/deep/inner/in.yaml deploy/lib/lib.yaml" {
		t.Errorf("%s: %s", rev.Commit, got)
	}
	if content(t, rev, "deploy/lib/lib.yaml") != "lib 1" || content(t, rev, "deploy/lib/deep/inner/in.yaml") != "inner 1" || content(t, rev, "deploy/a.yaml") != "a" {
		t.Error("another content")
	}
	if !strings.Contains(ours.seen["lib.git"], "ann,") || strings.Contains(theirs.seen["inner.git"], "ann") || theirs.seen["inner.git"] == "" {
		t.Errorf("credentials were shown to %v and %v", ours.seen, theirs.seen)
	}

	t.Run("without the field it is listed as what it is", func(t *testing.T) {
		s := secured(shop.url)
		s.Spec.Path = "deploy"
		if got := listing(t, fetch(t, fetcher(t), s)); got != "deploy/a.yaml deploy/lib@" {
			t.Errorf("%s", got)
		}
		s.Spec.Path = "deploy/lib/deep"
		if got := listing(t, fetch(t, fetcher(t), s)); got != "deploy/lib@" {
			t.Errorf("above the path: %s", got)
		}
	})
	t.Run("the path lies in one", func(t *testing.T) {
		if got := listing(t, fetch(t, open(), withModules(shop.url, "deploy/lib/deep"))); got != "deploy/lib/deep/base/b.yaml deploy/lib/deep/inner/in.yaml" {
			t.Errorf("%s", got)
		}
	})
	t.Run("a newer commit, and none that it was", func(t *testing.T) {
		for i := range 3 {
			commit := lib.push(map[string]string{"lib.yaml": fmt.Sprint("lib ", i+2)})
			lib.push(map[string]string{"lib.yaml": "newer than what is pinned"})
			shop.git(shop.work, "update-index", "--cacheinfo", "160000,"+commit+",deploy/lib")
			want := shop.commit()
			rev := fetch(t, f, withModules(shop.url, "deploy"))
			if rev.Commit != want || content(t, rev, "deploy/lib/lib.yaml") != fmt.Sprint("lib ", i+2) {
				t.Errorf("%d: %+v", i, rev)
			}
			shop.push(map[string]string{"deploy/a.yaml": fmt.Sprint(i)})
			if rev := fetch(t, open(), withModules(shop.url, "deploy")); content(t, rev, "deploy/lib/lib.yaml") != fmt.Sprint("lib ", i+2) {
				t.Errorf("%d, after a restart: %+v", i, rev)
			}
		}
	})
	t.Run("a damaged one is mended", func(t *testing.T) {
		packs := glob(t, dir, "*/modules/*/*/objects/pack/*.pack")
		for _, p := range packs {
			if err := os.Truncate(p, 100); err != nil {
				t.Fatal(err)
			}
		}
		g := open()
		for range 3 {
			rev, err := g.Fetch(t.Context(), withModules(shop.url, "deploy"))
			if err != nil {
				continue
			}
			if _, err := rev.Tree.Read(t.Context(), "deploy/lib/lib.yaml", 100); err == nil {
				return
			}
		}
		t.Error("it is still damaged")
	})
	t.Run("no longer wanted", func(t *testing.T) {
		shop.git(shop.work, "rm", "-q", "--cached", "deploy/lib")
		shop.commit()
		fetch(t, f, withModules(shop.url, "deploy"))
		if left, _ := filepath.Glob(filepath.Join(dir, "*/modules/*")); len(left) != 0 {
			t.Errorf("%v is left", left)
		}
	})
}

func TestSubmodulesThatAreRefused(t *testing.T) {
	h := newHost(t)
	lib := h.repository("lib")
	commit := lib.push(map[string]string{"big": noise(t, 2<<20)})
	for name, c := range map[string]struct{ url, commit, limit, want string }{
		"a commit that is gone":    {lib.url, strings.Repeat("ab", 20), "1Gi", "submodule deploy/lib: fetch " + lib.url + ": commit abab"},
		"a file":                   {"file:///etc", commit, "1Gi", "submodule deploy/lib: fetch file:///etc: this address is not allowed as a source"},
		"a command":                {"ext::sh -c id", commit, "1Gi", "the scheme ext is not supported"},
		"ssh on another host":      {"git@192.0.2.1:x.git", commit, "1Gi", "on another host than the Source, whose key is not shown there"},
		"too large":                {lib.url, commit, "1Mi", "more than spec.maxSize (1Mi) allows"},
		"a repository that is not": {"../nothing.git", commit, "1Gi", "/nothing.git: "},
		"no url":                   {"", commit, "1Gi", ".gitmodules has no url for it"},
	} {
		t.Run(name, func(t *testing.T) {
			shop := h.repository(strings.ReplaceAll(name, " ", "-"))
			shop.push(map[string]string{"deploy/a.yaml": "a"})
			shop.module("deploy/lib", c.url, c.commit)
			shop.commit()
			f := git.New(git.Options{Dir: t.TempDir(), AllowLocal: true})
			s := bounded(shop.url, c.limit)
			s.Spec.Path, s.Spec.Submodules = "deploy", true
			if _, err := f.Fetch(t.Context(), s); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	t.Run("one in itself", func(t *testing.T) {
		loop := h.repository("loop")
		at := loop.push(map[string]string{"a.yaml": "a"})
		for range 7 {
			loop.git(loop.work, "rm", "-q", "--cached", "--ignore-unmatch", "again")
			_ = os.Remove(filepath.Join(loop.work, ".gitmodules"))
			loop.module("again", "../loop.git", at)
			at = loop.commit()
		}
		_, err := fetcher(t).Fetch(t.Context(), withModules(loop.url, ""))
		if err == nil || !strings.Contains(err.Error(), "submodule again/again/again/again/again/again: it lies more than 5 submodules deep") {
			t.Errorf("%v", err)
		}
	})
	t.Run("many", func(t *testing.T) {
		many := h.repository("many")
		many.push(map[string]string{"a.yaml": "a"})
		small := h.repository("small")
		at := small.push(map[string]string{"a.yaml": "a"})
		for i := range 51 {
			many.module(fmt.Sprintf("m%02d", i), "../small.git", at)
		}
		many.commit()
		if _, err := fetcher(t).Fetch(t.Context(), withModules(many.url, "")); err == nil || !strings.Contains(err.Error(), "more than 50 submodules") {
			t.Errorf("%v", err)
		}
	})
}
