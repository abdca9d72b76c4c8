package controllers

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/storage"
)

// claimWorld is a stage with claims, volumes, the Pods that mount them, and the
// scheduler that gives those their nodes.
type claimWorld struct {
	*stage
	dice       dice
	claims     *claims
	volumes    *volumes
	scheduling *scheduling
	nodes      []string
	created    int
	// idle: the agents of nodes do nothing.
	idle bool
}

func newClaimWorld(t testing.TB, seed uint64) *claimWorld {
	w := &claimWorld{stage: newStage(t), dice: dice{rand.New(rand.NewPCG(seed, 12))}, nodes: []string{"n1", "n2", "n3"}}
	w.allowed(w.r.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, client.DeleteOptions{}))
	for _, name := range w.nodes {
		w.addNode(name)
	}
	later, now := storagev1.VolumeBindingWaitForFirstConsumer, storagev1.VolumeBindingImmediate
	keep, remove := corev1.PersistentVolumeReclaimRetain, corev1.PersistentVolumeReclaimDelete
	for _, class := range []*storagev1.StorageClass{
		{ObjectMeta: metav1.ObjectMeta{Name: "made"}, Provisioner: v1alpha1.LocalProvisioner, VolumeBindingMode: &later, ReclaimPolicy: &remove},
		{ObjectMeta: metav1.ObjectMeta{Name: "kept"}, Provisioner: v1alpha1.LocalProvisioner, VolumeBindingMode: &later, ReclaimPolicy: &keep},
		{ObjectMeta: metav1.ObjectMeta{Name: "now"}, Provisioner: noProvisioner, VolumeBindingMode: &now},
		{ObjectMeta: metav1.ObjectMeta{Name: "later"}, Provisioner: noProvisioner, VolumeBindingMode: &later},
	} {
		w.allowed(w.r.Create(t.Context(), class))
	}
	w.restart()
	t.Cleanup(w.kill)
	return w
}

func (w *claimWorld) addNode(name string) {
	w.Helper()
	enginetest.AddNode(w, w.r, name, "64", "64Gi")
	var n corev1.Node
	w.allowed(w.r.Get(w.Context(), types.NamespacedName{Name: name}, &n))
	n.Labels, n.Annotations = map[string]string{corev1.LabelHostname: name}, map[string]string{v1alpha1.AnnotationClaims: "/data/claims"}
	w.allowed(w.r.Update(w.Context(), &n))
}

func (w *claimWorld) kill() {
	if w.claims != nil {
		for _, l := range w.loops() {
			l.queue.ShutDown()
		}
	}
}

func (w *claimWorld) loops() []*loop {
	return []*loop{w.claims.loop, w.volumes.loop, w.scheduling.binds, w.scheduling.refusals}
}

func (w *claimWorld) restart() {
	w.Helper()
	w.kill()
	c := w.begin()
	w.claims, w.volumes, w.scheduling = newClaims(c), newVolumes(c), newScheduling(c)
	w.see(nil)
}

// see brings the views that are looked at up to the store, or those that skip leaves.
func (w *claimWorld) see(skip func() bool) {
	w.Helper()
	for _, show := range []func(){
		func() { look(w.stage, w.views.Namespaces, &corev1.NamespaceList{}) },
		func() { look(w.stage, w.views.Nodes, &corev1.NodeList{}) },
		func() { look(w.stage, w.views.Classes, &storagev1.StorageClassList{}) },
		func() { look(w.stage, w.views.Claims, &corev1.PersistentVolumeClaimList{}) },
		func() { look(w.stage, w.views.Volumes, &corev1.PersistentVolumeList{}) },
		func() { look(w.stage, w.views.Pods, &corev1.PodList{}) },
	} {
		if skip == nil || !skip() {
			show()
		}
	}
}

func gi(n int) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(fmt.Sprintf("%dGi", n))}
}

func (w *claimWorld) allClaims() []*corev1.PersistentVolumeClaim {
	w.Helper()
	return all[*corev1.PersistentVolumeClaim](w.stage, &corev1.PersistentVolumeClaimList{})
}

