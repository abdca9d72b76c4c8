package cue_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/cue"
)

// kubernetes decodes documents as an API server does that is asked for
// fieldValidation=Strict. It is what Berth's reading is held against, so it uses
// nothing of Berth but the type Source.
type kubernetes struct {
	scheme     *runtime.Scheme
	yaml, json runtime.Decoder
}

func newKubernetes() *kubernetes {
	s := runtime.NewScheme()
	core := schema.GroupVersion{Version: "v1"}
	s.AddKnownTypes(core, &corev1.Namespace{}, &corev1.Pod{}, &corev1.Service{}, &corev1.ConfigMap{}, &corev1.Secret{},
		&corev1.ServiceAccount{}, &corev1.PersistentVolumeClaim{})
	s.AddKnownTypes(appsv1.SchemeGroupVersion, &appsv1.Deployment{}, &appsv1.ReplicaSet{}, &appsv1.StatefulSet{}, &appsv1.DaemonSet{})
	s.AddKnownTypes(batchv1.SchemeGroupVersion, &batchv1.Job{}, &batchv1.CronJob{})
	s.AddKnownTypes(autoscalingv2.SchemeGroupVersion, &autoscalingv2.HorizontalPodAutoscaler{})
	s.AddKnownTypes(policyv1.SchemeGroupVersion, &policyv1.PodDisruptionBudget{})
	s.AddKnownTypes(schedulingv1.SchemeGroupVersion, &schedulingv1.PriorityClass{})
	s.AddKnownTypes(networkingv1.SchemeGroupVersion, &networkingv1.NetworkPolicy{})
	s.AddKnownTypes(v1alpha1.GroupVersion, &v1alpha1.Source{})
	decoder := func(isYAML bool) runtime.Decoder {
		return kjson.NewSerializerWithOptions(kjson.DefaultMetaFactory, s, s, kjson.SerializerOptions{Yaml: isYAML, Strict: true})
	}
	return &kubernetes{scheme: s, yaml: decoder(true), json: decoder(false)}
}

// reading is one object as Kubernetes reads it, or why it does not.
type reading struct {
	object runtime.Object
	err    error
}

// noManifest reports whether the document is refused because it says nowhere
// that it is an object at all.
func (r reading) noManifest() bool {
	return runtime.IsMissingKind(r.err) || runtime.IsMissingVersion(r.err)
}

// documents splits a file as kubectl does.
func documents(name string, content []byte) ([][]byte, error) {
	var docs [][]byte
	if path.Ext(name) == ".json" {
		dec := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(content, []byte("\ufeff"))))
		for {
			var doc json.RawMessage
			if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
				return docs, nil
			} else if err != nil {
				return docs, err
			}
			docs = append(docs, doc)
		}
	}
	r := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	for {
		doc, err := r.Read()
		if errors.Is(err, io.EOF) {
			return docs, nil
		} else if err != nil {
			return docs, err
		}
		docs = append(docs, doc)
	}
}

// empty reports whether a document holds nothing.
func empty(name string, doc []byte) bool {
	if path.Ext(name) == ".json" {
		return string(bytes.TrimSpace(doc)) == "null"
	}
	js, err := yaml.YAMLToJSON(bytes.TrimPrefix(doc, []byte("\ufeff")))
	return err == nil && string(js) == "null"
}

// read decodes a document; a List gives its items.
func (k *kubernetes) read(name string, doc []byte) []reading {
	js, decoder := doc, k.json
	if path.Ext(name) != ".json" {
		var err error
		if js, err = yaml.YAMLToJSONStrict(doc); err != nil && bytes.Contains(doc, []byte("<<")) {
			// The strict reader takes a field that overrides one of a merge key
			// for a duplicate. YAML's merge keys are made for that, and kubectl
			// sends such a document to the server merged.
			if js, err = yaml.YAMLToJSON(doc); err == nil {
				return k.read("merged.json", js)
			}
		}
		if err != nil {
			return []reading{{err: err}}
		}
		decoder = k.yaml
	}
	var list struct {
		APIVersion string           `json:"apiVersion"`
		Kind       string           `json:"kind"`
		Items      []map[string]any `json:"items"`
	}
	if err := utiljson.Unmarshal(js, &list); err != nil || list.Items == nil || !strings.HasSuffix(list.Kind, "List") {
		object, _, err := decoder.Decode(doc, nil, nil)
		return []reading{{object, err}}
	}
	var out []reading
	for _, item := range list.Items {
		if of := strings.TrimSuffix(list.Kind, "List"); of != "" && item["kind"] == nil {
			item["kind"], item["apiVersion"] = of, list.APIVersion
		}
		b, err := json.Marshal(item)
		if err != nil {
			return []reading{{err: err}}
		}
		out = append(out, k.read("item.json", b)...)
	}
	return out
}

