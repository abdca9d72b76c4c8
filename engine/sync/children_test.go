package sync_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
)

const childSource = `apiVersion: berth.dev/v1alpha1
kind: Source
metadata: {name: %s}
spec: {url: https://git.example.org/x.git%s}
`

func (f *fixture) awaitSource(t *testing.T, name string, check func(*v1alpha1.Source) string) {
	t.Helper()
	enginetest.Eventually(t, wait, func() string {
		var s v1alpha1.Source
		if err := f.Get(t.Context(), types.NamespacedName{Name: name}, &s); err != nil {
			return err.Error()
		}
		return check(&s)
	})
}

// TestSourcesOutOfASource: a child is bounded by what bounds its parent, also
// when that changes, and what it owns goes with it, counted.
func TestSourcesOutOfASource(t *testing.T) {
	f := start(t)
	f.remote.other("team", "t1", configMap("a", "1")+"---\n"+configMap("b", "1"))
	f.addSource(t, "shop", v1alpha1.SourceSpec{Namespaces: []string{"default", "shop-*"}, Kinds: []string{"Source", "ConfigMap"}})
	keep := configMap("r", "1") + "---\n" + configMap("s", "1") + "---\n" + configMap("u", "1") + "---\n"
	f.push(t, "c1", "", keep+fmt.Sprintf(childSource, "team", ""), ready())
	f.awaitSource(t, "team", func(s *v1alpha1.Source) string {
		if s.Status.Healthy == nil {
			return fmt.Sprint("not healthy: ", s.Status.Conditions)
		}
		return ""
	})
	refused := func(id, body, want string) {
		t.Helper()
		f.remote.other("team", id, body)
		f.engine.Pushed("team", time.Now())
		f.awaitSource(t, "team", func(s *v1alpha1.Source) string {
			if s.Status.Observed.ID != id || len(s.Status.Diagnostics) == 0 || !strings.Contains(s.Status.Diagnostics[0].Message, want) {
				return fmt.Sprintf("%s: %v", s.Status.Observed.ID, s.Status.Diagnostics)
			}
			return ""
		})
	}
	elsewhere := strings.Replace(configMap("a", "1"), "metadata: {name", "metadata: {namespace: kube-system, name", 1)
	refused("t2", elsewhere, "Source shop may only touch the namespaces default, shop-*")
	refused("t3", fmt.Sprintf(web, 1, "v1"), "Source shop may only hold the kinds Source, ConfigMap")
	refused("t4", fmt.Sprintf(childSource, "grandchild", ", targetNamespace: other, credentials: {secretName: x}"), "reads a Secret of namespace other")
	refused("t4b", fmt.Sprintf(childSource, "grandchild", ", decryption: {secretName: x, secretNamespace: other}"), "reads a Secret of namespace other")
	refused("t5", fmt.Sprintf(childSource, "team", ""), "belongs to Source shop")
	// A child that is not pruned counts with all that it owns.
	out, err := f.engine.Check(t.Context(), f.source(t), f.revision("c2", keep))
	if err != nil || out.Failed() || out.Plan.Count("delete") != 3 {
		t.Fatalf("%v %v\n%s", err, out.Diagnostics, out.Plan.Text())
	}
	f.push(t, "c3", "", keep, ready())
	if got := f.configMaps(t); got != "r=1 s=1 u=1" {
		t.Errorf("after the child: %s", got)
	}
}

// TestALimitedSourceDoesNotTakeASourceOver that somebody else made.
func TestALimitedSourceDoesNotTakeASourceOver(t *testing.T) {
	f := start(t)
	f.addSource(t, "shop", v1alpha1.SourceSpec{Namespaces: []string{"default"}})
	f.push(t, "c1", "", configMap("a", "1"), ready())
	f.remote.other("admin", "a1", configMap("b", "1"))
	f.addSource(t, "admin", v1alpha1.SourceSpec{})
	f.awaitSource(t, "admin", func(s *v1alpha1.Source) string {
		if s.Status.Healthy == nil {
			return "not healthy"
		}
		return ""
	})
	out, err := f.engine.Check(t.Context(), f.source(t), f.revision("c2", configMap("a", "1")+"---\n"+fmt.Sprintf(childSource, "admin", "")))
	if err != nil || !out.Failed() || !strings.Contains(out.Diagnostics[0].String(), "was not made by Source shop") {
		t.Errorf("%v %v", err, out.Diagnostics)
	}
}

