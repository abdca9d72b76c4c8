package controllers

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"berth.dev/berth/api/client"
)

// setWorld is a stage with one StatefulSet "db".
type setWorld struct {
	*stage
	sets *statefulSets
}

func newSetWorld(t *testing.T, replicas int32, edit func(*appsv1.StatefulSetSpec)) *setWorld {
	t.Helper()
	w := &setWorld{stage: newStage(t)}
	w.stage.step = w.step
	labels := map[string]string{"app": "db"}
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db"}}
	set.Spec = appsv1.StatefulSetSpec{Replicas: &replicas, ServiceName: "db", Selector: &metav1.LabelSelector{MatchLabels: labels}}
	set.Spec.Template = corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "v1"}}}}
	edit(&set.Spec)
	if err := w.r.Create(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	w.restart()
	t.Cleanup(func() { w.sets.loop.queue.ShutDown() })
	w.settle()
	return w
}

func (w *setWorld) restart() {
	if w.sets != nil {
		w.sets.loop.queue.ShutDown()
	}
	w.sets = newStatefulSets(w.begin())
	w.see(nil)
}

func (w *setWorld) key() types.NamespacedName {
	return types.NamespacedName{Namespace: "default", Name: "db"}
}

func (w *setWorld) get() *appsv1.StatefulSet {
	w.Helper()
	var s appsv1.StatefulSet
	if err := w.r.Get(w.Context(), w.key(), &s); err != nil {
		w.Fatal(err)
	}
	return &s
}

func (w *setWorld) change(edit func(*appsv1.StatefulSetSpec)) {
	w.Helper()
	s := w.get()
	edit(&s.Spec)
	if err := w.r.Update(w.Context(), s); err != nil {
		w.Fatal(err)
	}
	w.settle()
}

func (w *setWorld) image(image string) {
	w.Helper()
	w.change(func(s *appsv1.StatefulSetSpec) { s.Template.Spec.Containers[0].Image = image })
}

func (w *setWorld) scale(n int32) {
	w.Helper()
	w.change(func(s *appsv1.StatefulSetSpec) { s.Replicas = &n })
}

func (w *setWorld) step() {
	w.Helper()
	w.allowed(w.sets.reconcile(w.Context(), w.key()))
}

// line is the Pods as "0:v1 1:v2! 2:v1-": ! is not ready, - is being deleted.
func (w *setWorld) line() string {
	w.Helper()
	var out []string
	for _, p := range w.pods() {
		mark := ""
		if !podReady(p) {
			mark = "!"
		}
		if p.DeletionTimestamp != nil {
			mark = "-"
		}
		out = append(out, strings.TrimPrefix(p.Name, "db-")+":"+p.Spec.Containers[0].Image+mark)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (w *setWorld) pod(n int) *corev1.Pod {
	w.Helper()
	var p corev1.Pod
	if err := w.r.Get(w.Context(), types.NamespacedName{Namespace: "default", Name: fmt.Sprintf("db-%d", n)}, &p); err != nil {
		w.Fatal(err)
	}
	return &p
}

// start makes a Pod ready.
func (w *setWorld) start(n int) {
	w.Helper()
	w.run(w.pod(n))
	w.settle()
}

// unready makes a Pod run and not be ready.
func (w *setWorld) unready(n int) {
	w.Helper()
	p := w.pod(n)
	w.report(p, corev1.PodRunning, corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, 0)
	p = w.pod(n)
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == corev1.PodReady {
			p.Status.Conditions[i].Status = corev1.ConditionFalse
		}
	}
	if err := w.r.UpdateStatus(w.Context(), p); err != nil {
		w.Fatal(err)
	}
	w.settle()
}

// converge lets nodes do their work, images that begin with "bad" apart.
func (w *setWorld) converge() {
	w.Helper()
	for range 60 {
		before := w.picture()
		for _, p := range w.pods() {
			switch {
			case p.DeletionTimestamp != nil:
				w.stopped(p)
			case !podReady(p) && !podFinished(p) && !strings.HasPrefix(p.Spec.Containers[0].Image, "bad"):
				w.run(p)
			}
		}
		w.settle()
		if w.picture() == before {
			return
		}
	}
	w.Fatalf("it does not converge: %s", w.line())
}

func (w *setWorld) expect(want string) {
	w.Helper()
	if got := w.line(); got != want {
		w.Errorf("got  %q\nwant %q\nstatus %+v", got, want, w.get().Status)
	}
}

func parallel(s *appsv1.StatefulSetSpec) { s.PodManagementPolicy = appsv1.ParallelPodManagement }
func plainSet(*appsv1.StatefulSetSpec)   {}
func partition(n int32) func(*appsv1.StatefulSetSpec) {
	return func(s *appsv1.StatefulSetSpec) {
		s.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: &n}
	}
}

