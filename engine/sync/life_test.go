package sync_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	testingclock "k8s.io/utils/clock/testing"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/sync"
)

// change edits the Source as an administrator does.
func (f *fixture) change(t *testing.T, edit func(*v1alpha1.SourceSpec)) *v1alpha1.Source {
	t.Helper()
	for {
		s := f.source(t)
		edit(&s.Spec)
		err := f.Update(t.Context(), s)
		if err == nil {
			return s
		}
		if !apierrors.IsConflict(err) {
			t.Fatal(err)
		}
	}
}

func (f *fixture) condition(t *testing.T, kind string) metav1.Condition {
	t.Helper()
	if c := meta.FindStatusCondition(f.source(t).Status.Conditions, kind); c != nil {
		return *c
	}
	return metav1.Condition{}
}

// steady fails when Ready becomes something else while the workloads change.
func (f *fixture) steady(t *testing.T, reason string) {
	t.Helper()
	var w corev1.PodList
	if err := f.List(t.Context(), &w, client.ListOptions{Namespace: "default"}); err != nil {
		t.Fatal(err)
	}
	for i := range w.Items {
		p := &w.Items[i]
		for _, ready := range []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionTrue} {
			if err := f.Get(t.Context(), client.Key(p), p); err != nil {
				t.Fatal(err)
			}
			for j := range p.Status.Conditions {
				if p.Status.Conditions[j].Type == corev1.PodReady {
					p.Status.Conditions[j].Status = ready
				}
			}
			if err := f.UpdateStatus(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			for range 10 {
				if c := f.condition(t, "Ready"); c.Reason != reason {
					t.Fatalf("Ready became %s (%s), want %s", c.Reason, c.Message, reason)
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
	}
}

func TestReadyDoesNotFlapWhileTheRemoteIsAway(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", fmt.Sprintf(web, 2, "v1"), ready())
	f.remote.fail(errors.New("remote is away"))
	f.engine.Pushed("shop", time.Now())
	f.await(t, "c1", metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "FetchFailed", Message: "remote is away"})
	f.steady(t, "FetchFailed")
	f.push(t, "c1", "", fmt.Sprintf(web, 2, "v1"), ready())
}

func TestAFetchThatComesBackSaysSoThoughTheCommitIsBad(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1"), ready())
	f.push(t, "c2", "", "error: bad", metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "CompileFailed"})
	f.remote.fail(errors.New("remote is away"))
	f.engine.Pushed("shop", time.Now())
	f.await(t, "c2", metav1.Condition{Type: "Fetched", Status: metav1.ConditionFalse, Reason: "FetchFailed"})
	f.push(t, "c2", "", "error: bad", metav1.Condition{Type: "Fetched", Status: metav1.ConditionTrue, Reason: "Succeeded"})
	f.await(t, "c2", metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "CompileFailed"})
}

func TestSuspendAndResume(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", fmt.Sprintf(web, 2, "v1"), ready())
	f.change(t, func(s *v1alpha1.SourceSpec) { s.Suspend = true })
	f.await(t, "c1", metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "Suspended"})
	f.steady(t, "Suspended")
	f.remote.push("c2", "", fmt.Sprintf(web, 3, "v1"))
	f.engine.Pushed("shop", time.Now())
	time.Sleep(50 * time.Millisecond)
	if s := f.source(t); s.Status.Observed.ID != "c1" {
		t.Errorf("a suspended Source observed %s", s.Status.Observed.ID)
	}
	f.change(t, func(s *v1alpha1.SourceSpec) { s.Suspend = false })
	f.await(t, "c2", ready())
}

func TestASpecThatCouldNotBeAppliedIsNotForgotten(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1")+"---\n"+configMap("b", "1"), ready())
	// The same commit is refused under another specification.
	f.change(t, func(s *v1alpha1.SourceSpec) { s.Namespaces = []string{"elsewhere"} })
	refused := metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "CompileFailed", Message: "may only touch the namespaces elsewhere"}
	f.await(t, "c1", refused)
	for range 3 {
		f.engine.Pushed("shop", time.Now())
		time.Sleep(20 * time.Millisecond)
		f.await(t, "c1", refused)
	}
	// A fetch fails while the specification is mended: it still counts.
	f.remote.fail(errors.New("remote is away"))
	s := f.change(t, func(s *v1alpha1.SourceSpec) { s.Namespaces, s.TargetNamespace = nil, "kube-node-lease" })
	f.await(t, "c1", metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "FetchFailed"})
	f.remote.push("c1", "Move\n\nBerth-Allow-Prune: true", configMap("a", "1")+"---\n"+configMap("b", "1"))
	f.engine.Pushed("shop", time.Now())
	enginetest.Eventually(t, wait, func() string {
		c := f.condition(t, "Ready")
		err := f.Get(t.Context(), types.NamespacedName{Namespace: "kube-node-lease", Name: "a"}, &corev1.ConfigMap{})
		if c.Status != metav1.ConditionTrue || c.ObservedGeneration != s.Generation || err != nil {
			return fmt.Sprintf("%+v %v", c, err)
		}
		return ""
	})
	if got := f.configMaps(t); got != "" {
		t.Errorf("left behind: %s", got)
	}
}

