package ha

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// BenchmarkCalls is how long a client waits for a write and for a read, over
// HTTP, with the store in a file and in etcd on the same disk.
func BenchmarkCalls(b *testing.B) {
	b.Run("file", func(b *testing.B) { calls(b, onFile(b).client()) })
	for _, members := range []int{1, 3} {
		b.Run(fmt.Sprintf("etcd-of-%d", members), func(b *testing.B) { calls(b, start(b, members, 1).servers[0].client()) })
	}
}

// onFile is a server that has its store for itself.
func onFile(t testing.TB) *server {
	t.Helper()
	binary, err := filepath.Abs("../../bin/berth")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, binary: binary}
	s := &server{c: c, name: "file", dir: filepath.Join(t.TempDir(), "data"), port: freePort(t)}
	s.cmd = exec.Command(binary, "server", "--data-dir", s.dir, "--listen", fmt.Sprintf("127.0.0.1:%d", s.port))
	s.cmd.Stderr = &s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	eventually(t, "the server has its files", func() error {
		_, err := os.Stat(filepath.Join(s.dir, "admin.kubeconfig"))
		return err
	})
	s.await()
	return s
}

// calls measures 4 clients that write one after the other, and then read.
func calls(b *testing.B, c *kubernetes.Clientset) {
	const clients, each = 4, 150
	maps := c.CoreV1().ConfigMaps("default")
	measure := func(what string, call func(name string) error) {
		var mu sync.Mutex
		var took []time.Duration
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				for n := range each {
					began := time.Now()
					if err := call(fmt.Sprintf("m%d-%d", i, n)); err != nil {
						b.Error(err)
						return
					}
					mu.Lock()
					took = append(took, time.Since(began))
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, what+"-p50-ms")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, what+"-p99-ms")
	}
	for b.Loop() {
		measure("write", func(name string) error {
			_, err := maps.Create(b.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"a": "b"}}, metav1.CreateOptions{})
			return err
		})
		measure("read", func(name string) error {
			_, err := maps.Get(b.Context(), name, metav1.GetOptions{})
			return err
		})
	}
	b.ReportMetric(0, "ns/op")
}
