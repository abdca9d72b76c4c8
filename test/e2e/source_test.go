package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSourceOfARemoteIsPolled follows a bare repository that is not Berth's own.
func TestSourceOfARemoteIsPolled(t *testing.T) {
	m := boot(t, "--allow-file-sources")
	bare := filepath.Join(m.dir, "remote.git")
	m.run("git", "init", "-q", "--bare", "-b", "main", bare)
	r := m.empty("remote")
	r.git("remote", "set-url", "origin", bare)
	manifest := filepath.Join(m.dir, "source.yaml")
	text := fmt.Sprintf("apiVersion: berth.dev/v1alpha1\nkind: Source\nmetadata: {name: remote}\nspec: {url: \"file://%s\", interval: 1s, path: deploy}\n", bare)
	if err := os.WriteFile(manifest, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m.kubectl("create", "-f", manifest)
	m.eventually("the status says that there is no commit", func() error {
		if c := m.source("remote").condition("Fetched"); !strings.Contains(c.Message, "repository is empty") {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})

	if err := os.Mkdir(filepath.Join(r.dir, "deploy"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.write("deploy/app.yaml", deployment("app", 1))
	r.write("README.yaml", "not: {a: manifest, and: outside, of: the path}\n")
	r.push("First")
	r.ready()

	r.write("deploy/app.yaml", strings.Replace(deployment("app", 2), "replicas: 2", "replicas: two", 1))
	r.push("A mistake")
	m.eventually("the status shows the place", func() error {
		if c := m.source("remote").condition("Ready"); c.Reason != "CompileFailed" || !strings.Contains(c.Message, "deploy/app.yaml:5:13") {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	if len(m.containers("default")) != 1 {
		t.Error("a commit with an error changed something")
	}

	// The mistake is taken out of the history instead of being mended.
	r.git("reset", "-q", "--hard", "HEAD~1")
	r.write("deploy/app.yaml", deployment("app", 2))
	r.git("commit", "-qam", "Two")
	r.git("push", "-q", "--force", "origin", "main")
	r.ready()
	if c := m.source("remote").condition("Fetched"); c.Reason != "HistoryRewritten" {
		t.Errorf("after a rewritten history: %+v", c)
	}
	// The branch goes, the pods stay.
	m.run("git", "-C", bare, "update-ref", "-d", "refs/heads/main")
	m.eventually("the status says that the branch is gone", func() error {
		if c := m.source("remote").condition("Fetched"); c.Status != "False" {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	if n := len(m.containers("default")); n != 2 {
		t.Errorf("%d pods after the branch was deleted, want 2", n)
	}
}

// TestPlanShowsWhatAPushThenDoes compares the two outputs.
func TestPlanShowsWhatAPushThenDoes(t *testing.T) {
	m := boot(t)
	r := m.repository("shop", "shop")
	r.ready()
	out, err := m.try("berth", "plan", r.dir, "--source", "shop")
	if err != nil || !strings.Contains(out, "no change, 7 objects are as they should be") {
		t.Errorf("plan of what is deployed: %v\n%s", err, out)
	}
	r.edit("deploy/shop.cue", "replicas: 3", "replicas: 2")
	r.edit("deploy/shop.cue", "Welcome aboard", "Ahoy")
	// The remote of the clone says which Source it is.
	planned, err := m.try("berth", "plan", r.dir)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("plan with changes ended with %v, want exit code 2", err)
	}
	pushed := r.push("Two fronts that say Ahoy")
	for line := range strings.Lines(planned) {
		if !strings.Contains(pushed, "remote: "+strings.TrimRight(line, "\n")) {
			t.Errorf("the push does not show %q:\n%s", line, pushed)
		}
	}
	for _, want := range []string{"spec.replicas: 3 → 2", `data.greeting: "Welcome aboard" → "Ahoy"`} {
		if !strings.Contains(planned, want) {
			t.Errorf("the plan lacks %q:\n%s", want, planned)
		}
	}
	r.ready()
}
