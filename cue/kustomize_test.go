package cue_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/cue"
	"berth.dev/berth/cue/worker"
)

func text(content string) memoryFile { return memoryFile{content: []byte(content)} }

// overlays are n applications, each with a base and an overlay that changes it.
func overlays(n int) memory {
	m := memory{}
	for i := range n {
		dir := fmt.Sprintf("app%03d", i)
		m["bases/"+dir+"/kustomization.yaml"] = text("resources: [web.yaml]\nlabels: [{pairs: {team: shop}}]\n")
		m["bases/"+dir+"/web.yaml"] = text(strings.ReplaceAll(deployment, "NAME", fmt.Sprintf("web-%d", i)))
		m["deploy/"+dir+"/kustomization.yaml"] = text("resources: [../../bases/" + dir + "]\nnamespace: shop\nnamePrefix: prod-\n" +
			"images: [{name: nginx, newTag: '1.28'}]\nconfigMapGenerator: [{name: web-" + fmt.Sprint(i) + ", files: [motd]}]\npatches: [{path: patch.yaml}]\n")
		m["deploy/"+dir+"/motd"] = text("welcome\n")
		m["deploy/"+dir+"/patch.yaml"] = text(fmt.Sprintf("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web-%d, namespace: shop}\nspec: {replicas: 5}\n", i))
	}
	return m
}

// TestOnlyAChangedKustomizationIsBuilt: what has changed is read, with what the
// same kustomization reads; others are not looked at.
func TestOnlyAChangedKustomizationIsBuilt(t *testing.T) {
	c, err := cue.New()
	if err != nil {
		t.Fatal(err)
	}
	tree := &counting{memory: overlays(3)}
	if n := compile(t, c, tree); n != 6 {
		t.Fatalf("%d objects, want 6", n)
	}
	tree.read = nil
	if compile(t, c, tree); len(tree.read) != 0 {
		t.Errorf("read %v without a change", tree.read)
	}
	tree.memory["deploy/README.md"], tree.memory["bases/app001/unlisted.yaml"] = text("x"), text("y: z")
	if compile(t, c, tree); len(tree.read) != 0 {
		t.Errorf("read %v after a change of what nobody reads", tree.read)
	}
	tree.memory["deploy/app001/motd"] = text("hello\n")
	if n := compile(t, c, tree); n != 6 {
		t.Fatalf("%d objects, want 6", n)
	}
	for _, name := range tree.read {
		if !strings.Contains(name, "app001/") {
			t.Errorf("read %s, which has not changed", name)
		}
	}
	if len(tree.read) == 0 || len(tree.read) > 5 {
		t.Errorf("read %v", tree.read)
	}
}

// multiplying are kustomizations that must not be built to their end.
func multiplying() map[string]memory {
	bases := memory{"deploy/bad/kustomization.yaml": text("resources: [../../b/0]\n")}
	for i := range 24 {
		// Each level has all of the one below twice.
		bases[fmt.Sprintf("b/%d/kustomization.yaml", i)] = text(fmt.Sprintf("resources: [../x%d, ../y%d]\n", i, i))
		for _, side := range []string{"x", "y"} {
			bases[fmt.Sprintf("b/%s%d/kustomization.yaml", side, i)] = text(fmt.Sprintf("namePrefix: %s-\nresources: [../%d]\n", side, i+1))
		}
	}
	bases["b/24/kustomization.yaml"] = text("resources: [c.yaml]\n")
	bases["b/24/c.yaml"] = text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n")
	var copies strings.Builder
	for i := range 40 {
		fmt.Fprintf(&copies, "- {op: copy, from: /data, path: /data/x%d}\n", i)
	}
	return map[string]memory{
		"bases within bases": bases,
		"a patch that copies": {
			"deploy/bad/kustomization.yaml": text("resources: [c.yaml]\npatches: [{path: p.yaml, target: {kind: ConfigMap}}]\n"),
			"deploy/bad/c.yaml":             text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n"),
			"deploy/bad/p.yaml":             text(copies.String()),
		},
	}
}

