package sync_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
)

func annotated(body, annotations string) string {
	name := body[strings.Index(body, "metadata: {name: ")+len("metadata: {name: "):]
	name = name[:strings.IndexAny(name, ",}")]
	return strings.Replace(body, "metadata: {name: "+name, "metadata: {name: "+name+", annotations: {"+annotations+"}", 1)
}

func deployment(name, image, wave string) string {
	return annotated(strings.ReplaceAll(fmt.Sprintf(web, 1, image), "web", name), `berth.dev/wave: "`+wave+`"`)
}

func applied(reason, message string) metav1.Condition {
	return metav1.Condition{Type: "Applied", Status: metav1.ConditionFalse, Reason: reason, Message: message}
}

func (f *fixture) hasDeployment(t *testing.T, name string) bool {
	t.Helper()
	err := f.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: name}, &appsv1.Deployment{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	return err == nil
}

func (f *fixture) mend(t *testing.T) {
	t.Helper()
	if err := f.kubelet.Mend(t.Context(), "broken"); err != nil {
		t.Fatal(err)
	}
}

// TestAWaveWaitsForTheHealthOfTheOneBefore: what is deleted goes last, and a
// newer commit does not wait for the wave of the one before.
func TestAWaveWaitsForTheHealthOfTheOneBefore(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c0", "", configMap("old", "1")+"---\n"+configMap("a", "1")+"---\n"+configMap("b", "1"), ready())
	rest := configMap("a", "1") + "---\n" + configMap("b", "1") + "---\n"
	f.push(t, "c1", "", rest+deployment("db", "broken", "0")+"---\n"+deployment("web", "v1", "1"),
		applied("WaitsForWave", "commit c1: wave 1 of 0, 1 waits for Deployment default/db"))
	if f.hasDeployment(t, "web") || !f.hasDeployment(t, "db") {
		t.Fatal("a wave was written before the one below it was healthy")
	}
	if got := f.configMaps(t); got != "a=1 b=1 old=1" {
		t.Errorf("what is deleted went before the last wave: %s", got)
	}
	if s := f.source(t); s.Status.Applied.ID != "c0" || s.Status.History[0].ID != "c1" {
		t.Errorf("applied %s, history %+v", s.Status.Applied.ID, s.Status.History[0])
	}
	f.push(t, "c2", "", rest+deployment("db", "v1", "0")+"---\n"+deployment("web", "v1", "1"), ready())
	if got := f.configMaps(t); got != "a=1 b=1" || !f.hasDeployment(t, "web") {
		t.Errorf("after the last wave: %s", got)
	}
	s := f.source(t)
	var stages []string
	for _, st := range s.Status.Timeline {
		stages = append(stages, st.Name)
	}
	if got := strings.Join(stages, " "); got != "pushed fetched compiled wave 0 applied scheduled started ready" || s.Status.Applied.ID != "c2" {
		t.Errorf("timeline %s, applied %s", got, s.Status.Applied.ID)
	}
}

// TestAWaveThatIsNotHealthyInTimeIsRolledBack, with its failure in the history.
func TestAWaveThatIsNotHealthyInTimeIsRolledBack(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.change(t, func(s *v1alpha1.SourceSpec) {
		s.Rollback, s.HealthTimeout = v1alpha1.RollbackAutomatic, &metav1.Duration{Duration: 300 * time.Millisecond}
	})
	good := deployment("db", "v1", "0") + "---\n" + deployment("web", "v1", "1")
	f.push(t, "c1", "", good, ready())
	f.push(t, "c2", "", deployment("db", "broken", "0")+"---\n"+deployment("web", "v2", "1"), backed())
	s := f.source(t)
	if s.Status.Applied.ID != "c1" || !strings.Contains(s.Status.RolledBack.Reason, "wave 1 was not written") {
		t.Errorf("applied %s, %+v", s.Status.Applied.ID, s.Status.RolledBack)
	}
	found := false
	for _, h := range s.Status.History {
		found = found || h.ID == "c2" && strings.Contains(h.Failed, "Deployment default/db")
	}
	if !found {
		t.Errorf("history %+v", s.Status.History)
	}
	var d appsv1.Deployment
	if err := f.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "db"}, &d); err != nil || d.Spec.Template.Spec.Containers[0].Image != "v1" {
		t.Errorf("%v, image %v", err, d.Spec.Template.Spec.Containers)
	}
}

