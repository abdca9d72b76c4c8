package ha

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// TestQuorumIsLost: errors say so, nothing is acknowledged, and when it is back
// the same processes go on.
func TestQuorumIsLost(t *testing.T) {
	t.Parallel()
	c := start(t, 3, 2)
	c.leader(c.servers...)
	s := c.servers[0]
	client := s.client()
	node(t, client)
	if err := write(t, client, "before"); err != nil {
		t.Fatal(err)
	}
	c.etcd.Kill(0)
	c.etcd.Kill(1)

	err := write(t, client, "first")
	if !apierrors.IsTimeout(err) && !apierrors.IsServiceUnavailable(err) {
		t.Errorf("a write without quorum: %v", err)
	}
	t.Logf("the first write without quorum: %v", err)
	for _, s := range c.servers {
		eventually(t, s.name+" says what is wrong", func() error {
			code, body := s.readyz()
			if code != http.StatusInternalServerError || !strings.Contains(body, "the store has no quorum: only 1 of the 3 members of etcd can be reached") {
				return fmt.Errorf("%d %s", code, body)
			}
			return nil
		})
		if code, body := s.get("/livez"); code != http.StatusOK {
			t.Errorf("%s does not live: %d %s", s.name, code, body)
		}
	}
	began := time.Now()
	if err = write(t, client, "later"); !apierrors.IsServiceUnavailable(err) || !strings.Contains(err.Error(), "the store has no quorum") {
		t.Errorf("a later write without quorum: %v", err)
	}
	t.Logf("a later write, after %v: %v", time.Since(began).Round(time.Millisecond), err)
	if _, err := client.CoreV1().ConfigMaps("default").Get(t.Context(), "before", metav1.GetOptions{}); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("a read of the newest without quorum: %v", err)
	}
	if m, err := client.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{ResourceVersion: "0"}); err != nil || !slices.ContainsFunc(m.Items, func(c corev1.ConfigMap) bool { return c.Name == "before" }) {
		t.Errorf("a read of any age without quorum: %+v, %v", m, err)
	}

	c.etcd.Start(0)
	c.etcd.Start(1)
	for _, s := range c.servers {
		s.await()
		eventually(t, s.name+" writes", func() error { return write(t, s.client(), "after-"+s.name) })
	}
	c.leader(c.servers...)
	eventually(t, "the engine goes on", func() error {
		_, err := client.CoreV1().Pods("default").Create(t.Context(), deploymentPod("p"), metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		p, err := client.CoreV1().Pods("default").Get(t.Context(), "p", metav1.GetOptions{})
		if err == nil && p.Spec.NodeName == "" {
			err = fmt.Errorf("the Pod has no node")
		}
		return err
	})
	if _, err := client.CoreV1().ConfigMaps("default").Get(t.Context(), "later", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("what was refused is there: %v", err)
	}
}

func write(t testing.TB, c *kubernetes.Clientset, name string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := c.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	return err
}

func deploymentPod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: deployment(name, 1).Spec.Template.Spec}
}
