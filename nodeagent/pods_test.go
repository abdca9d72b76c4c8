package nodeagent_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"

	"berth.dev/berth/nodeagent"
)

func TestContainersShareNetworkAndVolumes(t *testing.T) {
	n := newNode(t)
	web := sh("web", `while [ ! -f /shared/index.html ]; do sleep 0.05; done; exec httpd -f -p 8080 -h /shared`)
	web.VolumeMounts = []corev1.VolumeMount{{Name: "shared", MountPath: "/shared"}}
	web.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/index.html", Port: intstr.FromInt32(8080)}}}
	web.Command[2] = strings.Replace(web.Command[2], "httpd", "busybox httpd", 1)
	writer := sh("writer", `echo written > /shared/index.html; while true; do busybox wget -q -O - http://127.0.0.1:8080/index.html && break; sleep 0.1; done; sleep 1000`)
	writer.VolumeMounts = web.VolumeMounts
	p := pod("two", web, writer)
	p.Spec.Volumes = []corev1.Volume{{Name: "shared", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	n.create(p)
	n.await("two", "ready", ready)
	n.logs("two", "writer", "written\n")
}

func TestEnvironmentAndConfigVolumes(t *testing.T) {
	n := newNode(t)
	yes := true
	cm := &corev1.ConfigMap{Data: map[string]string{"color": "blue", "file.txt": "first"}}
	cm.Namespace, cm.Name = "default", "settings"
	secret := &corev1.Secret{Data: map[string][]byte{"password": []byte("hunter2")}}
	secret.Namespace, secret.Name = "default", "login"
	c := sh("main", `echo "[$COLOR][$PREFIXED_color][$PASSWORD][$NAME][$BOTH][$MISSING][$IP][$CPU]"; stat -c '%a' /secret/..data/password; cat /secret/password; while true; do cat /config/file.txt; echo; cat /sub/file.txt; echo; sleep 0.2; done`)
	c.Env = []corev1.EnvVar{
		{Name: "COLOR", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}, Key: "color"}}},
		{Name: "PASSWORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "login"}, Key: "password"}}},
		{Name: "NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
		{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
		{Name: "CPU", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}},
		{Name: "BOTH", Value: "$(COLOR)-$(NAME)-$$(COLOR)-$(NOPE)"},
		{Name: "MISSING", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "nowhere"}, Key: "x", Optional: &yes}}},
	}
	c.EnvFrom = []corev1.EnvFromSource{{Prefix: "PREFIXED_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}}
	c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
	mode := int32(0o400)
	c.VolumeMounts = []corev1.VolumeMount{{Name: "config", MountPath: "/config"}, {Name: "config", MountPath: "/sub/file.txt", SubPath: "file.txt"}, {Name: "secret", MountPath: "/secret"}}
	p := pod("env", c)
	p.Spec.Volumes = []corev1.Volume{
		{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}},
		{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "login", DefaultMode: &mode}}},
	}
	n.create(secret, p)
	waiting := n.await("env", "waiting for its ConfigMap", func(p *corev1.Pod) bool {
		return p != nil && len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil && strings.Contains(p.Status.ContainerStatuses[0].State.Waiting.Message, `ConfigMap "settings" is not there`)
	})
	_ = waiting
	n.create(cm)
	n.await("env", "ready", ready)
	n.logs("env", "main", "[blue][blue][hunter2][env][blue-env-$(COLOR)-$(NOPE)][][10.42.0.2][64]\n", "400\n", "hunter2first\nfirst\n")

	cm.Data["file.txt"] = "second"
	if err := n.api.Update(context.Background(), cm); err != nil {
		t.Fatal(err)
	}
	n.logs("env", "main", "second\nfirst\n") // the volume follows, subPath stays
	// a restart after the change works
	killFirst(t, n, "env", "main")
	n.await("env", "restarted", func(p *corev1.Pod) bool { return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1 })
}

// killFirst kills the first process of a container from outside.
func killFirst(t *testing.T, n *node, name, container string) {
	t.Helper()
	id := ""
	for _, c := range n.get(name).Status.ContainerStatuses {
		if c.Name == container {
			id = strings.TrimPrefix(c.ContainerID, "containerd://")
		}
	}
	killContainer(t, n, id)
}

