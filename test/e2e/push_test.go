package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// answer is what the shop's front says of itself.
type answer struct {
	Host, Backend, Greeting, Notice string
	Products                        []struct{ Name string }
}

func ask(t *testing.T, ip string) answer {
	t.Helper()
	body, err := get(t.Context(), "http://"+ip+"/api")
	if err != nil {
		t.Fatal(err)
	}
	var a answer
	if err := json.Unmarshal([]byte(body), &a); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return a
}

func TestPushBecomesRunningContainers(t *testing.T) {
	m := boot(t)
	r := m.repository("shop", "shop")
	r.ready()

	// From the host through the Service's address, spread over the replicas;
	// the front asks the backend by its name, from inside a pod.
	ip := m.clusterIP("shop", "front")
	hosts := map[string]int{}
	for range 60 {
		a := ask(t, ip)
		hosts[a.Host]++
		if len(a.Products) == 0 || !strings.HasPrefix(a.Backend, "backend-") || a.Greeting != "Welcome aboard" {
			t.Fatalf("answer %+v", a)
		}
	}
	if len(hosts) != 3 {
		t.Errorf("60 requests went to %v, want all 3 replicas", hosts)
	}

	out := m.berth("status", "shop")
	for _, stage := range []string{"pushed", "fetched", "compiled", "applied", "scheduled", "started", "ready", "after it was pushed"} {
		if !strings.Contains(out, stage) {
			t.Errorf("berth status does not say %q:\n%s", stage, out)
		}
	}
	s := m.source("shop")
	if first, last := s.Status.Timeline[0], s.Status.Timeline[len(s.Status.Timeline)-1]; first.Name != "pushed" || last.Name != "ready" || last.Time.Sub(first.Time) <= 0 {
		t.Errorf("timeline %+v", s.Status.Timeline)
	}
}

func TestChangesByPush(t *testing.T) {
	m := boot(t)
	r := m.repository("shop", "shop")
	r.ready()
	fronts := func() (names []string) {
		for name := range m.containers("shop") {
			if strings.HasPrefix(name, "front-") {
				names = append(names, name)
			}
		}
		return slices.Sorted(slices.Values(names))
	}
	before := fronts()

	r.edit("deploy/shop.cue", "replicas: 3", "replicas: 5")
	if out := r.push("Five fronts"); !strings.Contains(out, "remote:       spec.replicas: 3 → 5") {
		t.Errorf("the push does not show the plan:\n%s", out)
	}
	r.ready()
	after := fronts()
	if len(after) != 5 || !containsAll(after, before) {
		t.Errorf("fronts %v, then %v: want two more", before, after)
	}

	r.edit("deploy/shop.cue", `GOMEMLIMIT: "48MiB"`, `GOMEMLIMIT: "40MiB"`)
	r.push("Less memory")
	r.ready()
	m.eventually("the old fronts are gone", func() error {
		if now := fronts(); len(now) != 5 || containsAny(now, after) {
			return fmt.Errorf("fronts %v, before %v", now, after)
		}
		return nil
	})

	r.edit("deploy/shop.cue", "Welcome aboard", "Ahoy")
	r.edit("deploy/shop.cue", "Free delivery", "No delivery")
	r.push("Another greeting")
	r.ready()
	if a := ask(t, m.clusterIP("shop", "front")); a.Greeting != "Ahoy" || !strings.HasPrefix(a.Notice, "No delivery") {
		t.Errorf("after the ConfigMap changed: %+v", a)
	}
}

func containsAll(all, some []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

func containsAny(all, some []string) bool {
	return slices.ContainsFunc(some, func(s string) bool { return slices.Contains(all, s) })
}

func TestBadPushIsRefusedWithEveryPlace(t *testing.T) {
	m := boot(t)
	r := m.repository("shop", "shop")
	r.ready()
	before := m.containers("shop")
	r.edit("deploy/shop.cue", "replicas: 3", "replicass: 3")
	r.write("deploy/extra.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Extra, namespace: shop}\ndata: {answer: 42}\n")
	out, err := r.tryPush("Three mistakes")
	if err == nil {
		t.Fatalf("the push was accepted:\n%s", out)
	}
	for _, want := range []string{
		`remote: deploy/extra.yaml:3:18: ConfigMap/Extra: metadata.name: `,
		`remote: deploy/extra.yaml:4:16: ConfigMap/Extra: data.answer: 42 is a number, but a string is needed; quote it: "42"`,
		`remote: deploy/shop.cue:31:2: front.replicass: unknown field "replicass"; did you mean "replicas"?`,
		`remote: 3 errors; nothing was changed`,
		`! [remote rejected] main -> main`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the refusal lacks %q", want)
		}
	}
	if t.Failed() {
		t.Logf("the refusal:\n%s", out)
	}
	if after := m.containers("shop"); !maps.Equal(before, after) {
		t.Errorf("pods before %v, after %v", before, after)
	}
	// The rejected commit is not in the repository.
	if refs := r.git("ls-remote", "origin", "refs/heads/main"); strings.HasPrefix(refs, strings.TrimSpace(r.git("rev-parse", "HEAD"))) {
		t.Error("the branch is at the rejected commit")
	}
}

