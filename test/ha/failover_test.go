package ha

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// TestTheLeaderIsKilled: another one goes on with a rollout and with scaling, and
// nothing is done twice.
func TestTheLeaderIsKilled(t *testing.T) {
	t.Parallel()
	c := start(t, 1, 3)
	first := c.leader(c.servers...)
	rest := c.without(first)
	b := balance(t, append(rest, first)...)
	client := clientset(t, first.config(b.url()))
	node(t, client)
	k := runKubelet(t, client)

	if _, err := client.AppsV1().Deployments("default").Create(t.Context(), deployment("web", 12), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	rolledOut(t, client, "web")
	// A rollout of 12 may have 25% more, and each Pod is made once: 12, and 12 anew.
	if _, err := change(t.Context(), client, "web", func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "image:2" }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rollout is under way", func() error {
		if ever, _ := k.counts(); ever <= 13 {
			return fmt.Errorf("%d Pods", ever)
		}
		return nil
	})
	killed := time.Now()
	first.kill()
	ever, _ := k.counts()
	next := c.leader(rest...)
	t.Logf("%s was killed with %d of 24 Pods made; after %v %s leads", first.name, ever, time.Since(killed).Round(time.Millisecond), next.name)
	if took := time.Since(killed); took > takeover {
		t.Errorf("the next leader came after %v, promised are %v", took, takeover)
	}
	rolledOut(t, client, "web")
	t.Logf("rolled out %v after the kill", time.Since(killed).Round(time.Millisecond))
	if ever, most := k.counts(); ever != 24 || most > 15 {
		t.Errorf("%d Pods were made, at most %d at a time; want 24 and at most 15", ever, most)
	}

	// Scaling on and on, one after the other, while the second leader dies too.
	first.start()
	killedNext := false
	for n := int32(13); n <= 30; n++ {
		if _, err := change(t.Context(), client, "web", func(d *appsv1.Deployment) { d.Spec.Replicas = &n }); err != nil {
			t.Fatal(err)
		}
		if n == 20 {
			killedNext, killed = true, time.Now()
			next.kill()
			b.use(c.without(next)...)
		}
	}
	rolledOut(t, client, "web")
	t.Logf("second leader killed (%v): scaled to 30 after %v", killedNext, time.Since(killed).Round(time.Millisecond))
	if ever, most := k.counts(); ever != 12+30 || most != 30 {
		t.Errorf("%d Pods were made, at most %d at a time; want 42 and 30", ever, most)
	}
}

// TestTheLeaderStandsStill: what a leader still had to write when it was stopped
// is not carried out once another one leads.
func TestTheLeaderStandsStill(t *testing.T) {
	t.Parallel()
	const most = 80
	c := start(t, 1, 2)
	first := c.leader(c.servers...)
	other := c.without(first)[0]
	client := other.client()
	node(t, client)
	k := runKubelet(t, client)
	if _, err := client.AppsV1().Deployments("default").Create(t.Context(), deployment("web", 4), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	rolledOut(t, client, "web")

	// Stopped in the middle of making Pods.
	scale(t, client, most)
	for ever, end := 0, time.Now().Add(wait); ever <= 4 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		ever, _ = k.counts()
	}
	first.signal(syscall.SIGSTOP)
	stopped := time.Now()
	c.leader(other)
	t.Logf("%s was stopped in the middle of its work; %s leads after %v", first.name, other.name, time.Since(stopped).Round(time.Millisecond))
	rolledOut(t, client, "web")
	scale(t, client, 10)
	rolledOut(t, client, "web")
	if pause := 20*time.Second - time.Since(stopped); pause > 0 {
		time.Sleep(pause)
	}
	before, _ := k.counts()
	first.signal(syscall.SIGCONT)
	eventually(t, first.name+" answers again, and does not lead", func() error {
		code, body := first.readyz()
		if code != 200 || first.leads() {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	time.Sleep(2 * time.Second) // for what it may still want to write
	if !strings.Contains(first.logged(), "this server no longer leads") {
		t.Errorf("%s does not say that it has stopped to lead", first.name)
	}
	if after, atATime := k.counts(); after != before || after != most || atATime != most {
		t.Errorf("%d Pods before it went on, %d after, at most %d at a time; want %d each", before, after, atATime, most)
	}
	rolledOut(t, client, "web")
	// It may lead again.
	other.kill()
	c.leader(first)
	scaleAt := first.client()
	scale(t, scaleAt, 11)
	eventually(t, "a Pod is made by it", func() error {
		list, err := scaleAt.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
		if err == nil && len(list.Items) != 11 {
			err = fmt.Errorf("%d Pods", len(list.Items))
		}
		return err
	})
}

func scale(t testing.TB, c *kubernetes.Clientset, n int32) {
	t.Helper()
	if _, err := change(t.Context(), c, "web", func(d *appsv1.Deployment) { d.Spec.Replicas = &n }); err != nil {
		t.Fatal(err)
	}
}

// TestAMemberOfEtcdIsKilled: every write that was acknowledged is there.
func TestAMemberOfEtcdIsKilled(t *testing.T) {
	t.Parallel()
	c := start(t, 3, 2)
	acknowledged := make([]map[string]string, 2)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, 2)
	failed := make([]int, 2)
	for i, s := range c.servers {
		client := s.client()
		acknowledged[i] = map[string]string{}
		go func() {
			defer func() { done <- struct{}{} }()
			for n := 0; ctx.Err() == nil; n++ {
				m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("m%d-%d", i, n)}, Data: map[string]string{"n": fmt.Sprint(n)}}
				made, err := client.CoreV1().ConfigMaps("default").Create(ctx, m, metav1.CreateOptions{})
				if err == nil {
					acknowledged[i][m.Name] = made.ResourceVersion
				} else if ctx.Err() == nil {
					failed[i]++
				}
			}
		}()
	}
	time.Sleep(2 * time.Second)
	c.etcd.Kill(0)
	time.Sleep(3 * time.Second)
	c.etcd.Start(0)
	time.Sleep(time.Second)
	c.etcd.Kill(1)
	time.Sleep(3 * time.Second)
	cancel()
	<-done
	<-done
	for _, s := range c.servers {
		s.await()
		list, err := s.client().CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]string{}
		for _, m := range list.Items {
			have[m.Name] = m.ResourceVersion
		}
		for i := range acknowledged {
			if len(acknowledged[i]) < 50 {
				t.Errorf("server %d wrote only %d", i, len(acknowledged[i]))
			}
			for name, version := range acknowledged[i] {
				if have[name] != version {
					t.Errorf("%s: %s was acknowledged at %s, and is there at %q", s.name, name, version, have[name])
				}
			}
		}
	}
	t.Logf("acknowledged %d and %d, refused %v", len(acknowledged[0]), len(acknowledged[1]), failed)
}
