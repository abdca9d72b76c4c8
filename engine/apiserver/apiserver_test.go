package apiserver_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	apidiscovery "k8s.io/api/apidiscovery/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/clienttest"
	"berth.dev/berth/api/upstream"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/access"
	"berth.dev/berth/engine/apiserver"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/resources"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// It waits for somebody to ask for the error when a connection that the
		// other side has closed is closed.
		goleak.IgnoreAnyFunction("github.com/moby/spdystream.(*Connection).shutdown"))
}

// server is a Server behind the check of who asks, over TLS.
type server struct {
	*resources.Resources
	url    string
	client *http.Client
	logs   *fakeLogs
}

// Tokens that the server of the tests knows.
const (
	admin  = "admin-token"
	viewer = "viewer-token"
)

func serve(t testing.TB, change ...func(*apiserver.Options)) *server {
	t.Helper()
	up, err := upstream.New()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Resources: enginetest.Resources(t), logs: &fakeLogs{}}
	o := apiserver.Options{Resources: s.Resources, Upstream: up, Logs: s.logs, Version: "v0", Log: enginetest.Log(t)}
	for _, f := range change {
		f(&o)
	}
	handler := apiserver.New(o)
	users := map[string]access.User{admin: {Name: "ann", Role: access.Admin}, viewer: {Name: "vic", Role: access.Viewer}}
	h := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, ok := users[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]; ok {
			r = r.WithContext(access.With(r.Context(), user))
		}
		handler.ServeHTTP(w, r)
	}))
	// The clients' connections end before the server waits for them.
	t.Cleanup(func() { h.CloseClientConnections(); h.Close() })
	s.url, s.client = h.URL, h.Client()
	return s
}

// do sends a request and returns the code and the body of the answer.
func (s *server) do(t testing.TB, token, method, path, body string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(b)
}

// status sends a request that is to fail, and returns the Status of the answer.
func (s *server) status(t *testing.T, token, method, path, body string) metav1.Status {
	t.Helper()
	code, text := s.do(t, token, method, path, body)
	var out metav1.Status
	if err := json.Unmarshal([]byte(text), &out); err != nil || out.Kind != "Status" || int(out.Code) != code {
		t.Fatalf("%s %s: %d %s", method, path, code, text)
	}
	return out
}

func get[T any](t *testing.T, s *server, path string, header ...string) T {
	t.Helper()
	code, text := s.do(t, admin, "GET", path, "", header...)
	var out T
	if err := json.Unmarshal([]byte(text), &out); err != nil || code != http.StatusOK {
		t.Fatalf("GET %s: %d %s", path, code, text)
	}
	return out
}

func create(t testing.TB, s *server, objs ...client.Object) {
	t.Helper()
	for _, o := range objs {
		if err := s.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
}

func configMap(name string, l map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: l}, Data: map[string]string{"k": "v"}}
}

func pod(name string, containers ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	for _, c := range containers {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: c, Image: "example.org/i:1"})
	}
	return p
}

const configMaps = "/api/v1/namespaces/default/configmaps"

func TestContractOverHTTP(t *testing.T) {
	clienttest.Run(t, func(t *testing.T) client.Client {
		s := serve(t)
		return &client.HTTP{URL: s.url, Token: admin, Client: s.client, Scheme: s.Scheme()}
	})
}

