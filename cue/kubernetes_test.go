package cue_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"sort"
	"strings"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
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
		&corev1.ServiceAccount{}, &corev1.PersistentVolumeClaim{}, &corev1.PersistentVolume{}, &corev1.ReplicationController{})
	s.AddKnownTypes(storagev1.SchemeGroupVersion, &storagev1.StorageClass{})
	s.AddKnownTypes(discoveryv1.SchemeGroupVersion, &discoveryv1.EndpointSlice{})
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
	// other is true where the document has no kind or no apiVersion.
	other bool
}

// isObject reports whether JSON has both; whatever their values are.
func isObject(js []byte) bool {
	var fields map[string]any
	return json.Unmarshal(js, &fields) == nil && fields["kind"] != nil && fields["apiVersion"] != nil
}

// noManifest reports whether the document can be read, but says nowhere that it
// is an object at all: Berth passes over a file of such documents.
func (r reading) noManifest() bool {
	return r.other
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
		if less, some := withoutServerFields(js); err != nil && some {
			object, _, err = k.json.Decode(less, nil, nil) // Berth leaves them out unread
		}
		return []reading{{object, err, !isObject(js)}}
	}
	var out []reading
	for _, item := range list.Items {
		if item == nil {
			out = append(out, reading{err: errors.New("an item of the list is null")})
			continue
		}
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

// readAll decodes the documents of a file.
func (k *kubernetes) readAll(name string, content []byte) []reading {
	docs, err := documents(name, content)
	var all []reading
	for _, doc := range docs {
		if !empty(name, doc) {
			all = append(all, k.read(name, doc)...)
		}
	}
	if err != nil {
		all = append(all, reading{err: err})
	}
	return all
}

// typed turns what Berth compiled into the type.
func (k *kubernetes) typed(u *unstructured.Unstructured) (runtime.Object, error) {
	obj, err := k.scheme.New(u.GroupVersionKind())
	if err != nil {
		return nil, err
	}
	return obj, runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(u.Object, obj, true)
}

// serverFields are fields of the metadata that Berth leaves out with a warning,
// as it does with the status.
var serverFields = []string{"uid", "resourceVersion", "generation", "creationTimestamp", "selfLink", "managedFields", "deletionTimestamp", "deletionGracePeriodSeconds"}

func withoutServerFields(js []byte) (less []byte, some bool) {
	var content map[string]any
	if err := utiljson.Unmarshal(js, &content); err != nil {
		return nil, false
	}
	_, some = content["status"]
	delete(content, "status")
	metadata, _ := content["metadata"].(map[string]any)
	for _, name := range serverFields {
		if _, ok := metadata[name]; ok {
			some = true
			delete(metadata, name)
		}
	}
	less, err := json.Marshal(content)
	return less, some && err == nil
}

// asWritten is an object without what Berth leaves out.
func (k *kubernetes) asWritten(obj runtime.Object) (runtime.Object, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{Object: content}
	u.SetGroupVersionKind(obj.GetObjectKind().GroupVersionKind())
	unstructured.RemoveNestedField(content, "status")
	for _, name := range serverFields {
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
	old := 0 // in a version that Kubernetes no longer has
	for _, r := range readings {
		switch {
		case r.err == nil:
			accepted = append(accepted, r.object)
		case runtime.IsNotRegisteredError(r.err):
			old++
		case !r.noManifest():
			clean = false
		}
	}
	if refused {
		return "", clean && len(accepted) > 0
	}
	if old > 0 && clean && len(accepted)+old == len(set.Manifests) {
		return "", false // each was converted, and there is nothing to hold it against
	}
	clean = clean && old == 0
	if !clean && !(len(set.Manifests) == 0 && !mentioned(content)) {
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
		want, err := k.asWritten(obj)
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

var (
	mentionsVersion = regexp.MustCompile(`(?m)^[\s{,-]*["']?apiVersion["']?\s*:`)
	mentionsKind    = regexp.MustCompile(`(?m)^[\s{,-]*["']?kind["']?\s*:`)
)

// mentioned reports whether a file has both words that make a manifest, spelt as
// they must be: Kubernetes reads kiNd as kind, and Berth calls it no manifest.
func mentioned(content []byte) bool {
	return mentionsVersion.Match(content) && mentionsKind.Match(content)
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
