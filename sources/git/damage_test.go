package git_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"berth.dev/berth/sources/git"
)

// pipe runs git with an input.
func (r *remote) pipe(dir string, in io.Reader, args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Stdin = dir, in
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func glob(t *testing.T, dir, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) == 0 {
		t.Fatalf("%s: %v %v", pattern, found, err)
	}
	return found
}

// TestDamagedClone: whatever happens to the clone, it is replaced without
// anybody's help, in the running program and after a restart, with a newer commit
// and without one.
func TestDamagedClone(t *testing.T) {
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, damage := range map[string]func(t *testing.T, dir string){
		"a pack that is cut short": func(t *testing.T, dir string) {
			for _, p := range glob(t, dir, "*/*/objects/pack/*.pack") {
				must(t, os.Chmod(p, 0o600))
				must(t, os.Truncate(p, 200))
			}
		},
		"no index": func(t *testing.T, dir string) {
			for _, p := range glob(t, dir, "*/*/objects/pack/*.idx") {
				must(t, os.Remove(p))
			}
		},
		"an index that is cut short": func(t *testing.T, dir string) {
			for _, p := range glob(t, dir, "*/*/objects/pack/*.idx") {
				must(t, os.Chmod(p, 0o600))
				must(t, os.Truncate(p, 100))
			}
		},
		"locks that are left": func(t *testing.T, dir string) {
			for _, d := range glob(t, dir, "*/*/objects") {
				for _, lock := range []string{"shallow.lock", "config.lock", "packed-refs.lock", "HEAD.lock"} {
					must(t, os.WriteFile(filepath.Join(filepath.Dir(d), lock), nil, 0o600))
				}
			}
		},
		"half a pack that is left": func(t *testing.T, dir string) {
			for _, d := range glob(t, dir, "*/*/objects/pack") {
				must(t, os.WriteFile(filepath.Join(d, "pack-0123456789012345678901234567890123456789.pack"), []byte("PACK"), 0o600))
			}
		},
		"no folder":  func(t *testing.T, dir string) { must(t, os.RemoveAll(glob(t, dir, "*")[0])) },
		"no objects": func(t *testing.T, dir string) { must(t, os.RemoveAll(glob(t, dir, "*/*/objects")[0])) },
		"a state that is none": func(t *testing.T, dir string) {
			must(t, os.WriteFile(glob(t, dir, "*/state.json")[0], []byte("{"), 0o600))
		},
		"a state without clone": func(t *testing.T, dir string) { must(t, os.RemoveAll(glob(t, dir, "*/1")[0])) },
	} {
		for _, restarted := range []bool{false, true} {
			for _, newer := range []bool{false, true} {
				title := name
				if restarted {
					title += ", restarted"
				}
				if newer {
					title += ", newer commit"
				}
				t.Run(title, func(t *testing.T) { damaged(t, damage, restarted, newer) })
			}
		}
	}
}

func damaged(t *testing.T, damage func(*testing.T, string), restarted, newer bool) {
	r := newRemote(t)
	want := r.push(map[string]string{"a.yaml": strings.Repeat("one ", 1000), "b.yaml": noise(t, 5000)})
	dir := t.TempDir()
	f := git.New(git.Options{Dir: dir, AllowLocal: true})
	fetch(t, f, source(r.url))
	damage(t, dir)
	if restarted {
		f = git.New(git.Options{Dir: dir, AllowLocal: true})
	}
	if newer {
		want = r.push(map[string]string{"c.yaml": "two"})
	}
	var err error
	for range 2 { // a fault that only a reader finds is mended by the next fetch
		rev := fetch(t, f, source(r.url))
		files, listed := rev.Tree.Files(t.Context())
		err = listed
		for _, file := range files {
			_, unread := rev.Tree.Read(t.Context(), file.Path, 1<<20)
			err = errors.Join(err, unread)
		}
		if rev.Commit != want || len(files) < 2 {
			t.Errorf("%s with %d files, want %s", rev.Commit, len(files), want)
		}
		if err == nil {
			return
		}
	}
	t.Errorf("after two fetches: %v", err)
}

// TestServerThatRefusesAllLaterFetches: its words reach the user, a fresh clone is
// tried, and later polls go on.
func TestServerThatRefusesAllLaterFetches(t *testing.T) {
	r := newRemote(t)
	r.push(map[string]string{"a.yaml": "one"})
	f := fetcher(t)
	fetch(t, f, source(r.url))
	want := r.push(map[string]string{"a.yaml": "two"})
	r.refuseAll.Store(true)
	posts := r.posts.Load()
	if _, err := f.Fetch(t.Context(), source(r.url)); err == nil || !strings.Contains(err.Error(), "the server answers 400: no such luck") {
		t.Errorf("%v", err)
	}
	if n := r.posts.Load() - posts; n != 2 {
		t.Errorf("%d attempts, want the fetch and a fresh clone", n)
	}
	r.refuseAll.Store(false)
	if rev := fetch(t, f, source(r.url)); rev.Commit != want || content(t, rev, "a.yaml") != "two" {
		t.Errorf("%+v", rev)
	}
}