func TestHostileKustomizationsEndAtTheLimit(t *testing.T) {
	for name, tree := range multiplying() {
		t.Run(name, func(t *testing.T) {
			c, _ := apart(t, time.Minute)
			tree["deploy/good.yaml"] = text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\n")
			limits := worker.Limits{Memory: 300 << 20, Timeout: 4 * time.Second}
			began := time.Now()
			set, err := c.Compile(t.Context(), revisionOf(tree), cue.Options{Source: "s", Path: "deploy", Limits: limits})
			if err != nil {
				t.Fatal(err)
			}
			if !v1alpha1.HasErrors(set.Diagnostics) || set.Diagnostics[0].Path != "deploy/bad/kustomization.yaml" || len(set.Manifests) != 1 {
				t.Fatalf("%d objects, %+v", len(set.Manifests), set.Diagnostics)
			}
			t.Logf("after %v: %s", time.Since(began).Round(time.Millisecond), set.Diagnostics[0].Message)
		})
	}
}

// TestASchemaOfOneKustomizationStaysThere: the library keeps one for the process.
func TestASchemaOfOneKustomizationStaysThere(t *testing.T) {
	schema := `{"definitions":{"v1.Deployment":{"properties":{"spec":{"type":"object"}},"x-kubernetes-group-version-kind":[{"group":"apps","kind":"Deployment","version":"v1"}]}}}`
	own := memory{
		"deploy/kustomization.yaml": text("resources: [web.yaml]\nopenapi: {path: schema.json}\npatches: [{path: patch.yaml}]\n"),
		"deploy/schema.json":        text(schema),
		"deploy/web.yaml":           text(strings.ReplaceAll(deployment, "NAME", "web")),
		"deploy/patch.yaml":         text("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec: {template: {spec: {containers: [{name: web, image: other}]}}}\n"),
	}
	plain := memory{}
	for name, f := range own {
		plain[name] = f
	}
	plain["deploy/kustomization.yaml"] = text("resources: [web.yaml]\npatches: [{path: patch.yaml}]\n")
	delete(plain, "deploy/schema.json")
	merged := func() bool {
		t.Helper()
		c, err := cue.New()
		if err != nil {
			t.Fatal(err)
		}
		set, err := c.Compile(t.Context(), revisionOf(plain), cue.Options{Path: "deploy"})
		if err != nil || len(set.Manifests) != 1 {
			t.Fatal(err, set.Diagnostics)
		}
		return strings.Contains(fmt.Sprint(set.Manifests[0].Object.Object), "8080") // a port of the base, beside the patched image
	}
	if !merged() {
		t.Fatal("the containers are not merged by name")
	}
	c, err := cue.New()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compile(t.Context(), revisionOf(own), cue.Options{Path: "deploy"}); err != nil {
		t.Fatal(err)
	}
	if !merged() {
		t.Error("the schema of another kustomization was used")
	}
}

// BenchmarkOverlay builds one overlay that has changed.
func BenchmarkOverlay(b *testing.B) {
	c, err := cue.New()
	if err != nil {
		b.Fatal(err)
	}
	benchmarkOverlay(b, c)
}

// BenchmarkOverlayApart is BenchmarkOverlay in a process of its own that waits.
func BenchmarkOverlayApart(b *testing.B) {
	c, _ := apart(b, time.Minute)
	benchmarkOverlay(b, c)
}

func benchmarkOverlay(b *testing.B, c *cue.Compiler) {
	tree := overlays(1)
	compile(b, c, tree)
	i := 0
	for b.Loop() {
		i++
		tree["deploy/app000/motd"] = text(fmt.Sprint(i))
		compile(b, c, tree)
	}
}

// BenchmarkFirstOverlay is what the first push after a pause waits for: a process
// that has not built anything, and one overlay.
func BenchmarkFirstOverlay(b *testing.B) {
	for b.Loop() {
		c, _ := apart(b, time.Minute)
		compile(b, c, overlays(1))
	}
}

// Benchmark500Overlays builds 500 overlays, 1000 objects.
func Benchmark500Overlays(b *testing.B) {
	for b.Loop() {
		c, _ := apart(b, time.Minute)
		compile(b, c, overlays(500))
	}
}
