package git_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/sources/git"
)

// remote is a repository served by git http-backend.
type remote struct {
	t        *testing.T
	work     string
	bare     string
	url      string
	posts    atomic.Int32
	failPost atomic.Int32
	// refuseAll answers every post with 400.
	refuseAll atomic.Bool
}

func newRemote(t *testing.T) *remote {
	t.Helper()
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	t.Setenv("GIT_CONFIG_SYSTEM", "/dev/null")
	for _, role := range []string{"AUTHOR", "COMMITTER"} {
		t.Setenv("GIT_"+role+"_NAME", "Ann")
		t.Setenv("GIT_"+role+"_EMAIL", "ann@example.org")
	}
	root := t.TempDir()
	r := &remote{t: t, work: filepath.Join(root, "work"), bare: filepath.Join(root, "shop.git")}
	r.git(root, "init", "-q", "--bare", "-b", "main", r.bare)
	r.git(root, "init", "-q", "-b", "main", r.work)
	r.git(r.work, "remote", "add", "origin", r.bare)
	backend := &cgi.Handler{Path: "/usr/lib/git-core/git-http-backend", Root: "/", Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPost {
			r.posts.Add(1)
			if r.failPost.Add(-1) == 0 || r.refuseAll.Load() {
				http.Error(w, "no such luck", http.StatusBadRequest)
				return
			}
		}
		backend.ServeHTTP(w, req)
	}))
	t.Cleanup(web.Close)
	r.url = web.URL + "/shop.git"
	return r
}

func (r *remote) git(dir string, args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (r *remote) push(files map[string]string) string {
	r.t.Helper()
	for name, content := range files {
		file := filepath.Join(r.work, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			r.t.Fatal(err)
		}
	}
	r.git(r.work, "add", "-A")
	r.git(r.work, "commit", "-q", "-m", "a change")
	r.git(r.work, "push", "-q", "--force", "origin", "HEAD:main")
	return r.git(r.work, "rev-parse", "HEAD")
}

func source(url string) *v1alpha1.Source {
	return &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: v1alpha1.SourceSpec{URL: url, Ref: v1alpha1.Ref{Branch: "main"}}}
}

func fetcher(t *testing.T) *git.Fetcher {
	return git.New(git.Options{Dir: t.TempDir(), AllowLocal: true, AllowFile: true})
}

