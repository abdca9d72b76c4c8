package sync_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
)

// annotate writes annotations on the Source; an empty value takes one off.
func (f *fixture) annotate(t *testing.T, annotations map[string]string) {
	t.Helper()
	s := f.source(t)
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	for k, v := range annotations {
		s.Annotations[k] = v
	}
	s.ResourceVersion = ""
	if err := f.Update(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// TestApprovalIsForOneCommit: what is held goes ahead when its commit is
// approved; the next one that deletes as much waits again.
func TestApprovalIsForOneCommit(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1")+"---\n"+configMap("b", "1"), ready())
	held := metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "PruneHeld", Message: "to go ahead: berth approve shop"}
	f.push(t, "c2", "", "", held)
	f.annotate(t, map[string]string{v1alpha1.AnnotationApprove: "c1"})
	f.await(t, "c2", held) // that is another commit
	f.annotate(t, map[string]string{v1alpha1.AnnotationApprove: "c2"})
	f.await(t, "c2", ready())
	if got := f.configMaps(t); got != "" {
		t.Errorf("after the approval: %s", got)
	}
	f.push(t, "c3", "", configMap("a", "1"), ready())
	f.push(t, "c4", "", "", held)
}

func TestSuspendedSaysByWhomAndWhy(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1"), ready())
	f.annotate(t, map[string]string{v1alpha1.AnnotationSuspended: "by ann since 2026-11-28 10:00 UTC: the sale is on"})
	f.change(t, func(s *v1alpha1.SourceSpec) { s.Suspend = true })
	f.await(t, "c1", metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "Suspended",
		Message: "suspended by ann since 2026-11-28 10:00 UTC: the sale is on; to go on: berth resume shop"})
}

// TestAskedSyncFetchesAtOnce: nobody pushed, and the next poll is far away.
func TestAskedSyncFetchesAtOnce(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1"), ready())
	f.change(t, func(s *v1alpha1.SourceSpec) { s.Interval = &metav1.Duration{Duration: time.Hour} })
	f.await(t, "c1", ready())
	f.remote.push("c2", "", configMap("a", "2"))
	f.annotate(t, map[string]string{v1alpha1.AnnotationSync: "now"})
	f.await(t, "c2", ready())
}

func TestHistoryRemembersWhatWasApplied(t *testing.T) {
	f := start(t)
	f.remote.push("c1", "First", configMap("a", "1"))
	createSource(t, f)
	f.await(t, "c1", ready())
	f.push(t, "c2", "Bad", "error: bad", metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "CompileFailed"})
	f.change(t, func(s *v1alpha1.SourceSpec) { s.HealthTimeout = &metav1.Duration{Duration: 100 * time.Millisecond} })
	f.push(t, "c3", "Broken", configMap("a", "1")+"---\n"+fmt.Sprintf(web, 1, "broken"), metav1.Condition{Type: "Applied", Status: metav1.ConditionTrue, Reason: "Succeeded"})
	enginetest.Eventually(t, wait, func() string {
		if h := f.source(t).Status.History; len(h) != 2 || h[0].Failed == "" {
			return fmt.Sprintf("history %+v", h)
		}
		return ""
	})
	h := f.source(t).Status.History
	if h[0].ID != "c3" || h[0].Healthy != nil || !strings.Contains(h[0].Failed, "not healthy after 100ms: Deployment") {
		t.Errorf("the failed one: %+v", h[0])
	}
	if h[1].ID != "c1" || h[1].Subject != "First" || h[1].Healthy == nil || h[1].Failed != "" || h[1].Changes == "" {
		t.Errorf("the good one: %+v", h[1])
	}
	for i := range 25 {
		f.push(t, fmt.Sprintf("d%d", i), "Berth-Allow-Prune: true", configMap("a", fmt.Sprint(i)), ready())
	}
	if h := f.source(t).Status.History; len(h) != 20 || h[0].ID != "d24" || h[19].ID != "d5" {
		t.Errorf("%d entries, from %s to %s", len(h), h[0].ID, h[len(h)-1].ID)
	}
}
