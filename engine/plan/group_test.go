package plan_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/upstream"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/plan"
)

// large makes plans of many objects.
type large struct {
	*upstream.Upstream
	in plan.Input
}

func newLarge(t *testing.T) *large {
	up, err := upstream.New()
	if err != nil {
		t.Fatal(err)
	}
	return &large{Upstream: up, in: plan.Input{Source: "shop", Commit: "c0ffee", Prune: true}}
}

func (l *large) deployment(i int, image string, replicas int32) *appsv1.Deployment {
	d := &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprintf("app-%04d", i)},
	}
	d.Spec.Replicas = &replicas
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "web", Image: image}}
	l.Default(d)
	return d
}

func (l *large) configMap(namespace string, i int, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("cm-%04d", i)}, Data: map[string]string{"k": value},
	}
}

// want adds an object that is to be, and what is there now, if anything.
func (l *large) want(now, live client.Object) {
	now.SetLabels(map[string]string{v1alpha1.LabelSource: "shop"})
	d := plan.Desired{Key: key(now), Object: now, Origin: manifest.Origin{Path: "apps.cue", Line: len(l.in.Wanted) + 1}}
	if live != nil {
		live.SetLabels(now.GetLabels())
		d.Live = live
	}
	l.in.Wanted = append(l.in.Wanted, d)
}

func (l *large) own(live client.Object) {
	l.in.Owned = append(l.in.Owned, plan.Owned{Key: key(live), Object: live})
}

// TestLargePlansStayReadable compares the text and the Markdown of plans with
// testdata/large.
func TestLargePlansStayReadable(t *testing.T) {
	for name, fill := range map[string]func(*large){
		"one_image_in_998_of_1000": func(l *large) {
			for i := range 1000 {
				image := "example.org/web:2"
				if i >= 998 {
					image = "example.org/web:3"
				}
				l.want(l.deployment(i, image, 1+int32(i/900)), l.deployment(i, "example.org/web:1", 1+int32(i/900)))
			}
		},
		"created_and_deleted": func(l *large) {
			for i := range 60 {
				l.want(l.configMap([]string{"a", "b", "c"}[i%3], i, "x"), nil)
				l.own(l.configMap("old", i, "x"))
			}
			for i := range 10 {
				l.want(l.deployment(i, "example.org/web:1", 2), nil)
			}
		},
		"each_one_differs": func(l *large) {
			for i := range 1000 {
				l.want(l.configMap("shop", i, fmt.Sprint("new ", i)), l.configMap("shop", i, "old"))
			}
			l.own(l.configMap("shop", 5000, "x"))
		},
		"three_equal_changes": func(l *large) {
			for i := range 3 {
				l.want(l.deployment(i, "example.org/web:2", 1), l.deployment(i, "example.org/web:1", 1))
			}
		},
		"many_hooks": func(l *large) {
			l.want(l.configMap("shop", 1, "x"), nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLarge(t)
			fill(l)
			p := plan.Make(l.in)
			if name == "many_hooks" {
				for i := range 20 {
					p.Hooks = append(p.Hooks, plan.Hook{Phase: []string{"pre", "post"}[i%2], Namespace: "shop", Name: fmt.Sprint("job-", i), Origin: manifest.Origin{Path: "hooks.yaml", Line: i + 1}})
				}
			}
			golden(t, name+".txt", p.Text())
			golden(t, name+".md", p.Markdown())
			if n := strings.Count(p.Text(), "\n"); n > 100 {
				t.Errorf("%d lines", n)
			}
			text, markdown := p.TextVerbose(), p.MarkdownVerbose()
			for _, s := range p.Steps {
				if !strings.Contains(text, s.Key.String()) || !strings.Contains(markdown, s.Key.String()) {
					t.Fatalf("%s is not in the verbose plan", s.Key)
				}
			}
			var answer struct{ Steps []any }
			b, err := json.Marshal(p)
			if err != nil || json.Unmarshal(b, &answer) != nil || len(answer.Steps) != len(p.Steps) {
				t.Errorf("%d steps in JSON (%v), want all %d", len(answer.Steps), err, len(p.Steps))
			}
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata/large", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("-want +got (-update takes it over):\n%s", diff)
	}
}

// TestValuesThatDifferBeyondTheirBeginning are not taken for equal.
func TestValuesThatDifferBeyondTheirBeginning(t *testing.T) {
	l := newLarge(t)
	long := strings.Repeat("x", 100)
	for i := range 10 {
		l.want(l.configMap("shop", i, long+fmt.Sprint(i)), l.configMap("shop", i, "old"))
	}
	p := plan.Make(l.in)
	if text := p.Text(); strings.Contains(text, "10 ConfigMaps") {
		t.Errorf("taken for equal:\n%s", text)
	}
	if !strings.Contains(p.TextVerbose(), long+"9") {
		t.Error("a value is cut in the verbose plan")
	}
}
