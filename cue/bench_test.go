package cue_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	cuelang "cuelang.org/go/cue"
	"cuelang.org/go/cue/cuecontext"
	"cuelang.org/go/cue/load"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/cue/schema"
)

const appOf = `
%[1]q: schema.#App & {
	name:  %[1]q
	image: "shop:1"
	args: ["serve", "--verbose"]
	replicas: 2
	ports: http: {container: 8080, service: 80}
	env: {MODE: "prod", IP: fieldRef: fieldPath: "status.podIP"}
	config: "app.toml": "greeting = \"hello\"\n"
	resources: {requests: {cpu: "50m", memory: "64Mi"}, limits: memory: "128Mi"}
	probes: readiness: httpGet: {path: "/healthz", port: "http"}
}
`

// appRepository holds folders of each #App: a Deployment, a Service and a
// ConfigMap of each.
func appRepository(folders, each int) memory {
	m := memory{}
	for p := range folders {
		var b strings.Builder
		b.WriteString("package p\n\nimport \"berth.dev/schema\"\n")
		for i := range each {
			fmt.Fprintf(&b, appOf, fmt.Sprintf("app-%d-%d", p, i))
		}
		m[fmt.Sprintf("deploy/p%03d/a.cue", p)] = memoryFile{content: []byte(b.String())}
	}
	return m
}

// BenchmarkCompile1000Apps compiles 1,000 #Apps in 100 folders, in processes of
// their own as the server does, and lets plain CUE load and validate the same
// folders with the same schema, as cue vet -c does.
func BenchmarkCompile1000Apps(b *testing.B) {
	tree := appRepository(100, 10)
	dir := onDisk(b, tree)
	var vet, ours time.Duration
	for b.Loop() {
		start := time.Now()
		plainCUE(b, dir)
		vet += time.Since(start)
		start = time.Now()
		c, _ := apart(b, time.Minute)
		if n := compile(b, c, tree); n != 3000 {
			b.Fatalf("%d objects", n)
		}
		ours += time.Since(start)
	}
	n := float64(b.N)
	b.ReportMetric(ours.Seconds()/n, "s/compile")
	b.ReportMetric(vet.Seconds()/n, "s/plain-cue")
	b.ReportMetric(ours.Seconds()/vet.Seconds(), "of-plain-cue")
}

// BenchmarkOneOf1000AppsChanged is a commit that changes one file of them.
func BenchmarkOneOf1000AppsChanged(b *testing.B) {
	tree := appRepository(100, 10)
	source := string(tree["deploy/p007/a.cue"].content)
	c, _ := apart(b, time.Minute)
	compile(b, c, tree)
	i := 0
	for b.Loop() {
		i++
		tree["deploy/p007/a.cue"] = memoryFile{content: []byte(strings.ReplaceAll(source, "replicas: 2", fmt.Sprintf("replicas: %d", i)))}
		compile(b, c, tree)
	}
}

// BenchmarkMemoryOver1000Commits is how much the heap of the server's process
// grows from the 100th commit to the 1,000th, in which a file of CUE and one of
// YAML change.
func BenchmarkMemoryOver1000Commits(b *testing.B) {
	for b.Loop() {
		tree := appRepository(4, 2)
		for name, f := range yamlRepository(20) {
			tree[name] = f
		}
		c, _ := apart(b, time.Minute)
		var before uint64
		for i := range 1000 {
			tree["deploy/p001/a.cue"] = memoryFile{content: []byte("package p\n\nimport \"berth.dev/schema\"\n" + fmt.Sprintf(appOf, fmt.Sprintf("app-%d", i)))}
			tree["deploy/0007.yaml"] = memoryFile{content: []byte(strings.ReplaceAll(deployment, "NAME", fmt.Sprintf("web-7-%d", i)))}
			compile(b, c, tree)
			if i == 99 {
				before = heap()
			}
		}
		after := heap()
		b.ReportMetric(float64(after)/1e6, "MB-heap")
		b.ReportMetric((float64(after)-float64(before))/1e6, "MB-grown")
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// onDisk writes a tree, with a module and a copy of the schema.
func onDisk(b *testing.B, tree memory) string {
	dir := b.TempDir()
	files, err := schema.Files()
	if err != nil {
		b.Fatal(err)
	}
	all := map[string][]byte{"cue.mod/module.cue": []byte(fmt.Sprintf("module: \"bench.example\"\nlanguage: version: %q\n", schema.Language))}
	for name, content := range files {
		all[schema.Vendored+"/"+name] = content
	}
	for name, f := range tree {
		all[name] = f.content
	}
	for name, content := range all {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(at, content, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	return dir
}

// plainCUE is what cue vet -c ./... does.
func plainCUE(b *testing.B, dir string) {
	c := cuecontext.New()
	for _, inst := range load.Instances([]string{"./deploy/..."}, &load.Config{Dir: dir}) {
		if inst.Err != nil {
			b.Fatal(inst.Err)
		}
		if err := c.BuildInstance(inst).Validate(cuelang.Concrete(true)); err != nil {
			b.Fatal(err)
		}
	}
}

var _ revision.Tree = memory(nil)
