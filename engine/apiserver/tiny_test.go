package apiserver_test

import (
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
)

// TestTinyNumbers: a quantity that would take the decoder minutes is refused at
// once, whatever form it comes in; a text of the same letters is a text.
func TestTinyNumbers(t *testing.T) {
	s := serve(t)
	const path = "/api/v1/namespaces/default/pods"
	p := pod("tiny", "c")
	p.APIVersion, p.Kind = "v1", "Pod"
	p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("12345678901")}
	raw, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	message, err := (&runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "v1", Kind: "Pod"}, Raw: raw}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	const number = "1e-99999999" // as long as the other one
	body := func(value string) string {
		return `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"tiny"},"spec":{"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":` + value + `}}}]}}`
	}
	for name, c := range map[string][]string{
		"a text": {body(`"` + number + `"`)}, "a number": {body(number)},
		"protobuf": {"k8s\x00" + strings.ReplaceAll(string(message), "12345678901", number), "Content-Type", runtime.ContentTypeProtobuf},
		"yaml":     {"apiVersion: v1\nkind: Pod\nmetadata: {name: tiny}\nspec: {containers: [{name: c, image: i, resources: {requests: {cpu: \"" + number + "\"}}}]}\n", "Content-Type", "application/yaml"},
	} {
		code, answer := s.do(t, admin, "POST", path, c[0], c[1:]...)
		if code != http.StatusBadRequest || !strings.Contains(answer, "is too small a number for a quantity") {
			t.Errorf("%s: %d %s", name, code, answer)
		}
	}
	for name, content := range map[string]string{"a text of the same letters": number, "uuid": "0b1e-99999999", "in a text": "from 1e-99999999 on", "usual": "1e-9"} {
		code, answer := s.do(t, admin, "POST", "/api/v1/namespaces/default/configmaps", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"a"},"data":{"a":"`+content+`"}}`)
		if code != http.StatusCreated {
			t.Errorf("%s: %d %s", name, code, answer)
		}
	}
	cm := corev1.ConfigMap{Data: map[string]string{"a": number, number: "b"}}
	cm.GenerateName = "b"
	if raw, err = cm.Marshal(); err != nil {
		t.Fatal(err)
	}
	if message, err = (&runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, Raw: raw}).Marshal(); err != nil {
		t.Fatal(err)
	}
	if code, answer := s.do(t, admin, "POST", "/api/v1/namespaces/default/configmaps", "k8s\x00"+string(message), "Content-Type", runtime.ContentTypeProtobuf); code != http.StatusCreated {
		t.Errorf("texts in protobuf: %d %s", code, answer)
	}
}
