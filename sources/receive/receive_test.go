package receive_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/sources/receive"
)

type gate struct {
	mu       sync.Mutex
	refuse   error
	accepted []receive.Push
	files    []revision.File
}

func (g *gate) Check(ctx context.Context, p receive.Push, out io.Writer) error {
	fmt.Fprintf(out, "checking %s\n", p.Ref)
	if !p.Deletes() {
		rev, err := p.At("")
		if err != nil {
			return err
		}
		if g.files, err = rev.Tree.Files(ctx); err != nil {
			return err
		}
		for _, f := range g.files {
			if f.Kind == revision.Regular {
				if _, err := rev.Tree.Read(ctx, f.Path, 1<<20); err != nil {
					return err
				}
			}
		}
		fmt.Fprintf(out, "%d files of %q\n", len(g.files), rev.Subject)
	}
	return g.refuse
}

func (g *gate) Accepted(_ context.Context, p receive.Push) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.accepted = append(g.accepted, p)
}

type fixture struct {
	t      *testing.T
	gate   *gate
	server *receive.Server
	url    string
	dir    string
	work   string
}

func setup(t *testing.T, change func(*receive.Options)) *fixture {
	t.Helper()
	g := &gate{}
	opts := receive.Options{Dir: t.TempDir(), Gate: g, User: func(*http.Request) string { return "ann" }}
	if change != nil {
		change(&opts)
	}
	s := receive.New(opts)
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	f := &fixture{t: t, gate: g, server: s, url: web.URL + "/git/shop.git", dir: opts.Dir, work: t.TempDir()}
	f.git(f.work, "init", "-q", "-b", "main")
	f.git(f.work, "remote", "add", "origin", f.url)
	f.commit("a.yaml", "one")
	return f
}

func environment(t *testing.T) []string {
	return append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_TERMINAL_PROMPT=0", "HOME="+t.TempDir(),
		"GIT_AUTHOR_NAME=Ann", "GIT_AUTHOR_EMAIL=ann@example.org", "GIT_COMMITTER_NAME=Ann", "GIT_COMMITTER_EMAIL=ann@example.org")
}

