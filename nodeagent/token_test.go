package nodeagent_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestATokenStaysWithoutTheControlPlane: a pod reads the token of its account,
// keeps it while nobody answers, and is given another one when somebody does.
func TestATokenStaysWithoutTheControlPlane(t *testing.T) {
	n := newNode(t)
	account := &corev1.ServiceAccount{}
	account.Namespace, account.Name = "default", "robot"
	c := sh("main", `while :; do cat /token/token; echo; sleep 0.2; done`)
	c.VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/token", ReadOnly: true}}
	p := pod("a", c)
	p.Spec.ServiceAccountName = "robot"
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}},
	}}}}
	n.create(p)
	n.await("a", "waiting for its account", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) > 0 && s[0].State.Waiting != nil && strings.Contains(s[0].State.Waiting.Message, `ServiceAccount "robot" is not there`)
	})
	n.create(account)
	id := n.await("a", "ready", ready).Status.ContainerStatuses[0].ContainerID
	first := tokensIn(n.logs("a", "main", "\n"))[0]

	n.stop()
	n.api.SetDown(errors.New("the control plane is away"))
	n.start()
	n.logs("a", "main", first)
	killContainer(t, n, strings.TrimPrefix(id, "containerd://"))
	deadline := time.Now().Add(20 * time.Second)
	for n.agent.Logs(t.Context(), "default", "a", "main", &corev1.PodLogOptions{Previous: true}, io.Discard) != nil {
		if time.Now().After(deadline) {
			t.Fatal("the container was not restarted")
		}
		time.Sleep(50 * time.Millisecond)
	}
	if second := tokensIn(n.logs("a", "main", "\n"))[0]; second != first {
		t.Errorf("the next container reads %q, want %q", second, first)
	}
	n.api.SetDown(nil)
	n.await("a", "given another token", func(*corev1.Pod) bool {
		all := tokensIn(n.logs("a", "main", "\n"))
		return all[len(all)-1] != first
	})
}

// tokensIn are the complete lines of a log.
func tokensIn(log string) []string {
	lines := strings.Split(log, "\n")
	return lines[:max(1, len(lines)-1)]
}
