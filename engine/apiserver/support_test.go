package apiserver_test

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// answer is what a write gets: its warnings too.
type answer struct {
	code     int
	body     string
	warnings []string
}

func (s *server) say(t *testing.T, method, path, kind, body string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind)
	r.Header.Set("Authorization", "Bearer "+admin)
	response, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, string(b), response.Header.Values("Warning")}
}

func (a answer) warns(of string) bool {
	return slices.ContainsFunc(a.warnings, func(w string) bool { return strings.Contains(w, of) })
}

const (
	asJSON  = "application/json"
	asMerge = "application/merge-patch+json"
	asApply = "application/apply-patch+yaml"
	pods    = "/api/v1/namespaces/default/pods"
)

const deployments = "/apis/apps/v1/namespaces/default/deployments"

// deployment is JSON of a Deployment whose Pods have more fields.
func deployment(name, fields string) string {
	return `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"` + name + `"},"spec":{"selector":{"matchLabels":{"app":"a"}},
		"template":{"metadata":{"labels":{"app":"a"}},"spec":{` + fields + `"containers":[{"name":"c","image":"i:1"}]}}}}`
}

func TestIgnoredFieldsAreWarnedOf(t *testing.T) {
	s := serve(t)
	const warning = `spec.template.spec.schedulerName: ignored: Berth's own scheduler places the Pod`
	ignored := deployment("web", `"schedulerName":"other",`)
	one := deployments + "/web"
	for _, c := range []struct {
		what, method, path, kind, body string
		code                           int
		warns                          bool
	}{
		{"dry run", "POST", deployments + "?dryRun=All", asJSON, ignored, http.StatusCreated, true},
		{"create", "POST", deployments, asJSON, ignored, http.StatusCreated, true},
		{"update", "PUT", one, asJSON, ignored, http.StatusOK, true},
		{"patch of the spec", "PATCH", one, asMerge, `{"spec":{"replicas":3}}`, http.StatusOK, true},
		{"patch of a label", "PATCH", one, asMerge, `{"metadata":{"labels":{"a":"b"}}}`, http.StatusOK, false},
		{"scale", "PATCH", one + "/scale", asMerge, `{"spec":{"replicas":4}}`, http.StatusOK, false},
		{"status", "PATCH", one + "/status", asMerge, `{"status":{"replicas":4}}`, http.StatusOK, false},
		{"apply of a new one", "PATCH", deployments + "/new?fieldManager=m", asApply, deployment("new", `"schedulerName":"other",`), http.StatusCreated, true},
		{"apply", "PATCH", one + "?fieldManager=m&force=true", asApply, deployment("web", `"schedulerName":"third",`), http.StatusOK, true},
		{"update of nothing", "PUT", one, asJSON, "", http.StatusOK, false},
		{"update without the field", "PUT", one, asJSON, deployment("web", ""), http.StatusOK, false},
	} {
		if c.body == "" {
			_, c.body = s.do(t, admin, "GET", one, "")
		}
		got := s.say(t, c.method, c.path, c.kind, c.body)
		if got.code != c.code || got.warns(`spec.template.spec.schedulerName: ignored: `) != c.warns || len(got.warnings) > 1 {
			t.Errorf("%s: %d %q %s", c.what, got.code, got.warnings, got.body)
		}
		if c.what == "create" && !got.warns(warning) {
			t.Errorf("the warning is %q", got.warnings)
		}
	}
}

func TestRefusedFieldsAreInvalid(t *testing.T) {
	s := serve(t)
	refused := deployment("web", `"hostUsers":false,"runtimeClassName":"gvisor",`)
	got := s.say(t, "POST", deployments, asJSON, refused)
	var status metav1.Status
	if err := json.Unmarshal([]byte(got.body), &status); err != nil {
		t.Fatal(err)
	}
	if got.code != http.StatusUnprocessableEntity || status.Reason != metav1.StatusReasonInvalid || len(status.Details.Causes) != 2 ||
		status.Details.Causes[0].Field != "spec.template.spec.runtimeClassName" || status.Details.Causes[1].Field != "spec.template.spec.hostUsers" {
		t.Errorf("%d %s", got.code, got.body)
	}
	if code, _ := s.do(t, admin, "GET", deployments+"/web", ""); code != http.StatusNotFound {
		t.Errorf("what was refused is there: %d", code)
	}
	if got := s.say(t, "POST", deployments, asJSON, deployment("web", "")); got.code != http.StatusCreated || len(got.warnings) > 0 {
		t.Fatalf("%+v", got)
	}
	one := deployments + "/web"
	for _, c := range []struct{ method, path, kind, body string }{
		{"PUT", one, asJSON, refused},
		{"PATCH", one, asMerge, `{"spec":{"template":{"spec":{"hostUsers":false}}}}`},
		{"PATCH", one, "application/json-patch+json", `[{"op":"add","path":"/spec/template/spec/hostUsers","value":false}]`},
		{"PATCH", one + "?fieldManager=m&force=true", asApply, refused},
		{"PATCH", deployments + "/new?fieldManager=m", asApply, strings.ReplaceAll(refused, `"web"`, `"new"`)},
	} {
		if got := s.say(t, c.method, c.path, c.kind, c.body); got.code != http.StatusUnprocessableEntity || !strings.Contains(got.body, "not carried out: users in a Pod") {
			t.Errorf("%s %s: %+v", c.method, c.kind, got)
		}
	}
}

