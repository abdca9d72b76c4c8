package plan

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func inWave(name string, wave int, live bool) Desired {
	obj := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string]string{"k": "2"}}
	d := Desired{Key: KeyOf(corev1.SchemeGroupVersion.WithKind("ConfigMap"), obj), Object: obj, Wave: wave}
	if live {
		d.Live = obj.DeepCopy()
	}
	return d
}

// TestWaves: a wave after the other, and what is removed with the last.
func TestWaves(t *testing.T) {
	gone := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "gone"}}
	owned := []Owned{{Key: KeyOf(corev1.SchemeGroupVersion.WithKind("ConfigMap"), gone), Object: gone}}
	for _, c := range []struct {
		name   string
		wanted []Desired
		want   string
	}{
		{"none", []Desired{inWave("a", 0, false), inWave("b", 0, false)}, "0 a b gone last"},
		{"first", []Desired{inWave("z", -1, false), inWave("a", 2, false), inWave("b", 1, false)}, "-1 z"},
		{"second", []Desired{inWave("z", -1, true), inWave("a", 2, false), inWave("b", 1, false)}, "1 b"},
		{"last", []Desired{inWave("z", -1, true), inWave("a", 2, false), inWave("b", 1, true)}, "2 a gone last"},
		{"only a removal", []Desired{inWave("z", -1, true), inWave("a", 2, true)}, "0 gone last"},
	} {
		w := Make(Input{Wanted: c.wanted, Owned: owned, Prune: true}).Next()
		got := []string{fmt.Sprint(w.Number)}
		for _, s := range w.Steps {
			got = append(got, s.Key.Name)
		}
		if w.Last {
			got = append(got, "last")
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %v, want %s", c.name, got, c.want)
		}
	}
}
