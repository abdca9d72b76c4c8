package cue_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"berth.dev/berth/api/manifest"
	"berth.dev/berth/cue"
)

// budget is the longest that one input may take, in a build that is slow because
// it is instrumented.
const budget = 20 * time.Second

// compileWatched compiles a repository of one file. An evaluation cannot be
// ended, so one that takes too long is left behind, and its input reported.
func compileWatched(t *testing.T, c *cue.Compiler, name string, content []byte) manifest.Set {
	t.Helper()
	type answer struct {
		set manifest.Set
		err error
	}
	done := make(chan answer, 1)
	go func() {
		set, err := c.Compile(context.Background(), revisionOf(memory{name: memoryFile{content: content}}), cue.Options{Source: name})
		done <- answer{set, err}
	}()
	select {
	case a := <-done:
		if a.err != nil {
			t.Fatalf("%s: %v\n%q", name, a.err, content)
		}
		placed(t, a.set, name, content)
		return a.set
	case <-time.After(budget):
		t.Fatalf("%s takes more than %s:\n%q", name, budget, content)
	}
	return manifest.Set{}
}

// placed checks that every diagnostic and object stands in the file.
func placed(t *testing.T, set manifest.Set, name string, content []byte) {
	t.Helper()
	lines := bytes.Count(content, []byte("\n")) + 1
	for _, d := range set.Diagnostics {
		if d.Path != "" && d.Path != name || int(d.Line) > lines || d.Line < 0 || d.Column < 0 || d.Message == "" {
			t.Errorf("the diagnostic %q stands outside of %s of %d lines:\n%q", d.String(), name, lines, content)
		}
	}
	for _, m := range set.Manifests {
		if m.Origin.Path != name || m.Origin.Line < 1 || m.Origin.Line > lines {
			t.Errorf("an object from %s stands outside of %s of %d lines:\n%q", m.Origin, name, lines, content)
		}
	}
}

// seed adds the files of the corpus with an extension, up to a size.
func seed(f *testing.F, limit int, exts ...string) {
	f.Helper()
	for _, file := range corpus(f, exts...) {
		if len(file.content) <= limit {
			f.Add(file.content)
		}
	}
}

// maxInput bounds the size of an input of YAML and JSON, in bytes.
const maxInput = 32 << 10

// FuzzYAML: what Berth accepts, Kubernetes' strict decoding accepts too, with
// equal objects; what that refuses, Berth refuses.
func FuzzYAML(f *testing.F) {
	fuzzAgreement(f, "a.yaml", ".yaml", ".yml")
}

// FuzzJSON: the same for JSON.
func FuzzJSON(f *testing.F) {
	fuzzAgreement(f, "a.json", ".json")
}

func fuzzAgreement(f *testing.F, name string, exts ...string) {
	seed(f, maxInput, exts...)
	k, compiler := newKubernetes(), newCompiler(f)
	f.Fuzz(func(t *testing.T, content []byte) {
		if len(content) > maxInput {
			t.Skip()
		}
		set := compileWatched(t, compiler, name, content)
		if disagreement, _ := k.compareWith(content, set, k.readAll(name, content)); disagreement != "" {
			t.Errorf("%s\n%q", disagreement, content)
		}
	})
}

// maxCUE bounds the size of an input of CUE, in bytes.
const maxCUE = 4 << 10

// FuzzCUE: no input ends the process or takes for ever, and each object is one
// that Kubernetes decodes. A panic that the compiler recovers from is one of the
// evaluator's; such inputs are kept in the folder that BERTH_FUZZ_KEEP names.
func FuzzCUE(f *testing.F) {
	seed(f, maxCUE, ".cue")
	k, compiler := newKubernetes(), newCompiler(f)
	f.Fuzz(func(t *testing.T, content []byte) {
		if len(content) > maxCUE {
			t.Skip()
		}
		set := compileWatched(t, compiler, "a.cue", content)
		for _, d := range set.Diagnostics {
			if strings.Contains(d.Message, "please report it") {
				keep(t, content)
			}
		}
		if failed(set) {
			return
		}
		for _, m := range set.Manifests {
			js, err := json.Marshal(m.Object.Object)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range k.read("a.json", js) {
				if r.err != nil {
					t.Errorf("Kubernetes refuses the object: %v\n%s\n%q", r.err, js, content)
				}
			}
		}
	})
}

func keep(t *testing.T, content []byte) {
	dir := os.Getenv("BERTH_FUZZ_KEEP")
	if dir == "" {
		return
	}
	sum := sha256.Sum256(content)
	if err := os.WriteFile(filepath.Join(dir, hex.EncodeToString(sum[:8])), content, 0o644); err != nil {
		t.Error(err)
	}
}

// FuzzYAMLvsCUE: an object gives the same whether it stands in YAML, JSON or
// CUE, or is refused in each.
func FuzzYAMLvsCUE(f *testing.F) {
	seed(f, maxCUE, ".yaml", ".yml", ".json")
	compiler := newCompiler(f)
	f.Fuzz(func(t *testing.T, content []byte) {
		docs, err := documents("a.yaml", content)
		if err != nil || len(content) > maxCUE {
			t.Skip()
		}
		for _, doc := range docs {
			js, err := yaml.YAMLToJSON(doc)
			if err != nil || len(js) > 2*maxCUE || !namesKind(js) {
				continue
			}
			ym, err := yaml.JSONToYAML(js)
			if err != nil {
				continue
			}
			want := compileWatched(t, compiler, "a.yaml", ym)
			for name, content := range map[string][]byte{"a.json": js, "a.cue": fmt.Appendf(nil, "o: %s\n", js)} {
				got := compileWatched(t, compiler, name, content)
				if failed(want) != failed(got) || !failed(want) && !slices.Equal(objects(t, want), objects(t, got)) {
					_, yamls, _ := render(t, want)
					_, others, _ := render(t, got)
					t.Errorf("%s gives %v\n%s\nYAML gives %v\n%s\n%s", name, objects(t, got), others, objects(t, want), yamls, js)
				}
			}
		}
	})
}

// namesKind reports whether JSON is an object with an apiVersion and a kind.
func namesKind(js []byte) bool {
	var object struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	return utiljson.Unmarshal(js, &object) == nil && object.APIVersion != "" && object.Kind != "" && bytes.HasPrefix(js, []byte("{"))
}
