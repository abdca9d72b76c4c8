package sync_test

import (
	"errors"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/sync"
)

// TestVerification: a commit that nobody trusted has signed is not applied, the
// former one stays, and the status says who signed what is.
func TestVerification(t *testing.T) {
	f := start(t)
	f.remote.signer("alice@example.org, ED25519 SHA256:x")
	f.remote.push("c1", "first", configMap("a", "1"))
	src := &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: v1alpha1.SourceSpec{Verify: &v1alpha1.Verify{AllowedSigners: "alice"}}}
	if err := f.Create(t.Context(), src); err != nil {
		t.Fatal(err)
	}
	f.await(t, "c1", ready())
	f.await(t, "c1", metav1.Condition{Type: "Verified", Status: metav1.ConditionTrue, Reason: "Succeeded", Message: "signed by alice@example.org, ED25519 SHA256:x"})
	if s := f.source(t); s.Status.Observed.SignedBy != "alice@example.org, ED25519 SHA256:x" || s.Status.Applied.SignedBy == "" {
		t.Errorf("status is %+v", s.Status)
	}
	f.remote.push("c2", "second", configMap("a", "2"))
	f.remote.fail(&sync.FetchError{Reason: v1alpha1.ReasonVerifyFailed, Err: errors.New("commit c2 is not trusted: it is not signed")})
	f.engine.Recheck()
	f.await(t, "c1", metav1.Condition{Type: "Verified", Status: metav1.ConditionFalse, Reason: "VerifyFailed", Message: "c2 is not trusted"})
	f.await(t, "c1", metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "VerifyFailed", Message: "c2 is not trusted"})
	f.await(t, "c1", metav1.Condition{Type: "Fetched", Status: metav1.ConditionTrue, Reason: "Succeeded"})
	if got := f.configMaps(t); !strings.Contains(got, "a=1") {
		t.Errorf("config maps are %s", got)
	}
	f.push(t, "c3", "third", configMap("a", "3"), ready())
	s := f.source(t)
	s.Spec.Verify = nil
	if err := f.Update(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, func() string {
		if c := meta.FindStatusCondition(f.source(t).Status.Conditions, "Verified"); c != nil {
			return "there is still the condition " + c.Message
		}
		return ""
	})
}