// TestStoredFieldsStay: an object that is stored with a field that is refused
// can still be changed, and Berth's own writes are not judged.
func TestStoredFieldsStay(t *testing.T) {
	s := serve(t)
	no := false
	p := pod("old", "c")
	p.Spec.HostUsers = &no
	create(t, s, p)
	one := pods + "/old"
	if got := s.say(t, "PATCH", one, asMerge, `{"metadata":{"labels":{"a":"b"}}}`); got.code != http.StatusOK || len(got.warnings) > 0 {
		t.Errorf("a label: %+v", got)
	}
	if got := s.say(t, "PATCH", one, asMerge, `{"spec":{"activeDeadlineSeconds":60}}`); got.code != http.StatusOK || !got.warns("spec.hostUsers: not carried out") {
		t.Errorf("another field: %+v", got)
	}
	if got := s.say(t, "PATCH", one+"/status", asMerge, `{"status":{"phase":"Running"}}`); got.code != http.StatusOK || len(got.warnings) > 0 {
		t.Errorf("the status: %+v", got)
	}
	const add = `{"spec":{"ephemeralContainers":[{"name":"look","image":"i:1","terminationMessagePolicy":"FallbackToLogsOnError"}]}}`
	if got := s.say(t, "PATCH", one+"/ephemeralcontainers", asMerge, add); got.code != http.StatusOK || len(got.warnings) != 1 || !got.warns("ephemeralContainers[0].terminationMessagePolicy") {
		t.Errorf("an ephemeral container: %+v", got)
	}
}

// TestKeptKindsAreOnlyWarned: nothing acts on them, so nothing is done wrong.
func TestKeptKindsAreOnlyWarned(t *testing.T) {
	s := serve(t)
	policy := `{"metadata":{"name":"deny","selfLink":"/x"},"spec":{"podSelector":{}}}`
	got := s.say(t, "POST", "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies", asJSON, policy)
	if got.code != http.StatusCreated || !got.warns("NetworkPolicy is kept") || !got.warns("metadata.selfLink: ignored") {
		t.Errorf("%+v", got)
	}
}

func TestAReplicationControllerIsRefusedLikeAnyWorkload(t *testing.T) {
	s := serve(t)
	set := `{"metadata":{"name":"db"},"spec":{"selector":{"a":"b"},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"hostUsers":false,"containers":[{"name":"c","image":"i"}]}}}}`
	got := s.say(t, "POST", "/api/v1/namespaces/default/replicationcontrollers", asJSON, set)
	if got.code != http.StatusUnprocessableEntity || !strings.Contains(got.body, "spec.template.spec.hostUsers") {
		t.Errorf("%+v", got)
	}
}

func TestServicesAndTaints(t *testing.T) {
	s := serve(t)
	balanced := `{"metadata":{"name":"web"},"spec":{"type":"LoadBalancer","ports":[{"port":80}]}}`
	if got := s.say(t, "POST", "/api/v1/namespaces/default/services", asJSON, balanced); got.code != http.StatusCreated || !got.warns("there is no load balancer") {
		t.Errorf("%+v", got)
	}
	create(t, s, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
	taint := `{"spec":{"taints":[{"key":"k","effect":"NoExecute"}]}}`
	if got := s.say(t, "PATCH", "/api/v1/nodes/n", asMerge, taint); got.code != http.StatusOK || len(got.warnings) > 0 {
		t.Errorf("%+v", got)
	}
}
