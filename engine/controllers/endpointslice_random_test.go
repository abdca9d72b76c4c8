package controllers

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"berth.dev/berth/api/client"
)

// sliceWorld is a stage with Services over Pods that come, serve and go.
type sliceWorld struct {
	*stage
	dice      dice
	endpoints *endpoints
	created   int
}

func newSliceWorld(t testing.TB, seed uint64) *sliceWorld {
	w := &sliceWorld{stage: newStage(t), dice: dice{rand.New(rand.NewPCG(seed, 9))}}
	w.restart()
	t.Cleanup(func() { w.endpoints.loop.queue.ShutDown() })
	return w
}

func (w *sliceWorld) restart() {
	w.Helper()
	if w.endpoints != nil {
		w.endpoints.loop.queue.ShutDown()
	}
	w.endpoints = newEndpoints(w.begin())
	w.endpoints.perSlice = 2
	w.see(nil)
}

// all are the objects of a kind, in the order of their names.
func all[T client.Object](w *stage, list client.ObjectList) []T {
	w.Helper()
	if err := w.r.List(w.Context(), list, client.ListOptions{Namespace: "default"}); err != nil {
		w.Fatal(err)
	}
	items, err := meta.ExtractList(list)
	if err != nil {
		w.Fatal(err)
	}
	var out []T
	for _, item := range items {
		out = append(out, item.(T))
	}
	return out
}

// one is any of some objects; its zero value if there are none.
func one[T any](d dice, of []T) (out T) {
	if len(of) > 0 {
		out = of[d.IntN(len(of))]
	}
	return out
}

func (w *sliceWorld) service(s *corev1.Service) *corev1.Service {
	s.Spec.Selector = map[string]string{"app": []string{"a", "b"}[w.dice.IntN(2)]}
	s.Spec.PublishNotReadyAddresses = w.dice.oneIn(4)
	target := []intstr.IntOrString{intstr.FromInt32(80), intstr.FromInt32(81), intstr.FromString("http")}[w.dice.IntN(3)]
	s.Spec.Ports = []corev1.ServicePort{{Name: "web", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: target}}
	return s
}

// seen are the slices that the controller has seen: one that came and went between
// two looks is nothing that a watch would leave out.
func (w *sliceWorld) seen() []*discoveryv1.EndpointSlice {
	w.Helper()
	return slices.DeleteFunc(all[*discoveryv1.EndpointSlice](w.stage, &discoveryv1.EndpointSliceList{}), func(s *discoveryv1.EndpointSlice) bool {
		_, ok := w.views.EndpointSlices.Get(client.Key(s))
		return !ok
	})
}

// act is something that a user or a node does.
func (w *sliceWorld) act() {
	w.Helper()
	d := w.dice
	w.created++
	pod := one(d, w.pods())
	service := one(d, all[*corev1.Service](w.stage, &corev1.ServiceList{}))
	slice := one(d, w.seen())
	switch n := d.IntN(12); {
	case n <= 1:
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("p%d", d.IntN(8)), Labels: map[string]string{"app": []string{"a", "b"}[d.IntN(2)]}}}
		p.Spec.Containers = []corev1.Container{{Name: "c", Image: "i", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: int32(8080 + d.IntN(2)), Protocol: corev1.ProtocolTCP}}}}
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		w.allowed(w.r.Create(w.Context(), p))
	case n == 2 && service == nil || n == 3 && d.oneIn(3):
		s := w.service(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: []string{"x", "y"}[d.IntN(2)]}})
		w.allowed(w.r.Create(w.Context(), s))
	case n == 4 && service != nil:
		w.allowed(w.r.Update(w.Context(), w.service(service)))
	case n == 5 && service != nil && d.oneIn(3):
		w.allowed(w.r.Delete(w.Context(), service, client.DeleteOptions{}))
	case n == 6 && slice != nil: // somebody edits a slice, or takes it away
		if d.oneIn(2) {
			w.allowed(w.r.Delete(w.Context(), slice, client.DeleteOptions{}))
			return
		}
		slice.Endpoints = slice.Endpoints[:len(slice.Endpoints)/2]
		w.allowed(w.r.Update(w.Context(), slice))
	case pod == nil:
	case n == 7:
		pod.Labels["app"] = []string{"a", "b"}[d.IntN(2)]
		w.allowed(w.r.Update(w.Context(), pod))
	case n == 8:
		w.delete(pod)
	case pod.DeletionTimestamp != nil && d.oneIn(2):
		w.stopped(pod)
	case !podFinished(pod):
		w.serves(pod)
	}
}

// serves is a node that says how a Pod is: the address comes with the first word.
func (w *sliceWorld) serves(p *corev1.Pod) {
	w.Helper()
	if p.Spec.NodeName == "" {
		w.allowed(w.r.Bind(w.Context(), client.Key(p), p.UID, "n1"))
		w.allowed(w.r.Get(w.Context(), client.Key(p), p))
	}
	p.Status.Phase = corev1.PodRunning
	if p.Status.PodIP == "" || w.dice.oneIn(8) { // the sandbox was made anew
		p.Status.PodIP = fmt.Sprintf("10.42.0.%d", 2+w.created%250)
	}
	p.Status.PodIPs = []corev1.PodIP{{IP: p.Status.PodIP}}
	ready := corev1.ConditionTrue
	switch w.dice.IntN(4) {
	case 0:
		ready = corev1.ConditionFalse
	case 1:
		p.Status.Phase = corev1.PodSucceeded
	}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
	w.allowed(w.r.UpdateStatus(w.Context(), p))
}