func killContainer(t *testing.T, n *node, id string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(n.opts.DataDir, "containerd/state/io.containerd.runtime.v2.task/berth", id, "init.pid"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("kill", "-9", string(data)).CombinedOutput(); err != nil {
		t.Fatalf("kill: %v %s", err, out)
	}
}

func TestCrashingContainerBacksOff(t *testing.T) {
	n := newNode(t)
	n.create(pod("crash", sh("main", `echo run; echo why > /dev/termination-log; exit 3`)))
	p := n.await("crash", "in CrashLoopBackOff", func(p *corev1.Pod) bool {
		return p != nil && len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil && p.Status.ContainerStatuses[0].State.Waiting.Reason == "CrashLoopBackOff"
	})
	s := p.Status.ContainerStatuses[0]
	if s.RestartCount != 1 {
		t.Errorf("restarts %d: the first one comes at once, the second waits", s.RestartCount)
	}
	if !strings.Contains(s.State.Waiting.Message, "back-off 10s restarting failed container=main pod=crash_default(") {
		t.Errorf("message %q", s.State.Waiting.Message)
	}
	if last := s.LastTerminationState.Terminated; last == nil || last.ExitCode != 3 || last.Reason != "Error" || last.Message != "why\n" {
		t.Errorf("last state %+v", last)
	}
	if p.Status.Phase != corev1.PodRunning {
		t.Errorf("phase %s", p.Status.Phase)
	}
	var b strings.Builder
	if err := n.agent.Logs(t.Context(), "default", "crash", "", &corev1.PodLogOptions{Previous: true}, &b); err != nil || b.String() != "run\n" {
		t.Errorf("previous log %q, %v", b.String(), err)
	}
}

func TestJobLikePodsEnd(t *testing.T) {
	n := newNode(t)
	good, bad, missing := pod("good", sh("main", "exit 0")), pod("bad", sh("main", "exit 4")), pod("missing", sh("main", ""))
	missing.Spec.Containers[0].Command = []string{"/no/such/program"}
	for _, p := range []*corev1.Pod{good, bad, missing} {
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		n.create(p)
	}
	n.await("good", "succeeded", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodSucceeded })
	p := n.await("bad", "failed", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if s := p.Status.ContainerStatuses[0].State.Terminated; s == nil || s.ExitCode != 4 {
		t.Errorf("state %+v", p.Status.ContainerStatuses[0].State)
	}
	p = n.await("missing", "failed", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if s := p.Status.ContainerStatuses[0].State.Terminated; s == nil || s.ExitCode != 128 || !strings.Contains(s.Message, "no such file") {
		t.Errorf("state %+v", p.Status.ContainerStatuses[0].State)
	}
	var b strings.Builder
	if err := n.agent.Logs(t.Context(), "default", "good", "main", &corev1.PodLogOptions{}, &b); err != nil {
		t.Errorf("logs of a pod that has ended: %v", err)
	}
}

func TestInitContainersRunInOrder(t *testing.T) {
	n := newNode(t)
	always := corev1.ContainerRestartPolicyAlways
	first, side, second := sh("first", "echo 1 >> /v/log"), sh("side", "echo side >> /v/log; sleep 1000"), sh("second", "echo 2 >> /v/log")
	side.RestartPolicy = &always
	main := sh("main", "cat /v/log; sleep 1000")
	p := pod("init", main)
	p.Spec.InitContainers = []corev1.Container{first, side, second}
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}}}
	for i := range p.Spec.InitContainers {
		p.Spec.InitContainers[i].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
	}
	p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
	n.create(p)
	n.await("init", "ready", ready)
	n.logs("init", "main", "1\nside\n2\n")
}

