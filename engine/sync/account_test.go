package sync_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
)

func (f *fixture) account(t *testing.T, namespace string) *corev1.ServiceAccount {
	t.Helper()
	a := &corev1.ServiceAccount{}
	enginetest.Eventually(t, wait, func() string {
		err := f.Get(t.Context(), types.NamespacedName{Namespace: namespace, Name: "default"}, a)
		if apierrors.IsNotFound(err) {
			return "the account is not there"
		}
		if err != nil {
			t.Fatal(err)
		}
		return ""
	})
	return a
}

// TestTheDefaultAccountIsTakenOverAndGivenBack: Berth and a Source do not fight
// about it, it stays the same one, and what the Source granted ends with it.
func TestTheDefaultAccountIsTakenOverAndGivenBack(t *testing.T) {
	const team = "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n---\n"
	declared := func(namespace string) string {
		return "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default, namespace: " + namespace + ", annotations: {berth.dev/role: admin, note: x}}\nautomountServiceAccountToken: false\n---\n"
	}
	for what, namespace := range map[string]string{"one that was there": "default", "one of a new namespace": "team"} {
		t.Run(what, func(t *testing.T) {
			f := start(t)
			createSource(t, f)
			before := types.UID("")
			if namespace == "default" {
				before = f.account(t, namespace).UID
			}
			kept := team + configMap("a", "1") + "---\n" + configMap("b", "1") + "---\n"
			f.push(t, "c1", "", kept+declared(namespace), ready())
			owned := f.account(t, namespace)
			if before != "" && owned.UID != before {
				t.Error("the account was made anew")
			}
			if owned.Annotations["berth.dev/role"] != "admin" || owned.Labels["berth.dev/source"] != "shop" {
				t.Errorf("%+v", owned.ObjectMeta)
			}
			out, err := f.engine.Check(t.Context(), f.source(t), f.revision("again", kept+declared(namespace)))
			if err != nil || !out.Plan.Empty() {
				t.Errorf("what was applied is a change: %v\n%s", err, out.Plan.Text())
			}
			f.push(t, "c2", "", kept, ready())
			back := f.account(t, namespace)
			if back.UID != owned.UID || len(back.Annotations) != 0 || len(back.Labels) != 0 || back.AutomountServiceAccountToken != nil {
				t.Errorf("given back as %+v", back)
			}
		})
	}
}

func TestANamespaceGoesWithWhatBerthMadeInIt(t *testing.T) {
	f := start(t)
	createSource(t, f)
	kept := configMap("a", "1") + "---\n" + configMap("b", "1") + "---\n"
	f.push(t, "c1", "", kept+"apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n", ready())
	f.account(t, "team")
	f.push(t, "c2", "", kept, ready())
	enginetest.Eventually(t, wait, func() string {
		if err := f.Get(t.Context(), types.NamespacedName{Name: "team"}, &corev1.Namespace{}); !apierrors.IsNotFound(err) {
			return "the namespace is still there"
		}
		return ""
	})
}

// TestWhoMayGrantARole: a Source that is limited to some namespaces may not, for
// a role reaches into all of them.
func TestWhoMayGrantARole(t *testing.T) {
	account := func(role string) string {
		return "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: robot, annotations: {berth.dev/role: " + role + "}}\n"
	}
	f := start(t)
	createSource(t, f)
	refused := func(message string) metav1.Condition {
		return metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "CompileFailed", Message: message}
	}
	f.push(t, "c1", "", account("king"), refused(`"king" is no role`))
	f.push(t, "c2", "", account("viewer"), ready())
	f.change(t, func(s *v1alpha1.SourceSpec) { s.Namespaces = []string{"default"} })
	f.push(t, "c3", "", account("admin"), refused("a role reaches beyond that"))
}

func TestAPodAndItsAccountInOneCommit(t *testing.T) {
	f := start(t)
	createSource(t, f)
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {serviceAccountName: robot, containers: [{name: c, image: v1}]}\n---\n"
	f.push(t, "c1", "", pod, metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Message: `serviceaccount "robot" not found`, Reason: "CompileFailed"})
	account := "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: robot}\nautomountServiceAccountToken: false\n"
	f.push(t, "c2", "", pod+account, ready())
	var p corev1.Pod
	if err := f.Get(t.Context(), client.Key(&metav1.ObjectMeta{Namespace: "default", Name: "p"}), &p); err != nil {
		t.Fatal(err)
	}
	if len(p.Spec.Volumes) != 0 {
		t.Errorf("the account says that nothing is mounted, but %+v", p.Spec.Volumes)
	}
}

// TestAReplacedPodIsMountedAnew: its account was told meanwhile to mount nothing.
func TestAReplacedPodIsMountedAnew(t *testing.T) {
	f := start(t)
	createSource(t, f)
	pod := func(restart string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {serviceAccountName: robot, restartPolicy: " + restart + ", containers: [{name: c, image: v1}]}\n---\n"
	}
	account := "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: robot}\n"
	volumes := func() int {
		var p corev1.Pod
		if err := f.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "p"}, &p); err != nil {
			t.Fatal(err)
		}
		return len(p.Spec.Volumes) + len(p.Spec.Containers[0].VolumeMounts)
	}
	f.push(t, "c1", "", pod("Always")+account, ready())
	if n := volumes(); n != 2 {
		t.Errorf("%d volumes and mounts, want 2", n)
	}
	f.push(t, "c2", "", pod("Never")+account+"automountServiceAccountToken: false\n", ready())
	if n := volumes(); n != 0 {
		t.Errorf("%d volumes and mounts, want none", n)
	}
}

// TestWhatAdmissionAddsIsNoChange: a bare Pod in all the ways in which a
// repository may say the account.
func TestWhatAdmissionAddsIsNoChange(t *testing.T) {
	f := start(t)
	createSource(t, f)
	for name, spec := range map[string]string{
		"nothing":  "containers: [{name: c, image: v1}]",
		"explicit": "serviceAccountName: default, containers: [{name: c, image: v1}]",
		"older":    "serviceAccount: default, containers: [{name: c, image: v1}]",
		"volumes":  "volumes: [{name: v, emptyDir: {}}], containers: [{name: c, image: v1, volumeMounts: [{name: v, mountPath: /v}]}, {name: d, image: v1}], initContainers: [{name: i, image: v1}]",
		"without":  "automountServiceAccountToken: false, containers: [{name: c, image: v1}]",
		"own":      "volumes: [{name: v, emptyDir: {}}], containers: [{name: c, image: v1, volumeMounts: [{name: v, mountPath: /var/run/secrets/kubernetes.io/serviceaccount}]}]",
	} {
		body := "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + "}\nspec: {" + spec + "}\n"
		f.push(t, name, "Berth-Allow-Prune: true", body, ready())
		out, err := f.engine.Check(t.Context(), f.source(t), f.revision(name+"-again", body))
		if err != nil || !out.Plan.Empty() {
			t.Errorf("%s: %v\n%s", name, err, out.Plan.Text())
		}
	}
}
