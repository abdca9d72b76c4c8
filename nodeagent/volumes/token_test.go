package volumes

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// given hands out a token and notes what it was asked.
type given struct {
	token, audience, have string
	seconds               int64
}

func (g *given) Token(_ context.Context, _ *corev1.Pod, audience string, seconds int64, have []byte) ([]byte, error) {
	g.audience, g.seconds, g.have = audience, seconds, string(have)
	return []byte(g.token), nil
}

func (g *given) Drop(string) {}

func tokenVolume() *corev1.Volume {
	life := int64(900)
	return &corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "vault", ExpirationSeconds: &life}},
	}}}}
}

func TestATokenBecomesAFile(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}}
	g := &given{token: "first"}
	v := &Volumes{Dir: t.TempDir(), Tokens: g}
	dir := filepath.Join(v.Dir, "u", "v")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ token, have string }{{"first", ""}, {"second", "first"}, {"third", "second"}} {
		g.token = step.token
		files, secret, err := v.project(t.Context(), pod, netip.Addr{}, tokenVolume())
		if err != nil || !secret || g.audience != "vault" || g.seconds != 900 || g.have != step.have {
			t.Fatalf("%v, secret %v, asked with %+v", err, secret, g)
		}
		if err := writeAtomic(dir, files, -1); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "token")); err != nil || string(got) != step.token {
			t.Errorf("%q %v", got, err)
		}
	}
	g.token = "" // none is to be had: the file is left out
	if files, _, err := v.project(t.Context(), pod, netip.Addr{}, tokenVolume()); err != nil || len(files) != 0 {
		t.Errorf("%v %v", files, err)
	}
}

func TestATokenIsReadableByTheUserOfThePod(t *testing.T) {
	one, two := int64(1000), int64(2000)
	container := func(user *int64) corev1.Container {
		return corev1.Container{SecurityContext: &corev1.SecurityContext{RunAsUser: user}}
	}
	for what, c := range map[string]struct {
		pod   *int64
		group *int64
		in    []corev1.Container
		mode  int32
		owner int
	}{
		"no user said":         {nil, nil, []corev1.Container{{}}, 0o644, -1},
		"that of the pod":      {&one, nil, []corev1.Container{{}, {}}, 0o600, 1000},
		"the same in each":     {nil, nil, []corev1.Container{container(&one), container(&one)}, 0o600, 1000},
		"another in one":       {&one, nil, []corev1.Container{{}, container(&two)}, 0o644, -1},
		"one of two":           {nil, nil, []corev1.Container{{}, container(&two)}, 0o644, -1},
		"the group of volumes": {nil, &two, []corev1.Container{{}}, 0o600, -1},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: c.in, SecurityContext: &corev1.PodSecurityContext{RunAsUser: c.pod, FSGroup: c.group}}}
		v := &Volumes{Dir: t.TempDir(), Tokens: &given{token: "x"}}
		files, _, err := v.project(t.Context(), pod, netip.Addr{}, tokenVolume())
		if f := files["token"]; err != nil || f.mode != c.mode || f.owner != c.owner {
			t.Errorf("%s: mode %o, owner %d (%v), want %o, %d", what, f.mode, f.owner, err, c.mode, c.owner)
		}
	}
}
