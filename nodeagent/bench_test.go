package nodeagent_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"berth.dev/berth/api/client"
	"berth.dev/berth/nodeagent/containerd"
	"berth.dev/berth/nodeagent/pods"
)

// server is a pod that answers over HTTP and says so by a probe.
func server(name string) *corev1.Pod {
	c := sh("main", "")
	c.Command = []string{"/bin/tool", "serve", ":8080", "x"}
	c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(8080)}}}
	return pod(name, c)
}

// TestStartTimes prints what `make bench` compares: a bare start of the same
// container by the same containerd, a Pod bound to Ready, and fifty of them.
func TestStartTimes(t *testing.T) {
	if os.Getenv("BERTH_BENCH") == "" {
		t.Skip("set BERTH_BENCH=1")
	}
	n := newNode(t)
	runtime, err := containerd.Connect(containerd.Options{Address: filepath.Join(n.opts.DataDir, "containerd/containerd.sock"), RuncPath: filepath.Join(n.opts.BinDir, "runc"), RuncRoot: filepath.Join(n.opts.DataDir, "containerd/runc"), Log: n.opts.Log})
	if err != nil {
		t.Fatal(err)
	}
	defer runtime.Close()
	image, err := runtime.Image(t.Context(), busybox)
	if err != nil {
		t.Fatal(err)
	}
	var bare, ours []time.Duration
	for i := range 9 {
		bare = append(bare, startBare(t, runtime, image, n.opts.CgroupParent, i))
		name := fmt.Sprintf("p%d", i)
		began := time.Now()
		n.create(server(name))
		n.await(name, "ready", ready)
		ours = append(ours, time.Since(began))
		n.remove(name)
		n.await(name, "gone", gone)
	}
	b, o := median(bare), median(ours)
	fmt.Printf("bare containerd start %v, pod bound to ready %v, ratio %.2f\n", b, o, float64(o)/float64(b))
	n.memory("idle")
	began := time.Now()
	for i := range 50 {
		n.create(server(fmt.Sprintf("many%d", i)))
	}
	for i := range 50 {
		n.await(fmt.Sprintf("many%d", i), "ready", ready)
	}
	fmt.Printf("50 pods ready after %v\n", time.Since(began))
	n.memory("50 pods")
	began = time.Now()
	for i := range 50 {
		if err := n.api.Delete(context.Background(), server(fmt.Sprintf("many%d", i)), client.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 50 {
		n.await(fmt.Sprintf("many%d", i), "gone", gone)
	}
	fmt.Printf("50 pods gone after %v\n", time.Since(began))
}

func startBare(t *testing.T, r *containerd.Runtime, image pods.Image, parent string, i int) time.Duration {
	id := fmt.Sprintf("bare%d", i)
	dir := t.TempDir()
	out, errs := dir+"/out", dir+"/err"
	for _, f := range []string{out, errs} {
		if err := os.WriteFile(f, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	err := r.Start(t.Context(), pods.Container{ID: id, Group: id, Image: image, Args: []string{"/bin/tool", "serve", ":8080", "x"}, Env: []string{"PATH=/bin"}, WorkingDir: "/", CgroupParent: "/" + parent, Stdout: out, Stderr: errs})
	took := time.Since(began)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return took
}

func median(d []time.Duration) time.Duration {
	sort.Slice(d, func(i, j int) bool { return d[i] < d[j] })
	return d[len(d)/2]
}

// memory prints the PSS of containerd, its shims, and this process.
func (n *node) memory(when string) {
	sum := map[string]int{}
	out, _ := exec.Command("sh", "-c", "ls /proc").Output()
	for _, pid := range strings.Fields(string(out)) {
		if _, err := strconv.Atoi(pid); err != nil {
			continue
		}
		exe, _ := os.Readlink("/proc/" + pid + "/exe")
		data, err := os.ReadFile("/proc/" + pid + "/smaps_rollup")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				kb, _ := strconv.Atoi(strings.Fields(rest)[0])
				sum[filepath.Base(exe)] += kb
			}
		}
	}
	fmt.Printf("%s: PSS containerd %d MB, shims %d MB, test process with agent and control plane %d MB\n", when, sum["containerd"]/1024, sum["containerd-shim-runc-v2"]/1024, sum["nodeagent.test"]/1024)
}