func TestRemovedFileAndRevert(t *testing.T) {
	m := boot(t)
	r := m.repository("guestbook", "guestbook-yaml")
	r.ready()
	objects := func() string {
		return m.kubectl("get", "deployments,services,configmaps,secrets", "-n", "guestbook", "-o", "name")
	}
	before := objects()
	r.git("rm", "-q", "deploy/front.yaml")
	if out := r.push("No front"); !strings.Contains(out, "- Deployment guestbook/front") {
		t.Errorf("the plan does not show the deletion:\n%s", out)
	}
	r.ready()
	if now := objects(); strings.Contains(now, "front") || !strings.Contains(now, "backend") {
		t.Errorf("after the removal:\n%s", now)
	}
	m.eventually("the front's pods are gone", func() error {
		for name := range m.containers("guestbook") {
			if strings.HasPrefix(name, "front") {
				return fmt.Errorf("%s is there", name)
			}
		}
		return nil
	})
	r.git("revert", "--no-edit", "HEAD")
	r.git("push", "-q", "origin", "main")
	r.ready()
	if now := objects(); now != before {
		t.Errorf("after the revert:\n%s\nbefore:\n%s", now, before)
	}
	if _, err := get(t.Context(), "http://"+m.clusterIP("guestbook", "front")+"/api"); err != nil {
		t.Error(err)
	}
}

func TestKilledServerRestartsNothing(t *testing.T) {
	m := boot(t)
	r := m.repository("shop", "shop")
	r.ready()
	before := m.containers("shop")
	ip := m.clusterIP("shop", "front")
	m.stop(syscall.SIGKILL)
	// The network goes on without the server; names wait for the agent's return.
	if _, err := get(t.Context(), "http://"+ip+"/healthz"); err != nil {
		t.Errorf("while the server is down: %v", err)
	}
	m.up()
	m.eventually("the node is ready", func() error {
		_, err := m.try("kubectl", "wait", "--for=condition=Ready", "node", "--all", "--timeout=1s")
		return err
	})
	if after := m.containers("shop"); !maps.Equal(before, after) {
		t.Errorf("containers before %v, after %v", before, after)
	}
	r.edit("deploy/shop.cue", "replicas: 3", "replicas: 4")
	r.push("Four")
	r.ready()
}