func TestDiscoverySaysTheTable(t *testing.T) {
	s := serve(t)
	const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	all := map[string]apidiscovery.APIResourceDiscovery{}
	for _, path := range []string{"/api", "/apis"} {
		list := get[apidiscovery.APIGroupDiscoveryList](t, s, path, "Accept", aggregated)
		for _, g := range list.Items {
			for _, v := range g.Versions {
				for _, r := range v.Resources {
					all[g.Name+"/"+v.Version+"/"+r.Resource] = r
				}
			}
		}
	}
	groups := get[metav1.APIGroupList](t, s, "/apis")
	var named []string
	for _, g := range groups.Groups {
		named = append(named, g.Name)
	}
	for _, row := range s.All() {
		path := "/apis/" + row.GroupVersion().String()
		if row.Group == "" {
			path = "/api/v1"
		} else if !slices.Contains(named, row.Group) {
			t.Errorf("group %s is not listed", row.Group)
		}
		list := get[metav1.APIResourceList](t, s, path)
		i := slices.IndexFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == row.Plural })
		a, ok := all[row.Group+"/"+row.Version+"/"+row.Plural]
		if i < 0 || !ok {
			t.Errorf("%s: plain %v, aggregated %v", row.Plural, i >= 0, ok)
			continue
		}
		r := list.APIResources[i]
		if r.Kind != row.Kind || r.Namespaced != row.Namespaced || r.SingularName != row.Singular || !slices.Equal(r.ShortNames, row.ShortNames) {
			t.Errorf("plain %+v", r)
		}
		if a.ResponseKind.Kind != row.Kind || (a.Scope == apidiscovery.ScopeNamespace) != row.Namespaced || !slices.Equal(a.Verbs, r.Verbs) || !slices.Equal(a.ShortNames, row.ShortNames) {
			t.Errorf("aggregated %+v, plain %+v", a, r)
		}
		var subs, plain []string
		for _, sub := range a.Subresources {
			subs = append(subs, row.Plural+"/"+sub.Subresource)
		}
		for _, other := range list.APIResources {
			if strings.HasPrefix(other.Name, row.Plural+"/") {
				plain = append(plain, other.Name)
			}
		}
		slices.Sort(subs)
		slices.Sort(plain)
		if !slices.Equal(subs, plain) {
			t.Errorf("%s: subresources %v and %v", row.Kind, subs, plain)
		}
		// What is listed answers.
		if code, text := s.do(t, admin, "GET", path+"/"+row.Plural, ""); code != http.StatusOK {
			t.Errorf("GET %s: %d %s", row.Plural, code, text)
		}
	}
}

