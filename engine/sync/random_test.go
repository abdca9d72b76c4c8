package sync_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	gosync "sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
)

// history is a random repository: what each commit holds, in the words of
// fixture.live; nil for a commit with errors.
type history struct {
	*rand.Rand
	f       *fixture
	content map[string][]string
	ids     []string
	head    string
	// heads are the newest commits, one after the other.
	heads []string
}

// move notes that a commit is the newest now. It is noted before it is pushed.
func (h *history) move(id string) {
	h.head = id
	h.heads = append(h.heads, id)
}

// commit makes a commit and pushes it.
func (h *history) commit(message string, bad bool) {
	var words, docs []string
	for i := range 6 {
		if h.IntN(3) > 0 {
			value := fmt.Sprint(h.IntN(4))
			words = append(words, fmt.Sprintf("ConfigMap c%d %s", i, value))
			docs = append(docs, configMap(fmt.Sprint("c", i), value))
		}
	}
	for i := range 2 {
		if h.IntN(3) > 0 {
			replicas, image := h.IntN(4), []string{"v1", "v2", "broken"}[h.IntN(3)]
			words = append(words, fmt.Sprintf("Deployment d%d %d %s", i, replicas, image))
			docs = append(docs, strings.ReplaceAll(fmt.Sprintf(web, replicas, image), "web", fmt.Sprint("d", i)))
		}
	}
	if h.IntN(3) == 0 && !slices.ContainsFunc(words, func(w string) bool { return strings.HasSuffix(w, "broken") }) {
		for i := range docs { // in waves, which all become healthy
			docs[i] = annotated(docs[i], fmt.Sprintf(`berth.dev/wave: "%d"`, h.IntN(3)-1))
		}
	}
	if h.IntN(2) > 0 { // one port, of one Service or the other
		name := fmt.Sprint("s", h.IntN(2))
		words = append(words, "Service "+name+" 30100")
		docs = append(docs, "apiVersion: v1\nkind: Service\nmetadata: {name: "+name+"}\nspec: {type: NodePort, ports: [{port: 80, nodePort: 30100}]}\n")
	}
	if bad {
		words = nil
		docs = append(docs, []string{"error: bad", configMap("Not_A_Name", "1"), "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {type: NodePort, ports: [{port: 80, nodePort: 99}]}\n"}[h.IntN(3)])
	} else if words == nil {
		words = []string{}
	}
	h.Shuffle(len(docs), func(i, j int) { docs[i], docs[j] = docs[j], docs[i] })
	h.move(fmt.Sprint("c", len(h.ids)))
	h.ids = append(h.ids, h.head)
	slices.Sort(words)
	h.content[h.head] = words
	h.f.remote.push(h.head, message, strings.Join(docs, "---\n"))
	h.f.engine.Pushed("shop", time.Now())
}

// back makes an older commit the newest, as a forced push does.
func (h *history) back() {
	h.move(h.ids[h.IntN(len(h.ids))])
	h.f.remote.mu.Lock()
	h.f.remote.head = h.head
	h.f.remote.mu.Unlock()
	h.f.engine.Pushed("shop", time.Now())
}

