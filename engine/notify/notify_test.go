package notify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	testingclock "k8s.io/utils/clock/testing"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/live"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"))
}

// receiver keeps what it is sent, and answers with a status.
type receiver struct {
	mu     sync.Mutex
	bodies []string
	signed []string
	status int
	calls  int
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, _ := io.ReadAll(q.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	if r.status != 0 {
		w.WriteHeader(r.status)
		return
	}
	r.bodies, r.signed = append(r.bodies, string(body)), append(r.signed, q.Header.Get(SignatureHeader))
}

func (r *receiver) got() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string{}, r.bodies...)
}

type world struct {
	client.Client
	clock    *testingclock.FakeClock
	receiver *receiver
	url      string
}

func begin(t *testing.T, kind string) *world {
	r := enginetest.Resources(t)
	w := &world{Client: r, clock: testingclock.NewFakeClock(time.Now().Truncate(time.Second)), receiver: &receiver{}}
	server := httptest.NewServer(w.receiver)
	t.Cleanup(server.Close)
	w.url = server.URL + "/token-in-the-path"
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "chat"}, Data: map[string][]byte{"url": []byte(w.url), "secret": []byte("hunter2")}}
	src := &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: v1alpha1.SourceSpec{Notifications: []v1alpha1.Notification{{Type: kind, SecretName: "chat"}}}}
	for _, obj := range []client.Object{secret, src} {
		if err := r.Create(t.Context(), obj); err != nil {
			t.Fatal(err)
		}
	}
	views := live.New()
	n := New(Options{Live: views, Client: r, HTTP: server.Client(), AllowHTTP: true, Clock: w.clock, Log: enginetest.Log(t)})
	enginetest.Go(t, n.Run)
	enginetest.Go(t, func(ctx context.Context) error { return views.Run(ctx, r) })
	return w
}

// is makes the Source what Ready says.
func (w *world) is(t *testing.T, commit string, status metav1.ConditionStatus, reason, message string) {
	t.Helper()
	var s v1alpha1.Source
	if err := w.Get(t.Context(), types.NamespacedName{Name: "shop"}, &s); err != nil {
		t.Fatal(err)
	}
	s.Status.Observed = &v1alpha1.Commit{ID: commit, Subject: "Say <!here> & more", Author: "Ann"}
	meta.SetStatusCondition(&s.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionReady, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(w.clock.Now())})
	if err := w.UpdateStatus(t.Context(), &s); err != nil {
		t.Fatal(err)
	}
}

// pass lets time go by, in steps, for a wait may begin only after the first.
func (w *world) pass(t *testing.T, d time.Duration) {
	t.Helper()
	for range int(d / time.Second) {
		time.Sleep(2 * time.Millisecond)
		w.clock.Step(time.Second)
	}
	time.Sleep(20 * time.Millisecond)
}

func (w *world) await(t *testing.T, n int) []string {
	t.Helper()
	enginetest.Eventually(t, 20*time.Second, func() string {
		if got := w.receiver.got(); len(got) < n {
			w.clock.Step(time.Second)
			return fmt.Sprintf("%d messages, want %d", len(got), n)
		}
		return ""
	})
	return w.receiver.got()
}

func TestFailureAndRecovery(t *testing.T) {
	w := begin(t, "")
	w.is(t, "c1", metav1.ConditionTrue, "Succeeded", "")
	w.pass(t, 10*time.Second)
	if got := w.receiver.got(); len(got) != 0 {
		t.Fatalf("told that all is well: %v", got)
	}
	w.is(t, "c2", metav1.ConditionFalse, "Progressing", "1 of 2")
	w.is(t, "c2", metav1.ConditionFalse, "CompileFailed", "a.yaml:3: no such field")
	got := w.await(t, 1)
	var m Message
	if err := json.Unmarshal([]byte(got[0]), &m); err != nil || m.State != "failed" || m.Reason != "CompileFailed" || m.Commit != "c2" || m.Message != "a.yaml:3: no such field" || m.Source != "shop" {
		t.Errorf("%v %s", err, got[0])
	}
	mac := hmac.New(sha256.New, []byte("hunter2"))
	mac.Write([]byte(got[0]))
	if want := "sha256=" + hex.EncodeToString(mac.Sum(nil)); w.receiver.signed[0] != want {
		t.Errorf("signature %s, want %s", w.receiver.signed[0], want)
	}
	w.is(t, "c3", metav1.ConditionFalse, "Progressing", "")
	w.is(t, "c3", metav1.ConditionTrue, "Succeeded", "")
	if got := w.await(t, 2); !strings.Contains(got[1], `"state":"recovered"`) {
		t.Errorf("%v", got)
	}
}

