package plan_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/upstream"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/plan"
)

var update = flag.Bool("update", false, "write what comes out into the testdata")

// immutable is an annotation of the tests: why an object needs a replacement.
const immutable = "test/immutable"

// TestPlans compares live.yaml with desired.yaml of each file in testdata, as
// sync would hand them over. The comment says, one a line:
//
//	no-prune        spec.prune is false
//	gate LIMIT      what the gate says with this maxPrune
//	room N          N Pods have room, those that are live among them
func TestPlans(t *testing.T) {
	up, err := upstream.New()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no testdata", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			c := &testCase{upstream: up, input: plan.Input{Source: "shop", Commit: "c0ffee", Prune: true}, live: map[string]client.Object{}}
			got := c.run(t, a)
			if *update {
				if err := os.WriteFile(name, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(txtar.Format(a)), string(txtar.Format(got))); diff != "" {
				t.Errorf("-want +got (-update takes it over):\n%s", diff)
			}
		})
	}
}

type testCase struct {
	upstream *upstream.Upstream
	input    plan.Input
	live     map[string]client.Object
}

// run returns the archive with the outputs that it should hold.
func (c *testCase) run(t *testing.T, a *txtar.Archive) *txtar.Archive {
	var limits []string
	for line := range strings.Lines(string(a.Comment)) {
		line = strings.TrimSpace(line)
		if line == "no-prune" {
			c.input.Prune = false
		} else if limit, ok := strings.CutPrefix(line, "gate "); ok {
			limits = append(limits, limit)
		} else if n, ok := strings.CutPrefix(line, "room "); ok {
			size, err := strconv.Atoi(n)
			if err != nil {
				t.Fatal(err)
			}
			c.input.Room = &seats{size: size}
		}
	}
	out := &txtar.Archive{Comment: a.Comment}
	for _, f := range a.Files {
		switch f.Name {
		case "live.yaml":
			c.each(t, f.Data, c.addLive)
			out.Files = append(out.Files, f)
		case "desired.yaml":
			c.each(t, f.Data, c.addDesired)
			out.Files = append(out.Files, f)
		}
	}
	if r, ok := c.input.Room.(*seats); ok {
		r.fill(c.live)
	}
	p := plan.Make(c.input)
	encoded, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, encoded, "", "  "); err != nil {
		t.Fatal(err)
	}
	add := func(name, text string) {
		out.Files = append(out.Files, txtar.File{Name: name, Data: []byte(strings.TrimRight(text, "\n") + "\n")})
	}
	add("text", p.Text())
	add("markdown", p.Markdown())
	add("json", indented.String())
	if len(limits) > 0 {
		gate := ""
		for _, limit := range limits {
			why := p.Gate(intstr.Parse(limit))
			if why == "" {
				why = "goes ahead"
			}
			gate += limit + ": " + why + "\n"
		}
		add("gate", gate)
	}
	return out
}

// each reads the documents of a file with the lines they begin at.
func (c *testCase) each(t *testing.T, data []byte, do func(client.Object, int)) {
	t.Helper()
	line := 1
	for doc := range strings.SplitSeq(string(data), "---\n") {
		at := line
		line += strings.Count(doc, "\n") + 1
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &u.Object); err != nil {
			t.Fatal(err)
		}
		if len(u.Object) == 0 {
			continue
		}
		typed, err := c.upstream.Scheme().New(u.GroupVersionKind())
		if err != nil {
			t.Fatal(err)
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, typed); err != nil {
			t.Fatal(err)
		}
		obj := typed.(client.Object)
		c.upstream.Default(obj)
		do(obj, at)
	}
}

func key(obj client.Object) plan.Key {
	return plan.KeyOf(obj.GetObjectKind().GroupVersionKind(), obj)
}

func set(m map[string]string, k, v string) map[string]string {
	if m == nil {
		m = map[string]string{}
	}
	m[k] = v
	return m
}

// addLive takes an object without a label for one of the Source, and one with
// the label none for nobody's.
func (c *testCase) addLive(obj client.Object, line int) {
	c.live[key(obj).String()] = obj
	if obj.GetLabels()[v1alpha1.LabelSource] == "none" {
		delete(obj.GetLabels(), v1alpha1.LabelSource)
		return
	}
	obj.SetLabels(set(obj.GetLabels(), v1alpha1.LabelSource, "shop"))
	if obj.GetAnnotations()[v1alpha1.AnnotationOrigin] == "" {
		obj.SetAnnotations(set(obj.GetAnnotations(), v1alpha1.AnnotationOrigin, fmt.Sprintf("desired.yaml:%d", line)))
	}
	obj.SetAnnotations(set(obj.GetAnnotations(), v1alpha1.AnnotationRevision, "before"))
	c.input.Owned = append(c.input.Owned, plan.Owned{Key: key(obj), Object: obj})
}

func (c *testCase) addDesired(obj client.Object, line int) {
	d := plan.Desired{Key: key(obj), Object: obj, Origin: manifest.Origin{Path: "desired.yaml", Line: line}, Live: c.live[key(obj).String()]}
	d.Immutable = obj.GetAnnotations()[immutable]
	delete(obj.GetAnnotations(), immutable)
	obj.SetLabels(set(obj.GetLabels(), v1alpha1.LabelSource, "shop"))
	obj.SetAnnotations(set(obj.GetAnnotations(), v1alpha1.AnnotationOrigin, d.Origin.String()))
	if d.Live != nil {
		if r := d.Live.GetAnnotations()[v1alpha1.AnnotationRevision]; r != "" {
			obj.SetAnnotations(set(obj.GetAnnotations(), v1alpha1.AnnotationRevision, r))
		}
	}
	c.input.Wanted = append(c.input.Wanted, d)
}

func configMap(i int) client.Object {
	obj := &unstructured.Unstructured{}
	obj.SetAPIVersion("v1")
	obj.SetKind("ConfigMap")
	obj.SetNamespace("default")
	obj.SetName(fmt.Sprintf("cm-%03d", i))
	return obj
}

func TestTheSamePlanHasTheSameBytes(t *testing.T) {
	make := func(reverse bool) string {
		in := plan.Input{Source: "shop", Prune: true}
		for i := range 50 {
			n := i
			if reverse {
				n = 49 - i
			}
			obj := configMap(n)
			in.Wanted = append(in.Wanted, plan.Desired{Key: key(obj), Object: obj})
		}
		p := plan.Make(in)
		return p.Text() + p.Markdown()
	}
	if make(false) != make(true) {
		t.Error("the order of the input shows")
	}
}
