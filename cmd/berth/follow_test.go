package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/cue"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/resources"
	"berth.dev/berth/engine/sync"
	"berth.dev/berth/sources/git"
)

// follower is an engine that polls the repositories of a real Git server.
type follower struct {
	*resources.Resources
	t    *testing.T
	root string
	url  string

	engine  *sync.Engine
	fetcher sync.Fetcher
}

func newFollower(t *testing.T) *follower {
	t.Helper()
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	t.Setenv("GIT_CONFIG_SYSTEM", "/dev/null")
	for _, role := range []string{"AUTHOR", "COMMITTER"} {
		t.Setenv("GIT_"+role+"_NAME", "Ann")
		t.Setenv("GIT_"+role+"_EMAIL", "ann@example.org")
	}
	f := &follower{Resources: enginetest.Resources(t), t: t, root: t.TempDir()}
	web := httptest.NewServer(&cgi.Handler{Path: "/usr/lib/git-core/git-http-backend", Root: "/", Env: []string{
		"GIT_PROJECT_ROOT=" + f.root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}})
	t.Cleanup(web.Close)
	f.url = web.URL
	compiler, err := cue.New()
	if err != nil {
		t.Fatal(err)
	}
	views := live.New()
	fetcher := &revisions{remote: git.New(git.Options{Dir: t.TempDir(), AllowLocal: true, Log: enginetest.Log(t)})}
	engine := sync.New(sync.Options{Resources: f.Resources, Live: views, Clock: clock.RealClock{}, Log: enginetest.Log(t), Fetcher: fetcher, Compiler: &manifests{compiler: compiler}})
	f.engine, f.fetcher = engine, fetcher
	enginetest.Go(t, engine.Run)
	enginetest.Go(t, func(ctx context.Context) error { return views.Run(ctx, f.Resources) })
	return f
}

// repository makes an empty repository and a Source that polls it every second.
func (f *follower) repository(name string) {
	f.t.Helper()
	bare, work := filepath.Join(f.root, name+".git"), filepath.Join(f.root, name)
	f.git(f.root, "init", "-q", "--bare", "-b", "main", bare)
	f.git(f.root, "init", "-q", "-b", "main", work)
	f.git(work, "remote", "add", "origin", bare)
	src := &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.SourceSpec{
		URL: f.url + "/" + name + ".git", Interval: &metav1.Duration{Duration: time.Second}, TargetNamespace: "default",
	}}
	if err := f.Create(f.t.Context(), src); err != nil {
		f.t.Fatal(err)
	}
}