// typed turns what Berth compiled into the type.
func (k *kubernetes) typed(u *unstructured.Unstructured) (runtime.Object, error) {
	obj, err := k.scheme.New(u.GroupVersionKind())
	if err != nil {
		return nil, err
	}
	return obj, runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(u.Object, obj, true)
}

// withoutServerFields drops what Berth leaves out with a warning.
func (k *kubernetes) withoutServerFields(obj runtime.Object) (runtime.Object, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{Object: content}
	u.SetGroupVersionKind(obj.GetObjectKind().GroupVersionKind())
	unstructured.RemoveNestedField(content, "status")
	for _, name := range []string{"uid", "resourceVersion", "generation", "creationTimestamp", "selfLink", "managedFields", "deletionTimestamp", "deletionGracePeriodSeconds"} {
		unstructured.RemoveNestedField(content, "metadata", name)
	}
	return k.typed(u)
}

// compareWith holds what Berth made of a file against Kubernetes' readings. It
// returns what disagrees, and whether Berth refuses a file that Kubernetes takes.
func (k *kubernetes) compareWith(content []byte, set manifest.Set, readings []reading) (disagreement string, stricter bool) {
	refused := failed(set)
	var accepted []runtime.Object
	clean := true
	for _, r := range readings {
		switch {
		case r.err == nil:
			accepted = append(accepted, r.object)
		case !r.noManifest():
			clean = false
		}
	}
	if refused {
		return "", clean && len(accepted) > 0
	}
	if !clean && !(len(set.Manifests) == 0 && noManifest(content)) {
		return fmt.Sprintf("Berth accepts what Kubernetes refuses: %v", errorsOf(readings)), false
	}
	if len(accepted) != len(set.Manifests) {
		return fmt.Sprintf("Kubernetes reads %d objects, Berth %d", len(accepted), len(set.Manifests)), false
	}
	sortObjects(accepted)
	ours := make([]runtime.Object, len(set.Manifests))
	for i, m := range set.Manifests {
		var err error
		if ours[i], err = k.typed(m.Object); err != nil {
			return fmt.Sprintf("the object at %s is not of its type: %v", m.Origin, err), false
		}
	}
	sortObjects(ours)
	for i, obj := range accepted {
		want, err := k.withoutServerFields(obj)
		if err != nil {
			return fmt.Sprintf("convert the object: %v", err), false
		}
		if !equality.Semantic.DeepEqual(want, ours[i]) {
			return fmt.Sprintf("the objects differ (-Kubernetes +Berth):\n%s", cmp.Diff(want, ours[i])), false
		}
	}
	return "", false
}

func failed(set manifest.Set) bool {
	for _, d := range set.Diagnostics {
		if d.Severity == v1alpha1.SeverityError {
			return true
		}
	}
	return false
}

// noManifest reports whether nothing in a file says that it is a manifest: Berth
// passes it over.
func noManifest(content []byte) bool {
	return !bytes.Contains(content, []byte("apiVersion")) && !bytes.Contains(content, []byte("kind"))
}

func errorsOf(readings []reading) []error {
	var out []error
	for _, r := range readings {
		if r.err != nil {
			out = append(out, r.err)
		}
	}
	return out
}

// sortObjects orders objects by what names them.
func sortObjects(objs []runtime.Object) {
	id := func(obj runtime.Object) string {
		m := obj.(metav1.Object)
		return fmt.Sprint(obj.GetObjectKind().GroupVersionKind(), "\x00", m.GetNamespace(), "\x00", m.GetName())
	}
	sort.SliceStable(objs, func(i, j int) bool { return id(objs[i]) < id(objs[j]) })
}

// corpusFile is a file of a case.
type corpusFile struct {
	of, name string
	content  []byte
}

// corpus is every file of testdata with one of the extensions.
func corpus(t testing.TB, exts ...string) []corpusFile {
	t.Helper()
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var out []corpusFile
	for _, name := range names {
		a, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		tree, _ := parseCase(a)
		files, _ := tree.Files(context.Background())
		for _, f := range files {
			for _, ext := range exts {
				if path.Ext(f.Path) == ext && len(tree[f.Path].content) > 0 && len(tree[f.Path].content) <= 4<<20 {
					out = append(out, corpusFile{strings.TrimSuffix(filepath.Base(name), ".txtar"), f.Path, tree[f.Path].content})
				}
			}
		}
	}
	return out
}

