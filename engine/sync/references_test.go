package sync_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"berth.dev/berth/api/manifest"
)

// TestReferencesAreLookedUpInTheCluster: what others keep there counts, what
// the same commit deletes does not.
func TestReferencesAreLookedUpInTheCluster(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1")+"---\n"+configMap("b", "1")+"---\n"+fmt.Sprintf(web, 1, "x"), ready())
	if err := f.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "theirs"}, Data: map[string]string{"k": "v"}}); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "theirs", Labels: map[string]string{"app": "theirs"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "x"}}}}
	if err := f.Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	named := func(name, key string) manifest.Reference {
		return manifest.Reference{Origin: manifest.Origin{Path: "a.yaml", Line: 1}, Object: "Pod/p", Field: "f",
			To: schema.GroupKind{Kind: "ConfigMap"}, Namespace: "default", Name: name, Key: key, Else: "it waits"}
	}
	selects := func(selector string) manifest.Reference {
		return manifest.Reference{Origin: manifest.Origin{Path: "a.yaml", Line: 2}, Object: "Service/s", Field: "spec.selector",
			Namespace: "default", Selector: selector, Else: "it is refused"}
	}
	f.remote.open = []manifest.Reference{named("theirs", "k"), named("theirs", "x"), named("none", ""), named("b", ""), selects("app=theirs"), selects("app=web")}
	out, err := f.engine.Check(t.Context(), f.source(t), f.revision("c2", configMap("a", "1")))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range out.Diagnostics {
		got = append(got, d.String())
	}
	want := []string{
		`a.yaml:1: Pod/p: f: ConfigMap "b" is no longer in the repository and would be deleted, but it is needed here: it waits; put it back, or remove this reference`,
		`a.yaml:1: warning: Pod/p: f: the ConfigMap "theirs" in the cluster has no key "x"; it waits`,
		`a.yaml:1: warning: Pod/p: f: there is no ConfigMap "none" in this repository or the cluster; it waits`,
		`a.yaml:2: warning: Service/s: spec.selector: no pod in this repository or the cluster has the labels app=web; it is refused`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !out.Failed() || strings.Contains(fmt.Sprint(got), "app=theirs") {
		t.Errorf("failed %v: %q", out.Failed(), got)
	}
}
