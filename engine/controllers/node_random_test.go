package controllers

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/enginetest"
)

// silentWorld is a stage of nodes whose agents live and die, with a witness that
// knows when each was heard of.
type silentWorld struct {
	*nodeWorld
	dice    dice
	dead    map[string]bool
	created int
	// begun is since when the present process has looked without a break, and looked
	// is when it last did.
	begun, looked time.Time
	// beats are when versions of leases were written; taints are since when taints
	// that drive Pods away have been in the view, by node.
	beats  map[string]time.Time
	taints map[string]map[string]time.Time
	// away are nodes that the view does not show, since when.
	away map[string]time.Time
	// leases are the versions that the view shows, and since when; came is since when
	// it shows a node.
	leases map[string]seenLease
	came   map[string]time.Time
	// frozen is until when a view shows nothing new, by its place in see.
	frozen [3]time.Time
	// most: more than half of the nodes were silent at the last look.
	most bool
	// driven is when a node was last told to be emptied.
	driven time.Time
}

type seenLease struct {
	version string
	at      time.Time
}

func newSilentWorld(t *testing.T, seed uint64) *silentWorld {
	w := &silentWorld{dice: dice{rand.New(rand.NewPCG(seed, 11))}, dead: map[string]bool{},
		beats: map[string]time.Time{}, taints: map[string]map[string]time.Time{}, away: map[string]time.Time{}, leases: map[string]seenLease{}, came: map[string]time.Time{}}
	w.nodeWorld = newNodeWorld(t, 5)
	w.anew()
	w.watch() // it has looked
	return w
}

// anew is a process that begins, or a clock that has jumped.
func (w *silentWorld) anew() {
	w.begun, w.looked, w.driven = w.clock.Now(), w.clock.Now(), time.Time{}
	clear(w.beats)
	clear(w.taints)
	clear(w.away)
	clear(w.leases)
	clear(w.came)
	w.frozen = [3]time.Time{}
}

// see brings the views that are looked at up to the store, or those that skip leaves.
func (w *silentWorld) see(skip func() bool) {
	w.Helper()
	for i, show := range []func(){
		func() { look(w.stage, w.views.Nodes, &corev1.NodeList{}) },
		func() { look(w.stage, w.views.Leases, &coordinationv1.LeaseList{}) },
		func() { look(w.stage, w.views.Pods, &corev1.PodList{}) },
	} {
		switch {
		case skip == nil:
			show()
		case w.clock.Now().Before(w.frozen[i]):
		case w.dice.oneIn(60): // a watch that has broken off, and nobody knows yet
			w.frozen[i] = w.clock.Now().Add(time.Duration(w.dice.IntN(90)) * time.Second)
		case !skip():
			show()
		}
	}
}

// heard is when the lease of a node that the view shows was written, or since when
// there is anybody to hear of.
func (w *silentWorld) heard(name string) time.Time {
	at := w.begun
	if lease, ok := w.views.Leases.Get(types.NamespacedName{Namespace: corev1.NamespaceNodeLease, Name: name}); ok {
		at = slices.MaxFunc([]time.Time{at, w.beats[lease.ResourceVersion], w.came[name]}, time.Time.Compare)
	}
	return at
}

// exists is a node as the store has it, or nil.
func (w *silentWorld) exists(name string) *corev1.Node {
	w.Helper()
	var n corev1.Node
	err := w.r.Get(w.Context(), types.NamespacedName{Name: name}, &n)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		w.Fatal(err)
	}
	return &n
}

// pass lets a little time go by, in which agents that live report.
func (w *silentWorld) pass(d time.Duration) {
	w.Helper()
	w.clock.Step(d)
	for _, name := range w.names {
		if w.dead[name] || w.exists(name) == nil || w.dice.oneIn(8) {
			continue
		}
		w.beat(name)
		var lease coordinationv1.Lease
		if err := w.r.Get(w.Context(), types.NamespacedName{Namespace: corev1.NamespaceNodeLease, Name: name}, &lease); err != nil {
			w.Fatal(err)
		}
		w.beats[lease.ResourceVersion] = w.clock.Now()
	}
}

