package cue_test

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"sigs.k8s.io/yaml"

	"berth.dev/berth/api/manifest"
	"berth.dev/berth/cue"
)

// corpusFile is a file of a case.
type corpusFile struct {
	of, name string
	content  []byte
}

// corpus is every file of testdata with one of the extensions.
func corpus(t testing.TB, exts ...string) []corpusFile {
	t.Helper()
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var out []corpusFile
	for _, name := range names {
		a, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		tree, _ := parseCase(a)
		files, _ := tree.Files(context.Background())
		for _, f := range files {
			for _, ext := range exts {
				if path.Ext(f.Path) == ext && len(tree[f.Path].content) > 0 && len(tree[f.Path].content) <= 4<<20 {
					out = append(out, corpusFile{strings.TrimSuffix(filepath.Base(name), ".txtar"), f.Path, tree[f.Path].content})
				}
			}
		}
	}
	return out
}

func newCompiler(t testing.TB) *cue.Compiler {
	t.Helper()
	c, err := cue.New()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// compileOne compiles a repository of one file.
func compileOne(t testing.TB, c *cue.Compiler, name string, content []byte) manifest.Set {
	t.Helper()
	set, err := c.Compile(context.Background(), revisionOf(memory{name: memoryFile{content: content}}), cue.Options{Source: name})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// converted are the cases whose documents are not decoded as they are: those in
// versions that Kubernetes no longer has, and the parts of kustomizations.
func converted(name string) bool {
	return strings.HasPrefix(name, "old_versions") || strings.HasPrefix(name, "kustomize") || strings.HasPrefix(name, "helm")
}

// TestAgreesWithKubernetes holds every document of the corpus, and every file as
// a whole, against Kubernetes' strict decoding.
func TestAgreesWithKubernetes(t *testing.T) {
	k, compiler := newKubernetes(), newCompiler(t)
	seen := map[string]bool{}
	compared := 0
	check := func(f corpusFile, what string, content []byte, readings []reading) {
		set := compileOne(t, compiler, "file"+path.Ext(f.name), content)
		disagreement, stricter := k.compareWith(content, set, readings)
		if disagreement != "" {
			t.Errorf("%s, %s of %s: %s\n%s", f.of, what, f.name, disagreement, content)
		}
		if stricter {
			if stricterThanKubernetes[f.of] == "" && !seen[f.of] {
				_, diagnostics, _ := render(t, set)
				t.Errorf("%s, %s of %s: Kubernetes decodes what Berth refuses; list the case with its reason if the fault is one of validation:\n%s", f.of, what, f.name, diagnostics)
			}
			seen[f.of] = true
		}
		compared++
	}
	for _, f := range corpus(t, ".yaml", ".yml", ".json") {
		if converted(f.of) {
			continue
		}
		docs, _ := documents(f.name, f.content)
		for i, doc := range docs {
			if !empty(f.name, doc) {
				check(f, fmt.Sprintf("document %d", i), doc, k.read(f.name, doc))
			}
		}
		check(f, "all", f.content, k.readAll(f.name, f.content))
	}
	for of := range stricterThanKubernetes {
		if !seen[of] {
			t.Errorf("%s is listed as stricter than Kubernetes, but is not", of)
		}
	}
	if compared < 300 {
		t.Errorf("only %d documents and files were compared", compared)
	}
}

// TestSameInEveryFormat compiles every object of the corpus as YAML, JSON and
// CUE, with the definition and without: JSON is CUE.
func TestSameInEveryFormat(t *testing.T) {
	compiler := newCompiler(t)
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, name := range names {
		a, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		tree, opts := parseCase(a)
		opts.Kinds = nil
		set, err := compiler.Compile(context.Background(), revisionOf(tree), opts)
		if err != nil {
			t.Fatal(err)
		}
		if len(set.Manifests) == 0 || strings.HasPrefix(filepath.Base(name), "refs_") && failed(set) {
			continue // what is wrong is wrong between them, in any format
		}
		compared += len(set.Manifests)
		want := objects(t, set)
		for file, content := range everyFormat(t, set.Manifests) {
			if again := compileOne(t, compiler, file, content); failed(again) {
				_, diagnostics, _ := render(t, again)
				t.Errorf("%s as %s is refused:\n%s", name, file, diagnostics)
			} else if diff := cmp.Diff(want, objects(t, again)); diff != "" {
				t.Errorf("%s as %s gives other objects (-want +got):\n%s", name, file, diff)
			}
		}
	}
	if compared < 100 {
		t.Errorf("only %d objects were compared", compared)
	}
}

// everyFormat writes objects in the formats that a repository may have.
func everyFormat(t testing.TB, ms []manifest.Manifest) map[string][]byte {
	t.Helper()
	plain, typed := []byte("package a\n"), []byte("package a\nimport \"berth.dev/schema\"\n")
	var asYAML, asJSON []byte
	for i, m := range ms {
		js, err := json.Marshal(m.Object.Object)
		if err != nil {
			t.Fatal(err)
		}
		ym, err := yaml.Marshal(m.Object.Object)
		if err != nil {
			t.Fatal(err)
		}
		asYAML = append(append(asYAML, "---\n"...), ym...)
		asJSON = append(append(asJSON, js...), '\n')
		plain = fmt.Appendf(plain, "o%d: %s\n", i, js)
		typed = fmt.Appendf(typed, "o%d: schema.#%s & %s\n", i, m.Object.GetKind(), js)
	}
	return map[string][]byte{"a.yaml": asYAML, "a.json": asJSON, "plain.cue": plain, "typed.cue": typed}
}

// objects are the contents of a Set as JSON, in its order.
func objects(t testing.TB, set manifest.Set) []string {
	t.Helper()
	var out []string
	for _, m := range set.Manifests {
		js, err := json.MarshalIndent(m.Object.Object, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(js))
	}
	return out
}