func TestOrderedReady(t *testing.T) {
	w := newSetWorld(t, 3, plainSet)
	w.expect("0:v1!")
	w.start(0)
	w.expect("0:v1 1:v1!")
	w.start(1)
	w.start(2)
	w.expect("0:v1 1:v1 2:v1")
	w.scale(1)
	w.expect("0:v1 1:v1 2:v1-")
	w.stopped(w.pod(2))
	w.settle()
	w.expect("0:v1 1:v1-")
	w.stopped(w.pod(1))
	w.settle()
	w.expect("0:v1")
}

func TestParallel(t *testing.T) {
	w := newSetWorld(t, 3, parallel)
	w.expect("0:v1! 1:v1! 2:v1!")
	w.converge()
	w.scale(0)
	w.expect("0:v1- 1:v1- 2:v1-")
}

func TestIdentityOfAPod(t *testing.T) {
	w := newSetWorld(t, 1, func(s *appsv1.StatefulSetSpec) { s.Ordinals = &appsv1.StatefulSetOrdinals{Start: 7} })
	p := w.pod(7)
	if p.Spec.Hostname != "db-7" || p.Spec.Subdomain != "db" || p.Labels[appsv1.StatefulSetPodNameLabel] != "db-7" || p.Labels[appsv1.PodIndexLabel] != "7" {
		t.Errorf("%+v %v", p.Spec, p.Labels)
	}
	if p.Labels[appsv1.StatefulSetRevisionLabel] != w.get().Status.UpdateRevision || w.get().Status.UpdateRevision == "" {
		t.Errorf("revision %q, status %+v", p.Labels[appsv1.StatefulSetRevisionLabel], w.get().Status)
	}
}

func TestScalingDownWaitsForThoseThatStay(t *testing.T) {
	w := newSetWorld(t, 3, plainSet)
	w.converge()
	w.unready(0)
	w.scale(2)
	w.expect("0:v1! 1:v1 2:v1")
	w.start(0)
	w.expect("0:v1 1:v1 2:v1-")
	w.unready(0)
	w.scale(0)
	w.converge()
	w.expect("")
}

func TestUpdateGoesDownOneByOne(t *testing.T) {
	w := newSetWorld(t, 3, plainSet)
	w.converge()
	w.image("v2")
	w.expect("0:v1 1:v1 2:v1-")
	w.stopped(w.pod(2))
	w.settle()
	w.expect("0:v1 1:v1 2:v2!")
	w.start(2)
	w.expect("0:v1 1:v1- 2:v2")
	if s := w.get().Status; s.CurrentRevision == s.UpdateRevision || s.UpdatedReplicas != 1 || s.CurrentReplicas != 1 {
		t.Errorf("status in the middle %+v", s)
	}
	w.converge()
	w.expect("0:v2 1:v2 2:v2")
	if s := w.get().Status; s.CurrentRevision != s.UpdateRevision || s.UpdatedReplicas != 3 || s.CurrentReplicas != 3 || s.AvailableReplicas != 3 {
		t.Errorf("status at the end %+v", s)
	}
}

func TestAPodThatIsLostWhileTheUpdateIsUnprovenKeepsItsRevision(t *testing.T) {
	w := newSetWorld(t, 3, plainSet)
	w.converge()
	w.image("v2")
	w.stopped(w.pod(2))
	w.settle()
	w.delete(w.pod(0))
	w.stopped(w.pod(0))
	w.settle()
	w.expect("0:v1! 1:v1 2:v2!")
	w.converge()
	w.expect("0:v2 1:v2 2:v2")
}

func TestPartition(t *testing.T) {
	w := newSetWorld(t, 4, partition(2))
	w.converge()
	w.image("v2")
	w.converge()
	w.expect("0:v1 1:v1 2:v2 3:v2")
	w.delete(w.pod(0))
	w.converge()
	w.expect("0:v1 1:v1 2:v2 3:v2")
	w.change(partition(0))
	w.converge()
	w.expect("0:v2 1:v2 2:v2 3:v2")
}

