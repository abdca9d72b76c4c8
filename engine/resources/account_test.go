package resources_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/resources"
)

const accountPath = "/var/run/secrets/kubernetes.io/serviceaccount"

// mounts says for each container whether the account is mounted in it.
func mounts(p *corev1.Pod) string {
	var out []string
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range list {
			what := "-"
			for _, m := range c.VolumeMounts {
				if m.MountPath == accountPath {
					what = m.Name
				}
			}
			out = append(out, what)
		}
	}
	return strings.Join(out, " ")
}

func TestAPodIsGivenItsAccount(t *testing.T) {
	r := enginetest.Resources(t)
	no, yes := false, true
	create(t, r,
		&corev1.ServiceAccount{ObjectMeta: named("robot"), ImagePullSecrets: []corev1.LocalObjectReference{{Name: "registry"}}},
		&corev1.ServiceAccount{ObjectMeta: named("quiet"), AutomountServiceAccountToken: &no})
	for what, c := range map[string]struct {
		change func(*corev1.Pod)
		want   string // account, what is mounted in the two containers; V is the added volume
	}{
		"nothing said":             {func(*corev1.Pod) {}, "default V V"},
		"an account":               {func(p *corev1.Pod) { p.Spec.ServiceAccountName = "robot" }, "robot V V"},
		"an account by older name": {func(p *corev1.Pod) { p.Spec.DeprecatedServiceAccount = "robot" }, "robot V V"},
		"a quiet account":          {func(p *corev1.Pod) { p.Spec.ServiceAccountName = "quiet" }, "quiet - -"},
		"a pod that says no":       {func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = &no }, "default - -"},
		"a pod that says yes": {func(p *corev1.Pod) {
			p.Spec.ServiceAccountName, p.Spec.AutomountServiceAccountToken = "quiet", &yes
		}, "quiet V V"},
		"something else mounted there": {func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "mine", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "mine", MountPath: accountPath}}
		}, "default V mine"},
	} {
		p := pod(strings.ReplaceAll(what, " ", "-"))
		p.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "i"}}
		c.change(p)
		create(t, r, p)
		volume := "none"
		for _, v := range p.Spec.Volumes {
			if strings.HasPrefix(v.Name, "kube-api-access-") {
				volume = v.Name
			}
		}
		if got := p.Spec.ServiceAccountName + " " + strings.ReplaceAll(mounts(p), volume, "V"); got != c.want || p.Spec.DeprecatedServiceAccount != p.Spec.ServiceAccountName {
			t.Errorf("%s: %s (and %s), want %s", what, got, p.Spec.DeprecatedServiceAccount, c.want)
		}
		if p.Spec.ServiceAccountName == "robot" && (len(p.Spec.ImagePullSecrets) != 1 || p.Spec.ImagePullSecrets[0].Name != "registry") {
			t.Errorf("%s: pull secrets %+v", what, p.Spec.ImagePullSecrets)
		}
	}
	lost := pod("lost")
	lost.Spec.ServiceAccountName = "nobody"
	if err := r.Create(t.Context(), lost); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `serviceaccount "nobody" not found`) {
		t.Errorf("an account that is not there: %v", err)
	}
}

// TestTheVolumeOfAnAccount is as Kubernetes makes it.
func TestTheVolumeOfAnAccount(t *testing.T) {
	r := enginetest.Resources(t)
	p := pod("a")
	create(t, r, p)
	life, mode := int64(3607), int32(0o644)
	want := &corev1.ProjectedVolumeSource{DefaultMode: &mode, Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &life}},
		{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}, Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
		{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{
			Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}}}}},
	}}
	if diff := cmp.Diff(want, p.Spec.Volumes[0].Projected); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if m := p.Spec.Containers[0].VolumeMounts[0]; !m.ReadOnly {
		t.Errorf("%+v", m)
	}
}

// TestAPodOfAnOlderVersionIsNoChange: it has no account and nothing mounted.
func TestAPodOfAnOlderVersionIsNoChange(t *testing.T) {
	old := pod("a")
	for _, name := range []string{"", "default"} {
		now := old.DeepCopy()
		now.Spec.ServiceAccountName = name
		resources.KeepAdmitted(now, old)
		if diff := cmp.Diff(old, now); diff != "" {
			t.Errorf("with account %q (-old +now):\n%s", name, diff)
		}
	}
	now := old.DeepCopy()
	now.Spec.ServiceAccountName = "robot"
	if resources.KeepAdmitted(now, old); now.Spec.ServiceAccountName != "robot" {
		t.Error("another account is no longer seen")
	}
}