func TestAWaveMustBeANumber(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1"), ready())
	out, err := f.engine.Check(t.Context(), f.source(t), f.revision("c2", annotated(configMap("a", "1"), "berth.dev/wave: first")))
	if err != nil || !out.Failed() || !strings.Contains(out.Diagnostics[0].String(), "is not a whole number") {
		t.Errorf("%v %v", err, out.Diagnostics)
	}
}

// TestWavesGoOnWithTheRemoteAway: what was begun is finished.
func TestWavesGoOnWithTheRemoteAway(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c0", "", configMap("a", "1"), ready())
	f.push(t, "c1", "", configMap("a", "1")+"---\n"+deployment("db", "broken", "0")+"---\n"+deployment("web", "v1", "1"), applied("WaitsForWave", ""))
	f.remote.fail(&errAway{})
	f.engine.Pushed("shop", time.Now())
	f.await(t, "c1", metav1.Condition{Type: "Fetched", Status: metav1.ConditionFalse, Reason: "FetchFailed"})
	// The registry has the image now.
	f.mend(t)
	enginetest.Eventually(t, wait, func() string {
		if !f.hasDeployment(t, "web") {
			return "the second wave is not written"
		}
		return ""
	})
}

func (f *fixture) addSource(t *testing.T, name string, spec v1alpha1.SourceSpec) {
	t.Helper()
	if err := f.Create(t.Context(), &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}); err != nil {
		t.Fatal(err)
	}
}

// TestDependency: a Source waits for another, and starts within a second.
func TestDependency(t *testing.T) {
	f := start(t)
	f.remote.push("c1", "", configMap("a", "1"))
	f.addSource(t, "shop", v1alpha1.SourceSpec{DependsOn: []string{"base"}})
	f.await(t, "c1", applied("DependencyNotReady", "waits for Source base, which does not exist"))
	f.remote.other("base", "b1", fmt.Sprintf(web, 1, "broken"))
	f.addSource(t, "base", v1alpha1.SourceSpec{})
	f.engine.Pushed("shop", time.Now())
	f.await(t, "c1", applied("DependencyNotReady", "waits for Source base to be ready: "))
	if got := f.configMaps(t); got != "" {
		t.Fatalf("applied before what it depends on: %s", got)
	}
	f.mend(t)
	enginetest.Eventually(t, wait, func() string {
		var s v1alpha1.Source
		if err := f.Get(t.Context(), types.NamespacedName{Name: "base"}, &s); err != nil || s.Status.Healthy == nil {
			return "base is not healthy"
		}
		return ""
	})
	healthy := time.Now()
	f.await(t, "c1", ready())
	if took := time.Since(healthy); took > time.Second {
		t.Errorf("it started %s after what it depends on", took)
	}
}

func TestSourcesThatWaitForOneAnotherAreRefused(t *testing.T) {
	f := start(t)
	f.addSource(t, "base", v1alpha1.SourceSpec{DependsOn: []string{"shop"}})
	f.addSource(t, "shop", v1alpha1.SourceSpec{DependsOn: []string{"base"}})
	enginetest.Eventually(t, wait, func() string {
		out, err := f.engine.Check(t.Context(), f.source(t), f.revision("c1", configMap("a", "1")))
		if err != nil || !out.Failed() || !strings.Contains(out.Diagnostics[0].String(), "shop → base → shop") {
			return fmt.Sprint(err, out.Diagnostics)
		}
		return ""
	})
}