func TestMaxUnavailable(t *testing.T) {
	w := newSetWorld(t, 4, func(s *appsv1.StatefulSetSpec) {
		two := intstr.FromInt32(2)
		s.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{MaxUnavailable: &two}
		parallel(s)
	})
	w.converge()
	w.image("v2")
	w.expect("0:v1 1:v1 2:v1- 3:v1-")
	w.converge()
	w.expect("0:v2 1:v2 2:v2 3:v2")
}

func TestOnDelete(t *testing.T) {
	w := newSetWorld(t, 2, func(s *appsv1.StatefulSetSpec) { s.UpdateStrategy.Type = appsv1.OnDeleteStatefulSetStrategyType })
	w.converge()
	w.image("v2")
	w.converge()
	w.expect("0:v1 1:v1")
	w.delete(w.pod(0))
	w.converge()
	w.expect("0:v2 1:v1")
}

func TestABrokenUpdateStopsAtTheFirstPodAndItsFixRecovers(t *testing.T) {
	for name, policy := range map[string]func(*appsv1.StatefulSetSpec){"in order": plainSet, "parallel": parallel} {
		t.Run(name, func(t *testing.T) {
			w := newSetWorld(t, 3, policy)
			w.converge()
			w.image("bad")
			w.converge()
			w.expect("0:v1 1:v1 2:bad!")
			w.image("bad2")
			w.converge()
			w.expect("0:v1 1:v1 2:bad2!")
			w.image("v3")
			w.converge()
			w.expect("0:v3 1:v3 2:v3")
		})
	}
	t.Run("back to what it was", func(t *testing.T) {
		w := newSetWorld(t, 3, plainSet)
		w.converge()
		first := w.get().Status.UpdateRevision
		w.image("bad")
		w.converge()
		w.image("v1")
		w.converge()
		w.expect("0:v1 1:v1 2:v1")
		if s := w.get().Status; s.UpdateRevision != first || s.CurrentRevision != first {
			t.Errorf("status %+v, want revision %s", s, first)
		}
	})
	t.Run("that was so from the start", func(t *testing.T) {
		w := newSetWorld(t, 3, func(s *appsv1.StatefulSetSpec) { s.Template.Spec.Containers[0].Image = "bad" })
		w.converge()
		w.expect("0:bad!")
		w.image("v2")
		w.converge()
		w.expect("0:v2 1:v2 2:v2")
	})
}

func TestAnUnreadyPodOfTheOldRevisionIsNotGivenToABrokenUpdate(t *testing.T) {
	w := newSetWorld(t, 3, plainSet)
	w.converge()
	w.image("bad")
	w.converge()
	w.unready(0)
	w.expect("0:v1! 1:v1 2:bad!")
}

func TestAPodThatHasFailedIsMadeAnew(t *testing.T) {
	w := newSetWorld(t, 2, plainSet)
	w.converge()
	was := w.pod(1).UID
	w.exit(w.pod(1), 1)
	w.settle()
	w.converge()
	w.expect("0:v1 1:v1")
	if w.pod(1).UID == was {
		t.Error("the pod is the same")
	}
}

func TestAPodOnACutOffNodeKeepsItsOrdinal(t *testing.T) {
	w := newSetWorld(t, 2, plainSet)
	w.converge()
	w.delete(w.pod(1)) // evicted, and the node says nothing
	w.after(time.Hour)
	w.expect("0:v1 1:v1-")
}

func TestMinReadySecondsOfASet(t *testing.T) {
	w := newSetWorld(t, 2, func(s *appsv1.StatefulSetSpec) { s.MinReadySeconds = 10 })
	w.start(0)
	w.after(9 * time.Second)
	w.expect("0:v1")
	w.after(time.Second)
	w.expect("0:v1 1:v1!")
}

func TestRevisionHistory(t *testing.T) {
	w := newSetWorld(t, 1, func(s *appsv1.StatefulSetSpec) { s.RevisionHistoryLimit = new(int32(2)) })
	for i := range 6 {
		w.image(fmt.Sprintf("v%d", i))
		w.converge()
	}
	var list appsv1.ControllerRevisionList
	if err := w.r.List(t.Context(), &list, client.ListOptions{Namespace: "default"}); err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 3 {
		t.Errorf("%d revisions, want the present one and 2", len(list.Items))
	}
}

