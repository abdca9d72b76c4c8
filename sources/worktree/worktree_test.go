package worktree_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/sources/archive"
	"berth.dev/berth/sources/worktree"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func names(t *testing.T, rev revision.Revision) string {
	t.Helper()
	files, err := rev.Tree.Files(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		out = append(out, f.Path)
	}
	return strings.Join(out, " ")
}

func TestPathsAreThoseOfTheRepository(t *testing.T) {
	top := t.TempDir()
	write(t, top, map[string]string{".git/HEAD": "x", "a.yaml": "a", "deploy/b.yaml": "b", "deploy/README.md": "r", "deploy/skip/c.yaml": "c", "deploy/.berthignore": "skip/\n", "lib/l.cue": "package l"})
	if err := os.Symlink("b.yaml", filepath.Join(top, "deploy/link.yaml")); err != nil {
		t.Fatal(err)
	}
	rev, dir, err := worktree.Open(context.Background(), filepath.Join(top, "deploy"))
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, rev); dir != "deploy" || got != "deploy/.berthignore deploy/README.md deploy/b.yaml deploy/link.yaml" {
		t.Errorf("in %q: %s", dir, got)
	}
	write(t, top, map[string]string{"above.cue": "package p", "lib/beside.cue": "package p"})
	if rev, _, err = worktree.Open(context.Background(), filepath.Join(top, "deploy")); err != nil {
		t.Fatal(err)
	}
	if got := names(t, rev); !strings.HasPrefix(got, "above.cue deploy/") || strings.Contains(got, "lib/") {
		t.Errorf("with CUE above it: %s", got)
	}
	write(t, top, map[string]string{"cue.mod/module.cue": "module: \"x.org/x\""})
	if rev, _, err = worktree.Open(context.Background(), filepath.Join(top, "deploy")); err != nil {
		t.Fatal(err)
	}
	if got := names(t, rev); !strings.Contains(got, "lib/l.cue") || !strings.Contains(got, "cue.mod/module.cue") || strings.Contains(got, "a.yaml ") {
		t.Errorf("with a CUE module: %s", got)
	}

	var b bytes.Buffer
	if err := archive.Write(context.Background(), &b, rev); err != nil {
		t.Fatal(err)
	}
	sent := b.Bytes()
	got, err := archive.Read(bytes.NewReader(sent), 0)
	if err != nil {
		t.Fatal(err)
	}
	if n := names(t, got); strings.Contains(n, "README") || !strings.Contains(n, "deploy/link.yaml") {
		t.Errorf("archived: %s", n)
	}
	if content, err := got.Tree.Read(context.Background(), "deploy/b.yaml", 10); err != nil || string(content) != "b" {
		t.Errorf("read %q, %v", content, err)
	}
	if _, err := archive.Read(bytes.NewReader(sent), 1000); err == nil {
		t.Error("no error over the limit")
	}
	if _, err := archive.Read(bytes.NewReader(sent[:len(sent)/3]), 0); err == nil {
		t.Error("no error for an archive cut short")
	}
}

func TestNoFolder(t *testing.T) {
	if _, _, err := worktree.Open(context.Background(), filepath.Join(t.TempDir(), "gone")); err == nil {
		t.Error("no error")
	}
}

// TestWhatAKustomizationNames is listed also outside of the folder, and goes along
// in an archive whatever its name.
func TestWhatAKustomizationNames(t *testing.T) {
	top := t.TempDir()
	write(t, top, map[string]string{
		".git/HEAD": "x", "other/a.yaml": "a", "base/skip/b.yaml": "b", "base/README.md": "r", ".berthignore": "skip/\n",
		"apps/prod/kustomization.yaml": "resources: [\"../../base\"]\nconfigMapGenerator:\n- name: c\n  files: [k=../files/motd, here.conf]\n",
		"apps/prod/here.conf":          "h", "apps/prod/other.conf": "o", "apps/files/motd": "m", "apps/files/more": "m",
		"base/kustomization.yml": "resources:\n- ../deeper/c.yaml\n", "deeper/c.yaml": "c", "deeper/d.yaml": "d",
	})
	rev, _, err := worktree.Open(context.Background(), filepath.Join(top, "apps/prod"))
	if err != nil {
		t.Fatal(err)
	}
	want := "apps/files/motd apps/prod/here.conf apps/prod/kustomization.yaml apps/prod/other.conf base/README.md base/kustomization.yml deeper/c.yaml"
	if got := names(t, rev); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var b bytes.Buffer
	if err := archive.Write(context.Background(), &b, rev); err != nil {
		t.Fatal(err)
	}
	sent, err := archive.Read(&b, 0)
	if err != nil {
		t.Fatal(err)
	}
	want = "apps/files/motd apps/prod/here.conf apps/prod/kustomization.yaml base/kustomization.yml deeper/c.yaml"
	if got := names(t, sent); got != want {
		t.Errorf("archived: got  %s\nwant %s", got, want)
	}
}