func taintName(t corev1.Taint) string {
	return fmt.Sprint(t.Key, "=", t.Value, ":", t.Effect, " ", t.TimeAdded)
}

// tolerates is for how long a Pod tolerates a taint: negative for ever
// (https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/).
func tolerates(p *corev1.Pod, taint corev1.Taint) time.Duration {
	for _, t := range p.Spec.Tolerations {
		if (t.Key == taint.Key || t.Key == "") && (t.Effect == "" || t.Effect == taint.Effect) && (t.Operator == corev1.TolerationOpExists || t.Value == taint.Value) {
			if t.TolerationSeconds == nil {
				return -1
			}
			return time.Duration(*t.TolerationSeconds) * time.Second
		}
	}
	return 0
}

// watch notes what the view shows at this time.
func (w *silentWorld) watch() {
	now := w.clock.Now()
	if now.Sub(w.looked) > 4*nodePeriod {
		w.anew()
	}
	w.looked = now
	for _, name := range w.names {
		lease, ok := w.views.Leases.Get(types.NamespacedName{Namespace: corev1.NamespaceNodeLease, Name: name})
		if _, there := w.views.Nodes.Get(types.NamespacedName{Name: name}); !there {
			delete(w.leases, name)
		} else if ok && lease.ResourceVersion != w.leases[name].version {
			w.leases[name] = seenLease{lease.ResourceVersion, now}
		}
	}
	silent := 0
	for _, lease := range w.leases {
		silent += btoi(now.Sub(lease.at) > DefaultNodeGrace)
	}
	w.most = silent*2 > len(w.views.Nodes.All())
	for _, name := range w.names {
		node, ok := w.views.Nodes.Get(types.NamespacedName{Name: name})
		if !ok {
			if w.away[name].IsZero() {
				w.away[name] = now
			}
			delete(w.taints, name)
			delete(w.came, name)
			continue
		}
		if w.came[name].IsZero() {
			w.came[name] = now
		}
		delete(w.away, name)
		since := map[string]time.Time{}
		for _, t := range node.Spec.Taints {
			if t.Effect == corev1.TaintEffectNoExecute && !(w.most && strings.HasPrefix(t.Key, "node.kubernetes.io/")) {
				since[taintName(t)] = now
				if was, ok := w.taints[name][taintName(t)]; ok {
					since[taintName(t)] = was
				}
			}
		}
		w.taints[name] = since
	}
}

// mayGo reports whether a Pod may be driven away by what the view shows of its node.
func (w *silentWorld) mayGo(p *corev1.Pod, node *corev1.Node) bool {
	for _, t := range node.Spec.Taints {
		if t.Effect != corev1.TaintEffectNoExecute || w.most && strings.HasPrefix(t.Key, "node.kubernetes.io/") {
			continue
		}
		since, ok := w.taints[node.Name][taintName(t)]
		if !ok {
			since = w.clock.Now() // it was given this moment
		}
		if d := tolerates(p, t); d >= 0 && w.clock.Now().Sub(since) >= d {
			return true
		}
	}
	return false
}

// step takes a look, and checks what it did.
func (w *silentWorld) step() {
	w.Helper()
	w.watch()
	now := w.clock.Now()
	pods, nodes := w.pods(), map[string]*corev1.Node{}
	for _, n := range w.views.Nodes.All() {
		nodes[n.Name] = w.exists(n.Name)
	}
	w.nodes.look(w.Context())
	for name, before := range nodes {
		after := w.exists(name)
		if before == nil || after == nil {
			continue
		}
		if is, was := after.Status.Conditions[0].Status, before.Status.Conditions[0].Status; is != was {
			if is != corev1.ConditionUnknown || now.Sub(w.heard(name)) <= DefaultNodeGrace {
				w.Fatalf("%s went from %s to %s, and was heard of %s ago", name, was, is, now.Sub(w.heard(name)))
			}
		}
		if seen, _ := w.views.Nodes.Get(types.NamespacedName{Name: name}); w.most && evicting(after) && seen.ResourceVersion == before.ResourceVersion {
			w.Fatalf("%s is being emptied while most are silent", name)
		}
		if evicting(after) && !evicting(before) {
			if w.most {
				w.Fatalf("%s is to be emptied while most are silent", name)
			}
			if !w.driven.IsZero() && now.Sub(w.driven) < evictPeriod {
				w.Fatalf("%s is to be emptied %s after another one", name, now.Sub(w.driven))
			}
			w.driven = now
		}
		if got, want := own(after), own(before); got != want {
			w.Fatalf("the taints of %s that people gave it were %s, and are %s", name, want, got)
		}
	}
	w.checkPods(pods, now)
}