// TestAChildWithoutItsParentIsHeldBack: with the parent its limits are gone.
func TestAChildWithoutItsParentIsHeldBack(t *testing.T) {
	f := start(t)
	f.remote.other("team", "t1", configMap("a", "1"))
	f.addSource(t, "shop", v1alpha1.SourceSpec{Namespaces: []string{"default"}})
	f.push(t, "c1", "", fmt.Sprintf(childSource, "team", ""), ready())
	f.awaitSource(t, "team", func(s *v1alpha1.Source) string {
		if s.Status.Healthy == nil {
			return "not healthy"
		}
		return ""
	})
	if err := f.Delete(t.Context(), f.source(t), client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	f.remote.other("team", "t2", strings.Replace(configMap("a", "1"), "metadata: {name", "metadata: {namespace: kube-system, name", 1))
	f.engine.Pushed("team", time.Now())
	f.awaitSource(t, "team", func(s *v1alpha1.Source) string {
		if len(s.Status.Diagnostics) == 0 || !strings.Contains(s.Status.Diagnostics[0].Message, "comes out of Source shop, which is gone") {
			return fmt.Sprint(s.Status.Observed, s.Status.Diagnostics)
		}
		return ""
	})
	if got := f.configMaps(t); got != "a=1" {
		t.Errorf("what runs was touched: %s", got)
	}
}

// TestALimitedSourceDeletesNothingOutside, though one of its name has left it
// behind.
func TestALimitedSourceDeletesNothingOutside(t *testing.T) {
	f := start(t)
	namespace := "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n"
	outside := strings.Replace(configMap("left", "1"), "metadata: {name", "metadata: {namespace: other, name", 1)
	f.addSource(t, "shop", v1alpha1.SourceSpec{})
	f.push(t, "c1", "", namespace+"---\n"+outside+"---\n"+configMap("a", "1")+"---\n"+configMap("b", "1"), ready())
	if err := f.Delete(t.Context(), f.source(t), client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, func() string {
		err := f.Create(t.Context(), &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: v1alpha1.SourceSpec{Namespaces: []string{"default"}}})
		if err != nil {
			return err.Error()
		}
		return ""
	})
	f.push(t, "c2", "", configMap("a", "1"), ready())
	if got := f.configMaps(t); got != "a=1" {
		t.Errorf("inside: %s", got)
	}
	if err := f.Get(t.Context(), types.NamespacedName{Namespace: "other", Name: "left"}, &corev1.ConfigMap{}); err != nil {
		t.Errorf("outside: %v", err)
	}
}

// TestAChildThatIsHandedOverKeepsWhatItOwns: its own objects do not go while it
// waits for the Source that takes it.
func TestAChildThatIsHandedOverKeepsWhatItOwns(t *testing.T) {
	f := start(t)
	f.remote.other("team", "t1", configMap("a", "1"))
	createSource(t, f)
	child := strings.Replace(fmt.Sprintf(childSource, "team", ""), "name: team", `name: team, annotations: {berth.dev/hand-over: other}`, 1)
	keep := configMap("r", "1") + "---\n" + configMap("s", "1") + "---\n" + configMap("u", "1")
	f.push(t, "c1", "", keep+"---\n"+child, ready())
	f.awaitSource(t, "team", healthy)
	out, err := f.engine.Check(t.Context(), f.source(t), f.revision("c2", keep))
	if err != nil || out.Failed() || out.Plan.Count("delete") != 0 || out.Plan.Count("keep") != 1 {
		t.Errorf("%v %v\n%s", err, out.Diagnostics, out.Plan.Text())
	}
}

// TestTheHooksOfAChildGoWithIt: nobody else would remove their Jobs.
func TestTheHooksOfAChildGoWithIt(t *testing.T) {
	f := start(t)
	f.remote.other("team", "t1", configMap("a", "1")+"---\n"+job("smoke", "post", "works", ""))
	createSource(t, f)
	keep := configMap("r", "1") + "---\n" + configMap("s", "1") + "---\n" + configMap("u", "1")
	f.push(t, "c1", "", keep+"---\n"+fmt.Sprintf(childSource, "team", ""), ready())
	f.awaitSource(t, "team", healthy)
	f.push(t, "c2", "Berth-Allow-Prune: true", keep, ready())
	var jobs batchv1.JobList
	if err := f.List(t.Context(), &jobs, client.ListOptions{}); err != nil || len(jobs.Items) != 0 && jobs.Items[0].DeletionTimestamp == nil {
		t.Errorf("%v, %d Jobs are left", err, len(jobs.Items))
	}
}

func healthy(s *v1alpha1.Source) string {
	if s.Status.Healthy == nil {
		return fmt.Sprint("not healthy: ", s.Status.Conditions)
	}
	return ""
}
