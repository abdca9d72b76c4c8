package controllers

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/strategy"
)

// rolloutWorld is a stage with one Deployment "web" and its ReplicaSets.
type rolloutWorld struct {
	*stage
	deployments *deployments
	sets        *replicaSets
}

func newRolloutWorld(t *testing.T, spec appsv1.DeploymentSpec) *rolloutWorld {
	t.Helper()
	w := &rolloutWorld{stage: newStage(t)}
	w.stage.step = w.step
	labels := map[string]string{"app": "web"}
	spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	spec.Template = corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "v1"}}}}
	if err := w.r.Create(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: spec}); err != nil {
		t.Fatal(err)
	}
	w.restart()
	t.Cleanup(func() { w.kill() })
	w.converge()
	return w
}

func (w *rolloutWorld) kill() {
	if w.sets != nil {
		w.sets.loop.queue.ShutDown()
		w.deployments.loop.queue.ShutDown()
	}
}

func (w *rolloutWorld) restart() {
	w.kill()
	c := w.begin()
	w.deployments, w.sets = newDeployments(c), newReplicaSets(c)
	w.see(nil)
}

func (w *rolloutWorld) get() *appsv1.Deployment {
	w.Helper()
	var d appsv1.Deployment
	if err := w.r.Get(w.Context(), types.NamespacedName{Namespace: "default", Name: "web"}, &d); err != nil {
		w.Fatal(err)
	}
	return &d
}

func (w *rolloutWorld) edit(change func(*appsv1.DeploymentSpec)) {
	w.Helper()
	d := w.get()
	change(&d.Spec)
	if err := w.r.Update(w.Context(), d); err != nil {
		w.Fatal(err)
	}
}

// step takes one step of each controller, on what the views show.
func (w *rolloutWorld) step() {
	w.Helper()
	w.allowed(w.deployments.reconcile(w.Context(), types.NamespacedName{Namespace: "default", Name: "web"}))
	for _, rs := range w.views.ReplicaSets.All() {
		w.allowed(w.sets.reconcile(w.Context(), client.Key(rs)))
	}
}

// converge lets nodes do their work, images that begin with "bad" apart.
func (w *rolloutWorld) converge() {
	w.Helper()
	for range 100 {
		before := w.picture()
		for _, p := range w.pods() {
			w.serve(p)
		}
		w.settle()
		if w.picture() == before {
			return
		}
	}
	w.Fatalf("it does not converge: %+v", w.get().Status)
}

// serve is a node that does the next thing for a Pod.
func (w *rolloutWorld) serve(p *corev1.Pod) {
	switch {
	case p.DeletionTimestamp != nil:
		w.stopped(p)
	case !podReady(p) && !podFinished(p) && !strings.HasPrefix(p.Spec.Containers[0].Image, "bad"):
		w.run(p)
	}
}

// available counts the Pods that serve, as the store has them.
func (w *rolloutWorld) available() (available, active int) {
	w.Helper()
	for _, p := range w.pods() {
		active += btoi(podActive(p))
		available += btoi(podActive(p) && podReady(p))
	}
	return available, active
}

// TestRandomDeployments: whatever happens to the Pods, whenever the engine is
// killed and however old its views are, a rollout takes no more Pods that serve
// than maxUnavailable allows, makes no more than maxSurge allows, and reaches the
// newest template in the end.
func TestRandomDeployments(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 10
	}
	for seed := range uint64(rounds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			d := dice{rand.New(rand.NewPCG(seed, 5))}
			want := int32(1 + d.IntN(6))
			spec := appsv1.DeploymentSpec{Replicas: &want}
			surge, unavailable := intstr.FromInt32(int32(1+d.IntN(3))), intstr.FromInt32(int32(d.IntN(2)))
			spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable}
			w := newRolloutWorld(t, spec)
			version := 1
			for range 200 {
				switch d.IntN(10) {
				case 0:
					if d.oneIn(4) {
						version++
						image := fmt.Sprintf([]string{"v%d", "v%d", "bad%d"}[d.IntN(3)], version)
						w.edit(func(s *appsv1.DeploymentSpec) { s.Template.Spec.Containers[0].Image = image })
					}
				case 1, 2, 3, 4, 5:
					if pods := w.pods(); len(pods) > 0 {
						p := pods[d.IntN(len(pods))]
						if d.oneIn(20) && podActive(p) {
							w.delete(p)
						} else if d.oneIn(20) && podActive(p) {
							w.exit(p, 1)
						} else {
							w.serve(p)
						}
					}
				case 6, 7:
					w.see(func() bool { return d.oneIn(2) })
				case 8:
					if d.oneIn(6) {
						w.restart()
					}
				case 9:
					w.clock.Step(time.Duration(d.IntN(10)) * time.Second)
				}
				w.judge()
			}
			version++
			image := fmt.Sprintf("v%d", version)
			w.edit(func(s *appsv1.DeploymentSpec) { s.Template.Spec.Containers[0].Image = image })
			w.converge()
			available, active := w.available()
			for _, p := range w.pods() {
				if p.Spec.Containers[0].Image != image && podActive(p) {
					t.Errorf("pod %s still runs %s", p.Name, p.Spec.Containers[0].Image)
				}
			}
			if s := w.get().Status; available != int(want) || active != int(want) || s.AvailableReplicas != want || s.UpdatedReplicas != want {
				t.Errorf("%d of %d Pods serve, want %d: %+v", available, active, want, s)
			}
		})
	}
}

