package sync_test

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/sync"
)

// asked notes what a compiler is asked with.
type asked struct{ with sync.CompileOptions }

func (a *asked) Compile(_ context.Context, _ revision.Revision, o sync.CompileOptions) (manifest.Set, error) {
	a.with = o
	return manifest.Set{}, nil
}

// TestKeysOfEncryptedFiles: the keys are those of the Secret that the Source names,
// in its own namespace or the one that it names.
func TestKeysOfEncryptedFiles(t *testing.T) {
	r := enginetest.Resources(t)
	secret := func(namespace, name string, data map[string]string) {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, StringData: data}
		if err := r.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "keys"}}); err != nil {
		t.Fatal(err)
	}
	secret("default", "age", map[string]string{"b.agekey": "two", "a.agekey": "one", "identity": "three", "note": "four"})
	secret("keys", "age", map[string]string{"identity": "five"})
	secret("default", "empty", map[string]string{"key.txt": "six"})
	for name, c := range map[string]struct {
		spec    *v1alpha1.Decryption
		keys    string
		without string
	}{
		"none named":        {nil, "", ""},
		"in its namespace":  {&v1alpha1.Decryption{SecretName: "age"}, "one two three", ""},
		"in another":        {&v1alpha1.Decryption{SecretName: "age", SecretNamespace: "keys"}, "five", ""},
		"not there":         {&v1alpha1.Decryption{SecretName: "gone"}, "", "kubectl create secret generic gone --namespace default --from-file=age.agekey"},
		"without such keys": {&v1alpha1.Decryption{SecretName: "empty"}, "", "no key whose name ends with .agekey"},
	} {
		var a asked
		engine := sync.NewChecker(sync.Options{Resources: r, Live: live.New(), Compiler: &a, Clock: clock.RealClock{}, Log: enginetest.Log(t)})
		src := &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: v1alpha1.SourceSpec{Decryption: c.spec}}
		v1alpha1.SetDefaults(src)
		if _, err := engine.Check(t.Context(), src, revision.Revision{Commit: "c1"}); err != nil {
			t.Fatal(err)
		}
		switch d := a.with.Decryption; {
		case c.spec == nil && d != nil:
			t.Errorf("%s: %+v", name, d)
		case c.spec != nil && (d == nil || strings.Join(d.Keys, " ") != c.keys || !strings.Contains(d.Without, c.without) || (d.Without == "") != (c.without == "")):
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// TestValuesOfEncryptedObjectsAreNotQuoted: neither of what a commit holds, nor of
// what is there.
func TestValuesOfEncryptedObjectsAreNotQuoted(t *testing.T) {
	f := start(t)
	const sealed = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, annotations: {berth.dev/encrypted: "true"}}
spec:
  replicas: 1
  selector: {matchLabels: {app: APP}}
  template:
    metadata: {labels: {app: APP}}
    spec: {restartPolicy: POLICY, containers: [{name: c, image: v1}]}
`
	body := func(app, policy string) string {
		return strings.NewReplacer("APP", app, "POLICY", policy).Replace(sealed)
	}
	f.remote.push("c1", "first", body("hunter2", "Always"))
	createSource(t, f)
	f.await(t, "c1", ready())
	failed := metav1.Condition{Type: "Compiled", Status: metav1.ConditionFalse, Reason: "CompileFailed"}
	for id, commit := range map[string]string{
		"c2": body("hunter2", "hunter2"),                                                                      // is not valid
		"c3": body("hunter3", "Always"),                                                                       // cannot be changed in place
		"c4": strings.Replace(body("hunter3", "Always"), `annotations: {berth.dev/encrypted: "true"}`, "", 1), // and ends the encryption
		"c5": strings.Replace(body("hunter2", "Always"), "replicas: 1", "replicas: hunter2", 1),               // is not of its type
		"c6": strings.Replace(body("hunter2", "Always"), `"true"}`, `"true", berth.dev/hook: hunter2}`, 1),
	} {
		f.push(t, id, "wrong", commit, failed)
		s := f.source(t)
		if len(s.Status.Diagnostics) == 0 {
			t.Errorf("%s: nothing is said", id)
		}
		for _, d := range s.Status.Diagnostics {
			if strings.Contains(d.Message, "hunter") {
				t.Errorf("%s: %s", id, d)
			}
		}
	}
}