// TestSyncWindows: a commit waits for its window, which can be passed by.
func TestSyncWindows(t *testing.T) {
	f := start(t)
	f.remote.push("c1", "", configMap("a", "1"))
	deny := v1alpha1.SyncWindow{Kind: v1alpha1.WindowDeny, Schedule: "* * * * *", Duration: metav1.Duration{Duration: time.Hour}}
	f.addSource(t, "shop", v1alpha1.SourceSpec{SyncWindows: []v1alpha1.SyncWindow{deny}})
	f.await(t, "c1", applied("OutsideSyncWindow", "is open until"))
	if got := f.configMaps(t); got != "" {
		t.Fatalf("applied in a window that denies it: %s", got)
	}
	f.annotate(t, map[string]string{v1alpha1.AnnotationApprove: "c1 now"})
	f.await(t, "c1", ready())
	f.push(t, "c2", "Berth-Allow-Prune: true", configMap("a", "2"), applied("OutsideSyncWindow", "berth approve shop"))
	f.change(t, func(s *v1alpha1.SourceSpec) { s.SyncWindows[0].Kind = v1alpha1.WindowAllow })
	f.await(t, "c2", ready())
}

// TestHandOver: the object goes over with its UID, in whichever order the two
// repositories change.
func TestHandOver(t *testing.T) {
	for _, order := range []string{"taken first", "given first"} {
		t.Run(order, func(t *testing.T) {
			f := start(t)
			f.addSource(t, "shop", v1alpha1.SourceSpec{})
			keep := configMap("p", "1") + "---\n" + configMap("q", "1") + "---\n"
			f.push(t, "c1", "", keep+fmt.Sprintf(web, 1, "v1"), ready())
			key := types.NamespacedName{Namespace: "default", Name: "web"}
			var before appsv1.Deployment
			if err := f.Get(t.Context(), key, &before); err != nil {
				t.Fatal(err)
			}
			f.remote.other("team", "t1", configMap("z", "1")+"---\n"+fmt.Sprintf(web, 1, "v1"))
			f.push(t, "c2", "", keep+annotated(fmt.Sprintf(web, 1, "v1"), "berth.dev/hand-over: team"), ready())
			if order == "given first" {
				f.push(t, "c3", "", keep, ready())
			}
			f.addSource(t, "team", v1alpha1.SourceSpec{})
			enginetest.Eventually(t, wait, func() string {
				var s v1alpha1.Source
				if err := f.Get(t.Context(), types.NamespacedName{Name: "team"}, &s); err != nil || s.Status.Healthy == nil {
					return fmt.Sprint("team is not healthy: ", s.Status.Conditions)
				}
				return ""
			})
			if order == "taken first" {
				f.push(t, "c4", "", keep+annotated(fmt.Sprintf(web, 1, "v1"), "berth.dev/hand-over: team"), ready())
				f.push(t, "c5", "", keep, ready())
			}
			var after appsv1.Deployment
			if err := f.Get(t.Context(), key, &after); err != nil {
				t.Fatal(err)
			}
			if after.UID != before.UID || after.Labels["berth.dev/source"] != "team" || after.Annotations["berth.dev/hand-over"] != "" || after.Annotations["berth.dev/adopted"] != "" {
				t.Errorf("UID %s → %s, %v %v", before.UID, after.UID, after.Labels, after.Annotations)
			}
		})
	}
}

