package sync_test

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/upstream"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/resources"
	"berth.dev/berth/engine/sync"
)

// TestTwoRevisionsAreComparedWithoutACluster: there is no store, and no engine
// that has looked at anything before.
func TestTwoRevisionsAreComparedWithoutACluster(t *testing.T) {
	up, err := upstream.New()
	if err != nil {
		t.Fatal(err)
	}
	set := func(body string) manifest.Set {
		r := &remote{}
		r.push("c", "", body)
		out, err := r.Compile(t.Context(), revision.Revision{Commit: "c"}, sync.CompileOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	src := &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	v1alpha1.SetDefaults(src)
	p, diagnostics := sync.Compare(sync.Comparison{
		Resources: resources.New(resources.Options{Upstream: up, Clock: clock.RealClock{}}), Source: src, Commit: "c2",
		From: set(configMap("a", "1") + "---\n" + configMap("b", "1")), To: set(configMap("a", "1") + "---\n" + configMap("b", "2")),
	})
	if text := p.Text(); len(diagnostics) > 0 || p.Unchanged != 1 || !strings.Contains(text, `data.k: "1" → "2"`) {
		t.Errorf("%v\n%s", diagnostics, text)
	}
}