func TestGracefulStopRunsPreStopAndTerm(t *testing.T) {
	n := newNode(t)
	c := sh("main", `trap "echo term; sleep 0.3; echo done > /v/done; exit 0" TERM; while true; do sleep 0.05; done`)
	c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/sh", "-c", "echo pre > /v/pre"}}}}
	dir := t.TempDir()
	c.VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
	p := pod("stop", c)
	grace := int64(20)
	p.Spec.TerminationGracePeriodSeconds = &grace
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}}}
	stubborn := pod("stubborn", sh("main", `trap "" TERM; while true; do sleep 0.05; done`))
	one := int64(1)
	stubborn.Spec.TerminationGracePeriodSeconds = &one
	n.create(p, stubborn)
	n.await("stop", "ready", ready)
	n.await("stubborn", "ready", ready)
	began := time.Now()
	n.remove("stop")
	n.await("stop", "gone", gone)
	for _, name := range []string{"pre", "done"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Errorf("the container did not write %s", name)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %s although the container ended by itself", took)
	}
	began = time.Now()
	n.remove("stubborn")
	n.await("stubborn", "gone", gone)
	if took := time.Since(began); took < time.Second || took > 5*time.Second {
		t.Errorf("a container that does not listen took %s with a grace of 1 s", took)
	}
}

func TestProbes(t *testing.T) {
	n := newNode(t)
	live := sh("main", `touch /tmp/live; sleep 1; rm /tmp/live; sleep 1000`)
	live.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/sh", "-c", "[ -f /tmp/live ] || { echo it is not there; exit 1; }"}}}, PeriodSeconds: 1, FailureThreshold: 2, InitialDelaySeconds: 1}
	unready := sh("main", `sleep 1000`)
	unready.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(81)}}, PeriodSeconds: 1}
	a, b := pod("live", live), pod("unready", unready)
	n.create(a, b)
	n.await("live", "restarted by its liveness probe", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	if !strings.Contains(n.events(), "failed liveness probe, will be restarted: command ended with 1: it is not there") {
		t.Errorf("events do not say why: %s", n.events())
	}
	n.await("unready", "unready with a reason", func(p *corev1.Pod) bool {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionFalse && strings.Contains(c.Message, "connection refused") {
				return true
			}
		}
		return false
	})
}

func TestOutOfMemory(t *testing.T) {
	n := newNode(t)
	c := sh("main", `x=a; while true; do x=$x$x; done`)
	c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("16Mi")}
	p := pod("oom", c)
	p.Spec.RestartPolicy = corev1.RestartPolicyNever
	n.create(p)
	got := n.await("oom", "failed", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if s := got.Status.ContainerStatuses[0].State.Terminated; s.Reason != "OOMKilled" || s.ExitCode != 137 {
		t.Errorf("state %+v", s)
	}
}

func TestMissingImageSaysWhatToDo(t *testing.T) {
	n := newNode(t)
	c := sh("main", "")
	c.Image = "127.0.0.1:1/nobody/nothing:1"
	never := sh("main", "")
	never.Image, never.ImagePullPolicy = "berth.dev/nothing:1", corev1.PullNever
	n.create(pod("pull", c), pod("never", never))
	waits := func(reason, text string) func(*corev1.Pod) bool {
		return func(p *corev1.Pod) bool {
			if len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].State.Waiting == nil {
				return false
			}
			w := p.Status.ContainerStatuses[0].State.Waiting
			return w.Reason == reason && strings.Contains(w.Message, text)
		}
	}
	n.await("pull", "in ErrImagePull", waits("ImagePullBackOff", "berth image load FILE"))
	n.await("never", "in ErrImageNeverPull", waits("ErrImageNeverPull", "berth image load FILE"))
}

