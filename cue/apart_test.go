package cue_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/cue"
	"berth.dev/berth/cue/worker"
)

// workArgument makes the test binary one of the processes of a pool.
const workArgument = "work-for-the-test"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == workArgument {
		if err := cue.Work(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// started notes the processes that a pool starts.
type started struct {
	mu   sync.Mutex
	cmds []*exec.Cmd
}

func (s *started) command() *exec.Cmd {
	cmd := worker.Self(workArgument)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cmds = append(s.cmds, cmd)
	return cmd
}

func (s *started) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.cmds)
}

func (s *started) last() *exec.Cmd {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmds[len(s.cmds)-1]
}

// apart is a compiler with processes of its own.
func apart(t testing.TB, idle time.Duration) (*cue.Compiler, *started) {
	t.Helper()
	s := &started{}
	pool := worker.New(worker.Options{Command: s.command, Max: 2, Idle: idle, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	t.Cleanup(pool.Close)
	c, err := cue.NewApart(pool)
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

// TestApartIsTheSame compiles the whole corpus in both ways.
func TestApartIsTheSame(t *testing.T) {
	here, err := cue.New()
	if err != nil {
		t.Fatal(err)
	}
	there, processes := apart(t, time.Minute)
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d cases, %v", len(files), err)
	}
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m, opts := parseCase(a)
		want, err := here.Compile(t.Context(), revisionOf(m), opts)
		if err != nil {
			t.Fatal(err)
		}
		got, err := there.Compile(t.Context(), revisionOf(m), opts)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: in this process and in one of its own (-here +there):\n%s", file, diff)
		}
	}
	if n := processes.count(); n > 2 {
		t.Errorf("%d processes were started", n)
	}
}

// hostile are packages that must not be evaluated to their end.
func hostile() map[string]string {
	var doubling strings.Builder
	doubling.WriteString("package p\n\ns0: \"0123456789abcdef\"\n")
	for i := range 40 {
		fmt.Fprintf(&doubling, "s%d: s%d + s%d\n", i+1, i, i)
	}
	var product strings.Builder
	product.WriteString("package p\n\n")
	for i := range 24 {
		fmt.Fprintf(&product, "a%d: {x%d: 1} | {x%d: 2} | {x%d: 3}\n", i, i, i, i)
	}
	product.WriteString("all: a0")
	for i := range 23 {
		fmt.Fprintf(&product, " & a%d", i+1)
	}
	product.WriteString("\n")
	return map[string]string{
		"a list without end":     "package p\n\nimport \"list\"\n\nx: [for a in list.Range(0, 100000, 1) for b in list.Range(0, 100000, 1) {a + b}]\n",
		"a string that doubles":  doubling.String(),
		"a product of choices":   product.String(),
		"a definition of itself": "package p\n\n#F: {n: int, out: (#F & {n: n + 1}).out}\nx: (#F & {n: 0}).out\n",
	}
}

func TestHostileFoldersEndAtTheLimit(t *testing.T) {
	for name, content := range hostile() {
		t.Run(name, func(t *testing.T) {
			c, _ := apart(t, time.Minute)
			tree := memory{
				"deploy/bad/a.cue":  memoryFile{content: []byte(content)},
				"deploy/good/a.cue": memoryFile{content: []byte("package p\n\nc: {apiVersion: \"v1\", kind: \"ConfigMap\", metadata: name: \"c\"}\n")},
			}
			limits := worker.Limits{Memory: 300 << 20, Timeout: 4 * time.Second}
			began := time.Now()
			set, err := c.Compile(t.Context(), revisionOf(tree), cue.Options{Source: "s", Path: "deploy", Limits: limits})
			if err != nil {
				t.Fatal(err)
			}
			took := time.Since(began)
			if !v1alpha1.HasErrors(set.Diagnostics) || set.Diagnostics[0].Path != "deploy/bad" && set.Diagnostics[0].Path != "deploy/bad/a.cue" {
				t.Fatalf("after %v: %+v", took, set.Diagnostics)
			}
			t.Logf("after %v: %s", took.Round(time.Millisecond), set.Diagnostics[0].Message)
			if len(set.Manifests) != 1 {
				t.Errorf("%d objects of the other folder", len(set.Manifests))
			}
			// The same content under the same limits is not tried again.
			began = time.Now()
			if _, err := c.Compile(t.Context(), revisionOf(tree), cue.Options{Source: "s", Path: "deploy", Limits: limits}); err != nil {
				t.Fatal(err)
			}
			if again := time.Since(began); again > took/2 && again > time.Second {
				t.Errorf("the second compile took %v", again)
			}
		})
	}
}

