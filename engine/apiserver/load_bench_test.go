package apiserver_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/upstream"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/resources"
	"berth.dev/berth/engine/store"
)

// BenchmarkCalls makes 200 calls a second, half of them reads and half writes,
// whether or not the former have ended, beside 10,000 stored Pods.
func BenchmarkCalls(b *testing.B) {
	s := serve(b)
	before := heap()
	fill(b, s.Resources, storedPods)
	perPod := float64(heap()-before) / storedPods / 1000
	var mu sync.Mutex
	took := map[string][]time.Duration{}
	var wg sync.WaitGroup
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for i := 0; b.Loop(); i++ {
		for n := range 1000 {
			<-ticker.C
			method, body := "GET", ""
			if n%2 == 1 {
				method, body = "PATCH", fmt.Sprintf(`{"metadata":{"annotations":{"n":"%d-%d"}}}`, i, n)
			}
			name := typicalPod(rand.IntN(storedPods)).Name
			wg.Go(func() {
				began := time.Now()
				code, text := s.do(b, admin, method, "/api/v1/namespaces/default/pods/"+name, body, "Content-Type", "application/merge-patch+json")
				if code != 200 {
					b.Errorf("%s: %d %s", method, code, text)
				}
				mu.Lock()
				defer mu.Unlock()
				took[method] = append(took[method], time.Since(began))
			})
		}
		wg.Wait()
	}
	b.ReportMetric(perPod, "kB/pod")
	for method, all := range took {
		slices.Sort(all)
		b.ReportMetric(ms(all[len(all)/2]), strings.ToLower(method)+"-p50-ms")
		b.ReportMetric(ms(all[len(all)*99/100]), strings.ToLower(method)+"-p99-ms")
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkWatchers takes the time from a change until the last of 1,000
// watchers, each with a connection of its own, has it.
func BenchmarkWatchers(b *testing.B) {
	const watchers = 1000
	s := serve(b)
	create(b, s, configMap("a", nil))
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	got := make(chan struct{}, watchers)
	for range watchers {
		req, err := http.NewRequestWithContext(ctx, "GET", s.url+"/api/v1/configmaps?watch=true&resourceVersion="+fmt.Sprint(s.Revision()), nil)
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+admin)
		response, err := s.client.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		defer response.Body.Close()
		go func() {
			for lines := bufio.NewScanner(response.Body); lines.Scan(); {
				got <- struct{}{}
			}
		}()
	}
	var slowest time.Duration
	for n := 0; b.Loop(); n++ {
		cm := configMap("a", nil)
		cm.Data = map[string]string{"n": fmt.Sprint(n)}
		began := time.Now()
		if err := s.Update(b.Context(), cm); err != nil {
			b.Fatal(err)
		}
		for range watchers {
			<-got
		}
		slowest = max(slowest, time.Since(began))
	}
	b.ReportMetric(ms(slowest), "slowest-ms")
}

// BenchmarkStart opens a store of 100,000 Pods and fills the views of the engine.
func BenchmarkStart(b *testing.B) {
	const count = 100_000
	up, err := upstream.New()
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "store.db")
	over := func() (*store.Bolt, *resources.Resources) {
		bolt, err := store.OpenBolt(path)
		if err != nil {
			b.Fatal(err)
		}
		return bolt, resources.New(resources.Options{Store: bolt, Upstream: up, Clock: clock.RealClock{}, ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16")})
	}
	running := func(run func(context.Context) error) (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- run(ctx) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				b.Error(err)
			}
		}
	}
	bolt, r := over()
	stop := running(bolt.Run)
	if err := r.Create(b.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}); err != nil {
		b.Fatal(err)
	}
	fill(b, r, count)
	stop()
	for b.Loop() {
		bolt, r := over()
		views := live.New()
		stopStore := running(bolt.Run)
		stopViews := running(func(ctx context.Context) error { return views.Run(ctx, client.Client(r)) })
		<-views.Pods.Ready()
		b.StopTimer()
		if n := len(views.Pods.All()); n != count {
			b.Fatalf("%d pods, want %d", n, count)
		}
		stopViews()
		stopStore()
		b.StartTimer()
	}
}