func TestKilledContainerIsRestartedWithBackOff(t *testing.T) {
	m := boot(t)
	r := m.repository("shop", "shop")
	r.ready()
	victim := ""
	for name := range m.containers("shop") {
		if strings.HasPrefix(name, "backend-") {
			victim = name
		}
	}
	first := m.containers("shop")[victim].id
	kill := func() {
		t.Helper()
		pids, err := exec.Command("pgrep", "-f", "^/shop backend").Output()
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.Fields(string(pids))[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	kill()
	m.eventually("it runs again", func() error {
		c := m.containers("shop")[victim]
		if c.restarts != 1 || !c.ready || c.id == first {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	kill()
	m.eventually("the second restart waits", func() error {
		out := m.kubectl("get", "pod", "-n", "shop", victim)
		if !strings.Contains(out, "CrashLoopBackOff") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
}

func TestImageThatDoesNotExistKeepsTheOldPodsServing(t *testing.T) {
	m := boot(t)
	r := m.repository("shop", "shop")
	r.ready()
	r.edit("deploy/shop.cue", `image:           "berth.dev/shop:1"`, `image:           "127.0.0.1:9/nowhere/shop:2"`)
	r.push("A wrong image")
	m.eventually("the status says why", func() error {
		c := m.source("shop").condition("Ready")
		if c.Status != "False" || !strings.Contains(c.Message, "127.0.0.1:9/nowhere/shop:2") {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	ask(t, m.clusterIP("shop", "front"))
	r.git("revert", "--no-edit", "HEAD")
	r.git("push", "-q", "origin", "main")
	r.ready()
}

func TestSecondServerNamesTheFirst(t *testing.T) {
	m := boot(t)
	out, err := m.try("berth", "up", "--data-dir", m.dir, "--listen", "127.0.0.1:7444")
	if err == nil || !strings.Contains(out, fmt.Sprintf("in use by berth with process number %d", m.server.Process.Pid)) {
		t.Errorf("%v\n%s", err, out)
	}
	other := t.TempDir()
	out, err = m.try("berth", "up", "--data-dir", other, "--listen", "127.0.0.1:7443")
	if err == nil || !strings.Contains(out, "another program has the port") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestDownLeavesNothing(t *testing.T) {
	before := traces(t)
	m := boot(t)
	r := m.repository("shop", "shop")
	r.ready()
	if during := traces(t); during == before {
		t.Fatal("the listing does not show a running Berth")
	}
	m.stop(syscall.SIGTERM)
	m.berth("down", "--data-dir", m.dir)
	if after := traces(t); after != before {
		t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
	}
	// Started again, it does not take what it stopped for running.
	m.up()
	if c := m.source("shop").condition("Ready"); c.Status == "True" {
		ask(t, m.clusterIP("shop", "front"))
	}
	r.ready()
	ask(t, m.clusterIP("shop", "front"))
}

// traces lists what a Berth makes on a machine.
func traces(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, c := range []string{
		"ip -o link | cut -d: -f2 | sort",
		"ip route | sort",
		"nft list tables",
		"ip netns list",
		"grep -c . /proc/self/mounts",
		"grep berth /proc/self/mounts",
		"ps -eo comm= | grep -E 'berth|containerd|runc|shop' | sort",
		"find /sys/fs/cgroup -maxdepth 3 -type d -name '*berth*' | sort",
	} {
		out, _ := exec.Command("sh", "-c", c).CombinedOutput() // grep that finds nothing exits with 1
		fmt.Fprintf(&b, "$ %s\n%s", c, out)
	}
	return b.String()
}

func TestKubectlAsItIs(t *testing.T) {
	m := boot(t)
	r := m.repository("shop", "shop")
	r.ready()
	pod := ""
	for name := range m.containers("shop") {
		if strings.HasPrefix(name, "front-") {
			pod = name
		}
	}
	for _, c := range []struct {
		args string
		want []string
	}{
		{"get nodes -o wide", []string{"Ready", "containerd://"}},
		{"get all -n shop", []string{"pod/front-", "service/front", "deployment.apps/front     3/3", "replicaset.apps/front-"}},
		{"get pods -A -l app=front --field-selector status.phase=Running", []string{"1/1     Running   0"}},
		{"get sources", []string{"NAME   READY   REASON", "shop   True    Succeeded"}},
		{"get configmap front -n shop -o yaml", []string{"greeting: Welcome aboard", "berth.dev/origin: deploy/shop.cue:"}},
		{"describe pod " + pod + " -n shop", []string{"Readiness:", "Successfully assigned", "Started container front"}},
		{"describe deployment front -n shop", []string{"3 desired | 3 updated | 3 total | 3 available", "NewReplicaSetAvailable"}},
		{"describe service front -n shop", []string{"Endpoints:", ":8080"}},
		{"describe node", []string{"Allocated resources", "shop"}},
		{"describe namespace shop", []string{"Status:", "Active"}},
		{"logs -n shop " + pod, []string{"listening"}},
		{"logs -n shop deploy/front --tail=1 --timestamps", []string{"T", "listening"}},
		{"events -n shop", []string{"ScalingReplicaSet"}},
		{"rollout status deploy/front -n shop", []string{"successfully rolled out"}},
		{"api-resources", []string{"deployments", "deploy", "sources"}},
		{"version", []string{"Server Version: v1.37"}},
	} {
		out, err := m.try("kubectl", strings.Fields(c.args)...)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(out, w) {
				t.Errorf("kubectl %s lacks %q:\n%s", c.args, w, out)
			}
		}
	}
	out, err := m.try("kubectl", "create", "configmap", "mine", "-n", "shop")
	if err == nil || !strings.Contains(out, "namespace shop is managed by Source shop") {
		t.Errorf("a managed namespace was not protected: %v\n%s", err, out)
	}
	out, err = m.try("berth", "status", "shopp", "--watch")
	if err == nil || !strings.Contains(out, "there is no Source shopp") {
		t.Errorf("status of a Source that is not there: %v\n%s", err, out)
	}
	out, err = m.try("kubectl", "delete", "deployment", "front", "-n", "shop")
	if err == nil || !strings.Contains(out, "managed by Source shop: edit deploy/shop.cue:28") {
		t.Errorf("a managed object was not protected: %v\n%s", err, out)
	}
}

func TestSecretsAreNowhereToBeSeen(t *testing.T) {
	m := boot(t)
	r := m.repository("shop", "shop")
	r.ready()
	const secret = "s3cr3t-v4lu3"
	r.edit("deploy/shop.cue", "change-me", secret)
	out := r.push("Another token")
	r.ready()
	if !strings.Contains(out, "data.TOKEN changed") {
		t.Errorf("the plan does not say that the Secret changed:\n%s", out)
	}
	log, err := os.ReadFile(filepath.Join(m.dir, "berth.log"))
	if err != nil {
		t.Fatal(err)
	}
	for where, text := range map[string]string{
		"the push": out, "the log": string(log), "status": m.berth("status", "shop", "-o", "json"),
		"events": m.kubectl("get", "events", "-A", "-o", "yaml"), "describe": m.kubectl("describe", "secret", "-n", "shop"),
	} {
		if strings.Contains(text, secret) {
			t.Errorf("%s shows the Secret's value", where)
		}
	}
}