// wanted is what slices must say of a Service, by the words of the API: each Pod
// that is selected and has an address, and has not ended.
func wantedOf(s *corev1.Service, pods []*corev1.Pod) map[string]string {
	out := map[string]string{}
	for _, p := range pods {
		ended := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
		if p.Status.PodIP == "" || ended || !labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(p.Labels)) {
			continue
		}
		port := s.Spec.Ports[0].TargetPort.IntVal
		if s.Spec.Ports[0].TargetPort.StrVal != "" {
			port = p.Spec.Containers[0].Ports[0].ContainerPort
		}
		serving, going := p.Status.Conditions[0].Status == corev1.ConditionTrue, p.DeletionTimestamp != nil
		out[p.Name+" "+string(p.UID)] = fmt.Sprintf("%s:%d ready %t serving %t terminating %t",
			p.Status.PodIP, port, s.Spec.PublishNotReadyAddresses || serving && !going, serving, going)
	}
	return out
}

// look is what the slices of a Service say; a Pod that is in two of them, or a
// slice that is too long, ends the test.
func (w *sliceWorld) look(s *corev1.Service) map[string]string {
	w.Helper()
	out := map[string]string{}
	for _, slice := range all[*discoveryv1.EndpointSlice](w.stage, &discoveryv1.EndpointSliceList{}) {
		if slice.Labels[discoveryv1.LabelServiceName] != s.Name || slice.Labels[discoveryv1.LabelManagedBy] != managedBy {
			continue
		}
		if len(slice.Endpoints) > w.endpoints.perSlice {
			w.Fatalf("slice %s has %d endpoints", slice.Name, len(slice.Endpoints))
		}
		for _, e := range slice.Endpoints {
			key := e.TargetRef.Name + " " + string(e.TargetRef.UID)
			if out[key] != "" {
				w.Fatalf("pod %s is twice in the slices of %s", key, s.Name)
			}
			out[key] = fmt.Sprintf("%s:%d ready %t serving %t terminating %t",
				e.Addresses[0], *slice.Ports[0].Port, *e.Conditions.Ready, *e.Conditions.Serving, *e.Conditions.Terminating)
		}
	}
	return out
}

// addresses are those of the older kind, as "address ready".
func (w *sliceWorld) addresses(s *corev1.Service) map[string]bool {
	w.Helper()
	var e corev1.Endpoints
	if err := w.r.Get(w.Context(), client.Key(s), &e); err != nil {
		w.Fatal(err)
	}
	out := map[string]bool{}
	for _, subset := range e.Subsets {
		for _, a := range subset.Addresses {
			out[a.IP+fmt.Sprintf(":%d", subset.Ports[0].Port)] = true
		}
		for _, a := range subset.NotReadyAddresses {
			out[a.IP+fmt.Sprintf(":%d", subset.Ports[0].Port)] = false
		}
	}
	return out
}

// settle shows the controller everything until it has nothing to do.
func (w *sliceWorld) settle() {
	w.Helper()
	for range 100 {
		w.see(nil)
		if !w.take(w.endpoints.loop) {
			return
		}
	}
	w.Fatal("it does not come to rest")
}

// right compares the store with what must be there.
func (w *sliceWorld) right() {
	w.Helper()
	pods := w.pods()
	for _, s := range all[*corev1.Service](w.stage, &corev1.ServiceList{}) {
		want, got := wantedOf(s, pods), w.look(s)
		if !maps.Equal(want, got) {
			w.Fatalf("service %s %v\ngot  %v\nwant %v", s.Name, s.Spec.Selector, got, want)
		}
		older := map[string]bool{}
		for _, text := range want {
			address, _, _ := strings.Cut(text, " ")
			older[address] = strings.Contains(text, " ready true")
		}
		if got := w.addresses(s); !maps.Equal(got, older) {
			w.Fatalf("the Endpoints of %s: got %v, want %v", s.Name, got, older)
		}
		var owners []types.UID
		for _, slice := range w.endpoints.existing(s) {
			owners = append(owners, controllerOf(slice).UID)
		}
		if slices.ContainsFunc(owners, func(uid types.UID) bool { return uid != s.UID }) {
			w.Fatalf("the slices of %s are owned by %v", s.Name, owners)
		}
	}
}

// TestRandomEndpoints: whatever happens to Pods, Services and slices, and however
// late each is seen, no Pod is ever in two slices of a Service, and in the end each
// is in one and as it is.
func TestRandomEndpoints(t *testing.T) {
	for seed := range uint64(100) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newSliceWorld(t, seed)
			for range 120 {
				switch w.dice.IntN(8) {
				case 0, 1, 2:
					w.act()
				case 3, 4:
					w.see(func() bool { return !w.dice.oneIn(3) })
				case 5:
					if w.dice.oneIn(10) {
						w.restart()
					}
				default:
					w.take(w.endpoints.loop)
				}
				for _, s := range all[*corev1.Service](w.stage, &corev1.ServiceList{}) {
					w.look(s)
				}
				if w.dice.oneIn(20) {
					w.settle()
					w.right()
				}
			}
			w.settle()
			w.right()
		})
	}
}