func (w *claimWorld) allVolumes() []*corev1.PersistentVolume {
	w.Helper()
	var list corev1.PersistentVolumeList
	if err := w.r.List(w.Context(), &list, client.ListOptions{}); err != nil {
		w.Fatal(err)
	}
	var out []*corev1.PersistentVolume
	for i := range list.Items {
		out = append(out, &list.Items[i])
	}
	return out
}

func (w *claimWorld) makeClaim() {
	w.Helper()
	d := w.dice
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("c%d", d.IntN(3))}}
	c.Spec.StorageClassName = new(one(d, []string{"made", "kept", "now", "now", "later", "later", ""}))
	c.Spec.Resources.Requests = gi(1 + d.IntN(3))
	c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{one(d, []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce, corev1.ReadWriteOnce, corev1.ReadWriteMany, corev1.ReadWriteOncePod})}
	if d.oneIn(3) {
		c.Spec.VolumeName = fmt.Sprintf("v%d", d.IntN(4))
	}
	w.allowed(w.r.Create(w.Context(), c))
}

func (w *claimWorld) makeVolume() {
	w.Helper()
	d := w.dice
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("v%d", d.IntN(4))}}
	v.Spec.StorageClassName = one(d, []string{"now", "now", "later", "later", ""})
	v.Spec.Capacity = gi(1 + d.IntN(4))
	v.Spec.AccessModes = one(d, [][]corev1.PersistentVolumeAccessMode{{corev1.ReadWriteOnce}, {corev1.ReadWriteOnce, corev1.ReadWriteMany}, {corev1.ReadWriteOncePod}})
	v.Spec.PersistentVolumeReclaimPolicy = one(d, []corev1.PersistentVolumeReclaimPolicy{corev1.PersistentVolumeReclaimRetain, corev1.PersistentVolumeReclaimDelete})
	v.Spec.HostPath = &corev1.HostPathVolumeSource{Path: "/data/" + v.Name}
	if d.oneIn(2) {
		v.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{one(d, w.nodes)}}},
		}}}}
	}
	if d.oneIn(4) {
		v.Spec.ClaimRef = &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: "default", Name: fmt.Sprintf("c%d", d.IntN(3))}
	}
	w.allowed(w.r.Create(w.Context(), v))
}

func (w *claimWorld) makePod() {
	w.Helper()
	d := w.dice
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("p%d", w.created)}}
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}}
	p.Spec.RestartPolicy = corev1.RestartPolicyNever
	first := d.IntN(3)
	for i := range 1 + d.IntN(2) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: fmt.Sprintf("v%d", i), VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: fmt.Sprintf("c%d", (first+i)%3)},
		}})
	}
	if d.oneIn(3) {
		p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: one(d, w.nodes)}
	}
	w.allowed(w.r.Create(w.Context(), p))
}

// act is something that a user or a node does.
func (w *claimWorld) act() {
	w.Helper()
	d := w.dice
	w.created++
	pod, claim, volume := one(d, w.pods()), one(d, w.allClaims()), one(d, w.allVolumes())
	switch n := d.IntN(16); {
	case n <= 2:
		w.makeClaim()
	case n <= 4:
		w.makeVolume()
	case n <= 6:
		w.makePod()
	case n == 7 && claim != nil:
		w.allowed(w.r.Delete(w.Context(), claim, client.DeleteOptions{}))
	case n == 8 && volume != nil:
		w.allowed(w.r.Delete(w.Context(), volume, client.DeleteOptions{}))
	case n == 9:
		w.agents()
	case n == 10:
		name := one(d, w.nodes)
		if w.r.Get(w.Context(), types.NamespacedName{Name: name}, &corev1.Node{}) != nil {
			w.addNode(name)
			return
		}
		// A node that came and went between two looks is nothing that a watch would
		// leave out.
		look(w.stage, w.views.Nodes, &corev1.NodeList{})
		w.allowed(w.r.Delete(w.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, client.DeleteOptions{}))
	case pod == nil:
	case n <= 12 && pod.Spec.NodeName != "" && !podFinished(pod):
		w.exit(pod, 0)
	case n == 13:
		w.delete(pod)
	case n == 14 && pod.DeletionTimestamp != nil:
		w.stopped(pod)
	}
}

