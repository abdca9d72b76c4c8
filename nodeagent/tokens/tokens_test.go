package tokens_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/clienttest"
	"berth.dev/berth/nodeagent/pods"
	"berth.dev/berth/nodeagent/tokens"
)

// node is a Keeper over a cluster; due has what it says.
type node struct {
	*tokens.Keeper
	cluster *clienttest.Memory
	pod     *corev1.Pod
	due     chan []string
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{cluster: clienttest.NewMemory(), due: make(chan []string, 100)}
	n.pod = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: corev1.PodSpec{ServiceAccountName: "front"}}
	if err := n.cluster.Create(t.Context(), n.pod); err != nil {
		t.Fatal(err)
	}
	n.Keeper = tokens.New(tokens.Options{Client: n.cluster, Clock: clock.RealClock{}, Log: slog.New(slog.DiscardHandler), Due: func(uids []string) { n.due <- uids }})
	go n.Run(t.Context())
	return n
}

func (n *node) addAccount(t *testing.T) {
	t.Helper()
	if err := n.cluster.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "front"}}); err != nil {
		t.Fatal(err)
	}
}

func (n *node) token(t *testing.T, seconds int64, have []byte) []byte {
	t.Helper()
	token, err := n.Token(t.Context(), n.pod, "", seconds, have)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// dueWithin is how long it takes until the pod must ask again.
func (n *node) dueWithin(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	if uids := <-n.due; len(uids) != 1 || uids[0] != string(n.pod.UID) {
		t.Errorf("due: %v", uids)
	}
	return time.Since(began)
}

func TestATokenIsMadeAnewInTime(t *testing.T) {
	for what, c := range map[string]struct {
		seconds int64
		want    time.Duration
	}{"four fifths of an hour": {3600, 48 * time.Minute}, "a day of a year": {365 * 24 * 3600, 24 * time.Hour}} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t)
				n.addAccount(t)
				first := n.token(t, c.seconds, nil)
				if again := n.token(t, c.seconds, first); string(again) != string(first) {
					t.Error("a token that is good was made anew")
				}
				if got := n.dueWithin(t); got < c.want-time.Second || got > c.want+time.Second {
					t.Errorf("due after %v, want %v", got, c.want)
				}
				if second := n.token(t, c.seconds, first); string(second) == string(first) || len(second) == 0 {
					t.Error("it was not made anew")
				}
			})
		})
	}
}

// TestWithoutTheControlPlane: what a pod has stays, also when it has ended, and
// one that has none starts without.
func TestWithoutTheControlPlane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.addAccount(t)
		first := n.token(t, 600, nil)
		n.dueWithin(t)
		n.cluster.SetDown(errors.New("connection refused"))
		time.Sleep(time.Hour)
		if kept := n.token(t, 600, first); string(kept) != string(first) {
			t.Errorf("%q, want what it has", kept)
		}
		if none := n.token(t, 600, nil); len(none) != 0 {
			t.Errorf("%q, want nothing", none)
		}
		if got := n.dueWithin(t); got > time.Second {
			t.Errorf("tried again only after %v", got)
		}
		n.cluster.SetDown(nil)
		if second := n.token(t, 600, first); string(second) == string(first) || len(second) == 0 {
			t.Error("it is not made anew when the control plane is back")
		}
	})
}

func TestAPodWaitsForItsAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		waits := []time.Duration{}
		for range 3 {
			_, err := n.Token(t.Context(), n.pod, "", 600, nil)
			var reason *pods.WaitError
			if !errors.As(err, &reason) || !strings.Contains(err.Error(), `ServiceAccount "front" is not there`) {
				t.Fatalf("%v", err)
			}
			waits = append(waits, n.dueWithin(t))
		}
		if waits[0] > 300*time.Millisecond || waits[2] <= waits[0] {
			t.Errorf("waits of %v: want a short one, then longer ones", waits)
		}
		n.addAccount(t)
		n.token(t, 600, nil)
	})
}

// TestANewAgentMakesTokensAnew: the control plane may be another one.
func TestANewAgentMakesTokensAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.addAccount(t)
		const old = "e30.eyJpYXQiOjk0NjY4NDgwMCwiZXhwIjo0MTAyNDQ0ODAwfQ." // good from 2000 to 2100
		n.cluster.SetDown(errors.New("connection refused"))
		if kept := n.token(t, 600, []byte(old)); string(kept) != old {
			t.Errorf("%q, want what it has", kept)
		}
		n.cluster.SetDown(nil)
		if fresh := n.token(t, 600, []byte(old)); string(fresh) == old {
			t.Error("it was not made anew")
		}
	})
}

func TestAPodThatIsGoneIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.addAccount(t)
		n.token(t, 600, nil)
		n.Drop(string(n.pod.UID))
		time.Sleep(48 * time.Hour)
		select {
		case uids := <-n.due:
			t.Errorf("due: %v", uids)
		default:
		}
	})
}
