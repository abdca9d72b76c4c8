package sync

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/v1alpha1"
)

// TestEveryDifferenceOfAManifestIsNoticed: what is remembered of an object holds
// for the manifest, the place and the live object that it was found with alone.
func TestEveryDifferenceOfAManifestIsNoticed(t *testing.T) {
	s := newSteady()
	scaled := false
	described := func(text, path string, line int, generation int64, version string) steadyObject {
		t.Helper()
		m := manifest.Manifest{Object: &unstructured.Unstructured{}, Origin: manifest.Origin{Path: path, Line: line}}
		if err := yaml.Unmarshal([]byte(text), &m.Object.Object); err != nil {
			t.Fatal(err)
		}
		src := &v1alpha1.Source{}
		src.Generation = generation
		live := &corev1.ConfigMap{}
		live.ResourceVersion = version
		out, ok := s.describe(src, m, live, scaled)
		if !ok {
			t.Fatal("not described")
		}
		return out
	}
	const text = `{a: 1, b: [x, y], c: {d: null, e: true}}`
	same := described(text, "a.yaml", 1, 1, "7")
	if again := described(`{c: {e: true, d: null}, b: [x, y], a: 1}`, "a.yaml", 1, 1, "7"); again != same {
		t.Error("the order of fields counts")
	}
	describedScaled := func() steadyObject {
		scaled = true
		defer func() { scaled = false }()
		return described(text, "a.yaml", 1, 1, "7")
	}
	for name, other := range map[string]steadyObject{
		"a value":             described(`{a: 2, b: [x, y], c: {d: null, e: true}}`, "a.yaml", 1, 1, "7"),
		"a type":              described(`{a: "1", b: [x, y], c: {d: null, e: true}}`, "a.yaml", 1, 1, "7"),
		"the order of a list": described(`{a: 1, b: [y, x], c: {d: null, e: true}}`, "a.yaml", 1, 1, "7"),
		"an item":             described(`{a: 1, b: [x], c: {d: null, e: true}}`, "a.yaml", 1, 1, "7"),
		"a field less":        described(`{a: 1, b: [x, y], c: {e: true}}`, "a.yaml", 1, 1, "7"),
		"a field of another":  described(`{a: 1, b: [x, y], c: {d: null}, e: true}`, "a.yaml", 1, 1, "7"),
		"an empty map":        described(`{a: 1, b: [x, y], c: {d: {}, e: true}}`, "a.yaml", 1, 1, "7"),
		"two values swapped":  described(`{a: [x, y], b: 1, c: {d: null, e: true}}`, "a.yaml", 1, 1, "7"),
		"the file":            described(text, "b.yaml", 1, 1, "7"),
		"the line":            described(text, "a.yaml", 2, 1, "7"),
		"the Source":          described(text, "a.yaml", 1, 2, "7"),
		"an autoscaler":       describedScaled(),
		"the live object":     described(text, "a.yaml", 1, 1, "8"),
	} {
		if other == same {
			t.Errorf("%s makes no difference", name)
		}
	}
	if _, ok := s.describe(&v1alpha1.Source{}, manifest.Manifest{Object: &unstructured.Unstructured{}}, nil, false); ok {
		t.Error("an object that is not there is remembered")
	}
}
