package cue_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/cue"
)

// counting counts what is read.
type counting struct {
	memory
	mu   sync.Mutex
	read []string
}

func (c *counting) Read(ctx context.Context, path string, limit int64) ([]byte, error) {
	c.mu.Lock()
	c.read = append(c.read, path)
	c.mu.Unlock()
	return c.memory.Read(ctx, path, limit)
}

const deployment = `apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, namespace: shop, labels: {app: NAME}}
spec:
  replicas: 3
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec:
      containers:
      - name: web
        image: nginx:1.27
        env: [{name: A, value: "1"}, {name: B, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
        ports: [{name: http, containerPort: 8080}]
        resources: {requests: {cpu: 50m, memory: 64Mi}, limits: {memory: 128Mi}}
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 5}
        volumeMounts: [{name: config, mountPath: /etc/web}]
      volumes: [{name: config, configMap: {name: NAME}}]
`

func yamlRepository(n int) memory {
	m := memory{}
	for i := range n {
		m[fmt.Sprintf("deploy/%04d.yaml", i)] = memoryFile{content: []byte(strings.ReplaceAll(deployment, "NAME", fmt.Sprintf("web-%d", i)))}
	}
	return m
}

func cueRepository(packages, each int) memory {
	m := memory{}
	for p := range packages {
		var b strings.Builder
		fmt.Fprintf(&b, "package p\n\nimport \"berth.dev/schema\"\n\n")
		for i := range each {
			name := fmt.Sprintf("web-%d-%d", p, i)
			fmt.Fprintf(&b, "deployment: %q: schema.#Deployment & {\n\tmetadata: {name: %q, namespace: \"shop\"}\n\tspec: {\n\t\treplicas: 3\n\t\tselector: matchLabels: app: %q\n\t\ttemplate: {\n\t\t\tmetadata: labels: app: %q\n\t\t\tspec: containers: [{name: \"web\", image: \"nginx\", ports: [{name: \"http\", containerPort: 80}], resources: requests: cpu: \"50m\"}]\n\t\t}\n\t}\n}\n", name, name, name, name)
		}
		m[fmt.Sprintf("deploy/p%03d/a.cue", p)] = memoryFile{content: []byte(b.String())}
	}
	return m
}

func compile(t testing.TB, c *cue.Compiler, tree revision.Tree) int {
	t.Helper()
	set, err := c.Compile(context.Background(), revision.Revision{Tree: tree}, cue.Options{Source: "s", Path: "deploy"})
	if err != nil {
		t.Fatal(err)
	}
	if v1alpha1.HasErrors(set.Diagnostics) {
		t.Fatal(set.Diagnostics[0])
	}
	return len(set.Manifests)
}

func TestOnlyWhatChangedIsRead(t *testing.T) {
	c, err := cue.New()
	if err != nil {
		t.Fatal(err)
	}
	tree := &counting{memory: cueRepository(3, 2)}
	tree.memory["deploy/a.yaml"] = memoryFile{content: []byte(strings.ReplaceAll(deployment, "NAME", "a"))}
	compile(t, c, tree)
	tree.read = nil
	changed := string(tree.memory["deploy/p001/a.cue"].content)
	tree.memory["deploy/p001/a.cue"] = memoryFile{content: []byte(strings.ReplaceAll(changed, "replicas: 3", "replicas: 4"))}
	if n := compile(t, c, tree); n != 7 {
		t.Errorf("%d objects, want 7", n)
	}
	if len(tree.read) != 1 || tree.read[0] != "deploy/p001/a.cue" {
		t.Errorf("read %v, want the changed file only", tree.read)
	}
}

func TestResultsDoNotShareMemory(t *testing.T) {
	c, err := cue.New()
	if err != nil {
		t.Fatal(err)
	}
	rev := revision.Revision{Tree: yamlRepository(1)}
	first, err := c.Compile(context.Background(), rev, cue.Options{})
	if err != nil {
		t.Fatal(err)
	}
	first.Manifests[0].Object.SetName("changed")
	second, err := c.Compile(context.Background(), rev, cue.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if name := second.Manifests[0].Object.GetName(); name != "web-0" {
		t.Errorf("the cache was changed: %s", name)
	}
}

func TestConcurrentCompiles(t *testing.T) {
	c, err := cue.New()
	if err != nil {
		t.Fatal(err)
	}
	tree := cueRepository(4, 2)
	for name, f := range yamlRepository(10) {
		tree[name] = f
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 3 {
				set, err := c.Compile(context.Background(), revision.Revision{Tree: tree}, cue.Options{Source: fmt.Sprint(i)})
				if err != nil || len(set.Manifests) != 18 {
					t.Errorf("%d objects, %v", len(set.Manifests), err)
				}
			}
		})
	}
	wg.Wait()
}

func TestDeadline(t *testing.T) {
	c, err := cue.New()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	if _, err := c.Compile(ctx, revision.Revision{Tree: yamlRepository(3)}, cue.Options{}); err == nil {
		t.Error("no error past the deadline")
	}
}

// TestMemoryStaysFlat compiles ever new content: nothing of it may stay.
func TestMemoryStaysFlat(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	c, err := cue.New()
	if err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	tree := cueRepository(2, 5)
	source := string(tree["deploy/p000/a.cue"].content)
	var before uint64
	for i := range 60 {
		if i == 20 {
			before = heap()
		}
		tree["deploy/p000/a.cue"] = memoryFile{content: []byte(strings.ReplaceAll(source, "replicas: 3", fmt.Sprintf("replicas: %d", i)))}
		compile(t, c, tree)
	}
	if after := heap(); after > before+(4<<20) {
		t.Errorf("the heap grew from %d to %d bytes over 40 compiles", before, after)
	}
}

func BenchmarkCompile1000YAML(b *testing.B) { benchmarkCold(b, yamlRepository(1000), 1000) }

func BenchmarkCompile1000CUE(b *testing.B) { benchmarkCold(b, cueRepository(50, 20), 1000) }

func benchmarkCold(b *testing.B, tree memory, want int) {
	b.ReportAllocs()
	for b.Loop() {
		c, err := cue.New()
		if err != nil {
			b.Fatal(err)
		}
		if n := compile(b, c, tree); n != want {
			b.Fatalf("%d objects", n)
		}
	}
}

func BenchmarkCompileOneFileChanged(b *testing.B) {
	c, err := cue.New()
	if err != nil {
		b.Fatal(err)
	}
	tree := cueRepository(50, 20)
	source := string(tree["deploy/p007/a.cue"].content)
	compile(b, c, tree)
	i := 0
	for b.Loop() {
		i++
		tree["deploy/p007/a.cue"] = memoryFile{content: []byte(strings.ReplaceAll(source, "replicas: 3", fmt.Sprintf("replicas: %d", i)))}
		compile(b, c, tree)
	}
}