func TestHealthTimeoutIsSaidWithoutAnEvent(t *testing.T) {
	f := start(t)
	src := &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	src.Spec.Interval = &metav1.Duration{Duration: time.Hour}
	src.Spec.HealthTimeout = &metav1.Duration{Duration: 300 * time.Millisecond}
	if err := f.Create(t.Context(), src); err != nil {
		t.Fatal(err)
	}
	f.push(t, "c1", "", fmt.Sprintf(web, 1, "broken"), metav1.Condition{Type: "Healthy", Status: metav1.ConditionFalse, Reason: "Timeout"})
	f.push(t, "c2", "", fmt.Sprintf(web, 1, "v1"), ready())
}

func TestWhatIsGoneComesBack(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1")+"---\n"+configMap("b", "1"), ready())
	if err := f.Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}}, client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, func() string {
		f.engine.Pushed("shop", time.Now()) // each a pass, as a poll is
		return map[bool]string{false: f.configMaps(t)}[f.configMaps(t) == "a=1 b=1"]
	})
}

func TestManySourcesStart(t *testing.T) {
	r := enginetest.Resources(t)
	for i := range 200 {
		s := &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("s", i)}}
		if err := r.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	views := live.New()
	remote := &remote{}
	remote.push("c1", "", "")
	engine := sync.New(sync.Options{Resources: r, Live: views, Fetcher: remote, Compiler: remote, Clock: clock.RealClock{}, Log: enginetest.Log(t)})
	enginetest.Go(t, engine.Run)
	enginetest.Go(t, func(ctx context.Context) error { return views.Run(ctx, r) })
	enginetest.Eventually(t, wait, func() string {
		var all v1alpha1.SourceList
		if err := r.List(t.Context(), &all, client.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, s := range all.Items {
			if meta.IsStatusConditionTrue(s.Status.Conditions, "Ready") {
				n++
			}
		}
		if n < 200 {
			return fmt.Sprintf("%d of 200 are Ready", n)
		}
		return ""
	})
}

func TestASourceDeletedAndCreatedAnew(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1"), ready())
	if err := f.Delete(t.Context(), f.source(t), client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := f.configMaps(t); got != "a=1" {
		t.Errorf("with its Source gone: %s", got)
	}
	f.remote.push("c2", "", configMap("a", "2"))
	createSource(t, f)
	f.await(t, "c2", ready())
	if got := f.configMaps(t); got != "a=2" {
		t.Errorf("with its Source back: %s", got)
	}
}

func TestWhatARemovedSourceLeftMayBeTakenOver(t *testing.T) {
	f := start(t)
	other := &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "other"}}
	if err := f.Create(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	f.remote.push("c1", "", configMap("a", "1"))
	enginetest.Eventually(t, wait, func() string {
		f.engine.Pushed("other", time.Now())
		return map[bool]string{false: "not applied"}[f.configMaps(t) == "a=1"]
	})
	if err := f.Delete(t.Context(), other, client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	createSource(t, f)
	f.push(t, "c2", "", configMap("a", "2"), ready())
	var cm corev1.ConfigMap
	if err := f.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "a"}, &cm); err != nil || cm.Labels["berth.dev/source"] != "shop" {
		t.Errorf("%v %v", err, cm.Labels)
	}
}

func TestABarePodIsNotReplacedByItsOwnNode(t *testing.T) {
	f := start(t)
	createSource(t, f)
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers: [{name: c, image: %s}]\n"
	f.push(t, "c1", "", fmt.Sprintf(pod, "v1"), ready())
	out, err := f.engine.Check(t.Context(), f.source(t), f.revision("c2", fmt.Sprintf(pod, "v1")))
	if err != nil || !out.Plan.Empty() {
		t.Errorf("%v\n%s", err, out.Plan.Text())
	}
	out, err = f.engine.Check(t.Context(), f.source(t), f.revision("c3", fmt.Sprintf(pod, "v1")+"  restartPolicy: Never\n"))
	if err != nil || len(out.Plan.Steps) != 1 || out.Plan.Steps[0].Action != "replace" {
		t.Fatalf("%v\n%v\n%s", err, out.Diagnostics, out.Plan.Text())
	}
	f.push(t, "c3", "", fmt.Sprintf(pod, "v1")+"  restartPolicy: Never\n", ready())
}

func TestAnObjectInANamespaceThatTheCommitDropsIsRefused(t *testing.T) {
	f := start(t)
	createSource(t, f)
	ns := "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n---\n"
	inside := strings.Replace(configMap("a", "1"), "{name: a}", "{name: a, namespace: team}", 1)
	f.push(t, "c1", "", ns+inside, ready())
	f.push(t, "c2", "Berth-Allow-Prune: true", inside, metav1.Condition{
		Type: "Ready", Status: metav1.ConditionFalse, Reason: "CompileFailed", Message: "namespace team is no longer in the repository",
	})
	if err := f.Get(t.Context(), types.NamespacedName{Namespace: "team", Name: "a"}, &corev1.ConfigMap{}); err != nil {
		t.Error(err)
	}
	// A hook could never run there.
	hook := strings.Replace(job("smoke", "post", "works", ""), "metadata: {name", "metadata: {namespace: team, name", 1)
	out, err := f.engine.Check(t.Context(), f.source(t), f.revision("c3", hook))
	if err != nil || !out.Failed() || !strings.Contains(out.Diagnostics[0].String(), "Job/smoke: metadata.namespace: namespace team is no longer in the repository") {
		t.Errorf("%v %v", err, out.Diagnostics)
	}
}

