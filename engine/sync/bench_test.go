package sync_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	gosync "sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/sync"
)

// bare is an engine over a store, without controllers: what is measured is plan
// and transaction.
func bare(b *testing.B) *fixture {
	b.Helper()
	r := enginetest.Resources(b)
	views := live.New()
	f := &fixture{Resources: r, remote: &remote{}}
	f.engine = sync.New(sync.Options{Resources: r, Live: views, Fetcher: f.remote, Compiler: f.remote, Clock: clock.RealClock{}, Log: enginetest.Log(b)})
	enginetest.Go(b, f.engine.Run)
	enginetest.Go(b, func(ctx context.Context) error { return views.Run(ctx, r) })
	return f
}

// appliedIn waits until a commit is applied.
func (f *fixture) appliedIn(b *testing.B, source, id string) {
	b.Helper()
	key := types.NamespacedName{Name: source}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		var s v1alpha1.Source
		if err := f.Get(b.Context(), key, &s); err == nil && s.Status.Applied != nil && s.Status.Applied.ID == id {
			return
		} else if time.Now().After(deadline) {
			b.Fatalf("%v: %s is not applied: %+v", err, id, s.Status.Conditions)
		}
	}
}

func manyConfigMaps(n int, value string) string {
	docs := make([]string, n)
	for i := range docs {
		docs[i] = configMap(fmt.Sprintf("c%05d", i), value)
	}
	return strings.Join(docs, "---\n")
}

// BenchmarkApply10000 is the plan and the transaction of 10,000 objects, beside
// the decoding of their YAML alone, which stands in for the compiler here and is
// taken off.
func BenchmarkApply10000(b *testing.B) {
	f := bare(b)
	if err := f.Create(b.Context(), &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}); err != nil {
		b.Fatal(err)
	}
	var took, floor time.Duration
	for i := range b.N {
		id := fmt.Sprint("c", i)
		f.remote.push(id, "", manyConfigMaps(10_000, fmt.Sprint(i)))
		began := time.Now()
		rev, _ := f.remote.Fetch(b.Context(), &v1alpha1.Source{})
		if _, err := f.remote.Compile(b.Context(), rev, sync.CompileOptions{}); err != nil {
			b.Fatal(err)
		}
		floor += time.Since(began)
		began = time.Now()
		f.engine.Pushed("shop", began)
		f.appliedIn(b, "shop", id)
		took += time.Since(began)
	}
	b.ReportMetric(float64((took-floor).Milliseconds())/float64(b.N), "ms/apply")
	b.ReportMetric(float64(floor.Milliseconds())/float64(b.N), "ms/decode")
	b.ReportMetric(0, "ns/op")
}

// manyApps are Deployments with a ConfigMap each.
func manyApps(n int, value func(int) string) string {
	docs := make([]string, n)
	for i := range docs {
		name := fmt.Sprintf("app%04d", i)
		docs[i] = fmt.Sprintf(web, 0, "i:"+value(i)) + "---\n" + configMap(name, value(i))
		docs[i] = strings.Replace(docs[i], "{name: web}", "{name: "+name+"}", 1)
	}
	return strings.Join(docs, "---\n")
}

// BenchmarkOneOfThousand is the plan and the transaction of a commit that changes
// one of 1,000 apps, beside the decoding of all their YAML, which stands in for
// the compiler here and is taken off.
func BenchmarkOneOfThousand(b *testing.B) {
	f := bare(b)
	if err := f.Create(b.Context(), &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}); err != nil {
		b.Fatal(err)
	}
	apply := func(n int) (took, floor time.Duration) {
		id := fmt.Sprint("c", n)
		f.remote.push(id, "", manyApps(1_000, func(i int) string {
			if i == n%1_000 {
				return fmt.Sprint(n)
			}
			return "0"
		}))
		began := time.Now()
		rev, _ := f.remote.Fetch(b.Context(), &v1alpha1.Source{})
		if _, err := f.remote.Compile(b.Context(), rev, sync.CompileOptions{}); err != nil {
			b.Fatal(err)
		}
		floor = time.Since(began)
		began = time.Now()
		f.engine.Pushed("shop", began)
		f.appliedIn(b, "shop", id)
		return time.Since(began), floor
	}
	apply(0)
	apply(1)
	var took, floor time.Duration
	for n := 2; b.Loop(); n++ {
		t, fl := apply(n)
		took, floor = took+t, floor+fl
	}
	b.ReportMetric(float64((took-floor).Milliseconds())/float64(b.N), "ms/apply")
	b.ReportMetric(float64(floor.Milliseconds())/float64(b.N), "ms/decode-yaml")
}

// BenchmarkHundredSources: one commit to each of 100 Sources of 10 objects, all
// at once, until all are applied.
func BenchmarkHundredSources(b *testing.B) {
	f := bare(b)
	name := func(i int) string { return fmt.Sprintf("s%02d", i) }
	body := func(i int, value string) string {
		return strings.ReplaceAll(manyConfigMaps(10, value), "{name: c", "{name: "+name(i)+"-c")
	}
	for i := range 100 {
		f.remote.other(name(i), name(i)+"-0", body(i, "0"))
		if err := f.Create(b.Context(), &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: name(i)}}); err != nil {
			b.Fatal(err)
		}
	}
	for i := range 100 {
		f.appliedIn(b, name(i), name(i)+"-0")
	}
	var took time.Duration
	for n := range b.N {
		value := fmt.Sprint(n + 1)
		for i := range 100 {
			f.remote.other(name(i), name(i)+"-"+value, body(i, value))
		}
		began := time.Now()
		var all gosync.WaitGroup
		for i := range 100 {
			f.engine.Pushed(name(i), began)
		}
		for i := range 100 {
			all.Go(func() { f.appliedIn(b, name(i), name(i)+"-"+value) })
		}
		all.Wait()
		took += time.Since(began)
	}
	b.ReportMetric(float64(took.Milliseconds())/float64(b.N), "ms/100_sources")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkMemory is what the heap grows by from the 2,500th commit to the
// 5,000th: the window of the watches, which is bounded, is full by then.
func BenchmarkMemory(b *testing.B) {
	f := bare(b)
	if err := f.Create(b.Context(), &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}); err != nil {
		b.Fatal(err)
	}
	heap := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / (1 << 20)
	}
	var before float64
	for i := range 5_000 {
		id := fmt.Sprint("c", i)
		f.remote.push(id, "", manyConfigMaps(10, fmt.Sprint(i)))
		f.engine.Pushed("shop", time.Now())
		f.appliedIn(b, "shop", id)
		f.remote.mu.Lock()
		delete(f.remote.commit, fmt.Sprint("c", i-1))
		f.remote.mu.Unlock()
		if i == 2_500 {
			before = heap()
		}
	}
	b.ReportMetric(heap()-before, "MB/2500_commits")
	b.ReportMetric(before, "MB_after_2500")
	b.ReportMetric(0, "ns/op")
}