func fetch(t *testing.T, f *git.Fetcher, src *v1alpha1.Source) revision.Revision {
	t.Helper()
	rev, err := f.Fetch(context.Background(), src)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func content(t *testing.T, rev revision.Revision, name string) string {
	t.Helper()
	b, err := rev.Tree.Read(context.Background(), name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFetchFollowsTheBranch(t *testing.T) {
	for _, kind := range []string{"http", "file"} {
		t.Run(kind, func(t *testing.T) {
			r := newRemote(t)
			url := r.url
			if kind == "file" {
				url = "file://" + r.bare
			}
			f := fetcher(t)
			if _, err := f.Fetch(context.Background(), source(url)); !errors.Is(err, git.ErrEmptyRepository) {
				t.Fatalf("err = %v, want empty", err)
			}
			first := r.push(map[string]string{"deploy/a.yaml": "one", "b.yaml": "b", ".berthignore": "skip/\n", "skip/c.yaml": "c"})
			rev := fetch(t, f, source(url))
			if rev.Commit != first || rev.Subject != "a change" || rev.Email != "ann@example.org" || rev.Rewritten {
				t.Errorf("revision %+v", rev)
			}
			files, _ := rev.Tree.Files(context.Background())
			if len(files) != 3 {
				t.Errorf("files %v", files)
			}
			posts := r.posts.Load()
			fetch(t, f, source(url))
			if r.posts.Load() != posts {
				t.Error("an unchanged remote was fetched from")
			}
			old := rev
			r.push(map[string]string{"deploy/a.yaml": "two"})
			third := r.push(map[string]string{"deploy/a.yaml": "three"})
			rev = fetch(t, f, source(url))
			if rev.Commit != third || rev.Rewritten || content(t, rev, "deploy/a.yaml") != "three" {
				t.Errorf("revision %+v", rev)
			}
			if content(t, old, "deploy/a.yaml") != "one" {
				t.Error("the tree before is no longer readable")
			}
			// A revert brings back objects from before the shallow clone's edge.
			r.push(map[string]string{"deploy/a.yaml": "one"})
			if rev = fetch(t, f, source(url)); content(t, rev, "deploy/a.yaml") != "one" || rev.Rewritten {
				t.Errorf("revision %+v", rev)
			}
		})
	}
}

func TestHistoryRewritten(t *testing.T) {
	for _, kind := range []string{"http", "file"} {
		t.Run(kind, func(t *testing.T) {
			r := newRemote(t)
			url := r.url
			if kind == "file" {
				url = "file://" + r.bare
			}
			f := fetcher(t)
			first := r.push(map[string]string{"a.yaml": "one", "deep/er/x.yaml": "x"})
			r.push(map[string]string{"a.yaml": "two"})
			fetch(t, f, source(url))
			r.git(r.work, "reset", "-q", "--hard", first)
			want := r.push(map[string]string{"b.yaml": "b"})
			rev := fetch(t, f, source(url))
			if rev.Commit != want || !rev.Rewritten || content(t, rev, "a.yaml") != "one" {
				t.Errorf("revision %+v", rev)
			}
			r.git(r.work, "push", "-q", "--force", "origin", first+":main")
			if rev = fetch(t, f, source(url)); rev.Commit != first || !rev.Rewritten {
				t.Errorf("rewound: %+v", rev)
			}
			r.git(r.bare, "update-ref", "refs/heads/other", first)
			r.git(r.bare, "update-ref", "-d", "refs/heads/main")
			_, err := f.Fetch(context.Background(), source(url))
			var missing *git.ErrRefNotFound
			if !errors.As(err, &missing) || !strings.Contains(err.Error(), "branch main not found; the branches are other") {
				t.Errorf("err = %v", err)
			}
		})
	}
}

func TestRefs(t *testing.T) {
	r := newRemote(t)
	first := r.push(map[string]string{"a.yaml": "one"})
	r.git(r.work, "tag", "-a", "v1", "-m", "one")
	r.git(r.work, "push", "-q", "origin", "v1")
	r.push(map[string]string{"a.yaml": "two"})
	src := source(r.url)
	src.Spec.Ref = v1alpha1.Ref{Tag: "v1"}
	f := fetcher(t)
	if rev := fetch(t, f, src); rev.Commit != first {
		t.Errorf("tag: %s", rev.Commit)
	}
	r.git(r.bare, "config", "uploadpack.allowReachableSHA1InWant", "true")
	src.Spec.Ref = v1alpha1.Ref{Commit: first}
	if rev := fetch(t, fetcher(t), src); rev.Commit != first {
		t.Errorf("commit: %s", rev.Commit)
	}
	src.Spec.Ref = v1alpha1.Ref{Commit: first[:8]}
	if _, err := f.Fetch(context.Background(), src); err == nil || !strings.Contains(err.Error(), "full commit hash") {
		t.Errorf("err = %v", err)
	}
}

func TestDamageIsMended(t *testing.T) {
	r := newRemote(t)
	r.push(map[string]string{"a.yaml": "one"})
	dir := t.TempDir()
	open := func() *git.Fetcher { return git.New(git.Options{Dir: dir, AllowLocal: true}) }
	fetch(t, open(), source(r.url))
	packs, _ := filepath.Glob(filepath.Join(dir, "*/*/objects/pack/*.idx"))
	for _, p := range packs {
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
	want := r.push(map[string]string{"b.yaml": "two"})
	if rev := fetch(t, open(), source(r.url)); rev.Commit != want || content(t, rev, "a.yaml") != "one" {
		t.Errorf("revision %+v", rev)
	}
}

func TestServerThatRefusesLaterFetches(t *testing.T) {
	r := newRemote(t)
	r.push(map[string]string{"a.yaml": "one"})
	f := fetcher(t)
	fetch(t, f, source(r.url))
	want := r.push(map[string]string{"a.yaml": "two"})
	r.failPost.Store(1)
	if rev := fetch(t, f, source(r.url)); rev.Commit != want {
		t.Errorf("revision %+v", rev)
	}
}

func TestUnreachable(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "the forge is on holiday", http.StatusServiceUnavailable)
	}))
	defer web.Close()
	_, err := fetcher(t).Fetch(context.Background(), source(web.URL+"/x.git"))
	var away *git.ErrUnreachable
	if !errors.As(err, &away) || !strings.Contains(err.Error(), "holiday") {
		t.Errorf("err = %v", err)
	}
}

func TestAddressesThatAreRefused(t *testing.T) {
	redirect := httptest.NewTLSServer(http.RedirectHandler("http://169.254.169.254/x.git/info/refs", http.StatusFound))
	defer redirect.Close()
	f := git.New(git.Options{Dir: t.TempDir()})
	for _, url := range []string{"file:///etc", "https://127.0.0.1:1/x.git", "https://[::1]:1/x.git", "https://169.254.169.254/x.git", "https://localhost:1/x.git", redirect.URL + "/x.git"} {
		if _, err := f.Fetch(context.Background(), source(url)); err == nil || !strings.Contains(err.Error(), "not allowed as a source") {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, url := range []string{"ext::sh -c id", "http://example.org/x.git", "git://example.org/x", ""} {
		if _, err := f.Fetch(context.Background(), source(url)); err == nil || !strings.Contains(err.Error(), "https") {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, url := range []string{"ssh://git@example.org/x.git", "git@example.org:x.git"} {
		if _, err := f.Fetch(context.Background(), source(url)); err == nil || !strings.Contains(err.Error(), "fetch ssh://git@example.org/x.git: an ssh remote needs a key") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestManyFetches(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	r := newRemote(t)
	r.push(map[string]string{"a.yaml": "start"})
	dir := t.TempDir()
	f := git.New(git.Options{Dir: dir, AllowLocal: true})
	for i := range 55 {
		want := r.push(map[string]string{"a.yaml": fmt.Sprint(i)})
		if rev := fetch(t, f, source(r.url)); rev.Commit != want || rev.Rewritten {
			t.Fatalf("revision %+v", rev)
		}
	}
	packs, _ := filepath.Glob(filepath.Join(dir, "*/*/objects/pack/*.pack"))
	if len(packs) > 60 {
		t.Errorf("%d packs", len(packs))
	}
}