// agents are nodes that remove the data of their volumes.
func (w *claimWorld) agents() {
	w.Helper()
	if w.idle {
		return
	}
	for _, v := range w.allVolumes() {
		node := v1alpha1.NodeOfVolume(v)
		if !v1alpha1.RemovableVolume(v) || w.r.Get(w.Context(), types.NamespacedName{Name: node}, &corev1.Node{}) != nil {
			continue
		}
		if c := w.claimOf(v); c != nil {
			w.Fatalf("the data of %s is removed, and claim %s is there", v.Name, c.Name)
		}
		v.Finalizers = slices.DeleteFunc(v.Finalizers, func(f string) bool { return f == v1alpha1.FinalizerVolume })
		w.allowed(w.r.Update(w.Context(), v))
	}
}

// claimOf is the claim that a volume belongs to, if it is there.
func (w *claimWorld) claimOf(v *corev1.PersistentVolume) *corev1.PersistentVolumeClaim {
	w.Helper()
	for _, c := range w.allClaims() {
		if v.Spec.ClaimRef != nil && v.Spec.ClaimRef.UID == c.UID {
			return c
		}
	}
	return nil
}

// step takes one step of one of the controllers.
func (w *claimWorld) step() {
	w.Helper()
	volumes, pods := w.allVolumes(), w.pods()
	if i := w.dice.IntN(5); i == 4 {
		w.scheduling.decide()
	} else {
		w.take(w.loops()[i])
	}
	w.check(volumes, pods)
}

// check compares the store with what must be so at any time, and with what was
// there before a step of a controller.
func (w *claimWorld) check(volumes []*corev1.PersistentVolume, pods []*corev1.Pod) {
	w.Helper()
	claims, now := map[string]*corev1.PersistentVolumeClaim{}, map[types.UID]*corev1.PersistentVolume{}
	byName := map[string]*corev1.PersistentVolume{}
	for _, v := range w.allVolumes() {
		now[v.UID], byName[v.Name] = v, v
	}
	for _, c := range w.allClaims() {
		claims[c.Name] = c
		v := byName[c.Spec.VolumeName]
		if c.Status.Phase == corev1.ClaimBound && (v == nil || v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID != c.UID) {
			w.Fatalf("claim %s is bound to %s, which does not belong to it", c.Name, c.Spec.VolumeName)
		}
	}
	for _, was := range volumes {
		is := now[was.UID]
		claim := w.claimOf(was)
		if is == nil && claim != nil {
			w.Fatalf("volume %s is gone, and claim %s is there", was.Name, claim.Name)
		}
		going := is == nil || is.DeletionTimestamp != nil
		if going && was.DeletionTimestamp == nil && (was.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || v1alpha1.NodeOfVolume(was) == "" || claim != nil) {
			w.Fatalf("volume %s was deleted: %+v", was.Name, was.Spec)
		}
		gone := func(f string) bool {
			return slices.Contains(was.Finalizers, f) && (is == nil || !slices.Contains(is.Finalizers, f))
		}
		if node := v1alpha1.NodeOfVolume(was); gone(v1alpha1.FinalizerVolume) && w.r.Get(w.Context(), types.NamespacedName{Name: node}, &corev1.Node{}) == nil {
			w.Fatalf("volume %s was let go, and its node %s is to remove its data", was.Name, node)
		}
		if is != nil {
			w.checkBinding(was, is)
		}
	}
	before := map[types.UID]*corev1.Pod{}
	for _, p := range pods {
		before[p.UID] = p
	}
	w.checkPods(before, claims, byName)
}

// checkBinding: a volume goes to a claim that it suits, and stays with it.
func (w *claimWorld) checkBinding(was, is *corev1.PersistentVolume) {
	w.Helper()
	from, to := types.UID(""), types.UID("")
	if was.Spec.ClaimRef != nil {
		from = was.Spec.ClaimRef.UID
	}
	if is.Spec.ClaimRef != nil {
		to = is.Spec.ClaimRef.UID
	}
	if from == to {
		return
	}
	c := w.claimOf(is)
	if from != "" || c == nil {
		w.Fatalf("volume %s went from claim %q to %q", was.Name, from, to)
	}
	if !suits(c, was) || was.Spec.ClaimRef != nil && was.Spec.ClaimRef.Name != c.Name || c.Spec.VolumeName != "" && c.Spec.VolumeName != was.Name {
		w.Fatalf("volume %s %+v went to claim %s %+v", was.Name, was.Spec, c.Name, c.Spec)
	}
}

