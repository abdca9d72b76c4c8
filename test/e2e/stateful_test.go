package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// logOf is what the Pod of a StatefulSet has written to its claim.
func (m *machine) logOf(pod string) string {
	m.t.Helper()
	return m.kubectl("exec", "-n", "db", pod, "--", "busybox", "cat", "/data/log")
}

// TestStatefulWorkloadsByPush runs a StatefulSet of three with claims, a
// DaemonSet and a CronJob out of a repository, through a bad push, its fix, a
// kill of Berth, and the removal of everything.
func TestStatefulWorkloadsByPush(t *testing.T) {
	m := boot(t)
	m.berth("image", "load", m.binDir+"/busybox.tar")
	r := m.repository("db", "../test/e2e/testdata/stateful")
	r.ready()
	m.steps([]step{
		{args: "get statefulset db -n db", want: "3/3"},
		{args: "get pvc -n db", want: "data-db-2"},
		{args: "get pvc data-db-0 -n db -o jsonpath={.status.phase},{.spec.storageClassName}", want: "Bound,local"},
		{args: "get daemonset agent -n db", want: "agent   1         1         1       1            1"},
		{args: "get pod db-1 -n db -o jsonpath={.spec.hostname}.{.spec.subdomain}", want: "db-1.db"},
		{args: "rollout status statefulset/db -n db --timeout=30s", want: "complete"},
	})
	for n := range 3 {
		pod := fmt.Sprintf("db-%d", n)
		if got := m.logOf(pod); got != pod+" version 1\n" {
			t.Errorf("%s has %q", pod, got)
		}
	}
	if out := m.kubectl("exec", "-n", "db", "db-0", "--", "busybox", "nslookup", "db-2.db.db.svc.cluster.local"); !strings.Contains(out, "Address") {
		t.Errorf("db-2 has no name: %s", out)
	}

	// A bad push takes one Pod, and its fix mends that one.
	r.edit("db.yaml", "test, -s, /data/log", "test, -s, /data/none")
	if out := r.push("A wrong probe"); !strings.Contains(out, "restarts 3 pods, one at a time from the highest down") {
		t.Errorf("the plan does not say what restarts:\n%s", out)
	}
	m.eventually("db-2 is not ready", func() error {
		if out := m.kubectl("get", "statefulset", "db", "-n", "db", "-o", "jsonpath={.status.readyReplicas},{.status.updatedReplicas}"); out != "2,1" {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	r.edit("db.yaml", "test, -s, /data/none", "test, -s, /data/log")
	r.edit("db.yaml", "version 1", "version 2")
	r.push("The right probe")
	r.ready()
	for n := range 3 {
		pod := fmt.Sprintf("db-%d", n)
		if got := m.logOf(pod); !strings.HasPrefix(got, pod+" version 1\n") || !strings.HasSuffix(got, pod+" version 2\n") {
			t.Errorf("%s has %q", pod, got)
		}
	}

	// A restart of Berth restarts nothing.
	before := m.kubectl("get", "pods", "-n", "db", "-l", "app=db", "-o", "jsonpath={.items[*].status.containerStatuses[*].containerID}")
	m.stop(syscall.SIGKILL)
	m.up()
	r.ready()
	if after := m.kubectl("get", "pods", "-n", "db", "-l", "app=db", "-o", "jsonpath={.items[*].status.containerStatuses[*].containerID}"); after != before {
		t.Errorf("containers were %s and are %s", before, after)
	}
	m.eventually("a minute of the schedule has come and its Job has run", func() error {
		out := m.kubectl("get", "jobs", "-n", "db")
		if !strings.Contains(out, "tick-") || !strings.Contains(out, "1/1") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})

	// Scaled down, the claim stays; removed, the data goes.
	r.edit("db.yaml", "replicas: 3", "replicas: 2")
	r.push("Two are enough")
	r.ready()
	if out := m.kubectl("get", "pvc", "-n", "db", "-o", "name"); strings.Count(out, "data-db-") != 3 {
		t.Errorf("claims: %s", out)
	}
	folders := func() []string {
		found, err := filepath.Glob(filepath.Join(m.dir, "*", "claims", "pvc-*"))
		if err != nil {
			t.Fatal(err)
		}
		direct, _ := filepath.Glob(filepath.Join(m.dir, "claims", "pvc-*")) // the pattern is right
		return append(found, direct...)
	}
	if len(folders()) != 3 {
		t.Errorf("folders: %v", folders())
	}
	m.kubectl("delete", "pvc", "data-db-2", "-n", "db")
	m.eventually("the data of the third is gone", func() error {
		if f := folders(); len(f) != 2 {
			return fmt.Errorf("%v", f)
		}
		return nil
	})
	if data, err := os.ReadFile(filepath.Join(folders()[0], "log")); err != nil || !strings.Contains(string(data), "version 2") {
		t.Errorf("%q, %v", data, err)
	}
}
