package sync_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
)

// TestWhatCannotBeAppliedAnyMoreIsSaid: a Namespace of somebody else goes, with
// what the Source has in it. It is not Ready then, and mends it when it can.
func TestWhatCannotBeAppliedAnyMoreIsSaid(t *testing.T) {
	f := start(t)
	space := func() *corev1.Namespace {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ext"}}
	}
	if err := f.Create(t.Context(), space()); err != nil {
		t.Fatal(err)
	}
	createSource(t, f)
	inside := strings.Replace(configMap("b", "1"), "metadata: {name", "metadata: {namespace: ext, name", 1)
	f.push(t, "c1", "", configMap("a", "1")+"---\n"+inside, ready())
	if err := f.Delete(t.Context(), space(), client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, func() string {
		if err := f.Get(t.Context(), types.NamespacedName{Name: "ext"}, &corev1.Namespace{}); !apierrors.IsNotFound(err) {
			return fmt.Sprint("the namespace is there: ", err)
		}
		return ""
	})
	says := func(status metav1.ConditionStatus, reason, message string) {
		t.Helper()
		enginetest.Eventually(t, wait, func() string {
			f.engine.Recheck()
			c := meta.FindStatusCondition(f.source(t).Status.Conditions, "Ready")
			if c.Status != status || c.Reason != reason || !strings.Contains(c.Message, message) {
				return fmt.Sprint(c)
			}
			return ""
		})
	}
	says(metav1.ConditionFalse, "CompileFailed", "the newest commit was applied, and has errors by now: a.yaml:6: ConfigMap/b: metadata.namespace: namespace ext does not exist")
	if err := f.Create(t.Context(), space()); err != nil {
		t.Fatal(err)
	}
	says(metav1.ConditionTrue, "Succeeded", "")
	if err := f.Get(t.Context(), types.NamespacedName{Namespace: "ext", Name: "b"}, &corev1.ConfigMap{}); err != nil {
		t.Error(err)
	}
}

// TestLimitsOfAParentAreFeltAtOnce by a child that was applied under wider ones,
// and it is Ready again when they are wide again, though nothing is to be written.
func TestLimitsOfAParentAreFeltAtOnce(t *testing.T) {
	f := start(t)
	f.remote.other("team", "t1", configMap("a", "1"))
	createSource(t, f)
	f.push(t, "c1", "", fmt.Sprintf(childSource, "team", ""), ready())
	f.awaitSource(t, "team", healthy)
	limit := func(kinds ...string) {
		t.Helper()
		enginetest.Eventually(t, wait, func() string {
			s := f.source(t)
			s.Spec.Kinds = kinds
			if err := f.Update(t.Context(), s); err != nil {
				return err.Error()
			}
			return ""
		})
	}
	says := func(want string) {
		t.Helper()
		f.awaitSource(t, "team", func(s *v1alpha1.Source) string {
			for _, c := range s.Status.Conditions {
				if c.Type == "Ready" && strings.Contains(c.Reason+": "+c.Message, want) {
					return ""
				}
			}
			return fmt.Sprint(s.Status.Conditions)
		})
	}
	limit("Source")
	says("Source shop may only hold the kinds Source")
	limit()
	says("Succeeded: ")
}

// TestSecretsBeyondNarrowerLimits are not read for what is applied.
func TestSecretsBeyondNarrowerLimits(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.remote.other("team", "t1", configMap("a", "1"))
	f.push(t, "c1", "", fmt.Sprintf(childSource, "team", ", decryption: {secretName: keys, secretNamespace: vault}"), ready())
	f.awaitSource(t, "team", healthy)
	f.change(t, func(s *v1alpha1.SourceSpec) { s.Namespaces = []string{"default"} })
	f.awaitSource(t, "team", func(s *v1alpha1.Source) string {
		if len(s.Status.Diagnostics) != 1 || !strings.Contains(s.Status.Diagnostics[0].String(), "spec.decryption.secretNamespace: reads a Secret of namespace vault, and Source shop may only touch") {
			return fmt.Sprint(s.Status.Diagnostics)
		}
		return ""
	})
}