func TestARenamedServiceKeepsItsNodePort(t *testing.T) {
	f := start(t)
	createSource(t, f)
	service := "apiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {type: NodePort, ports: [{port: 80, nodePort: 30080}]}\n---\n" + configMap("a", "1") + "---\n" + configMap("b", "1")
	f.push(t, "c1", "", fmt.Sprintf(service, "one"), ready())
	f.push(t, "c2", "", fmt.Sprintf(service, "two"), ready())
	var s corev1.Service
	if err := f.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "two"}, &s); err != nil || s.Spec.Ports[0].NodePort != 30080 {
		t.Errorf("%v %+v", err, s.Spec.Ports)
	}
}

func TestAHeldPruneGoesOnWhenTheLimitIsRaised(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", strings.Join([]string{configMap("a", "1"), configMap("b", "1"), configMap("c", "1"), configMap("d", "1")}, "---\n"), ready())
	f.push(t, "c2", "", configMap("a", "1"), held())
	f.engine.Pushed("shop", time.Now()) // another pass over a held commit
	f.await(t, "c2", held())
	f.change(t, func(s *v1alpha1.SourceSpec) { all := *s.MaxPrune; all.StrVal = "100%"; s.MaxPrune = &all })
	f.await(t, "c2", ready())
	if got := f.configMaps(t); got != "a=1" {
		t.Errorf("after the limit was raised: %s", got)
	}
}

func held() metav1.Condition {
	return metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "PruneHeld", Message: "would delete 3 of 4"}
}

// everyKind is one of each that a repository may hold, saying as little as it may.
const everyKind = `apiVersion: v1
kind: Namespace
metadata: {name: team}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: sa}
---
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {password: hunter2}
---
apiVersion: v1
kind: Service
metadata: {name: plain}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: nodeport}
spec: {type: NodePort, ports: [{name: a, port: 80}, {name: b, port: 81}]}
---
apiVersion: v1
kind: Service
metadata: {name: balanced}
spec: {type: LoadBalancer, externalTrafficPolicy: Local, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: away}
spec: {type: ExternalName, externalName: example.org}
---
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: team}
spec: {containers: [{name: c, image: v1, ports: [{containerPort: 80}], resources: {requests: {cpu: 10m}}}], volumes: [{name: v, emptyDir: {}}]}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: rs}
spec: {selector: {matchLabels: {app: rs}}, template: {metadata: {labels: {app: rs}}, spec: {containers: [{name: c, image: v1}]}}}
---
`

func TestWhatWasAppliedIsNoChange(t *testing.T) {
	f := start(t)
	createSource(t, f)
	body := everyKind + fmt.Sprintf(web, 2, "v1")
	f.push(t, "c1", "", body, ready())
	out, err := f.engine.Check(t.Context(), f.source(t), f.revision("c2", body))
	if err != nil || len(out.Diagnostics) > 0 || !out.Plan.Empty() {
		t.Errorf("%v\n%v\n%s", err, out.Diagnostics, out.Plan.Text())
	}
	if text := out.Plan.Text(); strings.Contains(text, "hunter2") {
		t.Error(text)
	}
}

func TestARemoteIsPolledAtItsInterval(t *testing.T) {
	r := enginetest.Resources(t)
	views := live.New()
	hands := testingclock.NewFakeClock(time.Now())
	f := &fixture{Resources: r, remote: &remote{}}
	f.engine = sync.New(sync.Options{Resources: r, Live: views, Fetcher: f.remote, Compiler: f.remote, Clock: hands, Log: enginetest.Log(t)})
	enginetest.Go(t, f.engine.Run)
	enginetest.Go(t, func(ctx context.Context) error { return views.Run(ctx, r) })
	f.remote.push("c1", "", configMap("a", "1"))
	createSource(t, f)
	f.await(t, "c1", ready())
	enginetest.Eventually(t, wait, func() string { return map[bool]string{false: "nobody waits"}[hands.HasWaiters()] })
	f.remote.push("c2", "", configMap("a", "2"))
	hands.Step(29 * time.Second)
	time.Sleep(50 * time.Millisecond)
	if s := f.source(t); s.Status.Observed.ID != "c1" {
		t.Fatalf("observed %s before the interval was over", s.Status.Observed.ID)
	}
	// Again and again: the wait may have begun only after the first step.
	enginetest.Eventually(t, wait, func() string {
		hands.Step(time.Second)
		if s := f.source(t); s.Status.Observed.ID != "c2" {
			return "observed " + s.Status.Observed.ID
		}
		return ""
	})
	f.await(t, "c2", ready())
}
