package main

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/v1alpha1"
)

func TestBackTo(t *testing.T) {
	healthy := &metav1.Time{Time: time.Unix(1, 0)}
	entry := func(id string, at *metav1.Time, kept bool) v1alpha1.AppliedCommit {
		return v1alpha1.AppliedCommit{Commit: v1alpha1.Commit{ID: id}, Healthy: at, Kept: kept}
	}
	s := &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Status: v1alpha1.SourceStatus{
		Applied: &v1alpha1.Commit{ID: "e5"},
		History: []v1alpha1.AppliedCommit{entry("e5", healthy, true), entry("d4", nil, true), entry("c3", healthy, true), entry("c2", healthy, true), entry("a1", healthy, false)},
	}}
	for commit, want := range map[string]string{"": "c3", "c2": "c2", "d": "d4"} {
		if got, err := backTo(s, commit); err != nil || got.ID != want {
			t.Errorf("%q: %+v %v, want %s", commit, got, err, want)
		}
	}
	for commit, want := range map[string]string{"c": "several commits", "f": "is not in the history", "a1": "not kept any more"} {
		if _, err := backTo(s, commit); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", commit, err)
		}
	}
	s.Status.History = s.Status.History[:2]
	if _, err := backTo(s, ""); err == nil || !strings.Contains(err.Error(), "no earlier commit of shop was healthy") {
		t.Errorf("without a healthy one: %v", err)
	}
}