func claimed(when, scaled appsv1.PersistentVolumeClaimRetentionPolicyType) func(*appsv1.StatefulSetSpec) {
	return func(s *appsv1.StatefulSetSpec) {
		s.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{
			ObjectMeta: metav1.ObjectMeta{Name: "data"},
			Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			},
		}}
		s.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenDeleted: when, WhenScaled: scaled}
	}
}

// claims are the claims with the kinds of their owners.
func (w *setWorld) claims() string {
	w.Helper()
	var list corev1.PersistentVolumeClaimList
	if err := w.r.List(w.Context(), &list, client.ListOptions{Namespace: "default"}); err != nil {
		w.Fatal(err)
	}
	var out []string
	for _, c := range list.Items {
		text := c.Name
		for _, o := range c.OwnerReferences {
			text += ":" + o.Kind
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

func TestClaimsOfASet(t *testing.T) {
	const keep, drop = appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	for _, c := range []struct {
		when, scaled     appsv1.PersistentVolumeClaimRetentionPolicyType
		want, scaledDown string
	}{
		{keep, keep, "data-db-0 data-db-1", "data-db-0 data-db-1"},
		{drop, keep, "data-db-0:StatefulSet data-db-1:StatefulSet", "data-db-0:StatefulSet data-db-1:StatefulSet"},
		{keep, drop, "data-db-0 data-db-1", "data-db-0 data-db-1:Pod"},
		{drop, drop, "data-db-0:StatefulSet data-db-1:StatefulSet", "data-db-0:StatefulSet data-db-1:Pod"},
	} {
		t.Run(fmt.Sprint(c.when, c.scaled), func(t *testing.T) {
			w := newSetWorld(t, 2, claimed(c.when, c.scaled))
			w.converge()
			if got := w.claims(); got != c.want {
				t.Errorf("claims %s, want %s", got, c.want)
			}
			p := w.pod(1)
			if i := slices.IndexFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == "data" }); i < 0 || p.Spec.Volumes[i].PersistentVolumeClaim.ClaimName != "data-db-1" {
				t.Errorf("volumes %+v", p.Spec.Volumes)
			}
			w.scale(1)
			if got := w.claims(); got != c.scaledDown {
				t.Errorf("claims when scaled down %s, want %s", got, c.scaledDown)
			}
			w.scale(2) // before the Pod is gone: its claim stays
			if got := w.claims(); got != c.want {
				t.Errorf("claims when scaled up again %s, want %s", got, c.want)
			}
		})
	}
}

// TestTheClaimOfAPodThatIsGoingAlreadyIsReleased when its set is scaled down.
func TestTheClaimOfAPodThatIsGoingAlreadyIsReleased(t *testing.T) {
	w := newSetWorld(t, 2, claimed(appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType))
	w.converge()
	if err := w.r.Delete(t.Context(), w.pod(1), client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.scale(1)
	w.expect("0:v1 1:v1-")
	if got, want := w.claims(), "data-db-0 data-db-1:Pod"; got != want {
		t.Errorf("claims %s, want %s", got, want)
	}
}

// TestAForeignPodTakesOneName: the others are made, and it is said why one is not.
func TestAForeignPodTakesOneName(t *testing.T) {
	w := newSetWorld(t, 0, parallel)
	if err := w.r.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db-0"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "foreign"}}},
	}); err != nil {
		t.Fatal(err)
	}
	w.see(nil)
	three := int32(3)
	set := w.get()
	set.Spec.Replicas = &three
	if err := w.r.Update(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.see(nil)
		err := w.sets.reconcile(t.Context(), w.key())
		if err == nil || !strings.Contains(err.Error(), "create pod db-0: a pod of that name exists") {
			t.Fatalf("%v", err)
		}
	}
	w.expect("0:foreign! 1:v1! 2:v1!")
	if s := w.get().Status; s.Replicas != 2 || s.ObservedGeneration != w.get().Generation {
		t.Errorf("status %+v", s)
	}
	var events corev1.EventList
	if err := w.r.List(t.Context(), &events, client.ListOptions{Namespace: "default"}); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(events.Items, func(e corev1.Event) bool {
		return e.Reason == "FailedCreate" && strings.Contains(e.Message, "create Pod db-0")
	}) {
		t.Errorf("no event names it: %d events", len(events.Items))
	}
}