func TestTables(t *testing.T) {
	s := serve(t)
	create(t, s, pod("p", "c"), &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	const asTable = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
	table := get[metav1.Table](t, s, "/api/v1/namespaces/default/pods", "Accept", asTable)
	if table.Kind != "Table" || table.ColumnDefinitions[0].Name != "Name" || len(table.Rows) != 1 || table.Rows[0].Cells[0] != "p" || table.Rows[0].Cells[2] != "Pending" || table.ResourceVersion == "" {
		t.Errorf("%+v", table)
	}
	if raw := string(table.Rows[0].Object.Raw); !strings.Contains(raw, `"PartialObjectMetadata"`) || strings.Contains(raw, `"spec"`) {
		t.Errorf("the row has %s", raw)
	}
	table = get[metav1.Table](t, s, "/api/v1/namespaces/default/pods?includeObject=Object", "Accept", asTable)
	if raw := string(table.Rows[0].Object.Raw); !strings.Contains(raw, `"spec"`) || !strings.Contains(raw, `"kind":"Pod"`) {
		t.Errorf("the row has %s", raw)
	}
	gated := pod("gated", "c")
	gated.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.org/quota"}}
	create(t, s, gated)
	table = get[metav1.Table](t, s, "/api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dgated", "Accept", asTable)
	if len(table.Rows) != 1 || table.Rows[0].Cells[2] != "SchedulingGated" {
		t.Errorf("a pod with a scheduling gate: %+v", table.Rows)
	}
	table = get[metav1.Table](t, s, "/apis/berth.dev/v1alpha1/sources", "Accept", asTable)
	if len(table.Rows) != 1 || table.Rows[0].Cells[0] != "shop" || table.Rows[0].Cells[1] != "Unknown" {
		t.Errorf("%+v", table)
	}
	partial := get[metav1.PartialObjectMetadataList](t, s, "/api/v1/namespaces/default/pods", "Accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")
	if partial.Kind != "PartialObjectMetadataList" || len(partial.Items) != 2 || partial.Items[1].Name != "p" {
		t.Errorf("%+v", partial)
	}
}

func TestSelectors(t *testing.T) {
	s := serve(t)
	create(t, s, configMap("a", map[string]string{"x": "1"}), configMap("b", map[string]string{"x": "2"}), configMap("c", nil))
	for query, want := range map[string]string{
		"labelSelector=x%3D1":                             "a",
		"labelSelector=x":                                 "ab",
		"labelSelector=x+notin+(1)":                       "bc",
		"fieldSelector=metadata.name%3Db":                 "b",
		"fieldSelector=metadata.name!%3Db":                "ac",
		"labelSelector=x&fieldSelector=metadata.name%3Da": "a",
	} {
		got := ""
		for _, cm := range get[corev1.ConfigMapList](t, s, configMaps+"?"+query).Items {
			got += cm.Name
		}
		if got != want {
			t.Errorf("%s selects %s, want %s", query, got, want)
		}
	}
	for query, want := range map[string]string{
		"labelSelector=x%3D%3D%3D":    "labelSelector",
		"fieldSelector=data.k%3Dv":    "field label not supported: data.k; configmaps supports metadata.name, metadata.namespace",
		"fieldSelector=nonsense":      "fieldSelector",
		"limit=many":                  `limit "many" is not a number`,
		"limit=-1":                    `limit "-1" is not a number`,
		"continue=zzz":                "continue is not a token of this server",
		"watch=1&resourceVersion=x":   `resourceVersion "x" is not a number`,
		"watch=1&fieldSelector=x%3Dy": "field label not supported",
	} {
		if st := s.status(t, admin, "GET", configMaps+"?"+query, ""); st.Code != 400 || !strings.Contains(st.Message, want) {
			t.Errorf("%s: %d %s, want %s", query, st.Code, st.Message, want)
		}
	}
}

func TestPagesAreOfOneMoment(t *testing.T) {
	s := serve(t)
	for i := range 10 {
		create(t, s, configMap(fmt.Sprintf("cm-%d", i), map[string]string{"even": fmt.Sprint(i%2 == 0)}))
	}
	names := func(query string) (got []string) {
		next := ""
		for page := 0; ; page++ {
			list := get[corev1.ConfigMapList](t, s, configMaps+"?limit=3&"+query+"&continue="+next)
			if len(list.Items) > 3 {
				t.Fatalf("a page of %d", len(list.Items))
			}
			for _, cm := range list.Items {
				got = append(got, cm.Name+"="+cm.Data["k"])
			}
			if next = list.Continue; next == "" {
				return got
			}
			if page == 0 { // between the pages everything changes
				for i := range 10 {
					if i%3 == 0 {
						if err := s.Delete(t.Context(), configMap(fmt.Sprintf("cm-%d", i), nil), client.DeleteOptions{}); err != nil {
							t.Fatal(err)
						}
						continue
					}
					cm := configMap(fmt.Sprintf("cm-%d", i), nil)
					cm.Data["k"] = "changed"
					if err := s.Update(t.Context(), cm); err != nil {
						t.Fatal(err)
					}
				}
				create(t, s, configMap("cm-55", nil))
			}
		}
	}
	if got := strings.Join(names(""), " "); got != "cm-0=v cm-1=v cm-2=v cm-3=v cm-4=v cm-5=v cm-6=v cm-7=v cm-8=v cm-9=v" {
		t.Errorf("pages hold %s", got)
	}
}

func TestAnExpiredTokenIsGone(t *testing.T) {
	s := serve(t)
	big := configMap("big", nil)
	big.Data["k"] = strings.Repeat("x", 900_000)
	create(t, s, configMap("a", nil), big)
	list := get[corev1.ConfigMapList](t, s, configMaps+"?limit=1")
	for i := range 12 {
		big.Data["k"] = strings.Repeat(fmt.Sprint(i%10), 900_000)
		if err := s.Update(t.Context(), big); err != nil {
			t.Fatal(err)
		}
	}
	for _, query := range []string{"limit=1&continue=" + list.Continue, "watch=1&resourceVersion=" + list.ResourceVersion} {
		if st := s.status(t, admin, "GET", configMaps+"?"+query, ""); st.Code != http.StatusGone || st.Reason != metav1.StatusReasonExpired {
			t.Errorf("%s: %+v", query, st)
		}
	}
}

// watchFrame is one event on the wire.
type watchFrame struct {
	Type   string
	Object struct {
		Kind     string
		Metadata metav1.ObjectMeta
	}
}

// frames reads n events of a watch and closes it.
func (s *server) frames(t *testing.T, query string, n int, meanwhile func()) []watchFrame {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", s.url+configMaps+"?watch=true&"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+admin)
	response, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if meanwhile != nil {
		meanwhile()
	}
	var out []watchFrame
	for d := json.NewDecoder(response.Body); len(out) < n; {
		var f watchFrame
		if err := d.Decode(&f); err != nil {
			t.Fatalf("after %+v: %v", out, err)
		}
		out = append(out, f)
	}
	return out
}

func TestWatchOverHTTP(t *testing.T) {
	s := serve(t)
	create(t, s, configMap("a", nil))
	// Without a version: what there is, then what changes.
	got := s.frames(t, "", 2, func() { create(t, s, configMap("b", nil)) })
	if got[0].Type != "ADDED" || got[0].Object.Metadata.Name != "a" || got[0].Object.Kind != "ConfigMap" || got[1].Object.Metadata.Name != "b" {
		t.Errorf("%+v", got)
	}
	version := got[1].Object.Metadata.ResourceVersion
	got = s.frames(t, "resourceVersion="+version, 1, func() { create(t, s, configMap("c", nil)) })
	if got[0].Object.Metadata.Name != "c" {
		t.Errorf("resumed at %s: %+v", version, got)
	}
	// A streaming list ends with a bookmark that says so.
	got = s.frames(t, "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", 4, nil)
	end := got[3]
	if end.Type != "BOOKMARK" || end.Object.Kind != "ConfigMap" || end.Object.Metadata.Annotations[metav1.InitialEventsAnnotationKey] != "true" {
		t.Errorf("%+v", end)
	}
	got = s.frames(t, "resourceVersion="+end.Object.Metadata.ResourceVersion, 1, func() {
		if err := s.Delete(t.Context(), configMap("a", nil), client.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	if got[0].Type != "DELETED" || got[0].Object.Metadata.Name != "a" {
		t.Errorf("%+v", got)
	}
}

func TestWatchEndsInTime(t *testing.T) {
	s := serve(t)
	began := time.Now()
	code, body := s.do(t, admin, "GET", configMaps+"?watch=true&timeoutSeconds=1", "")
	if took := time.Since(began); code != 200 || body != "" || took < time.Second || took > 10*time.Second {
		t.Errorf("%d %q after %v", code, body, took)
	}
}

func TestWhoMayDoWhat(t *testing.T) {
	s := serve(t)
	create(t, s, configMap("a", nil), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}, StringData: map[string]string{"k": "hunter2"}})
	body := `{"metadata":{"name":"new"}}`
	for _, c := range []struct {
		token, method, path, body string
		want                      int
	}{
		{"", "GET", "/healthz", "", 200},
		{"", "GET", "/api", "", 401},
		{"", "GET", configMaps, "", 401},
		{"wrong", "GET", configMaps, "", 401},
		{viewer, "GET", configMaps, "", 200},
		{viewer, "GET", configMaps + "/a", "", 200},
		{viewer, "GET", "/api/v1/namespaces/default/secrets", "", 403},
		{viewer, "GET", "/api/v1/namespaces/default/secrets/s", "", 403},
		{viewer, "GET", "/api/v1/secrets?watch=true", "", 403},
		{viewer, "POST", configMaps, body, 403},
		{viewer, "PUT", configMaps + "/a", body, 403},
		{viewer, "PATCH", configMaps + "/a", body, 403},
		{viewer, "DELETE", configMaps + "/a", "", 403},
		{viewer, "PUT", "/apis/apps/v1/namespaces/default/deployments/a/scale", "{}", 403},
		{viewer, "PUT", "/api/v1/nodes/a/status", "{}", 403},
		{admin, "GET", "/api/v1/namespaces/default/secrets/s", "", 200},
		{admin, "POST", configMaps, body, 201},
		{admin, "POST", "/api/v1/namespaces/default/endpoints", body, 405},
		{admin, "GET", "/api/v1/nosuch", "", 404},
		{admin, "GET", "/apis/nosuch.example/v1", "", 404},
		{admin, "GET", configMaps + "/none", "", 404},
	} {
		code, text := s.do(t, c.token, c.method, c.path, c.body)
		if code != c.want {
			t.Errorf("%q %s %s: %d %s, want %d", c.token, c.method, c.path, code, text, c.want)
		}
		var st metav1.Status
		if code >= 400 && (json.Unmarshal([]byte(text), &st) != nil || st.Kind != "Status" || st.Message == "") {
			t.Errorf("%s %s: the answer is no Status: %s", c.method, c.path, text)
		}
		if c.token != admin && strings.Contains(text, "aHVudGVyMg") {
			t.Errorf("%s %s shows a Secret's value", c.method, c.path)
		}
	}
}

func TestEndpointsAreWrittenByBerthAlone(t *testing.T) {
	s := serve(t)
	path := "/api/v1/namespaces/default/endpoints/x"
	for _, method := range []string{"PUT", "PATCH", "DELETE"} {
		if code, text := s.do(t, admin, method, path, "{}", "Content-Type", "application/merge-patch+json"); code != 405 {
			t.Errorf("%s: %d %s", method, code, text)
		}
	}
}

func TestAManagedObjectSaysWhereToEdit(t *testing.T) {
	s := serve(t)
	cm := configMap("a", map[string]string{v1alpha1.LabelSource: "shop"})
	cm.Annotations = map[string]string{v1alpha1.AnnotationOrigin: "deploy/web.yaml:12"}
	create(t, s, cm, &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	body, err := json.Marshal(cm)
	if err != nil {
		t.Fatal(err)
	}
	const want = "it is managed by Source shop: edit deploy/web.yaml:12 in its repository and push"
	for _, method := range []string{"PUT", "DELETE"} {
		if st := s.status(t, admin, method, configMaps+"/a", string(body)); st.Code != 403 || !strings.Contains(st.Message, want) {
			t.Errorf("%s: %d %s", method, st.Code, st.Message)
		}
	}
	for _, language := range []string{"application/merge-patch+json", "application/strategic-merge-patch+json", "application/json-patch+json"} {
		if code, text := s.do(t, admin, "PATCH", configMaps+"/a", "{}", "Content-Type", language); code != 403 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s", language, code, text)
		}
	}
	// Nobody but Berth claims an object for a Source.
	forged := strings.Replace(string(body), `"name":"a"`, `"name":"forged"`, 1)
	if st := s.status(t, admin, "POST", configMaps, forged); st.Code != 403 {
		t.Errorf("a forged label: %d %s", st.Code, st.Message)
	}
	// What a Source that is gone has left behind can be removed.
	if err := s.Delete(t.Context(), &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{"PUT", "DELETE"} {
		if code, text := s.do(t, admin, method, configMaps+"/a", string(body)); code != 200 && method == "DELETE" {
			t.Errorf("%s without the Source: %d %s", method, code, text)
		}
	}
}

func TestBodies(t *testing.T) {
	s := serve(t)
	create(t, s, configMap("a", nil))
	large := `{"metadata":{"name":"big"},"data":{"k":"` + strings.Repeat("x", 3<<20) + `"}}`
	for _, c := range []struct {
		what, method, path, body string
		code                     int32
		message                  string
	}{
		{"too large", "POST", configMaps, large, 413, "the limit is 3145728 bytes"},
		{"too large", "PATCH", configMaps + "/a", large, 413, "the limit is 3145728 bytes"},
		{"no JSON", "POST", configMaps, "{", 400, "decode the body"},
		{"another kind", "POST", configMaps, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"}}`, 400, "the body is a /v1, Kind=Secret"},
		{"another namespace", "POST", configMaps, `{"metadata":{"name":"x","namespace":"other"}}`, 400, `the body is of namespace "other", but the path is of "default"`},
		{"another name", "PUT", configMaps + "/a", `{"metadata":{"name":"b"}}`, 400, `the body is named "b", but the path says "a"`},
		{"an old version", "PUT", configMaps + "/a", `{"metadata":{"name":"a","resourceVersion":"1"}}`, 409, "the object has been modified"},
		{"invalid", "POST", configMaps, `{"metadata":{"name":"A_"}}`, 422, "metadata.name"},
		{"no namespace", "POST", "/api/v1/namespaces/none/configmaps", `{"metadata":{"name":"a"}}`, 404, `namespaces "none" not found`},
		{"strict", "POST", configMaps + "?fieldValidation=Strict", `{"metadata":{"name":"x"},"datum":{}}`, 400, "datum"},
	} {
		if st := s.status(t, admin, c.method, c.path, c.body); st.Code != c.code || !strings.Contains(st.Message, c.message) {
			t.Errorf("%s: %d %s, want %d %s", c.what, st.Code, st.Message, c.code, c.message)
		}
	}
}

func TestDryRunWritesNothing(t *testing.T) {
	s := serve(t)
	create(t, s, configMap("a", nil))
	before := get[corev1.ConfigMap](t, s, configMaps+"/a")
	for _, c := range []struct{ method, path, body string }{
		{"POST", configMaps, `{"metadata":{"name":"b"}}`},
		{"PUT", configMaps + "/a", `{"metadata":{"name":"a"},"data":{"k":"2"}}`},
		{"PATCH", configMaps + "/a", `{"data":{"k":"3"}}`},
		{"DELETE", configMaps + "/a", ""},
	} {
		code, text := s.do(t, admin, c.method, c.path+"?dryRun=All", c.body, "Content-Type", map[bool]string{true: "application/merge-patch+json", false: "application/json"}[c.method == "PATCH"])
		if code >= 300 {
			t.Errorf("%s: %d %s", c.method, code, text)
		}
	}
	list := get[corev1.ConfigMapList](t, s, configMaps)
	if len(list.Items) != 1 || list.Items[0].ResourceVersion != before.ResourceVersion {
		t.Errorf("a dry run left %+v", list.Items)
	}
}

// fakeLogs says lines, one each time it is asked to go on.
type fakeLogs struct {
	lines []string
	goOn  chan struct{}
	asked *corev1.PodLogOptions
	of    string
	err   error
}

// Logs implements apiserver.Logs.
func (l *fakeLogs) Logs(ctx context.Context, namespace, pod, container string, opts *corev1.PodLogOptions, w io.Writer) error {
	l.asked, l.of = opts, namespace+"/"+pod+"/"+container
	for _, line := range l.lines {
		if _, err := io.WriteString(w, line+"\n"); err != nil {
			return err
		}
		if l.goOn != nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-l.goOn:
			}
		}
	}
	return l.err
}

func podPath(name string) string { return "/api/v1/namespaces/default/pods/" + name + "/log" }

func TestLogs(t *testing.T) {
	s := serve(t)
	create(t, s, pod("one", "c"), pod("two", "web", "side"), pod("waits", "c"))
	for _, name := range []string{"one", "two"} {
		if err := s.Bind(t.Context(), types.NamespacedName{Namespace: "default", Name: name}, "", "n1"); err != nil {
			t.Fatal(err)
		}
	}
	s.logs.lines = []string{"hello", "world"}
	if code, text := s.do(t, viewer, "GET", podPath("one")+"?tailLines=5&timestamps=true", ""); code != 200 || text != "hello\nworld\n" {
		t.Errorf("%d %s", code, text)
	}
	if s.logs.of != "default/one/c" || *s.logs.asked.TailLines != 5 || !s.logs.asked.Timestamps {
		t.Errorf("asked for %s with %+v", s.logs.of, s.logs.asked)
	}
	s.do(t, admin, "GET", podPath("two")+"?container=side&previous=true", "")
	if s.logs.of != "default/two/side" || !s.logs.asked.Previous {
		t.Errorf("asked for %s with %+v", s.logs.of, s.logs.asked)
	}
	for path, want := range map[string]string{
		podPath("two"):                   "a container name must be specified for pod two, choose one of: [web side]",
		podPath("two") + "?container=no": "container no is not valid for pod two, choose one of: [web side]",
		podPath("waits"):                 "pod waits has no node yet",
		podPath("none"):                  `pods "none" not found`,
		podPath("one") + "?tailLines=-1": `tailLines "-1" is not a number of 0 or more`,
		podPath("one") + "?follow=maybe": `follow "maybe" is not true or false`,
	} {
		if st := s.status(t, admin, "GET", path, ""); !strings.Contains(st.Message, want) {
			t.Errorf("%s: %s, want %s", path, st.Message, want)
		}
	}
	s.logs.lines, s.logs.err = nil, fmt.Errorf("the container has not started")
	if st := s.status(t, admin, "GET", podPath("one"), ""); st.Code != 400 || st.Message != "the container has not started" {
		t.Errorf("%+v", st)
	}
}

func TestFollowedLogsComeLineByLine(t *testing.T) {
	s := serve(t)
	create(t, s, pod("one", "c"))
	if err := s.Bind(t.Context(), types.NamespacedName{Namespace: "default", Name: "one"}, "", "n1"); err != nil {
		t.Fatal(err)
	}
	s.logs.lines, s.logs.goOn = []string{"1", "2", "3"}, make(chan struct{})
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.url+podPath("one")+"?follow=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+admin)
	response, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for _, want := range s.logs.lines {
		if !lines.Scan() || lines.Text() != want { // it is there before the next is written
			t.Fatalf("%q, want %q (%v)", lines.Text(), want, lines.Err())
		}
		s.logs.goOn <- struct{}{}
	}
}

func TestObjectsAreAnsweredAsKubernetesWritesThem(t *testing.T) {
	s := serve(t)
	create(t, s, configMap("a", nil))
	_, text := s.do(t, admin, "GET", configMaps, "")
	var list struct {
		Kind, APIVersion string
		Metadata         map[string]any
		Items            []map[string]any
	}
	if err := json.NewDecoder(bytes.NewReader([]byte(text))).Decode(&list); err != nil {
		t.Fatal(err)
	}
	if list.Kind != "ConfigMapList" || list.APIVersion != "v1" || list.Metadata["resourceVersion"] == "" || list.Items[0]["kind"] != nil {
		t.Errorf("%s", text)
	}
	_, empty := s.do(t, admin, "GET", "/api/v1/namespaces/default/services", "")
	if !strings.Contains(empty, `"items":[]`) {
		t.Errorf("an empty list: %s", empty)
	}
	version := get[map[string]string](t, s, "/version")
	if version["major"] != "1" || version["gitVersion"] == "" {
		t.Errorf("%v", slices.Sorted(maps.Keys(version)))
	}
}