// live is what the Source owns, in words.
func (f *fixture) live(t *testing.T) []string {
	t.Helper()
	opts := client.ListOptions{Labels: labels.SelectorFromSet(labels.Set{v1alpha1.LabelSource: "shop"})}
	out := []string{}
	var cms corev1.ConfigMapList
	var deps appsv1.DeploymentList
	var svcs corev1.ServiceList
	for _, list := range []client.ObjectList{&cms, &deps, &svcs} {
		if err := f.List(t.Context(), list, opts); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range cms.Items {
		out = append(out, "ConfigMap "+o.Name+" "+o.Data["k"])
	}
	for _, o := range deps.Items {
		out = append(out, fmt.Sprintf("Deployment %s %d %s", o.Name, *o.Spec.Replicas, o.Spec.Template.Spec.Containers[0].Image))
	}
	for _, o := range svcs.Items {
		out = append(out, fmt.Sprintf("Service %s %d", o.Name, o.Spec.Ports[0].NodePort))
	}
	slices.Sort(out)
	return out
}

// settled waits until the newest commit is applied or refused for good, and
// what is live is what the applied commit holds.
func (h *history) settled(t *testing.T) *v1alpha1.Source {
	t.Helper()
	var s *v1alpha1.Source
	enginetest.Eventually(t, wait, func() string {
		s = h.f.source(t)
		c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReady)
		if s.Status.Observed == nil || s.Status.Observed.ID != h.head || c == nil || c.ObservedGeneration != s.Generation {
			return fmt.Sprintf("observed %+v, want %s", s.Status.Observed, h.head)
		}
		applied := s.Status.Applied != nil && s.Status.Applied.ID == h.head
		if refused := c.Reason == v1alpha1.ReasonCompileFailed || c.Reason == v1alpha1.ReasonPruneHeld; !applied && !refused {
			return fmt.Sprintf("%s is neither applied nor refused: %s %s", h.head, c.Reason, c.Message)
		}
		want := []string{}
		if s.Status.Applied != nil {
			if want = h.content[s.Status.Applied.ID]; want == nil {
				t.Fatalf("%s has errors, and was applied", s.Status.Applied.ID)
			}
		}
		// The status follows the write.
		if got := h.f.live(t); !slices.Equal(got, want) {
			return fmt.Sprintf("applied is %+v, which holds\n  %s\nbut there is\n  %s", s.Status.Applied, strings.Join(want, "\n  "), strings.Join(got, "\n  "))
		}
		return ""
	})
	return s
}

// podsMatch: each Deployment has its Pods, of its image, and nothing else has any.
func (h *history) podsMatch(t *testing.T) {
	t.Helper()
	var want []string
	for _, w := range h.content[h.head] {
		var name, image string
		var n int
		if _, err := fmt.Sscanf(w, "Deployment %s %d %s", &name, &n, &image); err == nil {
			for range n {
				want = append(want, name+" "+image)
			}
		}
	}
	enginetest.Eventually(t, wait, func() string {
		var pods corev1.PodList
		if err := h.f.List(t.Context(), &pods, client.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range pods.Items {
			got = append(got, cmp.Or(p.Labels["app"], p.Name)+" "+p.Spec.Containers[0].Image)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			return fmt.Sprintf("pods are %v, want %v", got, want)
		}
		return ""
	})
}

// approve approves what is the newest, as somebody does who looked at it.
func (h *history) approve(t *testing.T) {
	t.Helper()
	for {
		s := h.f.source(t)
		if s.Annotations == nil {
			s.Annotations = map[string]string{}
		}
		s.Annotations[v1alpha1.AnnotationApprove] = h.head
		if err := h.f.Update(t.Context(), s); err == nil {
			return
		} else if !apierrors.IsConflict(err) {
			t.Fatal(err)
		}
	}
}

// foreign are objects that no Source owns, beside those that one does.
func (f *fixture) foreign(t *testing.T) {
	t.Helper()
	if err := f.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "others"}}); err != nil {
		t.Fatal(err)
	}
	for _, namespace := range []string{"default", "others"} {
		for i := range 3 {
			cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprint("foreign-", i)}, Data: map[string]string{"k": "mine"}}
			if err := f.Create(t.Context(), cm); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// untouched: what is foreign is as it was made.
func (f *fixture) untouched(t *testing.T) {
	t.Helper()
	for _, namespace := range []string{"default", "others"} {
		for i := range 3 {
			var cm corev1.ConfigMap
			if err := f.Get(t.Context(), types.NamespacedName{Namespace: namespace, Name: fmt.Sprint("foreign-", i)}, &cm); err != nil {
				t.Fatalf("a foreign object: %v", err)
			}
			if cm.Data["k"] != "mine" || cm.Generation > 1 || len(cm.Labels)+len(cm.Annotations) > 0 || cm.DeletionTimestamp != nil {
				t.Fatalf("a foreign object was touched: %+v", cm)
			}
		}
	}
}