func TestRestartedAgentAdoptsContainers(t *testing.T) {
	n := newNode(t)
	n.create(pod("keep", sh("main", `i=0; while true; do echo line $i; i=$((i+1)); sleep 0.02; done`)),
		pod("ends", sh("main", `trap "" TERM; while [ ! -f /tmp/end ]; do sleep 0.05; done; exit 7`)),
		pod("removed", sh("main", `sleep 1000`)))
	before := map[string]string{}
	for _, name := range []string{"keep", "ends", "removed"} {
		before[name] = n.await(name, "ready", ready).Status.ContainerStatuses[0].ContainerID
	}
	ip := n.get("keep").Status.PodIP
	n.logs("keep", "main", "line 3\n")
	n.stop()
	killFirst(t, n, "ends", "main")
	zero := int64(0)
	if err := n.api.Delete(t.Context(), pod("removed"), deleteNow(&zero)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // lines are written while no agent is there
	n.start()
	p := n.await("ends", "restarted", func(p *corev1.Pod) bool { return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1 })
	if last := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode != 137 {
		t.Errorf("the exit while no agent was there: %+v", last)
	}
	p = n.get("keep")
	if s := p.Status.ContainerStatuses[0]; s.ContainerID != before["keep"] || s.RestartCount != 0 || p.Status.PodIP != ip {
		t.Errorf("container %s → %s, restarts %d, address %s → %s", before["keep"], s.ContainerID, s.RestartCount, ip, p.Status.PodIP)
	}
	text := n.logs("keep", "main", "line 30\n")
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if want := "line " + itoa(i); line != want {
			t.Fatalf("line %d of the log is %q: a gap or a repetition over the restart", i, line)
		}
	}
	n.create(pod("after", sh("main", "sleep 1000")))
	n.await("after", "ready", ready)
	if _, err := os.Stat(filepath.Join(n.opts.DataDir, "pods", string(n.get("keep").UID)+".json")); err != nil {
		t.Error(err)
	}
}

func TestTeardownLeavesNothing(t *testing.T) {
	n := newNode(t)
	c := sh("main", "sleep 1000")
	c.VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
	p := pod("a", c)
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}}}
	n.create(p, pod("b", sh("main", "sleep 1000")))
	n.await("a", "ready", ready)
	n.await("b", "ready", ready)
	n.stop()
	if err := nodeagent.Teardown(t.Context(), n.opts); err != nil {
		t.Fatal(err)
	}
	for what, command := range map[string]string{
		"links":     `ip -o link | grep -E 'berth|bth' || true`,
		"routes":    `ip route | grep -E '10\.4[23]' || true`,
		"rules":     `nft list tables | grep berth || true`,
		"mounts":    `grep ` + n.opts.DataDir + ` /proc/self/mountinfo || true`,
		"processes": `ps -eo pid,stat,args | grep -E 'containerd|runc' | grep -v grep | grep -v defunct | grep -v ' Z' || true`,
		"cgroups":   `find /sys/fs/cgroup -type d -name '` + n.opts.CgroupParent + `'`,
	} {
		out, err := exec.Command("sh", "-c", command).CombinedOutput()
		if err != nil || len(strings.TrimSpace(string(out))) > 0 {
			t.Errorf("%s are left: %s %v", what, out, err)
		}
	}
}

// TestControlPlaneAway restarts the agent while nobody answers: it adopts what
// runs and restarts what ends, with the ConfigMap that it has on disk.
func TestControlPlaneAway(t *testing.T) {
	n := newNode(t)
	cm := &corev1.ConfigMap{Data: map[string]string{"color": "blue"}}
	cm.Namespace, cm.Name = "default", "settings"
	c := sh("main", `echo $color; sleep 1000`)
	c.EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}}
	n.create(cm, pod("a", c))
	id := n.await("a", "ready", ready).Status.ContainerStatuses[0].ContainerID
	n.stop()
	n.api.SetDown(errors.New("the control plane is away"))
	n.start()
	n.logs("a", "main", "blue\n")
	killContainer(t, n, strings.TrimPrefix(id, "containerd://"))
	deadline := time.Now().Add(20 * time.Second)
	for {
		var b strings.Builder
		err := n.agent.Logs(t.Context(), "default", "a", "main", &corev1.PodLogOptions{Previous: true}, &b)
		if err == nil && b.String() == "blue\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the container was not restarted: %v %q", err, b.String())
		}
		time.Sleep(50 * time.Millisecond)
	}
	n.logs("a", "main", "blue\n")
	n.api.SetDown(nil)
	n.await("a", "reported as restarted", func(p *corev1.Pod) bool { return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1 })
}