// TestMessagesAreLimited: what goes back and forth is told once a minute.
func TestMessagesAreLimited(t *testing.T) {
	w := begin(t, "")
	w.is(t, "c1", metav1.ConditionFalse, "Degraded", "")
	w.await(t, 1)
	for i := range 12 {
		w.is(t, fmt.Sprint("c", i), metav1.ConditionFalse, "CompileFailed", "")
		w.pass(t, 10*time.Second)
	}
	if n := len(w.receiver.got()); n < 2 || n > 4 {
		t.Errorf("%d messages in two minutes", n)
	}
}

// TestWhatPassesIsNoNews: a state that does not last is not told.
func TestWhatPassesIsNoNews(t *testing.T) {
	w := begin(t, "")
	w.is(t, "c1", metav1.ConditionTrue, "Succeeded", "")
	for range 5 {
		w.is(t, "c1", metav1.ConditionFalse, "Degraded", "")
		w.pass(t, time.Second)
		w.is(t, "c1", metav1.ConditionTrue, "Succeeded", "")
		w.pass(t, 10*time.Second)
	}
	if got := w.receiver.got(); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestSlack(t *testing.T) {
	w := begin(t, v1alpha1.NotificationSlack)
	w.is(t, "c1", metav1.ConditionFalse, "CompileFailed", "x < y")
	var body struct{ Text string }
	if err := json.Unmarshal([]byte(w.await(t, 1)[0]), &body); err != nil {
		t.Fatal(err)
	}
	if want := ":x: *shop* failed: CompileFailed\ncommit c1 Say &lt;!here&gt; &amp; more, by Ann\nx &lt; y"; body.Text != want {
		t.Errorf("got %q, want %q", body.Text, want)
	}
}

// TestADeadReceiver is tried a few times; the event does not hold its address.
func TestADeadReceiver(t *testing.T) {
	w := begin(t, "")
	w.receiver.status = http.StatusInternalServerError
	w.is(t, "c1", metav1.ConditionFalse, "CompileFailed", "")
	enginetest.Eventually(t, 20*time.Second, func() string {
		w.clock.Step(time.Second)
		var events corev1.EventList
		if err := w.List(t.Context(), &events, client.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		for _, e := range events.Items {
			if e.Reason == "NotificationFailed" {
				if !strings.Contains(e.Message, "the receiver answered 500") || strings.Contains(e.Message, "token-in-the-path") {
					t.Errorf("event: %s", e.Message)
				}
				return ""
			}
		}
		return "no event"
	})
	if w.receiver.calls != attempts {
		t.Errorf("%d attempts", w.receiver.calls)
	}
	if err := (&Notifier{Options: Options{Client: w, HTTP: &http.Client{}, AllowHTTP: false}}).send(t.Context(), mustSource(t, w), &v1alpha1.Notification{SecretName: "chat"}, Message{}); err == nil || !strings.Contains(err.Error(), "must be an https URL") {
		t.Errorf("plain http: %v", err)
	}
}

func mustSource(t *testing.T, w *world) *v1alpha1.Source {
	t.Helper()
	var s v1alpha1.Source
	if err := w.Get(t.Context(), types.NamespacedName{Name: "shop"}, &s); err != nil {
		t.Fatal(err)
	}
	return &s
}