func newCompiler(t testing.TB) *cue.Compiler {
	t.Helper()
	c, err := cue.New()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// compileOne compiles a repository of one file.
func compileOne(t testing.TB, c *cue.Compiler, name string, content []byte) manifest.Set {
	t.Helper()
	set, err := c.Compile(context.Background(), revisionOf(memory{name: memoryFile{content: content}}), cue.Options{Source: name})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestAgreesWithKubernetes holds every document of the corpus, and every file as
// a whole, against Kubernetes' strict decoding.
func TestAgreesWithKubernetes(t *testing.T) {
	k, compiler := newKubernetes(), newCompiler(t)
	seen := map[string]bool{}
	compared := 0
	check := func(f corpusFile, what string, content []byte, readings []reading) {
		set := compileOne(t, compiler, "file"+path.Ext(f.name), content)
		disagreement, stricter := k.compareWith(content, set, readings)
		if disagreement != "" {
			t.Errorf("%s, %s of %s: %s\n%s", f.of, what, f.name, disagreement, content)
		}
		if stricter {
			if stricterThanKubernetes[f.of] == "" && !seen[f.of] {
				_, diagnostics := render(t, set)
				t.Errorf("%s, %s of %s: Kubernetes decodes what Berth refuses; list the case with its reason if the fault is one of validation:\n%s", f.of, what, f.name, diagnostics)
			}
			seen[f.of] = true
		}
		compared++
	}
	for _, f := range corpus(t, ".yaml", ".yml", ".json") {
		docs, splitErr := documents(f.name, f.content)
		var all []reading
		for i, doc := range docs {
			if empty(f.name, doc) {
				continue
			}
			readings := k.read(f.name, doc)
			all = append(all, readings...)
			check(f, fmt.Sprintf("document %d", i), doc, readings)
		}
		if splitErr != nil {
			all = append(all, reading{err: splitErr})
		}
		check(f, "all", f.content, all)
	}
	for of := range stricterThanKubernetes {
		if !seen[of] {
			t.Errorf("%s is listed as stricter than Kubernetes, but is not", of)
		}
	}
	if compared < 300 {
		t.Errorf("only %d documents and files were compared", compared)
	}
}

// TestSameInEveryFormat compiles every object of the corpus as YAML, JSON and
// CUE, with the definition and without: JSON is CUE.
func TestSameInEveryFormat(t *testing.T) {
	compiler := newCompiler(t)
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, name := range names {
		a, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		tree, opts := parseCase(a)
		opts.Kinds = nil
		set, err := compiler.Compile(context.Background(), revisionOf(tree), opts)
		if err != nil {
			t.Fatal(err)
		}
		if len(set.Manifests) == 0 {
			continue
		}
		compared += len(set.Manifests)
		want := objects(t, set)
		for file, content := range everyFormat(t, set.Manifests) {
			if again := compileOne(t, compiler, file, content); failed(again) {
				_, diagnostics := render(t, again)
				t.Errorf("%s as %s is refused:\n%s", name, file, diagnostics)
			} else if diff := cmp.Diff(want, objects(t, again)); diff != "" {
				t.Errorf("%s as %s gives other objects (-want +got):\n%s", name, file, diff)
			}
		}
	}
	if compared < 100 {
		t.Errorf("only %d objects were compared", compared)
	}
}

// everyFormat writes objects in the formats that a repository may have.
func everyFormat(t testing.TB, ms []manifest.Manifest) map[string][]byte {
	t.Helper()
	plain, typed := []byte("package a\n"), []byte("package a\nimport \"berth.dev/schema\"\n")
	var asYAML, asJSON []byte
	for i, m := range ms {
		js, err := json.Marshal(m.Object.Object)
		if err != nil {
			t.Fatal(err)
		}
		ym, err := yaml.Marshal(m.Object.Object)
		if err != nil {
			t.Fatal(err)
		}
		asYAML = append(append(asYAML, "---\n"...), ym...)
		asJSON = append(append(asJSON, js...), '\n')
		plain = fmt.Appendf(plain, "o%d: %s\n", i, js)
		typed = fmt.Appendf(typed, "o%d: schema.#%s & %s\n", i, m.Object.GetKind(), js)
	}
	return map[string][]byte{"a.yaml": asYAML, "a.json": asJSON, "plain.cue": plain, "typed.cue": typed}
}

// objects are the contents of a Set as JSON, in its order.
func objects(t testing.TB, set manifest.Set) []string {
	t.Helper()
	var out []string
	for _, m := range set.Manifests {
		js, err := json.MarshalIndent(m.Object.Object, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(js))
	}
	return out
}
