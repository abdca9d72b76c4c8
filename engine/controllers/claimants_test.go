package controllers

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	testingclock "k8s.io/utils/clock/testing"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/live"
)

var claimsThatWait = []struct {
	name, provisioner string
	mode              corev1.PersistentVolumeAccessMode
}{
	{"local", v1alpha1.LocalProvisioner, corev1.ReadWriteOnce},
	{"made-by-people", noProvisioner, corev1.ReadWriteOnce},
	{"for-one-pod", v1alpha1.LocalProvisioner, corev1.ReadWriteOncePod},
}

// waitingPods are Pods that wait in a cluster without nodes, with a claim each, and
// volumes on a node each.
type waitingPods struct {
	*scheduling
	views   *live.Cluster
	claims  []*corev1.PersistentVolumeClaim
	volumes []*corev1.PersistentVolume
}

func newWaitingPods(t testing.TB, n int, provisioner string, mode corev1.PersistentVolumeAccessMode) *waitingPods {
	w := &waitingPods{views: live.New()}
	w.scheduling = newScheduling(&cluster{Cluster: w.views, clock: testingclock.NewFakeClock(time.Now()), log: enginetest.Log(t)})
	t.Cleanup(w.binds.queue.ShutDown)
	t.Cleanup(w.refusals.queue.ShutDown)
	later := storagev1.VolumeBindingWaitForFirstConsumer
	w.views.Classes.Set(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "later"}, Provisioner: provisioner, VolumeBindingMode: &later})
	modes := []corev1.PersistentVolumeAccessMode{mode}
	for i := range n {
		v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("v%d", i)}}
		v.Spec.StorageClassName, v.Spec.Capacity, v.Spec.AccessModes = "later", gi(1), modes
		v.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{fmt.Sprintf("n%d", i)}}},
		}}}}
		c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("c%d", i), UID: types.UID(fmt.Sprintf("c%d", i))}}
		c.Spec.StorageClassName, c.Spec.Resources.Requests, c.Spec.AccessModes = new("later"), gi(1), modes
		w.volumes, w.claims = append(w.volumes, v), append(w.claims, c)
		w.views.Volumes.Set(v)
		w.views.Claims.Set(c)
	}
	for i, c := range w.claims {
		w.views.Pods.Set(claimPod(fmt.Sprintf("p%d", i), c.Name))
	}
	w.decideAll()
	return w
}

func claimPod(name, claim string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)}}
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
	}}}
	return p
}

func (w *waitingPods) decideAll() {
	for w.decide() {
	}
}

func (w *waitingPods) claimEvent() {
	w.views.Claims.Set(w.claims[0])
	w.decideAll()
}

// TestAClaimConcernsItsOwnPods: its event makes no more work when many others wait.
func TestAClaimConcernsItsOwnPods(t *testing.T) {
	for _, c := range claimsThatWait {
		w := newWaitingPods(t, 200, c.provisioner, c.mode)
		if got := testing.AllocsPerRun(5, w.claimEvent); got > 50 {
			t.Errorf("%s: %v allocations for one claim", c.name, got)
		}
	}
}

// TestAPodInPlaceConcernsThoseThatShareItsClaim: who waits for a claim that is for
// one Pod at a time is told who has it, also of a Pod that was bound by hand, and
// tries again when that one ends.
func TestAPodInPlaceConcernsThoseThatShareItsClaim(t *testing.T) {
	w := newWaitingPods(t, 2, v1alpha1.LocalProvisioner, corev1.ReadWriteOncePod)
	told := func(want string) {
		t.Helper()
		w.decideAll()
		if got := w.refused[types.NamespacedName{Namespace: "default", Name: "p0"}].message; got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	told("0/0 nodes fit: the cluster has no node yet")
	holder := claimPod("holder", "c0")
	holder.Spec.NodeName = "n1"
	w.views.Pods.Set(holder)
	told(`persistentvolumeclaim "c0" is ReadWriteOncePod, and pod holder has it`)
	w.views.Pods.Gone(holder)
	told("0/0 nodes fit: the cluster has no node yet")
}

// TestAPodThatGoesWhileItIsTakenUpAgain: it waits for nothing, however the two meet.
func TestAPodThatGoesWhileItIsTakenUpAgain(t *testing.T) {
	w := newWaitingPods(t, 0, v1alpha1.LocalProvisioner, corev1.ReadWriteOnce)
	p := claimPod("p", "c")
	p.Spec.Volumes = nil
	for i := range 20_000 {
		w.views.Pods.Set(p)
		var g errgroup.Group
		for range 8 {
			g.Go(func() error { return w.bind(t.Context(), client.Key(p)) })
		}
		for range i % 8 {
			runtime.Gosched()
		}
		w.views.Pods.Gone(p)
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if n := w.queue.Len(); n > 0 {
			t.Fatalf("after %d times %d pods wait", i+1, n)
		}
	}
}