// suits: what a claim asks for, a volume has.
func suits(c *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) bool {
	want, have := c.Spec.Resources.Requests[corev1.ResourceStorage], v.Spec.Capacity[corev1.ResourceStorage]
	return v.DeletionTimestamp == nil && *c.Spec.StorageClassName == v.Spec.StorageClassName && want.Cmp(have) <= 0 &&
		slices.Contains(v.Spec.AccessModes, c.Spec.AccessModes[0])
}

// reached: a volume can be mounted on a node.
func reached(v *corev1.PersistentVolume, node string) bool {
	return v.Spec.NodeAffinity == nil || slices.Contains(v.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values, node)
}

// checkPods: a Pod that runs has its claims, and volumes that its node reaches.
func (w *claimWorld) checkPods(before map[types.UID]*corev1.Pod, claims map[string]*corev1.PersistentVolumeClaim, volumes map[string]*corev1.PersistentVolume) {
	w.Helper()
	holders := map[string]string{}
	for _, p := range w.pods() {
		if p.Spec.NodeName == "" || podFinished(p) {
			continue
		}
		for _, name := range storage.ClaimsIn(p) {
			c := claims[name]
			if c == nil {
				w.Fatalf("pod %s runs, and its claim %s is gone", p.Name, name)
			}
			pv := volumes[c.Spec.VolumeName]
			if was := before[p.UID]; was != nil && was.Spec.NodeName == "" {
				if pv == nil || pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != c.UID || !reached(pv, p.Spec.NodeName) {
					w.Fatalf("pod %s got node %s, and its claim %s has %+v", p.Name, p.Spec.NodeName, name, pv)
				}
			}
			if c.Spec.AccessModes[0] == corev1.ReadWriteOncePod {
				if holders[name] != "" && holders[name] != p.Name {
					w.Fatalf("claim %s is for one pod, and %s and %s have it", name, holders[name], p.Name)
				}
				holders[name] = p.Name
			}
		}
	}
}

// settle shows the controllers everything until nothing changes.
func (w *claimWorld) settle() {
	w.Helper()
	for range 60 {
		before := w.picture()
		w.see(nil)
		for _, p := range w.pods() { // those that could not be bound have waited for long enough
			if p.Spec.NodeName == "" {
				w.scheduling.binds.add(p)
			}
		}
		for range 200 {
			volumes, pods := w.allVolumes(), w.pods()
			more := w.scheduling.decide()
			for _, l := range w.loops() {
				more = w.take(l) || more
			}
			w.check(volumes, pods)
			w.see(nil)
			if !more {
				break
			}
		}
		w.agents()
		if w.picture() == before {
			return
		}
	}
	w.Fatal("it does not come to rest")
}

