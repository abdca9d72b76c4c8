package ha

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// TestAnInformerMovesBetweenServers: it resumes by revision at another server, and
// ends with exactly what the servers have.
func TestAnInformerMovesBetweenServers(t *testing.T) {
	t.Parallel()
	c := start(t, 1, 3)
	b := balance(t, c.servers[0])
	factory := informers.NewSharedInformerFactory(clientset(t, c.servers[0].config(b.url())), 0)
	informer := factory.Core().V1().ConfigMaps().Informer()
	order := &versions{t: t, last: map[string]int64{}}
	if _, err := informer.AddEventHandler(order.handler()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	t.Cleanup(func() { cancel(); factory.Shutdown() })

	var wg sync.WaitGroup
	for i, s := range c.servers {
		client := s.client()
		wg.Go(func() { churn(t, client, i) })
	}
	moves := 0
	moved := make(chan struct{})
	go func() { wg.Wait(); close(moved) }()
	for busy := true; busy; {
		select {
		case <-moved:
			busy = false
		case <-time.After(250 * time.Millisecond):
			moves++
			b.use(c.servers[moves%3])
		}
	}
	list, err := c.servers[1].client().CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the informer has what the servers have", func() error {
		have := map[string]string{}
		for _, o := range informer.GetStore().List() {
			m := o.(*corev1.ConfigMap)
			have[m.Name] = m.ResourceVersion
		}
		for _, m := range list.Items {
			if have[m.Name] != m.ResourceVersion {
				return fmt.Errorf("%s: %q, want %s", m.Name, have[m.Name], m.ResourceVersion)
			}
		}
		if len(have) != len(list.Items) {
			return fmt.Errorf("%d, want %d", len(have), len(list.Items))
		}
		return nil
	})
	t.Logf("%d objects, %d events, %d moves", len(list.Items), order.count(), moves)
}

// churn creates, changes and deletes objects of its own.
func churn(t testing.TB, c *kubernetes.Clientset, who int) {
	maps := c.CoreV1().ConfigMaps("default")
	for n := range 60 {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("c%d-%d", who, n)}, Data: map[string]string{"a": "1"}}
		m, err := maps.Create(t.Context(), m, metav1.CreateOptions{})
		if err != nil {
			t.Error(err)
			return
		}
		m.Data["a"] = "2"
		if _, err := maps.Update(t.Context(), m, metav1.UpdateOptions{}); err != nil {
			t.Error(err)
		}
		if n%3 == 0 {
			if err := maps.Delete(t.Context(), m.Name, metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// versions sees that no object goes back in time.
type versions struct {
	t testing.TB

	mu   sync.Mutex
	last map[string]int64
	seen int
}

func (v *versions) handler() cache.ResourceEventHandlerFuncs {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    v.see,
		UpdateFunc: func(_, o any) { v.see(o) },
	}
}

func (v *versions) see(o any) {
	m := o.(*corev1.ConfigMap)
	version, err := strconv.ParseInt(m.ResourceVersion, 10, 64)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.seen++
	if err != nil || version < v.last[m.Namespace+"/"+m.Name] {
		v.t.Errorf("%s: version %s after %d", m.Name, m.ResourceVersion, v.last[m.Namespace+"/"+m.Name])
	}
	v.last[m.Namespace+"/"+m.Name] = version
}

func (v *versions) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.seen
}

// TestRevisionsAreTheClusters: what one server acknowledged another one shows at
// once, and a watch goes on elsewhere where it ended.
func TestRevisionsAreTheClusters(t *testing.T) {
	t.Parallel()
	c := start(t, 1, 2)
	a, b := c.servers[0].client(), c.servers[1].client()
	for n := range 50 {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("m%d", n), Labels: map[string]string{"of": "the-test"}}}
		made, err := a.CoreV1().ConfigMaps("default").Create(t.Context(), m, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		list, err := b.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{
			LabelSelector: "of=the-test", ResourceVersion: made.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
		})
		if err != nil || len(list.Items) != n+1 {
			t.Fatalf("after %d writes the other server has %d (%v)", n+1, len(list.Items), err)
		}
		w, err := b.CoreV1().ConfigMaps("default").Watch(t.Context(), metav1.ListOptions{ResourceVersion: made.ResourceVersion})
		if err != nil {
			t.Fatal(err)
		}
		w.Stop()
	}
	list, err := a.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.CoreV1().ConfigMaps("default").Delete(t.Context(), "m7", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w, err := b.CoreV1().ConfigMaps("default").Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if e := <-w.ResultChan(); e.Type != watch.Deleted || e.Object.(*corev1.ConfigMap).Name != "m7" {
		t.Errorf("the watch goes on with %v", e)
	}
	old, err := b.CoreV1().ConfigMaps("default").Watch(t.Context(), metav1.ListOptions{ResourceVersion: "1"})
	if err == nil {
		e := <-old.ResultChan()
		err = apierrors.FromObject(e.Object)
	}
	if !apierrors.IsResourceExpired(err) {
		t.Errorf("a watch from before the window: %v", err)
	}
}
