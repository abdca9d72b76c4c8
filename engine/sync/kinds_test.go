package sync_test

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
)

const (
	hostVolume = "apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: host}\nspec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /etc}}\n"
	class      = "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: fast}\nprovisioner: example.org/fast\n"
	priority   = "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: first}\nvalue: 1000\nglobalDefault: true\n"
)

// TestWhatIsInNoNamespaceIsOutsideOfAll that a Source is limited to.
func TestWhatIsInNoNamespaceIsOutsideOfAll(t *testing.T) {
	f := start(t)
	f.addSource(t, "shop", v1alpha1.SourceSpec{Namespaces: []string{"default", "shop-*"}})
	f.push(t, "c1", "", configMap("a", "1"), ready())
	for kind, body := range map[string]string{"PersistentVolume": hostVolume, "StorageClass": class, "PriorityClass": priority} {
		out, err := f.engine.Check(t.Context(), f.source(t), f.revision("c2", configMap("a", "1")+"---\n"+body))
		if err != nil || !out.Failed() || !strings.Contains(out.Diagnostics[0].String(), "a "+kind+" is in no namespace, and Source shop may only touch the namespaces default, shop-*") {
			t.Errorf("%s: %v %v", kind, err, out.Diagnostics)
		}
	}
	free := &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "free"}}
	v1alpha1.SetDefaults(free)
	out, err := f.engine.Check(t.Context(), free, f.revision("c3", hostVolume+"---\n"+class+"---\n"+priority))
	if err != nil || out.Failed() || out.Plan.Count("create") != 3 {
		t.Errorf("without limits: %v %v", err, out.Diagnostics)
	}
}

// TestLimitedKindsAreALimit in all that Namespaces are: a role and a Source that
// somebody else made reach beyond them, and what is left of other kinds is not
// the Source's to delete.
func TestLimitedKindsAreALimit(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1")+"---\n"+fmt.Sprintf(web, 1, "v1"), ready())
	f.remote.other("admin", "a1", configMap("b", "1"))
	f.addSource(t, "admin", v1alpha1.SourceSpec{})
	f.awaitSource(t, "admin", healthy)
	if err := f.Delete(t.Context(), f.source(t), client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, func() string {
		err := f.Create(t.Context(), &v1alpha1.Source{
			ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: v1alpha1.SourceSpec{Kinds: []string{"ConfigMap", "ServiceAccount", "Source"}},
		})
		if err != nil {
			return err.Error()
		}
		return ""
	})
	f.push(t, "c2", "", configMap("a", "2"), ready())
	if err := f.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "web"}, &appsv1.Deployment{}); err != nil {
		t.Errorf("a Deployment of another Source of that name: %v", err)
	}
	account := "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: robot, annotations: {berth.dev/role: admin}}\n"
	for body, want := range map[string]string{
		account:                               "Source shop may only hold the kinds ConfigMap, ServiceAccount, Source, and a role reaches beyond that",
		fmt.Sprintf(childSource, "admin", ""): "was not made by Source shop, and Source shop may only hold the kinds ConfigMap, ServiceAccount, Source",
	} {
		out, err := f.engine.Check(t.Context(), f.source(t), f.revision("c3", configMap("a", "2")+"---\n"+body))
		if err != nil || !out.Failed() || !strings.Contains(out.Diagnostics[0].String(), want) {
			t.Errorf("%v %v", err, out.Diagnostics)
		}
	}
}

// TestALimitAboveTheDeepestIsNotPassedOver: what comes under a Source late has
// more above it than is looked at, and is refused rather than unbounded.
func TestALimitAboveTheDeepestIsNotPassedOver(t *testing.T) {
	f := start(t)
	name := func(i int) string { return fmt.Sprint("s", i) }
	for i := range 12 {
		s := &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: name(i)}}
		if i == 0 {
			s.Spec.Kinds = []string{"Source"}
		} else {
			s.Labels, s.Annotations = map[string]string{v1alpha1.LabelSource: name(i - 1)}, map[string]string{v1alpha1.AnnotationOrigin: "a.yaml:1"}
		}
		f.remote.other(s.Name, "x", "")
		if err := f.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		f.awaitSource(t, s.Name, func(s *v1alpha1.Source) string {
			if len(s.Status.Conditions) == 0 {
				return "not seen"
			}
			return ""
		})
	}
	var deepest v1alpha1.Source
	if err := f.Get(t.Context(), types.NamespacedName{Name: name(11)}, &deepest); err != nil {
		t.Fatal(err)
	}
	out, err := f.engine.Check(t.Context(), &deepest, f.revision("c1", configMap("a", "1")))
	if err != nil || !out.Failed() || !strings.Contains(out.Diagnostics[0].String(), "Sources come out of Sources 10 deep at most") {
		t.Errorf("%v %v", err, out.Diagnostics)
	}
}

// TestANamespaceGoesWithWhatAllItsSourcesGiveUp, and is held for what is of a
// kind that no repository holds.
func TestANamespaceGoesWithWhatAllItsSourcesGiveUp(t *testing.T) {
	f := start(t)
	namespace := "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n"
	f.remote.other("team", "t1", strings.Replace(configMap("x", "1"), "metadata: {name", "metadata: {namespace: team, name", 1))
	createSource(t, f)
	keep := ""
	for i := range 4 {
		keep += configMap(fmt.Sprint("k", i), "1") + "---\n"
	}
	f.push(t, "c1", "", keep+namespace+"---\n"+fmt.Sprintf(childSource, "team", ""), ready())
	f.awaitSource(t, "team", healthy)
	check := func() string {
		t.Helper()
		out, err := f.engine.Check(t.Context(), f.source(t), f.revision("c2", keep))
		if err != nil || out.Failed() || out.Plan.Count("delete") != 3 {
			t.Fatalf("%v %v\n%s", err, out.Diagnostics, out.Plan.Text())
		}
		return out.Held
	}
	if held := check(); held != "" {
		t.Errorf("held: it %s", held)
	}
	other := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "deny"}}
	if err := f.Create(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if held := check(); !strings.Contains(held, "with what others keep in it, such as NetworkPolicy deny") {
		t.Errorf("held: it %s", held)
	}
}