// right compares the store with what must be there once all is quiet.
func (w *claimWorld) right() {
	w.Helper()
	claims, volumes := w.allClaims(), w.allVolumes()
	for _, c := range claims {
		held := slices.ContainsFunc(w.pods(), func(p *corev1.Pod) bool {
			return p.Spec.NodeName != "" && !podFinished(p) && slices.Contains(storage.ClaimsIn(p), c.Name)
		})
		if c.DeletionTimestamp != nil && !held {
			w.Errorf("claim %s is going, and nothing holds it", c.Name)
		}
		bound := slices.ContainsFunc(volumes, func(v *corev1.PersistentVolume) bool {
			return v.Name == c.Spec.VolumeName && v.Spec.ClaimRef != nil && v.Spec.ClaimRef.UID == c.UID
		})
		if got := c.Status.Phase == corev1.ClaimBound; got != bound && c.DeletionTimestamp == nil {
			w.Errorf("claim %s is %s with volume %q", c.Name, c.Status.Phase, c.Spec.VolumeName)
		}
		if bound || c.DeletionTimestamp != nil || *c.Spec.StorageClassName == "later" && c.Spec.VolumeName == "" {
			continue
		}
		for _, v := range volumes {
			free := v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID == "" && v.Spec.ClaimRef.Name == c.Name
			if free && suits(c, v) && (c.Spec.VolumeName == "" || c.Spec.VolumeName == v.Name) {
				w.Errorf("claim %s %+v waits, and volume %s %+v is free", c.Name, c.Spec, v.Name, v.Spec)
			}
		}
	}
	for _, v := range volumes {
		c, ref := w.claimOf(v), v.Spec.ClaimRef
		made := v1alpha1.NodeOfVolume(v) != ""
		want := corev1.VolumeReleased
		switch {
		case c != nil:
			want = corev1.VolumeBound
		case v.DeletionTimestamp != nil && w.idle && w.r.Get(w.Context(), types.NamespacedName{Name: v1alpha1.NodeOfVolume(v)}, &corev1.Node{}) == nil:
		case v.DeletionTimestamp != nil:
			w.Errorf("volume %s is going, and nothing holds it: %v", v.Name, v.Finalizers)
			continue
		case ref == nil || ref.UID == "":
			want = corev1.VolumeAvailable
		case v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete && made:
			w.Errorf("volume %s is there, and its claim is gone", v.Name)
		case v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete:
			want = corev1.VolumeFailed
		}
		if v.Status.Phase != want {
			w.Errorf("volume %s is %s, want %s", v.Name, v.Status.Phase, want)
		}
	}
	for _, p := range w.pods() {
		if p.Spec.NodeName == "" && p.DeletionTimestamp == nil && len(storage.ClaimsIn(p)) == 1 {
			if node := w.couldRun(p, claims, volumes); node != "" {
				w.Errorf("pod %s waits, and could run on %s: %+v", p.Name, node, p.Status.Conditions)
			}
		}
	}
}

// couldRun is a node that can have a Pod with one claim; empty for none.
func (w *claimWorld) couldRun(p *corev1.Pod, claims []*corev1.PersistentVolumeClaim, volumes []*corev1.PersistentVolume) string {
	w.Helper()
	name := storage.ClaimsIn(p)[0]
	i := slices.IndexFunc(claims, func(c *corev1.PersistentVolumeClaim) bool { return c.Name == name })
	if i < 0 || claims[i].DeletionTimestamp != nil {
		return ""
	}
	c := claims[i]
	for _, other := range w.pods() {
		mounts := slices.Contains(storage.ClaimsIn(other), name)
		if c.Spec.AccessModes[0] == corev1.ReadWriteOncePod && mounts && other.Spec.NodeName != "" && !podFinished(other) {
			return ""
		}
	}
	for _, node := range w.nodes {
		if w.r.Get(w.Context(), types.NamespacedName{Name: node}, &corev1.Node{}) != nil || p.Spec.NodeSelector != nil && p.Spec.NodeSelector[corev1.LabelHostname] != node {
			continue
		}
		class := *c.Spec.StorageClassName
		if c.Spec.VolumeName == "" && (class == "made" || class == "kept") {
			return node
		}
		for _, v := range volumes {
			ref := v.Spec.ClaimRef
			mine := ref != nil && ref.UID == c.UID && c.Spec.VolumeName == v.Name
			free := c.Spec.VolumeName == "" && class == "later" && (ref == nil || ref.UID == "" && ref.Name == c.Name) && suits(c, v)
			if (mine || free) && reached(v, node) {
				return node
			}
		}
	}
	return ""
}

// TestRandomClaims: whatever happens to claims, volumes, Pods and nodes, and however
// late it is seen, no data is lost that somebody holds, no Pod runs without its
// volumes, and in the end all that can be bound is.
func TestRandomClaims(t *testing.T) {
	for seed := range uint64(100) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newClaimWorld(t, seed)
			for range 300 {
				switch w.dice.IntN(10) {
				case 0, 1, 2:
					w.act()
				case 3, 4:
					w.see(func() bool { return !w.dice.oneIn(3) })
				case 5:
					if w.dice.oneIn(12) {
						w.restart()
					}
					if w.dice.oneIn(12) {
						w.idle = !w.idle
					}
				default:
					w.step()
				}
				if w.dice.oneIn(25) {
					w.settle()
					w.right()
				}
			}
			w.idle = false
			w.settle()
			w.right()
		})
	}
}
