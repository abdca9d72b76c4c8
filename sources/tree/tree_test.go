package tree_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/memory"

	"berth.dev/berth/sources/tree"
)

func store(t testing.TB, s *memory.Storage, o object.Object) plumbing.Hash {
	t.Helper()
	e := s.NewEncodedObject()
	if err := o.Encode(e); err != nil {
		t.Fatal(err)
	}
	h, err := s.SetEncodedObject(e)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func blob(t testing.TB, s *memory.Storage, content string) plumbing.Hash {
	t.Helper()
	e := s.NewEncodedObject()
	e.SetType(plumbing.BlobObject)
	w, err := e.Writer()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte(content))
	_ = w.Close()
	h, err := s.SetEncodedObject(e)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestAMissingObjectIsAnError(t *testing.T) {
	gone := plumbing.NewHash("0123456789012345678901234567890123456789")
	for name, mode := range map[string]filemode.FileMode{"folder": filemode.Dir, "file.yaml": filemode.Regular} {
		s := memory.NewStorage()
		root := store(t, s, &object.Tree{Entries: []object.TreeEntry{
			{Name: "a.yaml", Mode: filemode.Regular, Hash: blob(t, s, "a")},
			{Name: name, Mode: mode, Hash: gone},
		}})
		commit := store(t, s, &object.Commit{TreeHash: root})
		_, err := tree.Revision(context.Background(), tree.NewObjects(s), commit, "")
		var incomplete *tree.ErrIncomplete
		if !errors.As(err, &incomplete) || incomplete.Path != name {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWhatAKustomizationNames is listed outside of the folder too, however far
// one leads to another; what it does not name is not.
func TestWhatAKustomizationNames(t *testing.T) {
	s := memory.NewStorage()
	folder := func(entries ...object.TreeEntry) plumbing.Hash {
		return store(t, s, &object.Tree{Entries: entries})
	}
	file := func(name, content string) object.TreeEntry {
		return object.TreeEntry{Name: name, Mode: filemode.Regular, Hash: blob(t, s, content)}
	}
	dir := func(name string, entries ...object.TreeEntry) object.TreeEntry {
		return object.TreeEntry{Name: name, Mode: filemode.Dir, Hash: folder(entries...)}
	}
	root := folder(
		dir("base", file("a.yaml", "a"), file("kustomization.yaml", "resources: [a.yaml, ../more]")),
		dir("deploy", dir("prod", file("Kustomization", "resources:\n- ../../base\n- ../../../etc\n- ../near"))),
		dir("more", file("b.yaml", "b"), file("kustomization.yml", "resources: [b.yaml, ../deploy/prod]")),
		dir("other", file("c.yaml", "c")),
	)
	rev, err := tree.Revision(context.Background(), tree.NewObjects(s), store(t, s, &object.Commit{TreeHash: root}), "deploy")
	if err != nil {
		t.Fatal(err)
	}
	files, err := rev.Tree.Files(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range files {
		got = append(got, f.Path)
	}
	want := "base/a.yaml base/kustomization.yaml deploy/prod/Kustomization more/b.yaml more/kustomization.yml"
	if strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
}

// TestCUEAboveTheFolderIsListed: packages in a folder include the files above it.
func TestCUEAboveTheFolderIsListed(t *testing.T) {
	s := memory.NewStorage()
	file := func(name string) object.TreeEntry {
		return object.TreeEntry{Name: name, Mode: filemode.Regular, Hash: blob(t, s, name)}
	}
	folder := func(name string, entries ...object.TreeEntry) object.TreeEntry {
		return object.TreeEntry{Name: name, Mode: filemode.Dir, Hash: store(t, s, &object.Tree{Entries: entries})}
	}
	root := store(t, s, &object.Tree{Entries: []object.TreeEntry{
		file("a.cue"), file("a.yaml"),
		folder("deploy", file("b.cue"), file("b.yaml"), folder("prod", file("c.cue"), file("c.yaml")), folder("staging", file("d.cue"))),
	}})
	rev, err := tree.Revision(t.Context(), tree.NewObjects(s), store(t, s, &object.Commit{TreeHash: root}), "deploy/prod")
	if err != nil {
		t.Fatal(err)
	}
	files, err := rev.Tree.Files(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Path)
	}
	if got := strings.Join(names, " "); got != "a.cue deploy/b.cue deploy/prod/c.cue deploy/prod/c.yaml" {
		t.Errorf("listed %s", got)
	}
}

func TestTenThousandFiles(t *testing.T) {
	s := memory.NewStorage()
	var folders []object.TreeEntry
	for d := range 100 {
		var files []object.TreeEntry
		for f := range 100 {
			files = append(files, object.TreeEntry{Name: fmt.Sprintf("%03d.yaml", f), Mode: filemode.Regular, Hash: blob(t, s, fmt.Sprint(d, f))})
		}
		folders = append(folders, object.TreeEntry{Name: fmt.Sprintf("%03d", d), Mode: filemode.Dir, Hash: store(t, s, &object.Tree{Entries: files})})
	}
	commit := store(t, s, &object.Commit{TreeHash: store(t, s, &object.Tree{Entries: folders})})
	began := time.Now()
	rev, err := tree.Revision(context.Background(), tree.NewObjects(s), commit, "")
	if err != nil {
		t.Fatal(err)
	}
	files, _ := rev.Tree.Files(context.Background())
	if took := time.Since(began); len(files) != 10_000 || took > 2*time.Second {
		t.Errorf("%d files in %s", len(files), took)
	}
}