// own are the taints of a node that no state of it explains.
func own(n *corev1.Node) string {
	var out []string
	for _, t := range n.Spec.Taints {
		if !strings.HasPrefix(t.Key, "node.kubernetes.io/") {
			out = append(out, t.ToString())
		}
	}
	return fmt.Sprint(out)
}

// checkPods compares Pods with those that were there before a look.
func (w *silentWorld) checkPods(before []*corev1.Pod, now time.Time) {
	w.Helper()
	after := map[types.UID]*corev1.Pod{}
	for _, p := range w.pods() {
		after[p.UID] = p
	}
	for _, was := range before {
		node, inView := w.views.Nodes.Get(types.NamespacedName{Name: was.Spec.NodeName})
		is := after[was.UID]
		switch {
		case is == nil || is.Status.Reason == "NodeLost" && was.Status.Reason == "":
			if since, ok := w.away[was.Spec.NodeName]; !ok || w.exists(was.Spec.NodeName) != nil || now.Sub(since) < goneFor {
				w.Fatalf("%s was removed, and its node %s has been away since %s", was.Name, was.Spec.NodeName, since)
			}
		case is.DeletionTimestamp != nil && was.DeletionTimestamp == nil:
			if !inView || !w.mayGo(was, node) {
				w.Fatalf("%s was driven away by the taints %+v", was.Name, w.taints[was.Spec.NodeName])
			}
		case inView && podActive(was) && w.shows(was) && w.mayGo(was, node):
			w.Fatalf("%s stays in spite of the taints %+v", was.Name, w.taints[was.Spec.NodeName])
		case podReady(was) && !podReady(is):
			if now.Sub(w.heard(was.Spec.NodeName)) <= DefaultNodeGrace {
				w.Fatalf("%s does not serve any more, and its node was heard of %s ago", was.Name, now.Sub(w.heard(was.Spec.NodeName)))
			}
		}
	}
}

// shows: the view shows a Pod as it is.
func (w *silentWorld) shows(p *corev1.Pod) bool {
	seen, ok := w.views.Pods.Get(client.Key(p))
	return ok && seen.ResourceVersion == p.ResourceVersion
}

// act is something that happens to a node, or that a user does.
func (w *silentWorld) act() {
	w.Helper()
	d := w.dice
	w.created++
	name := one(d, w.names)
	node := w.exists(name)
	switch n := d.IntN(10); {
	case n <= 1:
		w.dead[name] = !w.dead[name]
	case n <= 3:
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("p%d", w.created)}}
		p.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}}
		for _, key := range []string{"mine", corev1.TaintNodeUnreachable, corev1.TaintNodeNotReady} {
			switch d.IntN(4) {
			case 0:
				p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists})
			case 1:
				p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(d.IntN(60)))})
			}
		}
		w.allowed(w.r.Create(w.Context(), p))
		w.allowed(w.r.Bind(w.Context(), client.Key(p), p.UID, name))
		if node != nil {
			w.allowed(w.r.Get(w.Context(), client.Key(p), p))
			w.run(p)
		}
	case n == 4:
		for _, p := range w.pods() {
			if p.DeletionTimestamp != nil && !w.dead[p.Spec.NodeName] {
				w.stopped(p)
			}
		}
	case node == nil:
		enginetest.AddNode(w, w.r, name, "4", "8Gi")
	case n == 5:
		node.Spec.Unschedulable = !node.Spec.Unschedulable
		w.allowed(w.r.Update(w.Context(), node))
	case n <= 7:
		mine := corev1.Taint{Key: "mine", Value: "v", Effect: corev1.TaintEffectNoExecute}
		if i := slices.IndexFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == "mine" }); i >= 0 {
			node.Spec.Taints = slices.Delete(node.Spec.Taints, i, i+1)
		} else {
			node.Spec.Taints = append(node.Spec.Taints, mine)
		}
		w.allowed(w.r.Update(w.Context(), node))
	case n == 8 && d.oneIn(2):
		w.allowed(w.r.Delete(w.Context(), node, client.DeleteOptions{}))
		if d.oneIn(2) { // it comes back, and nobody sees it for a while
			w.see(nil)
			w.step()
			w.frozen[0] = w.clock.Now().Add(90 * time.Second)
			enginetest.AddNode(w, w.r, name, "4", "8Gi")
		}
	case n == 9 && !w.dead[name]: // its runtime does not answer
		node.Status.Conditions[0].Status = corev1.ConditionFalse
		w.allowed(w.r.UpdateStatus(w.Context(), node))
	}
}

