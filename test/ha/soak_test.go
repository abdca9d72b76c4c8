package ha

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

var soak = flag.Duration("soak", 0, "how long TestSoak takes parts away, such as 3m; 0 for a single round")

// TestSoak rolls out and writes without end while leaders are killed and stopped
// and members of etcd are killed, in any order. Each Pod is made once, there are
// never more than a rollout may have, and what was acknowledged is there.
func TestSoak(t *testing.T) {
	t.Parallel()
	c := start(t, 3, 3)
	b := balance(t, c.servers...)
	client := clientset(t, c.servers[0].config(b.url()))
	node(t, client)
	k := runKubelet(t, client)
	if _, err := client.AppsV1().Deployments("default").Create(t.Context(), deployment("web", 10), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	rolledOut(t, client, "web")

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	acknowledged, rollouts := map[string]string{}, 0
	wg.Go(func() { writeMaps(ctx, client, acknowledged) })
	wg.Go(func() {
		for ctx.Err() == nil {
			image := fmt.Sprintf("image:v%d", rollouts)
			if _, err := change(t.Context(), client, "web", func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = image }); err != nil {
				t.Errorf("change: %v", err)
			}
			rollouts++
			rolledOut(t, client, "web")
		}
	})
	seed := time.Now().UnixNano()
	rng := rand.New(rand.NewPCG(uint64(seed), 0))
	for end := time.Now().Add(*soak); ; {
		c.harm(b, rng)
		if time.Now().After(end) {
			break
		}
	}
	cancel()
	wg.Wait()
	rolledOut(t, client, "web")
	if ever, most := k.counts(); ever != 10*(rollouts+1) || most > 13 {
		t.Errorf("%d rollouts made %d Pods, at most %d at a time; want %d and at most 13 (seed %d)", rollouts, ever, most, 10*(rollouts+1), seed)
	}
	list, err := client.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list.Items {
		if acknowledged[m.Name] == m.ResourceVersion {
			delete(acknowledged, m.Name)
		}
	}
	if len(acknowledged) > 0 {
		t.Errorf("acknowledged and not there: %v (seed %d)", acknowledged, seed)
	}
	t.Logf("%d rollouts, %d objects", rollouts, len(list.Items))
}

// writeMaps creates objects and notes the versions of those that were acknowledged.
func writeMaps(ctx context.Context, c *kubernetes.Clientset, acknowledged map[string]string) {
	for n := 0; ctx.Err() == nil; n++ {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("m-%d", n)}}
		if made, err := c.CoreV1().ConfigMaps("default").Create(ctx, m, metav1.CreateOptions{}); err == nil {
			acknowledged[m.Name] = made.ResourceVersion
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// harm takes a part away and brings it back.
func (c *cluster) harm(b *balancer, rng *rand.Rand) {
	time.Sleep(time.Duration(1+rng.IntN(4)) * time.Second)
	away := time.Duration(1+rng.IntN(9)) * time.Second
	switch rng.IntN(3) {
	case 0:
		l := c.leader(c.servers...)
		c.t.Logf("the leader %s is killed for %v", l.name, away)
		b.use(c.without(l)...)
		l.kill()
		time.Sleep(away)
		l.start()
		l.await()
	case 1:
		l := c.leader(c.servers...)
		c.t.Logf("the leader %s stands still for %v", l.name, away)
		b.use(c.without(l)...)
		l.signal(syscall.SIGSTOP)
		time.Sleep(away)
		l.signal(syscall.SIGCONT)
	case 2:
		i := rng.IntN(3)
		c.t.Logf("member %d of etcd is killed for %v", i, away)
		c.etcd.Kill(i)
		time.Sleep(away)
		c.etcd.Start(i)
	}
	b.use(c.servers...)
}
