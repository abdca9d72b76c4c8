package sync_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	gosync "sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
)

// job is a hook whose Pod ends as its image says.
func job(name, phase, image, more string) string {
	return fmt.Sprintf(`apiVersion: batch/v1
kind: Job
metadata: {name: %s, annotations: {berth.dev/hook: %s%s}}
spec: {backoffLimit: 0, template: {spec: {restartPolicy: Never, containers: [{name: c, image: %s}]}}}
`, name, phase, more, image)
}

// jobs are those in the cluster, and those that were ever made.
func (f *fixture) jobs(t *testing.T) []string {
	t.Helper()
	var list batchv1.JobList
	if err := f.List(t.Context(), &list, client.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, j := range list.Items {
		out = append(out, j.Name)
	}
	slices.Sort(out)
	return out
}

func runs(s *v1alpha1.Source) string {
	var out []string
	for _, h := range s.Status.Hooks {
		state := "runs"
		if h.Succeeded {
			state = "succeeded"
		} else if h.Failed != "" {
			state = "failed"
		}
		out = append(out, fmt.Sprintf("%s %s %s %s", h.Commit, h.Phase, h.Name, state))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// TestHooks: before the rest is written, and once it is healthy.
func TestHooks(t *testing.T) {
	f := start(t)
	createSource(t, f)
	body := job("migrate", "pre", "works", "") + "---\n" + fmt.Sprintf(web, 1, "v1") + "---\n" + job("smoke", "post", "works", ", berth.dev/hook-cleanup: succeeded")
	f.push(t, "c1", "", body, ready())
	s := f.source(t)
	if got := runs(s); got != "c1 post smoke succeeded, c1 pre migrate succeeded" || s.Status.Healthy.ID != "c1" || s.Status.Objects["Job"] != 0 {
		t.Errorf("hooks: %s; %v", got, s.Status.Objects)
	}
	enginetest.Eventually(t, wait, func() string {
		if got := f.jobs(t); !slices.Equal(got, []string{"migrate-c1"}) {
			return fmt.Sprint(got)
		}
		return ""
	})
	var d batchv1.Job
	if err := f.Get(t.Context(), client.Key(&metav1.ObjectMeta{Namespace: "default", Name: "migrate-c1"}), &d); err != nil || d.Labels["berth.dev/source"] != "shop" || d.Annotations["berth.dev/revision"] != "c1" {
		t.Errorf("%v %v %v", err, d.Labels, d.Annotations)
	}
	// The next commit's take their place, and count as no deletion.
	f.push(t, "c2", "", body, ready())
	enginetest.Eventually(t, wait, func() string {
		if got := f.jobs(t); !slices.Equal(got, []string{"migrate-c2"}) {
			return fmt.Sprint(got)
		}
		return ""
	})
	out, err := f.engine.Check(t.Context(), f.source(t), f.revision("c3", body))
	if text := out.Plan.Text(); err != nil || !strings.Contains(text, "Job default/migrate runs before the rest is written") || !strings.Contains(text, "Job default/smoke runs when the rest is healthy") {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestAHookThatFailsKeepsTheCommitBack(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1"), ready())
	f.push(t, "c2", "", configMap("a", "2")+"---\n"+job("migrate", "pre", "fails", ""),
		applied("HookFailed", "pre hook Job default/migrate failed: "))
	if got := f.configMaps(t); got != "a=1" || f.source(t).Status.Applied.ID != "c1" {
		t.Errorf("after a failed hook: %s", got)
	}
	f.push(t, "c3", "", configMap("a", "3")+"---\n"+job("migrate", "pre", "works", ""), ready())
	if got := f.configMaps(t); got != "a=3" {
		t.Errorf("after the fix: %s", got)
	}
}

// TestAPostHookThatFailsIsNoHealth, and the commit is rolled back at once where
// that is wanted.
func TestAPostHookThatFailsIsNoHealth(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1"), ready())
	bad := func(v string) string { return configMap("a", v) + "---\n" + job("smoke", "post", "fails", "") }
	f.push(t, "c2", "", bad("2"), metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "Degraded", Message: "post hook Job default/smoke failed"})
	if s := f.source(t); s.Status.Healthy.ID != "c1" || s.Status.History[0].Failed == "" {
		t.Errorf("healthy %s, history %+v", s.Status.Healthy.ID, s.Status.History[0])
	}
	f.change(t, func(s *v1alpha1.SourceSpec) { s.Rollback = v1alpha1.RollbackAutomatic })
	f.push(t, "c3", "", bad("3"), backed())
	if got := f.configMaps(t); got != "a=1" {
		t.Errorf("after the rollback: %s", got)
	}
}

// TestHooksInWaves run one after the other, in a Namespace that the commit makes.
func TestHooksInWaves(t *testing.T) {
	f := start(t)
	createSource(t, f)
	inside := func(body string) string {
		return strings.Replace(body, "metadata: {name", "metadata: {namespace: team, name", 1)
	}
	body := "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n---\n" +
		inside(job("first", "pre", "v1", "")) + "---\n" + inside(job("second", "pre", "works", `, berth.dev/wave: "1"`)) + "---\n" + configMap("a", "1")
	f.push(t, "c1", "", body, applied("Progressing", "pre hook Job team/first runs"))
	if got := f.jobs(t); !slices.Equal(got, []string{"first-c1"}) || f.configMaps(t) != "" {
		t.Fatalf("while the first runs: %v %s", got, f.configMaps(t))
	}
	// A newer commit stops it, and does not run beside it.
	f.push(t, "c2", "", strings.Replace(body, "image: v1", "image: works", 1), ready())
	if got := f.jobs(t); !slices.Equal(got, []string{"first-c2", "second-c2"}) || f.configMaps(t) != "a=1" {
		t.Errorf("at the end: %v %s", got, f.configMaps(t))
	}
}

func TestWhatCannotBeAHook(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1"), ready())
	for body, want := range map[string]string{
		annotated(configMap("a", "1"), "berth.dev/hook: pre"):                                              "only a Job can be a hook",
		job("x", "before", "works", ""):                                                                    `"before" is not pre or post`,
		job("x", "pre", "works", ", berth.dev/hook-cleanup: never"):                                        `"never" is not next or succeeded`,
		job("x", "pre", "works", `, berth.dev/wave: "a"`):                                                  "is not a whole number",
		strings.Replace(job("x", "pre", "works", ""), "spec: {", "spec: {ttlSecondsAfterFinished: 1, ", 1): "berth.dev/hook-cleanup",
		job(strings.Repeat("x", 63), "pre", "works", ""):                                                   "must be no more than 63",
	} {
		out, err := f.engine.Check(t.Context(), f.source(t), f.revision("c2", body))
		if err != nil || !out.Failed() || !strings.Contains(out.Diagnostics[0].String(), want) {
			t.Errorf("%v %v, want %q", err, out.Diagnostics, want)
		}
	}
}

// TestHooksRunOnceThoughTheEngineDies at any point: a second engine takes over
// in the middle, again and again.
func TestHooksRunOnceThoughTheEngineDies(t *testing.T) {
	f := start(t)
	made := f.countJobs(t)
	createSource(t, f)
	body := job("migrate", "pre", "works", "") + "---\n" + fmt.Sprintf(web, 1, "v1") + "---\n" + job("smoke", "post", "works", ", berth.dev/hook-cleanup: succeeded")
	body += "---\n" + configMap("a", "1")
	f.push(t, "c0", "", configMap("a", "1"), ready())
	for i := range 20 {
		f.kill()
		id := fmt.Sprint("c", i+1)
		f.remote.push(id, "", body)
		for step := range 5 {
			f.restart(t)
			time.Sleep(time.Duration(step*i) * time.Millisecond)
			f.kill()
		}
		f.restart(t)
		f.await(t, id, ready())
		enginetest.Eventually(t, wait, func() string {
			counts := made()
			if counts["migrate-"+id] != 1 || counts["smoke-"+id] != 1 {
				return fmt.Sprintf("%s: %v", id, counts)
			}
			return ""
		})
	}
}

// countJobs counts how often each Job is made.
func (f *fixture) countJobs(t *testing.T) func() map[string]int {
	t.Helper()
	counter := &jobCounter{seen: map[string]map[types.UID]bool{}}
	enginetest.Go(t, func(ctx context.Context) error {
		return client.Follow(ctx, f.Resources, &batchv1.JobList{}, client.ListOptions{}, counter)
	})
	return counter.counts
}

// jobCounter remembers the UIDs of all Jobs that it sees.
type jobCounter struct {
	mu   gosync.Mutex
	seen map[string]map[types.UID]bool
}

func (c *jobCounter) Synced() {}

func (c *jobCounter) Gone(client.Object) {}

func (c *jobCounter) Set(obj client.Object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen[obj.GetName()] == nil {
		c.seen[obj.GetName()] = map[types.UID]bool{}
	}
	c.seen[obj.GetName()][obj.GetUID()] = true
}

func (c *jobCounter) counts() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]int{}
	for name, uids := range c.seen {
		out[name] = len(uids)
	}
	return out
}

// TestManyHooksRunOnceEach: none is forgotten while its commit needs it.
func TestManyHooksRunOnceEach(t *testing.T) {
	f := start(t)
	made := f.countJobs(t)
	createSource(t, f)
	const many = 45 // more than are remembered of all commits together
	body := configMap("a", "1")
	for i := range many {
		body += "---\n" + job(fmt.Sprint("h", i), "post", "works", fmt.Sprintf(`, berth.dev/hook-cleanup: succeeded, berth.dev/wave: "%d"`, i%3))
	}
	f.push(t, "c1", "", body, ready())
	f.push(t, "c2", "", configMap("a", "2"), ready())
	counts := made()
	for i := range many {
		if name := fmt.Sprintf("h%d-c1", i); counts[name] != 1 {
			t.Errorf("%s ran %d times", name, counts[name])
		}
	}
	if n := len(f.source(t).Status.Hooks); n != many {
		t.Errorf("%d hooks are remembered", n)
	}
}

// TestAHookThatCannotRunSaysWhy: the commit waits for it, and somebody has to mend
// that.
func TestAHookThatCannotRunSaysWhy(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1"), ready())
	large := strings.Replace(job("migrate", "pre", "works", ""), "image: works", "image: works, resources: {requests: {cpu: 1000}}", 1)
	f.push(t, "c2", "", configMap("a", "2")+"---\n"+large, applied("Progressing", "pre hook Job default/migrate runs: 0/1 nodes fit"))
	if got := f.configMaps(t); got != "a=1" {
		t.Errorf("while the hook waits: %s", got)
	}
}
