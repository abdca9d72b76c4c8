package clients

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"

	"berth.dev/berth/api/client"
)

// churn writes ConfigMaps until the context ends: new ones, changes, deletions,
// and ones deleted and created anew under the same name.
func churn(ctx context.Context, t *testing.T, s *server, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 1))
	for n := 0; ctx.Err() == nil; n++ {
		name := fmt.Sprintf("c-%02d", random.IntN(40))
		cm := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"odd": fmt.Sprint(n%2 == 1)}},
			Data:       map[string]string{"n": fmt.Sprint(seed, n)},
		}
		err := s.Create(ctx, cm)
		if apierrors.IsAlreadyExists(err) {
			if random.IntN(4) == 0 {
				err = s.Delete(ctx, cm, client.DeleteOptions{})
			} else {
				err = s.Update(ctx, cm)
			}
		}
		if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			t.Errorf("churn: %v", err)
			return
		}
	}
}

// seen is what the handlers of an informer were told.
type seen struct {
	mu       sync.Mutex
	versions map[string]string
}

func (s *seen) handler() cache.ResourceEventHandler {
	set := func(o any) {
		m := o.(metav1.Object)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.versions[m.GetName()] = string(m.GetUID()) + "@" + m.GetResourceVersion()
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    set,
		UpdateFunc: func(_, o any) { set(o) },
		DeleteFunc: func(o any) {
			if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.versions, o.(metav1.Object).GetName())
		},
	}
}

func (s *seen) now() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.versions)
}

// truth is the server's state, where selected allows it.
func truth(t *testing.T, s *server, selected func(*corev1.ConfigMap) bool) map[string]string {
	t.Helper()
	var all corev1.ConfigMapList
	if err := s.List(t.Context(), &all, client.ListOptions{Namespace: "default"}); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for i := range all.Items {
		if c := &all.Items[i]; selected(c) {
			out[c.Name] = string(c.UID) + "@" + c.ResourceVersion
		}
	}
	return out
}

// An informer that is cut off in the middle of an event again and again, while
// others write, ends with exactly the server's state.
func TestInformerCutOffAThousandTimes(t *testing.T) {
	cuts := int64(1000)
	if testing.Short() {
		cuts = 100
	}
	s := serve(t)
	random, mu := rand.New(rand.NewPCG(7, 7)), sync.Mutex{}
	lists := 0
	cut := func(r *http.Request) int {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Query().Get("sendInitialEvents") == "true" {
			// Some are cut in the middle of the list; the client begins it anew,
			// and waits longer each time.
			if lists++; lists > 4 {
				return 0
			}
			return 1 + random.IntN(30)
		}
		// Not in the first event: a client waits after a watch that told nothing.
		return 2 + random.IntN(5)
	}
	s.cut.Store(&cut)
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for seed := range uint64(3) {
		writers.Go(func() { churn(ctx, t, s, seed) })
	}

	kinds := map[string]informers.SharedInformerOption{
		"all": informers.WithNamespace("default"),
		"odd": informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = "odd=true" }),
	}
	var stops []func()
	told := map[string]*seen{}
	caches := map[string]cache.SharedIndexInformer{}
	for name, option := range kinds {
		config := s.protobuf()
		if name == "odd" {
			config = s.config
		}
		factory := informers.NewSharedInformerFactoryWithOptions(clientset(t, config), 0, informers.WithNamespace("default"), option)
		informer := factory.Core().V1().ConfigMaps().Informer()
		told[name], caches[name] = &seen{versions: map[string]string{}}, informer
		if _, err := informer.AddEventHandler(told[name].handler()); err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		factory.Start(stop)
		stops = append(stops, func() { close(stop); factory.Shutdown() })
	}
	began := time.Now()
	for s.cuts.Load() < cuts && time.Since(began) < 2*time.Minute {
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	writers.Wait()
	s.cut.Store(nil)
	if n := s.cuts.Load(); n < cuts {
		t.Fatalf("only %d cuts in %s", n, time.Since(began))
	}
	t.Logf("%d cuts in %s, the store is at revision %d", s.cuts.Load(), time.Since(began).Round(time.Second), s.Revision())
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	for name, informer := range caches {
		selected := func(c *corev1.ConfigMap) bool { return name == "all" || c.Labels["odd"] == "true" }
		want := truth(t, s, selected)
		// A client waits up to 30 s after errors that follow one another. The truth
		// is asked anew: the last writes may be carried out after their context's end.
		for end := time.Now().Add(time.Minute); !cmp.Equal(told[name].now(), want) && time.Now().Before(end); want = truth(t, s, selected) {
			time.Sleep(10 * time.Millisecond)
		}
		if diff := cmp.Diff(want, told[name].now()); diff != "" {
			t.Errorf("%s: what the handlers were told (-server +informer):\n%s", name, diff)
		}
		have := map[string]string{}
		for _, o := range informer.GetStore().List() {
			c := o.(*corev1.ConfigMap)
			have[c.Name] = string(c.UID) + "@" + c.ResourceVersion
		}
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("%s: the cache (-server +informer):\n%s", name, diff)
		}
	}
}

// Programs that need only names and labels use the metadata client.
func TestMetadataInformer(t *testing.T) {
	s := serve(t)
	set, err := metadata.NewForConfig(s.protobuf())
	if err != nil {
		t.Fatal(err)
	}
	factory := metadatainformer.NewSharedInformerFactory(set, 0)
	informer := factory.ForResource(corev1.SchemeGroupVersion.WithResource("configmaps")).Informer()
	stop := make(chan struct{})
	factory.Start(stop)
	defer func() { close(stop); factory.Shutdown() }()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a", Labels: map[string]string{"l": "1"}}, Data: map[string]string{"k": "v"}}
	if err := s.Create(t.Context(), cm); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cache has the object", func() bool {
		o, ok, err := informer.GetStore().GetByKey("default/a")
		if err != nil || !ok {
			return false
		}
		m := o.(*metav1.PartialObjectMetadata)
		return m.UID == cm.UID && m.Labels["l"] == "1" && m.ResourceVersion == cm.ResourceVersion
	})
	var live corev1.ConfigMap
	if err := s.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "a"}, &live); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), &live, client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cache is empty", func() bool { return len(informer.GetStore().List()) == 0 })
}