// TestTwoSourcesNameANamespace: it stays with the first, and with the second
// when that one is removed.
func TestTwoSourcesNameANamespace(t *testing.T) {
	f := start(t)
	namespace := "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n"
	inside := func(name string) string {
		return strings.Replace(configMap(name, "1"), "metadata: {name", "metadata: {namespace: team, name", 1)
	}
	f.addSource(t, "shop", v1alpha1.SourceSpec{})
	f.push(t, "c1", "", namespace+"---\n"+inside("a"), ready())
	f.remote.other("other", "o1", namespace+"---\n"+inside("b"))
	f.addSource(t, "other", v1alpha1.SourceSpec{})
	enginetest.Eventually(t, wait, func() string {
		var s v1alpha1.Source
		if err := f.Get(t.Context(), types.NamespacedName{Name: "other"}, &s); err != nil || s.Status.Healthy == nil {
			return fmt.Sprint("other is not healthy: ", s.Status.Conditions)
		}
		if len(s.Status.Diagnostics) != 1 || !strings.Contains(s.Status.Diagnostics[0].Message, "belongs to Source shop") {
			return fmt.Sprint(s.Status.Diagnostics)
		}
		return ""
	})
	if err := f.Delete(t.Context(), f.source(t), client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	f.remote.other("other", "o2", namespace+"---\n"+inside("b")+"---\n"+inside("c"))
	f.engine.Pushed("other", time.Now())
	enginetest.Eventually(t, wait, func() string {
		var ns corev1.Namespace
		if err := f.Get(t.Context(), types.NamespacedName{Name: "team"}, &ns); err != nil || ns.DeletionTimestamp != nil {
			t.Fatalf("the Namespace went with a Source: %v", err)
		}
		if ns.Labels["berth.dev/source"] != "other" {
			return "it belongs to " + ns.Labels["berth.dev/source"]
		}
		return ""
	})
}

// TestABegunCommitIsFinishedThoughTheNextIsRefused: the cluster does not stay
// between two commits, also over a death of the engine.
func TestABegunCommitIsFinishedThoughTheNextIsRefused(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c0", "", configMap("a", "1"), ready())
	f.push(t, "c1", "", configMap("a", "1")+"---\n"+deployment("db", "broken", "0")+"---\n"+deployment("web", "v1", "1"), applied("WaitsForWave", ""))
	f.push(t, "c2", "", "error: bad", metav1.Condition{Type: "Compiled", Status: metav1.ConditionFalse, Reason: "CompileFailed"})
	f.restart(t)
	f.mend(t)
	f.awaitSource(t, "shop", func(s *v1alpha1.Source) string {
		if s.Status.Applied.ID != "c1" || s.Status.Healthy.ID != "c1" {
			return fmt.Sprintf("applied %s, healthy %s", s.Status.Applied.ID, s.Status.Healthy.ID)
		}
		return ""
	})
	f.await(t, "c2", metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "CompileFailed"})
	if !f.hasDeployment(t, "web") {
		t.Error("the second wave was not written")
	}
}

// TestAWaveDoesNotWaitForWhatTheCommitDeletes, or changes later.
func TestAWaveDoesNotWaitForWhatTheCommitDeletes(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1")+"---\n"+deployment("old", "broken", "-1")+"---\n"+deployment("moved", "broken", "-1"), applied("WaitsForWave", ""))
	f.push(t, "c2", "", configMap("a", "1")+"---\n"+deployment("db", "v1", "0")+"---\n"+deployment("moved", "v1", "1"), ready())
}

// TestAWaveCannotTakeWhatIsGivenUpLater: it is refused before anything is written.
func TestAWaveCannotTakeWhatIsGivenUpLater(t *testing.T) {
	f := start(t)
	createSource(t, f)
	service := func(name string) string {
		return "apiVersion: v1\nkind: Service\nmetadata: {name: " + name + "}\nspec: {type: NodePort, ports: [{port: 80, nodePort: 30100}]}\n"
	}
	keep := configMap("p", "1") + "---\n" + annotated(configMap("q", "1"), `berth.dev/wave: "1"`) + "---\n"
	f.push(t, "c1", "", keep+service("one"), ready())
	f.push(t, "c2", "", strings.ReplaceAll(keep, `"1"`, `"2"`)+service("two"), metav1.Condition{
		Type: "Compiled", Status: metav1.ConditionFalse, Reason: "CompileFailed", Message: "what gives it up comes after wave 0",
	})
	if got := f.configMaps(t); got != "p=1 q=1" {
		t.Errorf("after the refusal: %s", got)
	}
	f.push(t, "c3", "", strings.ReplaceAll(keep, `k: "1"`, `k: "2"`)+annotated(service("two"), `berth.dev/wave: "1"`), ready())
}
