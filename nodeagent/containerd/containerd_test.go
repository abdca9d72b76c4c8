package containerd_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth.dev/berth/nodeagent/containerd"
	"berth.dev/berth/nodeagent/pods"
	"berth.dev/berth/nodeagent/pods/podstest"
	"berth.dev/berth/nodeagent/testhost"
)

func TestMain(m *testing.M) { testhost.Main(m) }

const busybox = "berth.dev/busybox:1"

// machine is a containerd of our own, with the image of busybox.
type machine struct {
	daemon  *containerd.Daemon
	runtime *containerd.Runtime
	image   pods.Image
	parent  string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "berth")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	m := &machine{daemon: &containerd.Daemon{Dir: dir, BinDir: testhost.Runtime(t), Log: log}, parent: fmt.Sprintf("/berth-test-%d", time.Now().UnixNano())}
	if _, err := m.daemon.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.daemon.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
		for _, d := range cgroups(m.parent) {
			os.Remove(d)
		}
	})
	m.runtime, err = containerd.Connect(containerd.Options{Address: m.daemon.Address(), RuncPath: m.daemon.BinDir + "/runc", RuncRoot: dir + "/runc", Daemon: m.daemon, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.runtime.Close() })
	file, err := os.Open(testhost.Image(t, busybox))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := m.runtime.Load(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	if m.image, err = m.runtime.Image(t.Context(), busybox); err != nil {
		t.Fatal(err)
	}
	return m
}

func cgroups(parent string) []string {
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*" + parent)
	return dirs
}

func (m *machine) sh(script string) pods.Container {
	return pods.Container{Image: m.image, Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin"}, WorkingDir: "/", CgroupParent: m.parent}
}

func TestContract(t *testing.T) {
	m := newMachine(t)
	podstest.Run(t, func(t *testing.T) podstest.Setup {
		return podstest.Setup{
			Runtime: m.runtime,
			Sleeps:  m.sh(`trap "exit 0" TERM; while true; do sleep 0.05; done`),
			Exits:   m.sh("exit 3"),
		}
	})
}

func TestArchiveWithoutNameIsRefused(t *testing.T) {
	m := newMachine(t)
	if _, err := m.runtime.Load(t.Context(), bytes.NewReader([]byte("no tar"))); err == nil {
		t.Error("no error for an archive that is none")
	}
}

// TestContainerdKilledRepeatedly kills containerd while containers are started:
// what ran still runs, and every container is waited for through it.
func TestContainerdKilledRepeatedly(t *testing.T) {
	m := newMachine(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.daemon.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	dir := t.TempDir()
	container := func(id string) pods.Container {
		c := m.sh(`while true; do sleep 0.1; done`)
		c.ID, c.Group = id, id
		c.Stdout, c.Stderr = dir+"/"+id+".out", dir+"/"+id+".err"
		for _, f := range []string{c.Stdout, c.Stderr} {
			if err := os.WriteFile(f, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return c
	}
	if err := m.runtime.Start(ctx, container("steady")); err != nil {
		t.Fatal(err)
	}
	exit := make(chan error, 1)
	go func() {
		_, err := m.runtime.Wait(ctx, "steady")
		exit <- err
	}()
	for i := range 5 {
		c := container(fmt.Sprintf("c%d", i))
		killed := make(chan struct{})
		go func() {
			defer close(killed)
			time.Sleep(time.Duration(i*40) * time.Millisecond)
			data, _ := os.ReadFile(m.daemon.Dir + "/containerd.pid")
			_ = exec.Command("kill", "-9", strings.TrimSpace(string(data))).Run()
		}()
		var err error
		for attempt := range 100 {
			if err = m.runtime.Start(ctx, c); err == nil {
				break
			}
			time.Sleep(time.Duration(10+attempt) * time.Millisecond)
		}
		if err != nil {
			t.Fatalf("start while containerd is killed: %v", err)
		}
		<-killed
	}
	select {
	case err := <-exit:
		t.Fatalf("a running container ended or was lost: %v", err)
	default:
	}
	var list []pods.Present
	deadline := time.Now().Add(20 * time.Second)
	for running := 0; running != 6 && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		running = 0
		list, _ = m.runtime.List(ctx)
		for _, p := range list {
			if p.State == pods.Running {
				running++
			}
		}
	}
	if len(list) != 6 {
		t.Errorf("%d containers, want 6: %+v", len(list), list)
	}
	if n := shims(t, m.daemon.Dir); n != 6 {
		t.Errorf("%d shims for 6 containers", n)
	}
	for _, p := range list {
		if err := m.runtime.Remove(ctx, p.ID); err != nil {
			t.Error(err)
		}
	}
}

// shims counts the processes of the shim of this containerd.
func shims(t *testing.T, dir string) int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		data, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if strings.Contains(string(data), "containerd-shim-runc-v2") && strings.Contains(string(data), dir) {
			n++
		}
	}
	return n
}
