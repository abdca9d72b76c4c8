// Package examples checks that every example compiles to the objects in its want.
package examples

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"berth.dev/berth/cue"
	"berth.dev/berth/sources/worktree"
)

var update = flag.Bool("update", false, "rewrite the wanted objects")

func TestExamples(t *testing.T) {
	dirs, err := filepath.Glob("*/deploy")
	if err != nil || len(dirs) < 2 {
		t.Fatalf("examples: %v, %v", dirs, err)
	}
	compiler, err := cue.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Dir(dir), func(t *testing.T) {
			rev, path, err := worktree.Open(context.Background(), dir)
			if err != nil {
				t.Fatal(err)
			}
			set, err := compiler.Compile(context.Background(), rev, cue.Options{Path: path, TargetNamespace: "default"})
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range set.Diagnostics {
				t.Error(d)
			}
			var b strings.Builder
			for _, m := range set.Manifests {
				out, err := yaml.Marshal(m.Object.Object)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&b, "---\n%s", out)
			}
			want := filepath.Join(filepath.Dir(dir), "want", "objects.yaml")
			if *update {
				if err := os.WriteFile(want, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			content, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(content), b.String()); diff != "" {
				t.Errorf("objects (-want +got):\n%s", diff)
			}
		})
	}
}

// BenchmarkValidateShop is berth validate of examples/shop, the reading of the
// schema included.
func BenchmarkValidateShop(b *testing.B) {
	for b.Loop() {
		compiler, err := cue.New()
		if err != nil {
			b.Fatal(err)
		}
		rev, path, err := worktree.Open(b.Context(), "shop/deploy")
		if err != nil {
			b.Fatal(err)
		}
		set, err := compiler.Compile(b.Context(), rev, cue.Options{Path: path, TargetNamespace: "default"})
		if err != nil || len(set.Manifests) != 7 {
			b.Fatalf("%d objects, %v", len(set.Manifests), err)
		}
	}
}