// appliedLog remembers which commits the status says were applied.
type appliedLog struct {
	mu   gosync.Mutex
	seen []string
}

func (a *appliedLog) Synced() {}

func (a *appliedLog) Gone(client.Object) {}

func (a *appliedLog) Set(obj client.Object) {
	s := obj.(*v1alpha1.Source)
	a.mu.Lock()
	defer a.mu.Unlock()
	if s.Status.Applied != nil && (len(a.seen) == 0 || a.seen[len(a.seen)-1] != s.Status.Applied.ID) {
		a.seen = append(a.seen, s.Status.Applied.ID)
	}
}

// forward fails when a commit was applied after one that was the newest later:
// what was applied must be found in what was the newest, in its order.
func (a *appliedLog) forward(t *testing.T, heads []string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	at := 0
	for _, id := range a.seen {
		i := slices.Index(heads[at:], id)
		if i < 0 {
			t.Fatalf("%s was applied out of turn\napplied: %v\nnewest: %v", id, a.seen, heads)
		}
		at += i
	}
}

// steps of a random history, for each of its seeds. For some 10,000:
// go test ./engine/sync -run TestRandomHistories -steps 850
var steps = flag.Int("steps", 40, "steps of each random history")

// TestRandomHistories: after pushes, forced pushes, approvals, network cuts and
// deaths of the engine at any point, in any order, what is live is the content of
// the right commit, nothing foreign was touched, and nothing went backwards.
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			h := &history{Rand: rand.New(rand.NewPCG(seed, 1)), f: start(t), content: map[string][]string{}}
			h.f.foreign(t)
			log := &appliedLog{}
			enginetest.Go(t, func(ctx context.Context) error {
				return client.Follow(ctx, h.f.Resources, &v1alpha1.SourceList{}, client.ListOptions{}, log)
			})
			h.commit("", false)
			createSource(t, h.f)
			for range *steps {
				h.step(t)
				time.Sleep(time.Duration(h.IntN(4)*h.IntN(8)) * time.Millisecond)
			}
			h.commit("The last\n\nBerth-Allow-Prune: true\n", false)
			if s := h.settled(t); s.Status.Applied.ID != h.head {
				t.Fatalf("applied is %s, want %s", s.Status.Applied.ID, h.head)
			}
			h.f.untouched(t)
			log.forward(t, h.heads)
			if !slices.ContainsFunc(h.content[h.head], func(w string) bool { return strings.HasSuffix(w, "broken") }) {
				h.podsMatch(t)
				h.f.await(t, h.head, ready())
			}
		})
	}
}

// step is one thing that happens to a Source.
func (h *history) step(t *testing.T) {
	t.Helper()
	switch n := h.IntN(24); {
	case n < 8:
		h.commit("", false)
	case n < 11:
		h.commit("Fine\n\nBerth-Allow-Prune: true\n", false)
	case n < 13:
		h.commit("", true)
	case n < 15:
		h.back()
	case n < 16:
		h.f.remote.fail(errors.New("remote is away"))
		h.f.engine.Pushed("shop", time.Now())
		time.Sleep(time.Duration(h.IntN(20)) * time.Millisecond)
		h.f.remote.fail(nil)
		h.f.engine.Pushed("shop", time.Now())
	case n < 17:
		h.f.change(t, func(s *v1alpha1.SourceSpec) { s.Suspend = true })
		time.Sleep(time.Duration(h.IntN(20)) * time.Millisecond)
		h.f.change(t, func(s *v1alpha1.SourceSpec) { s.Suspend = false })
	case n < 18:
		h.approve(t)
	case n < 21:
		h.f.restart(t)
	default:
		h.settled(t)
		h.f.untouched(t)
	}
}