// calm lets all agents but some live, and time go by.
func (w *silentWorld) calm(d time.Duration, dead ...string) {
	w.Helper()
	for _, name := range w.names {
		w.dead[name] = slices.Contains(dead, name)
	}
	for ; d > 0; d -= nodePeriod {
		w.pass(nodePeriod)
		for range 2 {
			w.see(nil)
			w.step()
		}
	}
}

// right looks at nodes and Pods once all is quiet.
func (w *silentWorld) right(dead string) {
	w.Helper()
	for _, name := range w.names {
		n := w.exists(name)
		if n == nil {
			continue
		}
		want := []string{"True"}
		if own(n) != "[]" {
			want = append(want, "mine:NoExecute")
		}
		if n.Spec.Unschedulable {
			want = append(want, "unschedulable:NoSchedule")
		}
		if name == dead {
			want[0] = "Unknown"
			want = append(want, "unreachable:NoExecute", "unreachable:NoSchedule")
		}
		slices.Sort(want[1:])
		w.expect(name, w.state(name), strings.Join(want, " "))
	}
	for _, p := range w.pods() {
		n := w.exists(p.Spec.NodeName)
		if n == nil {
			w.Errorf("%s is there, and its node %s is not", p.Name, p.Spec.NodeName)
			continue
		}
		if n.Name == dead && podReady(p) {
			w.Errorf("%s serves on a dead node", p.Name)
		}
		for _, t := range n.Spec.Taints {
			if t.Effect == corev1.TaintEffectNoExecute && tolerates(p, t) >= 0 && p.DeletionTimestamp == nil {
				w.Errorf("%s stays in spite of %s", p.Name, t.ToString())
			}
		}
	}
}

// TestRandomNodes: agents die and come back, clocks jump, the engine stands still
// and is started anew, and views are old: nobody is driven away before their time,
// and nodes and Pods are in the end as they must be.
func TestRandomNodes(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newSilentWorld(t, seed)
			for range 150 {
				switch w.dice.IntN(12) {
				case 0, 1:
					w.act()
				case 2:
					w.act()
					w.see(func() bool { return w.dice.oneIn(2) })
					w.step()
				case 3:
					switch w.dice.IntN(12) {
					case 2, 3: // the network of most breaks, or is mended
						broken := w.dice.oneIn(2)
						for _, name := range w.names {
							w.dead[name] = broken && !w.dice.oneIn(4)
						}
					case 0:
						w.restart()
						w.anew()
					case 1:
						w.clock.SetTime(w.clock.Now().Add(time.Duration(w.dice.IntN(1000)-500) * time.Minute))
						w.anew()
					}
				default:
					w.pass(nodePeriod)
					if !w.dice.oneIn(6) {
						w.see(func() bool { return w.dice.oneIn(3) })
						w.step()
					}
				}
			}
			w.calm(2 * time.Minute)
			w.right("")
			dead := ""
			if n := w.views.Nodes.All(); len(n) > 2 {
				dead = slices.Sorted(func(yield func(string) bool) {
					for _, node := range n {
						if !yield(node.Name) {
							return
						}
					}
				})[0]
				w.calm(8*time.Minute, dead)
			}
			w.right(dead)
		})
	}
}