// witness checks what must hold at any time.
func (w *setWorld) witness() {
	w.Helper()
	set := w.get()
	seen := map[string]bool{}
	unproven := map[string]int{}
	for _, p := range w.pods() {
		if seen[p.Name] {
			w.Fatalf("two pods %s", p.Name)
		}
		seen[p.Name] = true
		image := p.Spec.Containers[0].Image
		if strings.HasPrefix(image, "bad") && p.DeletionTimestamp == nil {
			unproven[image]++
		}
	}
	for image, n := range unproven {
		if n > 1 && set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement {
			w.Fatalf("%d pods have the broken %s: %s", n, image, w.line())
		}
	}
}

// TestRandomStatefulSets: whatever happens to the Pods, whenever the engine is
// killed and however old its views are, an ordinal never has two Pods, a broken
// revision takes one Pod at the most, an update takes no more than one of those
// that serve, and a working revision is reached in the end.
func TestRandomStatefulSets(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	for seed := range uint64(rounds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			d := dice{rand.New(rand.NewPCG(seed, 3))}
			policy := plainSet
			if d.oneIn(3) {
				policy = parallel
			}
			w := newSetWorld(t, int32(1+d.IntN(4)), policy)
			w.converge()
			version := 1
			edit := func(f func(*appsv1.StatefulSetSpec)) {
				s := w.get()
				f(&s.Spec)
				if err := w.r.Update(t.Context(), s); err != nil {
					t.Fatal(err)
				}
			}
			for range 250 {
				switch d.IntN(9) {
				case 0:
					if d.oneIn(4) {
						version++
						image := fmt.Sprintf("v%d", version)
						if d.oneIn(2) {
							image = fmt.Sprintf("bad%d", version)
						}
						edit(func(s *appsv1.StatefulSetSpec) { s.Template.Spec.Containers[0].Image = image })
					}
				case 1:
					if d.oneIn(6) {
						n := int32(d.IntN(5))
						edit(func(s *appsv1.StatefulSetSpec) { s.Replicas = &n })
					}
				case 2, 3, 4:
					if pods := w.pods(); len(pods) > 0 {
						p := pods[d.IntN(len(pods))]
						switch {
						case p.DeletionTimestamp != nil:
							w.stopped(p)
						case podFinished(p):
						case d.oneIn(12):
							w.delete(p)
						case d.oneIn(12):
							w.exit(p, 1)
						case !strings.HasPrefix(p.Spec.Containers[0].Image, "bad"):
							w.run(p)
						}
					}
				case 5, 6:
					w.see(func() bool { return d.oneIn(2) })
				case 7:
					if d.oneIn(6) {
						w.restart()
					}
				}
				w.stepAndJudge()
				w.witness()
			}
			version++
			edit(func(s *appsv1.StatefulSetSpec) {
				s.Template.Spec.Containers[0].Image, s.Replicas = fmt.Sprintf("v%d", version), new(int32(3))
			})
			w.converge()
			image := fmt.Sprintf("v%d", version)
			w.expect(fmt.Sprintf("0:%s 1:%s 2:%s", image, image, image))
		})
	}
}

// stepAndJudge takes a step, which may take one of the Pods that the view shows
// to be wanted and to serve, and only if all that are wanted do.
func (w *setWorld) stepAndJudge() {
	w.Helper()
	set, ok := w.views.StatefulSets.Get(w.key())
	if !ok {
		w.step()
		return
	}
	serving := map[types.UID]bool{}
	for _, p := range w.views.Pods.All() {
		if podReady(p) && podActive(p) && ordinalOf(set, p.Name) < int(*set.Spec.Replicas) {
			serving[p.UID] = true
		}
	}
	going := func() (n int) {
		present := map[types.UID]bool{}
		for _, p := range w.pods() {
			present[p.UID] = podActive(p)
		}
		for uid := range serving {
			n += btoi(!present[uid])
		}
		return n
	}
	before := going()
	w.step()
	if taken := going() - before; taken > 1 || taken == 1 && len(serving) < int(*set.Spec.Replicas) {
		w.Fatalf("a step took %d of %d serving pods of %d: %s", taken, len(serving), *set.Spec.Replicas, w.line())
	}
}
