package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// jobUID is the UID of a Job, or "" when there is none.
func (m *machine) jobUID(namespace, name string) string {
	m.t.Helper()
	return strings.TrimSpace(m.kubectl("get", "job", name, "-n", namespace, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}"))
}

// TestJobsByPush runs Jobs that a repository holds: once, again when they have
// changed, and not again when their time was over.
func TestJobsByPush(t *testing.T) {
	m := boot(t)
	m.berth("image", "load", m.binDir+"/busybox.tar")
	r := m.repository("batch", "../test/e2e/testdata/jobs")
	r.ready()
	m.steps([]step{
		{args: "wait --for=condition=complete job/migrate job/shards -n batch --timeout=60s", want: "condition met"},
		{args: "logs job/migrate -n batch", want: "migrated to 1"},
		{args: "get jobs -n batch", want: "4/4"},
		{args: "describe job migrate -n batch", want: "Completed"},
		{args: "get job shards -n batch -o jsonpath={.status.completedIndexes}", want: "0-3"},
	})
	for index := range 4 {
		if out := m.kubectl("logs", "-n", "batch", "-l", fmt.Sprintf("batch.kubernetes.io/job-name=shards,batch.kubernetes.io/job-completion-index=%d", index)); out != fmt.Sprintf("shard %d\n", index) {
			t.Errorf("index %d says %q", index, out)
		}
	}
	removed := func() {
		t.Helper()
		m.eventually("the TTL has removed the Job and its pods", func() error {
			if uid := m.jobUID("batch", "brief"); uid != "" {
				return fmt.Errorf("job brief is there")
			}
			if out := m.kubectl("get", "pods", "-n", "batch", "-l", "job-name=brief", "-o", "name"); out != "" {
				return fmt.Errorf("pods %s", out)
			}
			return nil
		})
	}
	removed()

	migrate, shards := m.jobUID("batch", "migrate"), m.jobUID("batch", "shards")
	r.edit("jobs.yaml", "migrated to 1", "migrated to 2")
	out := r.push("Migrate to 2")
	for _, want := range []string{"± Job batch/migrate", "spec.template cannot be changed in place, so the Job runs anew", "1 to replace, 3 unchanged"} {
		if !strings.Contains(out, want) {
			t.Errorf("the plan lacks %q:\n%s", want, out)
		}
	}
	r.ready()
	m.steps([]step{
		{args: "wait --for=condition=complete job/migrate -n batch --timeout=60s", want: "condition met"},
		{args: "logs job/migrate -n batch", want: "migrated to 2"},
		{args: "delete job migrate -n batch", want: "managed by Source batch", fail: true},
	})
	if m.jobUID("batch", "migrate") == migrate || m.jobUID("batch", "shards") != shards || m.jobUID("batch", "brief") != "" {
		t.Error("not the changed Job alone has run anew")
	}
	if n := strings.Count(m.kubectl("get", "events", "-n", "batch", "--field-selector", "reason=SuccessfulCreate", "-o", "name"), "event/brief"); n != 1 {
		t.Errorf("brief ran %d times", n)
	}
}

// TestJobsByHand is kubectl create job, and a kill of Berth in the middle of one.
func TestJobsByHand(t *testing.T) {
	m := boot(t)
	m.berth("image", "load", m.binDir+"/busybox.tar")
	m.steps([]step{
		{args: "create job once --image=berth.dev/busybox:1 -- busybox echo hello", want: "job.batch/once created"},
		{args: "create job long --image=berth.dev/busybox:1 -- busybox sleep 8", want: "job.batch/long created"},
		{args: "wait --for=condition=complete job/once --timeout=60s", want: "condition met"},
		{args: "logs job/once", want: "hello"},
		{args: "wait --for=jsonpath={.status.ready}=1 job/long --timeout=30s", want: "condition met"},
	})
	m.stop(syscall.SIGKILL)
	m.up()
	m.steps([]step{
		{args: "wait --for=condition=complete job/long --timeout=60s", want: "condition met"},
		{args: "get job long -o jsonpath={.status.succeeded},{.status.failed}", want: "1,"},
	})
	if out := m.kubectl("get", "pods", "-l", "job-name=long", "-o", "name"); strings.Count(out, "pod/") != 1 {
		t.Errorf("pods of the Job: %s", out)
	}
	m.steps([]step{
		{args: "create job bad --image=berth.dev/busybox:1 -- busybox false", want: "job.batch/bad created"},
		{args: "patch job bad -p '{\"spec\":{\"backoffLimit\":0}}'", want: "patched"},
		{args: "wait --for=condition=failed job/bad --timeout=60s", want: "condition met"},
		{args: "describe job bad", want: "BackoffLimitExceeded"},
		{args: "delete job once long bad", want: "deleted"},
	})
	m.eventually("the pods have gone with their Jobs", func() error {
		if out := m.kubectl("get", "pods", "-o", "name"); out != "" {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
}
