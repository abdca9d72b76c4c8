package cue_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/revision"
	"berth.dev/berth/cue"
)

var update = flag.Bool("update", false, "rewrite the wanted output in testdata")

// memory is a tree of files in memory.
type memory map[string]memoryFile

type memoryFile struct {
	kind    revision.Kind
	content []byte
}

func (m memory) Files(context.Context) ([]revision.File, error) {
	var out []revision.File
	for name, f := range m {
		sum := sha256.Sum256(f.content)
		out = append(out, revision.File{Path: name, Kind: f.kind, Size: int64(len(f.content)), Hash: hex.EncodeToString(sum[:])})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Path < out[j].Path })
	return out, nil
}

func (m memory) Read(_ context.Context, path string, limit int64) ([]byte, error) {
	f, ok := m[path]
	if !ok {
		return nil, fmt.Errorf("no file %s", path)
	}
	return f.content, nil
}

func revisionOf(m memory) revision.Revision { return revision.Revision{Tree: m} }

// runKinds are what the first cluster runs.
func runKinds() cue.KindSet {
	set := cue.KindSet{}
	for _, k := range []string{"Namespace", "Pod", "Service", "ConfigMap", "Secret", "ServiceAccount"} {
		set[schema.GroupKind{Kind: k}] = true
	}
	set[schema.GroupKind{Group: "apps", Kind: "Deployment"}] = true
	set[schema.GroupKind{Group: "apps", Kind: "ReplicaSet"}] = true
	return set
}

// parseCase reads the comment of an archive: "option: value" lines.
func parseCase(a *txtar.Archive) (memory, cue.Options) {
	m := memory{}
	for _, f := range a.Files {
		if !strings.HasPrefix(f.Name, "want/") {
			m[f.Name] = memoryFile{content: f.Data}
		}
	}
	opts := cue.Options{TargetNamespace: "default"}
	for _, line := range strings.Split(string(a.Comment), "\n") {
		option, value, _ := strings.Cut(line, ": ")
		switch option {
		case "path":
			opts.Path = value
		case "namespace":
			opts.TargetNamespace = value
		case "kinds":
			opts.Kinds = runKinds()
		case "symlink":
			m[value] = memoryFile{kind: revision.Symlink}
		case "submodule":
			m[value] = memoryFile{kind: revision.Submodule}
		case "large":
			m[value] = memoryFile{content: bytes.Repeat([]byte("#"), 5<<20)}
		case "replace": // replace: FILE OLD NEW, Go-quoted
			var name, from, to string
			if _, err := fmt.Sscanf(value, "%s %q %q", &name, &from, &to); err == nil {
				m[name] = memoryFile{content: bytes.ReplaceAll(m[name].content, []byte(from), []byte(to))}
			}
		case "repeat": // repeat: FILE OLD N: a run of N letters x in place of OLD
			var name, from string
			var n int
			if _, err := fmt.Sscanf(value, "%s %s %d", &name, &from, &n); err == nil {
				m[name] = memoryFile{content: bytes.ReplaceAll(m[name].content, []byte(from), bytes.Repeat([]byte("x"), n))}
			}
		}
	}
	return m, opts
}

func render(t *testing.T, set manifest.Set) (objects, diagnostics, open string) {
	t.Helper()
	var b, d, o strings.Builder
	for _, m := range set.Manifests {
		out, err := yaml.Marshal(m.Object.Object)
		if err != nil {
			t.Fatal(err)
		}
		if len(out) > 20000 {
			out = []byte(fmt.Sprintf("# %d bytes\n", len(out)))
		}
		fmt.Fprintf(&b, "--- # %s\n%s", m.Origin, out)
	}
	for _, diagnostic := range set.Diagnostics {
		fmt.Fprintln(&d, diagnostic)
	}
	for _, r := range set.Open {
		fmt.Fprintln(&o, r.Missing("in this repository"))
	}
	return b.String(), d.String(), o.String()
}

func TestCompile(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	if len(names) < 50 {
		t.Fatalf("only %d cases", len(names))
	}
	compiler, err := cue.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			t.Parallel()
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			tree, opts := parseCase(a)
			opts.Source = name
			set, err := compiler.Compile(context.Background(), revisionOf(tree), opts)
			if err != nil {
				t.Fatal(err)
			}
			objects, diagnostics, open := render(t, set)
			if *update {
				write(t, name, a, objects, diagnostics, open)
				return
			}
			wantOpen := ""
			for _, f := range a.Files {
				switch f.Name {
				case "want/open":
					wantOpen = string(f.Data)
				case "want/objects.yaml":
					if diff := cmp.Diff(string(f.Data), objects); diff != "" {
						t.Errorf("objects (-want +got):\n%s", diff)
					}
				case "want/diagnostics":
					if diff := cmp.Diff(string(f.Data), diagnostics); diff != "" {
						t.Errorf("diagnostics (-want +got):\n%s", diff)
					}
				}
			}
			if diff := cmp.Diff(wantOpen, open); diff != "" {
				t.Errorf("open references (-want +got):\n%s", diff)
			}
			if strings.Contains(diagnostics+open, "hunter2") {
				t.Error("a Secret's value is in a message")
			}
		})
	}
}

func write(t *testing.T, name string, a *txtar.Archive, objects, diagnostics, open string) {
	t.Helper()
	var files []txtar.File
	for _, f := range a.Files {
		if !strings.HasPrefix(f.Name, "want/") {
			files = append(files, f)
		}
	}
	files = append(files,
		txtar.File{Name: "want/objects.yaml", Data: []byte(objects)},
		txtar.File{Name: "want/diagnostics", Data: []byte(diagnostics)})
	if open != "" {
		files = append(files, txtar.File{Name: "want/open", Data: []byte(open)})
	}
	a.Files = files
	if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
		t.Fatal(err)
	}
}
