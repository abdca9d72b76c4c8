package worktree_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"berth.dev/berth/sources/worktree"
)

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=Ann", "-c", "user.email=ann@example.org"}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// commit makes a repository of a folder, or adds a commit to it.
func commit(t *testing.T, dir, message string) string {
	t.Helper()
	git(t, dir, "init", "-q", "-b", "main")
	git(t, dir, "add", "-A")
	git(t, dir, "commit", "-q", "-m", message)
	return git(t, dir, "rev-parse", "HEAD")
}

func TestACommitIsReadAsItWas(t *testing.T) {
	top := t.TempDir()
	write(t, top, map[string]string{"deploy/a.yaml": "first", "other/b.yaml": "b"})
	first := commit(t, top, "First")
	write(t, top, map[string]string{"deploy/a.yaml": "second", "deploy/new.yaml": "n"})
	second := commit(t, top, "Second")
	write(t, top, map[string]string{"deploy/a.yaml": "not committed"})
	git(t, top, "tag", "-a", "v1", "-m", "One", "HEAD~1")
	// What git gc packed, and another working tree of the same repository.
	git(t, top, "gc", "-q")
	other := filepath.Join(t.TempDir(), "other")
	git(t, top, "worktree", "add", "-q", "-b", "side", other, "HEAD~1")
	for name, want := range map[string]string{first: first, first[:8]: first, first[:7]: first, "HEAD~1": first, "@^": first, "HEAD": second, "main": second, "v1": first, "side": first, "side HEAD": first} {
		at := top
		if name == "side HEAD" {
			at, name = other, "HEAD"
		}
		rev, dir, err := worktree.At(context.Background(), filepath.Join(at, "deploy"), name)
		if err != nil {
			t.Fatal(err)
		}
		files, content := "deploy/a.yaml", "first"
		if want == second {
			files, content = "deploy/a.yaml deploy/new.yaml", "second"
		}
		if got := names(t, rev); rev.Commit != want || dir != "deploy" || got != files {
			t.Errorf("%s: commit %s, in %q: %s", name, rev.Commit, dir, got)
		}
		if b, err := rev.Tree.Read(context.Background(), "deploy/a.yaml", 100); err != nil || string(b) != content {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

func TestAnUnknownCommitIsNamed(t *testing.T) {
	top := t.TempDir()
	if _, _, err := worktree.At(context.Background(), top, "HEAD"); err == nil || !strings.Contains(err.Error(), "lies in no Git repository") {
		t.Error(err)
	}
	write(t, top, map[string]string{"a.yaml": "a"})
	commit(t, top, "First")
	for _, name := range []string{"nowhere", "0123456789", "HEAD~7", "HEAD^2", "HEAD~x", "", "~", "../../etc/passwd", "0123456789012345678901234567890123456789"} {
		if _, _, err := worktree.At(context.Background(), top, name); err == nil {
			t.Errorf("%q: no error", name)
		} else if name == "nowhere" && !strings.Contains(err.Error(), `has no commit "nowhere" (no branch, tag or ID is called that); git log --oneline lists`) {
			t.Error(err)
		}
	}
}