func TestMemoryHasALimit(t *testing.T) {
	c, _ := apart(t, time.Minute)
	tree := memory{"deploy/a.cue": memoryFile{content: []byte("package p\n\nimport \"list\"\n\nx: [for a in list.Range(0, 900000, 1) {n: a, s: \"\\(a)\", t: {u: a}}]\n")}}
	set, err := c.Compile(t.Context(), revisionOf(tree), cue.Options{Path: "deploy", Limits: worker.Limits{Memory: 150 << 20, Timeout: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Diagnostics) != 1 || !strings.Contains(set.Diagnostics[0].Message, "used more than 150 MiB of memory") {
		t.Errorf("%+v", set.Diagnostics)
	}
}

func oneMap(value string) memory {
	return memory{"deploy/a.cue": memoryFile{content: []byte(fmt.Sprintf("package p\n\nc: {apiVersion: \"v1\", kind: \"ConfigMap\", metadata: name: \"c\", data: v: %q}\n", value))}}
}

func TestProcessesAreKeptAndReplaced(t *testing.T) {
	c, processes := apart(t, time.Second)
	c.Warm()
	for i := range 5 {
		if n := compile(t, c, oneMap(strconv.Itoa(i))); n != 1 {
			t.Fatalf("%d objects", n)
		}
	}
	if n := processes.count(); n != 1 {
		t.Errorf("%d processes for one folder at a time", n)
	}
	// One that was ended while it waited is replaced without a word.
	if err := processes.last().Process.Kill(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	compile(t, c, oneMap("after the kill"))
	if n := processes.count(); n != 2 {
		t.Errorf("%d processes after one was ended", n)
	}
	// One that is not needed ends.
	pid := processes.last().Process.Pid
	for end := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a process that has nothing to do goes on")
		}
	}
	compile(t, c, oneMap("after the pause"))
}

func TestACompileThatIsGivenUpEndsItsProcess(t *testing.T) {
	c, processes := apart(t, time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := c.Compile(ctx, revisionOf(memory{"deploy/a.cue": memoryFile{content: []byte(hostile()["a list without end"])}}), cue.Options{Path: "deploy"})
	if err == nil || ctx.Err() == nil {
		t.Fatalf("%v", err)
	}
	if err := syscall.Kill(processes.last().Process.Pid, 0); err == nil {
		t.Error("its process goes on")
	}
}

// TestProcessesHaveNothing: what evaluates has no environment, and of root's
// rights, where there are any, and network nothing either.
func TestProcessesHaveNothing(t *testing.T) {
	c, processes := apart(t, time.Minute)
	compile(t, c, oneMap("x"))
	pid := processes.last().Process.Pid
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || strings.TrimRight(string(environment), "\x00") != "GOTRACEBACK=none" {
		t.Errorf("its environment is %q: %v", environment, err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil || !strings.Contains(string(status), "CapEff:\t0000000000000000") {
		t.Errorf("%v\n%s", err, status)
	}
	if os.Geteuid() != 0 {
		return
	}
	if !strings.Contains(string(status), "Uid:\t65534\t65534\t65534\t65534") {
		t.Errorf("it is another user:\n%s", status)
	}
	mine, _ := os.Readlink("/proc/self/ns/net")
	its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil || its == mine {
		t.Errorf("its network is %s, ours %s: %v", its, mine, err)
	}
}

// BenchmarkCompile1000CUEApart is BenchmarkCompile1000CUE in processes of their
// own, as the server does it, their start included.
func BenchmarkCompile1000CUEApart(b *testing.B) {
	tree := cueRepository(50, 20)
	for b.Loop() {
		c, _ := apart(b, time.Minute)
		if n := compile(b, c, tree); n != 1000 {
			b.Fatalf("%d objects", n)
		}
	}
}

// BenchmarkProcessStart is what the first push after a pause waits for: a
// process, and one small folder.
func BenchmarkProcessStart(b *testing.B) {
	for b.Loop() {
		c, _ := apart(b, time.Minute)
		compile(b, c, oneMap("x"))
	}
}

// TestFiveHundredDeploymentsFitIntoLittleMemory: each is checked with the schema
// of its kind, which is large.
func TestFiveHundredDeploymentsFitIntoLittleMemory(t *testing.T) {
	c, _ := apart(t, time.Minute)
	var text strings.Builder
	text.WriteString("package p\n\nimport \"berth.dev/schema\"\n\n")
	for i := range 500 {
		fmt.Fprintf(&text, "d%d: schema.#Deployment & {metadata: name: \"d%d\", spec: {selector: matchLabels: app: \"d%d\", template: {metadata: labels: app: \"d%d\", spec: containers: [{name: \"c\", image: \"i:%d\"}]}}}\n", i, i, i, i, i)
	}
	tree := memory{"deploy/a.cue": memoryFile{content: []byte(text.String())}}
	set, err := c.Compile(t.Context(), revisionOf(tree), cue.Options{Path: "deploy", TargetNamespace: "default", Limits: worker.Limits{Memory: 512 << 20, Timeout: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Manifests) != 500 || len(set.Diagnostics) > 0 {
		t.Errorf("%d objects, %v", len(set.Manifests), set.Diagnostics)
	}
}
