package sync_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
)

func backed() metav1.Condition {
	return metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "RolledBack"}
}

// TestRollbackWithGitAway: the remote does not answer, and the cluster goes back
// to what it had; a newer commit ends that.
func TestRollbackWithGitAway(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "First", configMap("a", "1")+"---\n"+configMap("old", "1"), ready())
	f.push(t, "c2", "Second", configMap("a", "2")+"---\n"+configMap("new", "1"), ready())
	f.remote.fail(&errAway{})
	f.engine.Pushed("shop", time.Now())
	f.await(t, "c2", metav1.Condition{Type: "Fetched", Status: metav1.ConditionFalse, Reason: "FetchFailed"})
	f.annotate(t, map[string]string{v1alpha1.AnnotationRollback: "c1 instead of c2"})
	enginetest.Eventually(t, wait, func() string {
		if got := f.configMaps(t); got != "a=1 old=1" {
			return got
		}
		return ""
	})
	if s := f.source(t); s.Status.Observed.ID != "c2" {
		t.Errorf("observed %s", s.Status.Observed.ID)
	}
	f.remote.push("c2", "Second", configMap("a", "2")+"---\n"+configMap("new", "1"))
	f.engine.Pushed("shop", time.Now())
	f.await(t, "c2", backed())
	s := f.source(t)
	if s.Status.Applied.ID != "c1" || s.Status.Applied.Subject != "First" || s.Status.RolledBack.From != "c2" || s.Status.History[0].ID != "c1" || s.Status.History[1].ID != "c2" {
		t.Errorf("status %+v", s.Status)
	}
	if got := f.configMaps(t); got != "a=1 old=1" {
		t.Errorf("with the remote back: %s", got)
	}
	f.push(t, "c3", "Third", configMap("a", "3")+"---\n"+configMap("new", "1"), ready())
	if got, s := f.configMaps(t), f.source(t); got != "a=3 new=1" || s.Status.RolledBack != nil {
		t.Errorf("after a newer commit: %s %+v", got, s.Status.RolledBack)
	}
}

type errAway struct{}

func (*errAway) Error() string { return "the remote is away" }

// TestRollbackIsTakenBack: without the annotation the newest commit is applied.
func TestRollbackIsTakenBack(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1"), ready())
	f.push(t, "c2", "", configMap("a", "2"), ready())
	f.annotate(t, map[string]string{v1alpha1.AnnotationRollback: "c1 instead of c2"})
	f.await(t, "c2", backed())
	f.annotate(t, map[string]string{v1alpha1.AnnotationRollback: ""})
	f.await(t, "c2", ready())
	if got := f.configMaps(t); got != "a=2" {
		t.Errorf("taken back: %s", got)
	}
	f.annotate(t, map[string]string{v1alpha1.AnnotationRollback: "c0 instead of c2"})
	f.await(t, "c2", metav1.Condition{Type: "Applied", Status: metav1.ConditionFalse, Reason: "RevisionNotKept", Message: "commit c0 is not kept"})
	if got := f.configMaps(t); got != "a=2" {
		t.Errorf("not kept: %s", got)
	}
	f.annotate(t, map[string]string{v1alpha1.AnnotationRollback: ""})
	f.await(t, "c2", ready())
}

func TestAutomaticRollback(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.change(t, func(s *v1alpha1.SourceSpec) {
		s.HealthTimeout, s.Rollback = &metav1.Duration{Duration: 300 * time.Millisecond}, v1alpha1.RollbackAutomatic
	})
	f.push(t, "c1", "Good", fmt.Sprintf(web, 1, "v1"), ready())
	f.push(t, "c2", "Broken", fmt.Sprintf(web, 1, "broken"), backed())
	enginetest.Eventually(t, wait, func() string {
		s := f.source(t)
		if s.Status.Applied.ID != "c1" || s.Status.Healthy.ID != "c1" || len(s.Status.History) != 3 || s.Status.History[0].Healthy == nil {
			return fmt.Sprintf("%+v", s.Status)
		}
		return ""
	})
	s := f.source(t)
	if h := s.Status.History[1]; h.ID != "c2" || !strings.Contains(h.Failed, "not healthy after 300ms: Deployment default/web") {
		t.Errorf("the failed one: %+v", h)
	}
	if b := s.Status.RolledBack; b == nil || b.Asked || !strings.Contains(b.Reason, "not healthy after 300ms") {
		t.Errorf("rolled back: %+v", b)
	}
	f.steady(t, "RolledBack") // whatever its pods do, and it is not applied again
	f.change(t, func(s *v1alpha1.SourceSpec) { s.HealthTimeout = &metav1.Duration{Duration: wait} })
	f.push(t, "c3", "Mended", fmt.Sprintf(web, 1, "v3"), ready())
}

func TestHealthyCommitsAreNotRolledBack(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.change(t, func(s *v1alpha1.SourceSpec) {
		s.HealthTimeout, s.Rollback = &metav1.Duration{Duration: 200 * time.Millisecond}, v1alpha1.RollbackAutomatic
	})
	// The first one has nothing to go back to.
	f.push(t, "c1", "", fmt.Sprintf(web, 1, "broken"), metav1.Condition{Type: "Healthy", Status: metav1.ConditionFalse, Reason: "Timeout"})
	f.push(t, "c2", "", fmt.Sprintf(web, 1, "v2"), ready())
	time.Sleep(400 * time.Millisecond) // longer than the timeout
	if s := f.source(t); s.Status.RolledBack != nil || s.Status.Applied.ID != "c2" {
		t.Errorf("status %+v", s.Status)
	}
}

// TestRevisionsOfASourceThatIsGoneAreDropped: nothing stays behind.
func TestRevisionsOfASourceThatIsGoneAreDropped(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1"), ready())
	if _, ok, err := f.Kept(t.Context(), "shop", "c1"); err != nil || !ok {
		t.Fatalf("c1 is kept: %t %v", ok, err)
	}
	if err := f.Delete(t.Context(), f.source(t), client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, func() string {
		if _, ok, err := f.Kept(t.Context(), "shop", "c1"); err != nil || ok {
			return fmt.Sprint(ok, err)
		}
		return ""
	})
}

// TestAutomaticRollbackIsHeldLikeAnyCommit: going back by itself deletes what the
// newer commit made, and more than maxPrune of it waits, whatever was asked for
// at another time. What is asked for goes ahead.
func TestAutomaticRollbackIsHeldLikeAnyCommit(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.change(t, func(s *v1alpha1.SourceSpec) {
		s.HealthTimeout, s.Rollback = &metav1.Duration{Duration: 300 * time.Millisecond}, v1alpha1.RollbackAutomatic
	})
	f.annotate(t, map[string]string{v1alpha1.AnnotationRollback: "c7 instead of c8"})
	f.push(t, "c1", "", fmt.Sprintf(web, 1, "v1"), ready())
	more := fmt.Sprintf(web, 1, "broken") + "---\n" + configMap("a", "1") + "---\n" + configMap("b", "1") + "---\n" + configMap("c", "1")
	f.push(t, "c2", "", more, metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "PruneHeld", Message: "would delete 3 of 4 objects"})
	if got := f.configMaps(t); got != "a=1 b=1 c=1" {
		t.Errorf("while it is held: %s", got)
	}
	f.annotate(t, map[string]string{v1alpha1.AnnotationApprove: "c1"})
	f.await(t, "c2", backed())
	if got := f.configMaps(t); got != "" {
		t.Errorf("after the approval: %s", got)
	}
}
