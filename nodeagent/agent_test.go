package nodeagent_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/clienttest"
	"berth.dev/berth/nodeagent"
	"berth.dev/berth/nodeagent/testhost"
)

const busybox = "berth.dev/busybox:1"

func TestMain(m *testing.M) { testhost.Main(m) }

// node is a node with its agent and a control plane in memory.
type node struct {
	t      testing.TB
	opts   nodeagent.Options
	api    *clienttest.Memory
	agent  *nodeagent.Agent
	cancel context.CancelFunc
	done   chan error
	log    *bytes.Buffer
}

// newNode starts an agent on this machine, with the image of busybox.
func newNode(t testing.TB) *node {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "berth")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, api: clienttest.NewMemory(), opts: nodeagent.Options{
		NodeName: "n1", NodeIP: netip.MustParseAddr(testhost.NodeIP), DataDir: dir, BinDir: testhost.Runtime(t),
		ClusterCIDR: netip.MustParsePrefix("10.42.0.0/16"), PodCIDR: netip.MustParsePrefix("10.42.0.0/24"), ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16"),
		CgroupParent: fmt.Sprintf("berth-test-%d", time.Now().UnixNano()),
		Log:          slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}}
	n.opts.Client = n.api
	n.start()
	t.Cleanup(func() {
		n.stop()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := nodeagent.Teardown(ctx, n.opts); err != nil {
			t.Errorf("teardown: %v", err)
		}
		os.RemoveAll(dir)
	})
	file, err := os.Open(testhost.Image(t, busybox))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	names, err := n.agent.LoadImage(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != 1 || names[0] != busybox {
		t.Fatalf("LoadImage returned %q", names)
	}
	return n
}

func (n *node) start() {
	n.t.Helper()
	agent, err := nodeagent.New(n.opts)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.agent, n.cancel, n.done = agent, cancel, make(chan error, 1)
	go func() { n.done <- agent.Run(ctx) }()
}

func (n *node) stop() {
	n.t.Helper()
	if n.cancel == nil {
		return
	}
	n.cancel()
	n.cancel = nil
	select {
	case err := <-n.done:
		if err != nil {
			n.t.Errorf("agent ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		n.t.Error("the agent does not end")
	}
}

// pod makes a Pod that is bound to the node.
func pod(name string, containers ...corev1.Container) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{NodeName: "n1", Containers: containers}}
	grace := int64(2)
	p.Spec.TerminationGracePeriodSeconds = &grace
	p.Spec.RestartPolicy = corev1.RestartPolicyAlways
	p.Spec.DNSPolicy = corev1.DNSClusterFirst
	return p
}

// sh is a container that runs a script.
func sh(name, script string) corev1.Container {
	return corev1.Container{Name: name, Image: busybox, ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{"/bin/sh", "-c", script}}
}

func (n *node) create(objs ...client.Object) {
	n.t.Helper()
	for _, obj := range objs {
		if err := n.api.Create(context.Background(), obj); err != nil {
			n.t.Fatal(err)
		}
	}
}

func (n *node) get(name string) *corev1.Pod {
	var p corev1.Pod
	if err := n.api.Get(context.Background(), types.NamespacedName{Namespace: "default", Name: name}, &p); err != nil {
		return nil
	}
	return &p
}

// await waits, by watching, until a pod is as it should be.
func (n *node) await(name, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	w, err := n.api.Watch(ctx, &corev1.PodList{}, client.ListOptions{Namespace: "default", ResourceVersion: "1"})
	if err != nil {
		n.t.Fatal(err)
	}
	defer w.Stop()
	for {
		if p := n.get(name); ok(p) {
			return p
		}
		if _, open := <-w.ResultChan(); !open {
			p := n.get(name)
			if p == nil {
				n.t.Fatalf("pod %s is gone and was to be %s", name, what)
			}
			n.t.Fatalf("pod %s is not %s: phase %s, conditions %+v, containers %+v, init %+v\nevents: %s", name, what, p.Status.Phase, p.Status.Conditions, p.Status.ContainerStatuses, p.Status.InitContainerStatuses, n.events())
		}
	}
}

func (n *node) events() string {
	var list corev1.EventList
	_ = n.api.List(context.Background(), &list, client.ListOptions{})
	var b strings.Builder
	for _, e := range list.Items {
		fmt.Fprintf(&b, "\n  %s %s %s: %s", e.InvolvedObject.Name, e.Type, e.Reason, e.Message)
	}
	return b.String()
}

func ready(p *corev1.Pod) bool {
	if p == nil {
		return false
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func gone(p *corev1.Pod) bool { return p == nil }

func (n *node) remove(name string) {
	n.t.Helper()
	if err := n.api.Delete(context.Background(), pod(name), client.DeleteOptions{}); err != nil {
		n.t.Fatal(err)
	}
}

// logs reads a container's log until it contains all of want.
func (n *node) logs(name, container string, want ...string) string {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out := &until{want: want, cancel: cancel}
	err := n.agent.Logs(ctx, "default", name, container, &corev1.PodLogOptions{Follow: true}, out)
	if err != nil {
		n.t.Fatalf("logs of %s/%s: %v", name, container, err)
	}
	if !out.has() {
		n.t.Fatalf("logs of %s/%s are %q and lack one of %q", name, container, out.b.String(), want)
	}
	return out.b.String()
}

type until struct {
	b      strings.Builder
	want   []string
	cancel func()
}

func (u *until) has() bool {
	for _, w := range u.want {
		if !strings.Contains(u.b.String(), w) {
			return false
		}
	}
	return true
}

func (u *until) Write(p []byte) (int, error) {
	u.b.Write(p)
	if u.has() {
		u.cancel()
	}
	return len(p), nil
}

func TestPodRunsAndIsGone(t *testing.T) {
	n := newNode(t)
	n.create(pod("a", sh("main", `trap "echo bye; exit 0" TERM; echo hello from $HOSTNAME; while true; do sleep 0.1; done`)))
	p := n.await("a", "ready", ready)
	t.Logf("ready after %s", time.Since(p.CreationTimestamp.Time))
	if p.Status.PodIP != "10.42.0.2" || p.Status.Phase != corev1.PodRunning {
		t.Errorf("address %s, phase %s", p.Status.PodIP, p.Status.Phase)
	}
	n.logs("a", "main", "hello from a\n")
	n.remove("a")
	n.await("a", "gone", gone)
}

func itoa(i int) string { return fmt.Sprint(i) }

func deleteNow(zero *int64) client.DeleteOptions {
	return client.DeleteOptions{GracePeriodSeconds: zero}
}