func (f *follower) git(dir string, args ...string) string {
	f.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		f.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// push commits files, of which an empty one is removed, and returns the commit.
func (f *follower) push(name string, files map[string]string) string {
	f.t.Helper()
	work := filepath.Join(f.root, name)
	for file, text := range files {
		var err error
		if text == "" {
			err = os.Remove(filepath.Join(work, file))
		} else {
			err = os.MkdirAll(filepath.Dir(filepath.Join(work, file)), 0o755)
			if err == nil {
				err = os.WriteFile(filepath.Join(work, file), []byte(text), 0o644)
			}
		}
		if err != nil {
			f.t.Fatal(err)
		}
	}
	f.git(work, "add", "-A")
	f.git(work, "commit", "-q", "-m", "A change")
	f.git(work, "push", "-q", "--force", "origin", "HEAD:main")
	return f.git(work, "rev-parse", "HEAD")
}

func settings(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {k: %q}\n", name, value)
}

// await waits until a Source has observed a commit and says something of a
// condition, and returns how long that took.
func (f *follower) await(name, commit string, want metav1.Condition) time.Duration {
	f.t.Helper()
	begin := time.Now()
	enginetest.Eventually(f.t, 20*time.Second, func() string {
		var s v1alpha1.Source
		if err := f.Get(f.t.Context(), types.NamespacedName{Name: name}, &s); err != nil {
			return err.Error()
		}
		c := meta.FindStatusCondition(s.Status.Conditions, want.Type)
		observed := ""
		if s.Status.Observed != nil {
			observed = s.Status.Observed.ID
		}
		if observed != commit || c == nil || c.Status != want.Status || c.Reason != want.Reason || !strings.Contains(c.Message, want.Message) {
			return fmt.Sprintf("%s observed %s, condition %+v", name, observed, c)
		}
		return ""
	})
	return time.Since(begin)
}

// has compares the ConfigMaps of the cluster.
func (f *follower) has(want string) {
	f.t.Helper()
	var list corev1.ConfigMapList
	if err := f.List(f.t.Context(), &list, client.ListOptions{Namespace: "default"}); err != nil {
		f.t.Fatal(err)
	}
	var got []string
	for _, c := range list.Items {
		if c.Labels[v1alpha1.LabelSource] != "" {
			got = append(got, c.Name+"="+c.Data["k"])
		}
	}
	slices.Sort(got)
	if s := strings.Join(got, " "); s != want {
		f.t.Errorf("the cluster has %q, want %q", s, want)
	}
}

// TestFollowARepository goes through what happens to a repository over its life.
func TestFollowARepository(t *testing.T) {
	f := newFollower(t)
	ready := metav1.Condition{Type: "Ready", Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded}
	not := func(reason, message string) metav1.Condition {
		return metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: reason, Message: message}
	}
	// A repository without commits holds nobody up, and its first push is seen.
	f.repository("shop")
	f.repository("other")
	f.await("shop", "", not(v1alpha1.ReasonEmptyRepository, "repository is empty"))
	f.await("other", f.push("other", map[string]string{"o.yaml": settings("o", "1")}), ready)
	first := f.push("shop", map[string]string{"a.yaml": settings("a", "1"), "b.yaml": settings("b", "1"), "c.yaml": settings("c", "1")})
	f.await("shop", first, ready)
	f.has("a=1 b=1 c=1 o=1")

	// History is rewritten, then rewound without a new commit: one poll is enough.
	f.await("shop", f.push("shop", map[string]string{"a.yaml": settings("a", "2"), "d.yaml": settings("d", "1")}), ready)
	f.has("a=2 b=1 c=1 d=1 o=1")
	work := filepath.Join(f.root, "shop")
	f.git(work, "reset", "-q", "--hard", first)
	rewritten := f.push("shop", map[string]string{"a.yaml": settings("a", "3")})
	took := f.await("shop", rewritten, metav1.Condition{Type: "Fetched", Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonHistoryRewrite, Message: "the history was rewritten"})
	f.await("shop", rewritten, ready)
	f.has("a=3 b=1 c=1 o=1")
	if took > 4*time.Second {
		t.Errorf("a rewritten history took %s", took)
	}
	f.git(work, "push", "-q", "--force", "origin", first+":main")
	f.await("shop", first, metav1.Condition{Type: "Fetched", Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonHistoryRewrite})
	f.await("shop", first, ready)
	f.has("a=1 b=1 c=1 o=1")

	// The branch is deleted: what runs goes on. It comes back.
	f.git(filepath.Join(f.root, "shop.git"), "update-ref", "-d", "refs/heads/main")
	f.git(filepath.Join(f.root, "shop.git"), "update-ref", "refs/heads/next", first)
	f.await("shop", first, not(v1alpha1.ReasonRefNotFound, "branch main not found; the branches are next"))
	f.has("a=1 b=1 c=1 o=1")
	f.git(work, "reset", "-q", "--hard", first)
	f.await("shop", f.push("shop", map[string]string{"a.yaml": settings("a", "4")}), ready)

	// A bad commit, then a good one: no remembered error survives.
	bad := f.push("shop", map[string]string{"a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {nane: a}\n"})
	f.await("shop", bad, not(v1alpha1.ReasonCompileFailed, "a.yaml:3"))
	f.has("a=4 b=1 c=1 o=1")
	good := f.push("shop", map[string]string{"a.yaml": settings("a", "5")})
	if took := f.await("shop", good, ready); took > 4*time.Second {
		t.Errorf("a good commit after a bad one took %s", took)
	}
	f.has("a=5 b=1 c=1 o=1")
	f.await("shop", good, metav1.Condition{Type: "Compiled", Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded, Message: "3 objects"})

	// Ten pushes in about two seconds, every third of them bad, end at the last.
	last := ""
	for i := range 10 {
		text := settings("a", fmt.Sprint("push ", i))
		if i%3 == 1 {
			text = "apiVersion: v1\nkind: Nothing\n"
		}
		last = f.push("shop", map[string]string{"a.yaml": text})
		time.Sleep(100 * time.Millisecond)
	}
	f.await("shop", last, ready)
	f.has("a=push 9 b=1 c=1 o=1")
}