// judge takes a step of each controller. The Deployment's may shrink what serves,
// as the view of the ReplicaSets shows it, only while enough is left, and grow
// what there is to no more than there may be. A ReplicaSet's takes Pods that serve
// only when none is left that does not.
func (w *rolloutWorld) judge() {
	w.Helper()
	d, ok := w.views.Deployments.Get(types.NamespacedName{Namespace: "default", Name: "web"})
	if !ok {
		return
	}
	surge, unavailable := strategy.Limits(d)
	want := *d.Spec.Replicas
	seen := w.views.ReplicaSets.OwnedBy(d.UID)
	before := w.sizes()
	w.allowed(w.deployments.reconcile(w.Context(), client.Key(d)))
	after := w.sizes()
	var available, left, total, was int32
	for _, rs := range seen {
		available += min(rs.Status.AvailableReplicas, before[rs.UID])
		left += min(rs.Status.AvailableReplicas, before[rs.UID], after[rs.UID])
	}
	for uid := range after {
		total, was = total+after[uid], was+before[uid]
	}
	if left < available && left < want-unavailable {
		w.Fatalf("the Deployment left %d of %d that serve; of %d at most %d may be missing", left, available, want, unavailable)
	}
	if total > was && total > want+surge {
		w.Fatalf("the Deployment grew from %d to %d; of %d at most %d more may be there", was, total, want, surge)
	}
	for _, rs := range w.views.ReplicaSets.All() {
		w.judgeSet(rs)
	}
}

// sizes are the replicas that the ReplicaSets are to have, as the store has them.
func (w *rolloutWorld) sizes() map[types.UID]int32 {
	w.Helper()
	var list appsv1.ReplicaSetList
	if err := w.r.List(w.Context(), &list, client.ListOptions{Namespace: "default"}); err != nil {
		w.Fatal(err)
	}
	out := map[types.UID]int32{}
	for _, rs := range list.Items {
		out[rs.UID] = *rs.Spec.Replicas
	}
	return out
}

func (w *rolloutWorld) judgeSet(rs *appsv1.ReplicaSet) {
	w.Helper()
	present := func() map[types.UID]bool {
		out := map[types.UID]bool{}
		for _, p := range w.pods() {
			out[p.UID] = podActive(p) && controls(rs, p)
		}
		return out
	}
	seen := w.views.Pods.OwnedBy(rs.UID)
	before := present()
	w.allowed(w.sets.reconcile(w.Context(), client.Key(rs)))
	after := present()
	active, spared, taken := 0, 0, 0
	for _, p := range seen {
		switch {
		case !podActive(p):
		case after[p.UID]:
			active++
			spared += btoi(!podReady(p))
		case before[p.UID]:
			taken += btoi(podReady(p))
		}
	}
	if taken > 0 && spared > 0 {
		w.Fatalf("the ReplicaSet took %d pods that serve and spared %d that do not", taken, spared)
	}
	made := 0
	for uid, there := range after {
		_, old := before[uid]
		made += btoi(there && !old)
	}
	if made > 0 && active+made > int(*rs.Spec.Replicas) {
		w.Fatalf("the ReplicaSet made %d pods beside %d, and is to have %d", made, active, *rs.Spec.Replicas)
	}
}
