package apiserver_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"berth.dev/berth/engine/apiserver"
)

// measured is what an agent has measured.
type measured struct {
	nodes []metricsv1beta1.NodeMetrics
	pods  []metricsv1beta1.PodMetrics
}

func (m *measured) Usage() ([]metricsv1beta1.NodeMetrics, []metricsv1beta1.PodMetrics) {
	return m.nodes, m.pods
}

func used(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}

func TestUsage(t *testing.T) {
	m := &measured{}
	s := serve(t, func(o *apiserver.Options) { o.Usage = m })
	web, idle := pod("web", "b", "a"), pod("idle", "a")
	web.Labels = map[string]string{"app": "web"}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "one", Labels: map[string]string{"zone": "a"}}}
	create(t, s, web, idle, node)
	at, window := metav1.NewTime(time.Unix(1_700_000_000, 0)), metav1.Duration{Duration: 15 * time.Second}
	m.nodes = []metricsv1beta1.NodeMetrics{{ObjectMeta: metav1.ObjectMeta{Name: "one"}, Timestamp: at, Window: window, Usage: used("1500m", "3Gi")}}
	m.pods = []metricsv1beta1.PodMetrics{
		{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: web.UID}, Timestamp: at, Window: window, Containers: []metricsv1beta1.ContainerMetrics{
			{Name: "b", Usage: used("250m", "10Mi")}, {Name: "a", Usage: used("123456n", "5Mi")},
		}},
		// One of the same name that was there before.
		{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "idle", UID: "another"}, Timestamp: at, Window: window},
	}
	const base = "/apis/metrics.k8s.io/v1beta1"
	pods := get[metricsv1beta1.PodMetricsList](t, s, base+"/pods")
	if len(pods.Items) != 1 || pods.Items[0].Name != "web" || pods.Items[0].Labels["app"] != "web" || pods.Items[0].Containers[0].Name != "a" || pods.Kind != "PodMetricsList" {
		t.Errorf("%+v", pods)
	}
	for path, want := range map[string]int{
		"/namespaces/default/pods":                        1,
		"/namespaces/other/pods":                          0,
		"/pods?labelSelector=app%3Dweb":                   1,
		"/pods?labelSelector=app%3Dother":                 0,
		"/pods?fieldSelector=metadata.name%3Dweb":         1,
		"/namespaces/default/pods?labelSelector=app!=web": 0,
	} {
		if got := get[metricsv1beta1.PodMetricsList](t, s, base+path); len(got.Items) != want || got.Items == nil {
			t.Errorf("%s: %d, want %d", path, len(got.Items), want)
		}
	}
	one := get[metricsv1beta1.NodeMetrics](t, s, base+"/nodes/one")
	if one.Usage.Cpu().MilliValue() != 1500 || one.Labels["zone"] != "a" || one.Window != window || !one.Timestamp.Equal(&at) {
		t.Errorf("%+v", one)
	}
	if got := s.status(t, admin, "GET", base+"/namespaces/default/pods/idle", ""); got.Code != http.StatusNotFound {
		t.Errorf("a pod that was not measured: %+v", got)
	}
	if got := s.status(t, admin, "GET", base+"/nodes?watch=true", ""); got.Code != http.StatusMethodNotAllowed {
		t.Errorf("a watch: %+v", got)
	}
	table := get[metav1.Table](t, s, base+"/namespaces/default/pods", "Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
	if len(table.Rows) != 1 || table.Rows[0].Cells[0] != "web" || table.Rows[0].Cells[1] != "251m" || table.Rows[0].Cells[2] != "15360Ki" || table.Rows[0].Cells[3] != "15s" {
		t.Errorf("%+v", table.Rows)
	}
	code, body := s.do(t, admin, "GET", base+"/nodes", "", "Accept", "application/vnd.kubernetes.protobuf")
	if code != http.StatusOK || !strings.HasPrefix(body, "k8s\x00") {
		t.Errorf("protobuf: %d %q", code, body[:min(len(body), 20)])
	}
}