// change edits the Source until it is stored.
func (f *follower) change(name string, edit func(*v1alpha1.Source)) *v1alpha1.Source {
	f.t.Helper()
	var s v1alpha1.Source
	enginetest.Eventually(f.t, 20*time.Second, func() string {
		if err := f.Get(f.t.Context(), types.NamespacedName{Name: name}, &s); err != nil {
			return err.Error()
		}
		edit(&s)
		if err := f.Update(f.t.Context(), &s); err != nil {
			return err.Error()
		}
		return ""
	})
	return &s
}

// TestAPathThatIsGoneIsHeld: nothing of what it held is deleted without approval.
func TestAPathThatIsGoneIsHeld(t *testing.T) {
	f := newFollower(t)
	f.repository("shop")
	f.change("shop", func(s *v1alpha1.Source) { s.Spec.Path = "deploy" })
	first := f.push("shop", map[string]string{"deploy/a.yaml": settings("a", "1"), "deploy/b.yaml": settings("b", "1"), "other/c.yaml": settings("c", "1")})
	f.await("shop", first, metav1.Condition{Type: "Ready", Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded})
	f.git(filepath.Join(f.root, "shop"), "mv", "deploy", "moved")
	gone := f.push("shop", nil)
	f.await("shop", gone, metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonPruneHeld, Message: "would delete all 2 objects"})
	f.has("a=1 b=1")
}

// TestStringsStayTheSameStrings from a file to the store and to a plan.
func TestStringsStayTheSameStrings(t *testing.T) {
	f := newFollower(t)
	f.repository("shop")
	values := []string{"20230921.12345678", "2222:22", "0o17", "null", "1e3", "0777", "true", "~", "1_000", "0x1F", ".inf", "2026-11-29"}
	body := func(suffix string) string {
		text := "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  labels: {v: \"1e3\"}\n  annotations: {v: \"null\"}\ndata:\n"
		for i, v := range values {
			text += fmt.Sprintf("  k%d: %q\n", i, v+suffix)
		}
		return text
	}
	first := f.push("shop", map[string]string{"a.yaml": body("")})
	f.await("shop", first, metav1.Condition{Type: "Ready", Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded})
	var c corev1.ConfigMap
	if err := f.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "a"}, &c); err != nil {
		t.Fatal(err)
	}
	for i, v := range values {
		if got := c.Data[fmt.Sprint("k", i)]; got != v {
			t.Errorf("%q became %q", v, got)
		}
	}
	if c.Labels["v"] != "1e3" || c.Annotations["v"] != "null" {
		t.Errorf("%v %v", c.Labels, c.Annotations)
	}
	src := f.change("shop", func(s *v1alpha1.Source) { s.Spec.Suspend = true })
	f.push("shop", map[string]string{"a.yaml": body("0")})
	rev, err := f.fetcher.Fetch(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	out, err := f.engine.Check(t.Context(), src, rev)
	if err != nil || out.Failed() {
		t.Fatal(err, out.Diagnostics)
	}
	encoded, err := json.Marshal(out.Plan)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range values {
		if want := fmt.Sprintf("data.k%d: %q → %q", i, v, v+"0"); !strings.Contains(out.Plan.Text(), want) || !strings.Contains(out.Plan.Markdown(), want) {
			t.Errorf("%s is not in\n%s", want, out.Plan.Text())
		}
		if want := fmt.Sprintf(`"new":"\"%s0\""`, v); !strings.Contains(string(encoded), want) {
			t.Errorf("%s is not in\n%s", want, encoded)
		}
	}
}
