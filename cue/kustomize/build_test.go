package kustomize_test

import (
	"encoding/json"
	"fmt"
	"path"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"berth.dev/berth/cue/document"
	"berth.dev/berth/cue/kustomize"
)

// files of an archive that stand for a repository.
func files(a *txtar.Archive) map[string][]byte {
	out := map[string][]byte{}
	for _, f := range a.Files {
		out[f.Name] = f.Data
	}
	return out
}

// TestBuildsWhatTheLibraryBuilds compares a build with one of the library by
// itself: writing the kustomizations anew changes nothing.
func TestBuildsWhatTheLibraryBuilds(t *testing.T) {
	in := input(t, "fields")
	var got []any
	for _, doc := range build(t, in) {
		if doc.Path == "" || doc.Line == 0 {
			t.Errorf("%s has no place", doc.Get("metadata").Text("name"))
		}
		got = append(got, doc.Interface())
	}
	// Both as JSON, which knows one kind of number.
	if diff := cmp.Diff(asJSON(t, library(t, in)), asJSON(t, got)); diff != "" {
		t.Errorf("-library +build:\n%s", diff)
	}
}

// TestNamesThatLookRemote: what stands in the repository is read from there, also
// where the library by itself would fetch it.
func TestNamesThatLookRemote(t *testing.T) {
	var got []string
	in := input(t, "names")
	for _, doc := range build(t, in) {
		got = append(got, doc.Get("metadata").Text("name")+" "+fmt.Sprint(doc.Path, ":", doc.Line))
	}
	want := []string{"d1 over/sub/d.yaml:4", "d2 over/sub/d.yaml:7", "dots over/a..b/c d.yaml:1", "hub-c over/c.yaml:1", "user-c over/c.yaml:1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func input(t *testing.T, name string) kustomize.Input {
	t.Helper()
	a, err := txtar.ParseFile("testdata/" + name + ".txtar")
	if err != nil {
		t.Fatal(err)
	}
	return kustomize.Input{File: "over/kustomization.yaml", Files: files(a)}
}

func build(t *testing.T, in kustomize.Input) []*document.Node {
	t.Helper()
	docs, problems := kustomize.Build(in)
	if len(problems) > 0 {
		t.Fatalf("%+v", problems)
	}
	return docs
}

// library builds with the library alone, from the files as they are.
func library(t *testing.T, in kustomize.Input) []any {
	t.Helper()
	fs := filesys.MakeFsInMemory()
	for name, content := range in.Files {
		if err := fs.WriteFile("/"+name, content); err != nil {
			t.Fatal(err)
		}
	}
	o := krusty.MakeDefaultOptions()
	o.Reorder = krusty.ReorderOptionUnspecified
	o.LoadRestrictions = types.LoadRestrictionsNone
	made, err := krusty.MakeKustomizer(o).Run(fs, "/"+path.Dir(in.File))
	if err != nil {
		t.Fatal(err)
	}
	var out []any
	for _, r := range made.Resources() {
		content, err := r.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(content, &v); err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

func asJSON(t *testing.T, v []any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
