// Package enginetest sets up the engine's parts for tests: a real store in a
// temporary folder, resources over it, and a stand-in for node agents that
// takes Pods through their life without containers.
package enginetest

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/upstream"
	"berth.dev/berth/engine/access"
	"berth.dev/berth/engine/resources"
	"berth.dev/berth/engine/store"
)

// Resources over an empty store that lives as long as the test.
func Resources(t testing.TB) *resources.Resources {
	t.Helper()
	r, _ := Stored(t)
	return r
}

// Stored is Resources with the store that they are in.
func Stored(t testing.TB) (*resources.Resources, store.Store) {
	t.Helper()
	key, err := access.OpenAccountKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return stored(t, key, clock.RealClock{})
}

// Signed is Resources whose tokens of service accounts a key signs.
func Signed(t testing.TB, key *access.AccountKey) *resources.Resources {
	t.Helper()
	r, _ := stored(t, key, clock.RealClock{})
	return r
}

// Timed is Resources whose clock is the test's.
func Timed(t testing.TB, c clock.PassiveClock) *resources.Resources {
	t.Helper()
	key, err := access.OpenAccountKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r, _ := stored(t, key, c)
	return r
}

func stored(t testing.TB, key *access.AccountKey, now clock.PassiveClock) (*resources.Resources, store.Store) {
	t.Helper()
	s, err := store.OpenBolt(filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	Go(t, s.Run)
	u, err := upstream.New()
	if err != nil {
		t.Fatal(err)
	}
	r := resources.New(resources.Options{
		Store: s, Upstream: u, Clock: now, ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16"), Signer: key,
	})
	for _, name := range []string{"default", "kube-node-lease"} {
		if err := r.Create(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			t.Fatal(err)
		}
	}
	return r, s
}

// Go runs a loop until the test ends, and waits for its end.
func Go(t testing.TB, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil {
			t.Errorf("%v", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// Log writes to the test's output.
func Log(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// AddNode creates a ready Node.
func AddNode(t testing.TB, c client.Client, name, cpu, memory string) {
	t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory), corev1.ResourcePods: resource.MustParse("1000"),
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	if err := c.Create(context.Background(), n); err != nil {
		t.Fatal(err)
	}
}

// Kubelet takes Pods that have a node to Ready, and removes those that are
// being deleted.
type Kubelet struct {
	Client client.Client
	// Broken images never become ready.
	Broken map[string]bool
	// Exit is the code with which images exit; those that are not named run on.
	Exit map[string]int32

	mu   sync.Mutex
	next int
}

// Run works until the context ends.
func (k *Kubelet) Run(ctx context.Context) error {
	assigned := fields.OneTermNotEqualSelector("spec.nodeName", "")
	return client.Follow(ctx, k.Client, &corev1.PodList{}, client.ListOptions{Fields: assigned}, &kubeletFollower{k, ctx})
}

// Mend makes an image work that is among the broken ones: its Pods become ready.
func (k *Kubelet) Mend(ctx context.Context, image string) error {
	k.mu.Lock() // no status is being written
	defer k.mu.Unlock()
	delete(k.Broken, image)
	var pods corev1.PodList
	if err := k.Client.List(ctx, &pods, client.ListOptions{}); err != nil {
		return err
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.Spec.Containers[0].Image != image {
			continue
		}
		for j := range pod.Status.Conditions {
			if pod.Status.Conditions[j].Type == corev1.PodReady {
				pod.Status.Conditions[j].Status = corev1.ConditionTrue
			}
		}
		pod.ResourceVersion = "" // the scheduler may write it at the same time, and not the status of its containers
		if err := k.Client.UpdateStatus(ctx, pod); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

type kubeletFollower struct {
	*Kubelet
	ctx context.Context
}

// Synced implements client.Follower.
func (f *kubeletFollower) Synced() {}

// Gone implements client.Follower.
func (f *kubeletFollower) Gone(client.Object) {}

// Set implements client.Follower.
func (f *kubeletFollower) Set(obj client.Object) {
	pod := obj.(*corev1.Pod)
	if pod.DeletionTimestamp != nil {
		zero := int64(0)
		_ = f.Client.Delete(f.ctx, pod.DeepCopy(), client.DeleteOptions{UID: pod.UID, GracePeriodSeconds: &zero})
		return
	}
	switch pod.Status.Phase {
	case corev1.PodRunning:
		f.end(pod)
		return
	case corev1.PodSucceeded, corev1.PodFailed:
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	ip := netip.AddrFrom4([4]byte{10, 42, byte(f.next >> 8), byte(f.next)})
	ready := corev1.ConditionTrue
	if f.Broken[pod.Spec.Containers[0].Image] {
		ready = corev1.ConditionFalse
	}
	next := pod.DeepCopy()
	next.Status.Phase, next.Status.PodIP = corev1.PodRunning, ip.String()
	next.Status.PodIPs = []corev1.PodIP{{IP: ip.String()}}
	for _, c := range pod.Spec.Containers {
		next.Status.ContainerStatuses = append(next.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, Ready: ready == corev1.ConditionTrue,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
		})
	}
	next.Status.Conditions = append(next.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: ready, LastTransitionTime: metav1.Now()})
	_ = f.Client.UpdateStatus(f.ctx, next)
}

// end lets a Pod exit whose image does.
func (f *kubeletFollower) end(pod *corev1.Pod) {
	code, ends := f.Exit[pod.Spec.Containers[0].Image]
	if !ends {
		return
	}
	next := pod.DeepCopy()
	next.Status.Phase = corev1.PodSucceeded
	if code != 0 {
		next.Status.Phase = corev1.PodFailed
	}
	for i := range next.Status.ContainerStatuses {
		next.Status.ContainerStatuses[i].Ready = false
		next.Status.ContainerStatuses[i].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: metav1.Now()}}
	}
	for i := range next.Status.Conditions {
		if next.Status.Conditions[i].Type == corev1.PodReady {
			next.Status.Conditions[i].Status = corev1.ConditionFalse
		}
	}
	_ = f.Client.UpdateStatus(f.ctx, next)
}

// Eventually waits until check returns "", and fails with its last answer.
func Eventually(t testing.TB, within time.Duration, check func() string) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		why := check()
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %s", within, why)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