func (f *fixture) try(dir string, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = dir, environment(f.t)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (f *fixture) git(dir string, args ...string) string {
	f.t.Helper()
	out, err := f.try(dir, args...)
	if err != nil {
		f.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(out)
}

func (f *fixture) commit(name, content string) string {
	f.t.Helper()
	file := filepath.Join(f.work, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		f.t.Fatal(err)
	}
	f.git(f.work, "add", "-A")
	f.git(f.work, "commit", "-q", "-m", "change "+name)
	return f.git(f.work, "rev-parse", "HEAD")
}

func contains(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
}

func TestPushCloneFetchPull(t *testing.T) {
	f := setup(t, nil)
	head := f.git(f.work, "rev-parse", "HEAD")
	contains(t, f.git(f.work, "push", "origin", "main"), "remote: checking refs/heads/main", `remote: 1 files of "change a.yaml"`, "[new branch]")
	if len(f.gate.accepted) != 1 || f.gate.accepted[0].New != head || f.gate.accepted[0].User != "ann" {
		t.Errorf("accepted %+v", f.gate.accepted)
	}
	clone := filepath.Join(t.TempDir(), "clone")
	f.git(f.work, "clone", "-q", f.url, clone)
	for i := range 5 {
		f.commit(fmt.Sprintf("deploy/%d.yaml", i), strings.Repeat("x: y\n", i+1))
		f.git(f.work, "push", "-q", "origin", "main")
	}
	f.git(clone, "fetch", "origin")
	f.git(clone, "pull", "-q", "--ff-only")
	f.git(clone, "fsck", "--strict")
	if got, want := f.git(clone, "rev-parse", "HEAD"), f.git(f.work, "rev-parse", "HEAD"); got != want {
		t.Errorf("cloned %s, want %s", got, want)
	}
	shallow := filepath.Join(t.TempDir(), "shallow")
	f.git(f.work, "clone", "-q", "--depth", "2", f.url, shallow)
	if n := f.git(shallow, "rev-list", "--count", "HEAD"); n != "2" {
		t.Errorf("a clone of depth 2 has %s commits", n)
	}
	f.commit("b.yaml", "two")
	f.git(f.work, "tag", "-a", "v1", "-m", "one")
	f.git(f.work, "push", "-q", "origin", "main", "v1")
	f.git(shallow, "pull", "-q", "--ff-only")
	f.git(shallow, "fetch", "-q", "--unshallow", "--tags")
	f.git(shallow, "fsck", "--strict")
	if n := f.git(shallow, "rev-list", "--count", "HEAD"); n != "7" {
		t.Errorf("unshallowed to %s commits, want 7", n)
	}
	contains(t, f.git(f.work, "ls-remote", f.url), "refs/tags/v1^{}", "HEAD")
	rev, err := f.server.Revision(context.Background(), "shop", v1alpha1.Ref{Tag: "v1"}, "deploy")
	if err != nil {
		t.Fatal(err)
	}
	files, _ := rev.Tree.Files(context.Background())
	if len(files) != 5 || files[0].Path != "deploy/0.yaml" || files[1].Size != 10 {
		t.Errorf("files %+v", files)
	}
	if names, _ := f.server.Repositories(); len(names) != 1 || names[0] != "shop" {
		t.Errorf("repositories %v", names)
	}
}

func TestRefusedPushLeavesNothing(t *testing.T) {
	f := setup(t, nil)
	f.git(f.work, "push", "-q", "origin", "main")
	before := f.git(f.work, "ls-remote", f.url)
	f.gate.refuse = errors.New("2 errors\na.yaml:3:1: unknown field \"replicass\"")
	f.commit("a.yaml", "bad")
	out, err := f.try(f.work, "push", "origin", "main")
	if err == nil {
		t.Error("the push went through")
	}
	contains(t, out, "remote: checking", "remote: a.yaml:3:1: unknown field", "! [remote rejected] main -> main (2 errors)")
	if after := f.git(f.work, "ls-remote", f.url); after != before {
		t.Errorf("the refs changed to %s", after)
	}
	packs, _ := filepath.Glob(filepath.Join(f.dir, "shop.git/objects/pack/*.pack"))
	left, _ := filepath.Glob(filepath.Join(f.dir, "shop.git/incoming-*"))
	if len(packs) != 1 || len(left) != 0 {
		t.Errorf("packs %v, left %v", packs, left)
	}
	f.gate.refuse = nil
	f.git(f.work, "push", "-q", "origin", "main")
}

func TestForcePush(t *testing.T) {
	allow := false
	f := setup(t, func(o *receive.Options) {
		o.AllowForce = func(user, _, _ string) bool { return allow && user == "ann" }
	})
	f.commit("b.yaml", "two")
	f.git(f.work, "push", "-q", "origin", "main")
	f.git(f.work, "reset", "-q", "--hard", "HEAD~1")
	f.commit("c.yaml", "three")
	out, err := f.try(f.work, "push", "--force", "origin", "main")
	if err == nil {
		t.Error("history was rewritten")
	}
	contains(t, out, "history would be rewritten; fetch and rebase")
	allow = true
	// What somebody has pushed meanwhile is not lost to a lease on what was seen.
	if out, err := f.try(f.work, "push", "--force-with-lease=main:"+strings.Repeat("1", 40), "origin", "main"); err == nil {
		t.Errorf("a lease on another commit: %s", out)
	}
	out, err = f.try(f.work, "push", "--force-with-lease", "origin", "main")
	if err != nil {
		t.Errorf("with a lease: %v", err)
	}
	contains(t, out, "main is rewritten: commit")
	f.git(f.work, "push", "-q", "origin", "main:refs/heads/other")
	f.git(f.work, "push", "-q", "origin", ":other")
	if last := f.gate.accepted[len(f.gate.accepted)-1]; !last.Deletes() || last.Ref != "refs/heads/other" {
		t.Errorf("accepted %+v", last)
	}
}

func TestConcurrentPushes(t *testing.T) {
	f := setup(t, nil)
	f.git(f.work, "push", "-q", "origin", "main")
	var wg sync.WaitGroup
	results := make([]error, 4)
	dirs := make([]string, len(results))
	for i := range results {
		dir := filepath.Join(t.TempDir(), "w")
		f.git(f.work, "clone", "-q", f.url, dir)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		f.git(dir, "add", "-A")
		f.git(dir, "commit", "-q", "-m", "x")
		dirs[i] = dir
	}
	for i, dir := range dirs {
		wg.Go(func() { _, results[i] = f.try(dir, "push", "origin", "main") })
	}
	wg.Wait()
	won := 0
	for _, err := range results {
		if err == nil {
			won++
		}
	}
	if won != 1 {
		t.Errorf("%d pushes won, want 1", won)
	}
}

func TestBounds(t *testing.T) {
	f := setup(t, func(o *receive.Options) { o.MaxPack = 1 << 20 })
	noise := make([]byte, 3<<20)
	state := uint32(1)
	for i := range noise {
		state = state*1664525 + 1013904223
		noise[i] = byte(state >> 24)
	}
	f.commit("large.bin", string(noise))
	out, err := f.try(f.work, "push", "origin", "main")
	if err == nil {
		t.Error("a pack over the limit was taken")
	}
	contains(t, out, "larger than 1 MiB")
	for _, path := range []string{"/git/../etc.git/info/refs?service=git-upload-pack", "/git/Shop.git/info/refs?service=git-upload-pack", "/git/a/b.git/info/refs?service=git-upload-pack", "/git/shop.git/objects/info/packs", "/git/shop.git/info/refs"} {
		resp, err := http.Get(strings.TrimSuffix(f.url, "/git/shop.git") + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode < 400 {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}

func TestDamagedPacks(t *testing.T) {
	f := setup(t, nil)
	f.git(f.work, "push", "-q", "origin", "main")
	head := f.git(f.work, "rev-parse", "HEAD")
	next := f.commit("b.yaml", "two")
	cmd := exec.Command("sh", "-c", "git rev-parse HEAD | git pack-objects --stdout -q") // the commit alone
	cmd.Dir, cmd.Env = f.work, environment(t)
	lone, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	broken := append([]byte(nil), lone...)
	broken[len(broken)/2] ^= 0xff
	line := fmt.Sprintf("%s %s refs/heads/main\x00 report-status side-band-64k\n", head, next)
	for name, pack := range map[string][]byte{"is missing": lone, "damaged": broken, "the pack": []byte("PACK")} {
		body := fmt.Sprintf("%04x%s0000%s", len(line)+4, line, pack)
		resp, err := http.Post(f.url+"/git-receive-pack", "application/x-git-receive-pack-request", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		out, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		contains(t, string(out), name, "ng refs/heads/main")
	}
	if got := f.git(f.work, "ls-remote", f.url, "refs/heads/main"); !strings.HasPrefix(got, head) {
		t.Errorf("main moved to %s", got)
	}
	f.git(f.work, "push", "-q", "origin", "main")
}

func TestManyPushesAreFolded(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	f := setup(t, nil)
	for i := range 55 {
		f.commit("a.yaml", fmt.Sprint(i))
		f.git(f.work, "push", "-q", "origin", "main")
	}
	packs, _ := filepath.Glob(filepath.Join(f.dir, "shop.git/objects/pack/*.pack"))
	if len(packs) > 50 {
		t.Errorf("%d packs", len(packs))
	}
	clone := filepath.Join(t.TempDir(), "clone")
	f.git(f.work, "clone", "-q", f.url, clone)
	f.git(clone, "fsck", "--strict")
}

func TestEmptyRepository(t *testing.T) {
	f := setup(t, nil)
	contains(t, f.git(f.work, "clone", f.url, filepath.Join(t.TempDir(), "c")), "empty repository")
	if _, err := f.server.Revision(context.Background(), "shop", v1alpha1.Ref{}, ""); !errors.Is(err, receive.ErrNotFound) {
		t.Errorf("err = %v", err)
	}
}

// TestHalfOfAPackIsRemoved: a process that was killed while it stored a push, or
// folded packs, leaves one file of two. The next one goes on.
func TestHalfOfAPackIsRemoved(t *testing.T) {
	f := setup(t, nil)
	f.git(f.work, "push", "-q", "origin", "main")
	dir := filepath.Join(f.dir, "shop.git/objects/pack")
	packs, err := filepath.Glob(filepath.Join(dir, "pack-*.pack"))
	if err != nil || len(packs) != 1 {
		t.Fatalf("packs %v, %v", packs, err)
	}
	for _, ext := range []string{".pack", ".idx"} {
		content, err := os.ReadFile(strings.TrimSuffix(packs[0], ".pack") + ext)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "pack-"+strings.Repeat(map[string]string{".pack": "1", ".idx": "2"}[ext], 40)+ext), content, 0o444); err != nil {
			t.Fatal(err)
		}
	}
	again := receive.New(receive.Options{Dir: f.dir})
	if _, err := again.Revision(t.Context(), "shop", v1alpha1.Ref{Branch: "main"}, ""); err != nil {
		t.Errorf("the repository cannot be read: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "pack-*")); len(left) != 2 {
		t.Errorf("left are %v", left)
	}
}
