package apiserver_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/v1alpha1"
)

// TestASourceOutOfGitCanStillBeAsked: its specification is Git's, and what
// people ask of it is theirs.
func TestASourceOutOfGitCanStillBeAsked(t *testing.T) {
	s := serve(t)
	create(t, s, &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "apps"}}, &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{
		Name: "shop", Labels: map[string]string{v1alpha1.LabelSource: "apps"}, Annotations: map[string]string{v1alpha1.AnnotationOrigin: "shop.yaml:1"},
	}})
	const path = "/apis/berth.dev/v1alpha1/sources/shop"
	patch := func(body string) (int, string) {
		return s.do(t, admin, "PATCH", path, body, "Content-Type", "application/merge-patch+json")
	}
	if code, text := patch(`{"metadata":{"annotations":{"berth.dev/suspended":"by admin"}}}`); code != 200 {
		t.Fatalf("suspend: %d %s", code, text)
	}
	var src v1alpha1.Source
	if err := s.Get(t.Context(), types.NamespacedName{Name: "shop"}, &src); err != nil || !src.Suspended() {
		t.Errorf("%v, suspended %v", err, src.Suspended())
	}
	for _, body := range []string{
		`{"spec":{"path":"elsewhere"}}`,
		`{"metadata":{"annotations":{"berth.dev/approve":"c1"}},"spec":{"path":"elsewhere"}}`,
		`{"metadata":{"annotations":{"berth.dev/origin":null}}}`,
		`{"metadata":{"labels":{"berth.dev/source":null}}}`,
	} {
		if code, text := patch(body); code != 403 || !strings.Contains(text, "edit shop.yaml:1") {
			t.Errorf("%s: %d %s", body, code, text)
		}
	}
	code, body := s.do(t, admin, "GET", path, "")
	if code != 200 {
		t.Fatal(body)
	}
	if code, text := s.do(t, admin, "PUT", path, strings.Replace(body, `"by admin"`, `"by somebody else"`, 1)); code != 200 {
		t.Errorf("update of an annotation: %d %s", code, text)
	}
	if code, text := s.do(t, admin, "PUT", path, strings.Replace(body, `"branch":"main"`, `"branch":"other"`, 1)); code != 403 {
		t.Errorf("update of the specification: %d %s", code, text)
	}
	if code, text := s.do(t, admin, "DELETE", path, ""); code != 403 {
		t.Errorf("deletion: %d %s", code, text)
	}
}
