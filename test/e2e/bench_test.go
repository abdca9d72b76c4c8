package e2e

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth.dev/berth/nodeagent/containerd"
	"berth.dev/berth/nodeagent/pods"
)

const shopImage = "berth.dev/shop:1"

// deployment of the shop's backend, ready as soon as it listens.
func deployment(name string, replicas int) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: default}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: backend
        image: %[3]s
        imagePullPolicy: IfNotPresent
        args: [backend]
        env: [{name: TOKEN, value: bench}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
`, name, replicas, shopImage)
}

// empty makes a repository without a commit.
func (m *machine) empty(name string) *repository {
	m.t.Helper()
	r := &repository{m: m, dir: filepath.Join(m.dir, "clone-"+name), name: name}
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		m.t.Fatal(err)
	}
	r.git("init", "-q", "-b", "main")
	r.git("config", "user.name", "Ada")
	r.git("config", "user.email", "ada@example.org")
	r.git("remote", "add", "origin", fmt.Sprintf("https://admin:%s@127.0.0.1:7443/git/%s.git", m.token(), name))
	return r
}

// sincePush is the time from the push until everything was ready.
func (r *repository) sincePush() time.Duration {
	r.m.t.Helper()
	// One process that follows, for asking again and again would cost what is measured.
	r.m.berth("status", r.name, "--watch")
	r.ready()
	t := r.m.source(r.name).Status.Timeline
	if t[0].Name != "pushed" {
		r.m.t.Fatalf("the timeline begins with %s", t[0].Name)
	}
	return t[len(t)-1].Time.Sub(t[0].Time)
}

// BenchmarkPushToReady compares a push of one Pod with a bare start of the same
// container by the same containerd, in turn.
func BenchmarkPushToReady(b *testing.B) {
	m := boot(b)
	runtime, err := containerd.Connect(containerd.Options{
		Address:  filepath.Join(m.dir, "containerd", "containerd.sock"),
		RuncPath: filepath.Join(m.binDir, "runc"), RuncRoot: filepath.Join(m.dir, "containerd", "runc"), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer runtime.Close()
	image, err := runtime.Image(b.Context(), shopImage)
	if err != nil {
		b.Fatal(err)
	}
	r := m.empty("bench")
	const rounds = 9
	for b.Loop() {
		var bare, ours, ratios []float64
		for i := range rounds {
			base := bareStart(b, m, runtime, image, i)
			r.write(fmt.Sprintf("app%d.yaml", i), deployment(fmt.Sprintf("app%d", i), 1))
			r.push(fmt.Sprintf("App %d", i))
			took := r.sincePush()
			if i == 0 {
				continue // the first of everything is not typical
			}
			bare, ours = append(bare, ms(base)), append(ours, ms(took))
			ratios = append(ratios, ms(took)/ms(base))
		}
		b.ReportMetric(median(ours), "ms/push-to-ready-p50")
		b.ReportMetric(slices.Max(ours), "ms/push-to-ready-max")
		b.ReportMetric(median(bare), "ms/bare-start-p50")
		b.ReportMetric(median(ratios), "x-bare-p50")
	}
}

func bareStart(b *testing.B, m *machine, r *containerd.Runtime, image pods.Image, i int) time.Duration {
	b.Helper()
	id := fmt.Sprintf("bare%d", i)
	stdout, stderr := filepath.Join(m.dir, id+".out"), filepath.Join(m.dir, id+".err")
	for _, f := range []string{stdout, stderr} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	began := time.Now()
	err := r.Start(b.Context(), pods.Container{
		ID: id, Group: id, Image: image, Args: []string{"/shop", "backend"}, Env: []string{"TOKEN=bench"}, WorkingDir: "/",
		CgroupParent: "/berth/bare", Stdout: stdout, Stderr: stderr,
	})
	took := time.Since(began)
	if err != nil {
		b.Fatal(err)
	}
	if err := r.Remove(b.Context(), id); err != nil {
		b.Fatal(err)
	}
	return took
}

// BenchmarkFiftyReplicas pushes one Deployment of 50, and measures what Berth's
// own processes take before and with them.
func BenchmarkFiftyReplicas(b *testing.B) {
	m := boot(b)
	r := m.empty("bench")
	for b.Loop() {
		time.Sleep(5 * time.Second) // let the start settle
		usage(b, m, "idle")
		r.write("many.yaml", deployment("many", 50))
		r.push("Fifty")
		b.ReportMetric(r.sincePush().Seconds(), "s/50-ready")
		time.Sleep(5 * time.Second)
		usage(b, m, "50-pods")
		if n := len(m.containers("default")); n != 50 {
			b.Fatalf("%d pods", n)
		}
	}
}

// usage reports the memory and CPU of the server, containerd and the shims.
func usage(b *testing.B, m *machine, when string) {
	b.Helper()
	const span = 10 * time.Second
	before := cpu(b)
	time.Sleep(span)
	after := cpu(b)
	total, ticks := 0.0, 0.0
	for _, name := range []string{"berth", "containerd", "containerd-shim"} {
		pss := 0.0
		for _, p := range processes(b, name) {
			pss += pssOf(p)
		}
		b.ReportMetric(pss, "MB-PSS/"+when+"/"+name)
		total += pss
	}
	for pid, now := range after {
		if was, ok := before[pid]; ok {
			ticks += now - was
		}
	}
	b.ReportMetric(total, "MB-PSS/"+when+"/all")
	const ticksPerSecond = 100 // USER_HZ
	b.ReportMetric(100*ticks/ticksPerSecond/span.Seconds(), "%-of-a-core/"+when)
}

// processes finds the numbers of a program's processes by its name; the kernel
// keeps 15 characters of it.
func processes(b *testing.B, name string) []string {
	b.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		b.Fatal(err)
	}
	var out []string
	for _, path := range all {
		comm, err := os.ReadFile(path)
		if err == nil && strings.TrimSpace(string(comm)) == name[:min(15, len(name))] {
			out = append(out, filepath.Dir(path))
		}
	}
	return out
}

func pssOf(proc string) float64 {
	text, err := os.ReadFile(proc + "/smaps_rollup")
	if err != nil {
		return 0 // it ended
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb / 1024
		}
	}
	return 0
}

// cpu is the time used so far by each process of ours, in ticks.
func cpu(b *testing.B) map[string]float64 {
	b.Helper()
	out := map[string]float64{}
	for _, name := range []string{"berth", "containerd", "containerd-shim"} {
		for _, p := range processes(b, name) {
			text, err := os.ReadFile(p + "/stat")
			if err != nil {
				continue // it ended
			}
			fields := strings.Fields(string(text)[strings.LastIndexByte(string(text), ')')+1:])
			user, _ := strconv.ParseFloat(fields[11], 64)
			system, _ := strconv.ParseFloat(fields[12], 64)
			out[p] = user + system
		}
	}
	return out
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// BenchmarkPushOneOfThousand changes one file of a repository of 1,000 apps, and
// measures from the end of the push to the new desired state in the store.
func BenchmarkPushOneOfThousand(b *testing.B) {
	m := boot(b)
	r := m.empty("thousand")
	app := func(i int, value string) {
		name := fmt.Sprintf("app%04d", i)
		if err := os.MkdirAll(filepath.Join(r.dir, name), 0o755); err != nil {
			b.Fatal(err)
		}
		r.write(name+"/app.yaml", deployment(name, 0)+fmt.Sprintf(`---
apiVersion: v1
kind: ConfigMap
metadata: {name: %s, namespace: default}
data: {value: %q}
`, name, value))
	}
	for i := range 1_000 {
		app(i, "0")
	}
	if out, err := r.tryPush("All of them"); err != nil {
		b.Fatal(err, out[:min(len(out), 2000)])
	}
	r.ready()
	const rounds = 9
	for b.Loop() {
		var applied, pushes []float64
		for i := range rounds {
			app(i*100, fmt.Sprint(i+1))
			began := time.Now()
			r.push(fmt.Sprintf("App %d", i*100))
			pushes = append(pushes, ms(time.Since(began)))
			r.ready()
			t := m.source(r.name).Status.Timeline
			for _, s := range t {
				if s.Name == "applied" {
					applied = append(applied, ms(s.Time.Sub(t[0].Time)))
				}
			}
		}
		if len(applied) != rounds {
			b.Fatalf("%d of %d commits were applied", len(applied), rounds)
		}
		b.ReportMetric(median(applied), "ms/push-end-to-desired-p50")
		b.ReportMetric(slices.Max(applied), "ms/push-end-to-desired-max")
		b.ReportMetric(median(pushes), "ms/commit-and-push-p50")
	}
}
