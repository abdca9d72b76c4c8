package web

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
)

func TestStateOfSource(t *testing.T) {
	ready := func(status metav1.ConditionStatus, reason string) []metav1.Condition {
		return []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: status, Reason: reason, Message: "why"}}
	}
	for _, test := range []struct {
		name       string
		suspended  bool
		conditions []metav1.Condition
		word, tone string
	}{
		{"nothing was said yet", false, nil, "Waiting", toneIdle},
		{"ready", false, ready("True", v1alpha1.ReasonSucceeded), "Ready", toneGood},
		{"progressing", false, ready("False", v1alpha1.ReasonProgressing), "Progressing", toneBusy},
		{"degraded", false, ready("False", v1alpha1.ReasonDegraded), "Degraded", toneBad},
		{"too slow", false, ready("False", v1alpha1.ReasonTimeout), "Degraded", toneBad},
		{"held", false, ready("False", v1alpha1.ReasonPruneHeld), "Held", tonePaused},
		{"no commit", false, ready("False", v1alpha1.ReasonEmptyRepository), "Waiting", toneIdle},
		{"errors", false, ready("False", v1alpha1.ReasonCompileFailed), "Failed", toneBad},
		{"remote away", false, ready("False", v1alpha1.ReasonFetchFailed), "Failed", toneBad},
		{"suspended though ready", true, ready("True", v1alpha1.ReasonSucceeded), "Suspended", tonePaused},
		{"resumed a moment ago", false, ready("False", v1alpha1.ReasonSuspended), "Progressing", toneBusy},
	} {
		s := &v1alpha1.Source{Spec: v1alpha1.SourceSpec{Suspend: test.suspended}, Status: v1alpha1.SourceStatus{Conditions: test.conditions}}
		if got := stateOf(s); got.Word != test.word || got.Tone != test.tone {
			t.Errorf("%s: %+v, want %s in %s", test.name, got, test.word, test.tone)
		}
	}
}

func TestTimelineShowsWhatIsMissing(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s := &v1alpha1.Source{Status: v1alpha1.SourceStatus{
		Observed: &v1alpha1.Commit{ID: "abc"},
		Timeline: []v1alpha1.Stage{
			{Name: "pushed", Time: metav1.NewMicroTime(start)},
			{Name: "fetched", Time: metav1.NewMicroTime(start.Add(9 * time.Millisecond))},
		},
	}}
	lines := func() string {
		var out []string
		for _, st := range timeline(s) {
			out = append(out, strings.TrimSpace(st.Name+" "+st.Offset+st.Word))
		}
		return strings.Join(out, ", ")
	}
	if got, want := lines(), "pushed +0 ms, fetched +9 ms, compiled waiting, applied waiting, scheduled waiting, started waiting, ready waiting"; got != want {
		t.Errorf("timeline is %s, want %s", got, want)
	}
	s.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: "False", Reason: v1alpha1.ReasonCompileFailed}}
	if got, want := lines(), "compiled failed, applied not reached"; !strings.Contains(got, want) {
		t.Errorf("timeline of a commit with errors is %s, want %s in it", got, want)
	}
	s.Spec.URL, s.Status.Timeline = "https://git.example.org/x.git", nil
	if got := lines(); strings.Contains(got, "pushed") {
		t.Errorf("nobody pushes here to a remote: %s", got)
	}
}

func TestRepositoryIsShownWithoutPassword(t *testing.T) {
	s := &v1alpha1.Source{Spec: v1alpha1.SourceSpec{URL: "https://bob:hunter2@git.example.org/x.git"}}
	if got := from(s, ""); got != "https://git.example.org/x.git" {
		t.Errorf("shown is %s", got)
	}
}

func TestOnlyLocalPathsAreFollowedAfterLogin(t *testing.T) {
	for next, want := range map[string]string{
		"/sources/shop":         "/sources/shop",
		"/sources/shop?x=1":     "/sources/shop?x=1",
		"":                      "/",
		"sources":               "/",
		"//evil.example":        "/",
		`/\evil.example`:        "/",
		"https://evil.example/": "/",
		"/\t/evil.example":      "/",
		"/a\r\nSet-Cookie: x=1": "/",
		"javascript:alert(1)":   "/",
		"/login?next=/login":    "/",
	} {
		if got := local(next); got != want {
			t.Errorf("local(%q) is %q, want %q", next, got, want)
		}
	}
}

func TestNodeCountsWhatItsPodsRequest(t *testing.T) {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: corev1.NodeSpec{Unschedulable: true}}
	n.Status.Allocatable = corev1.ResourceList{"cpu": resource.MustParse("2"), "memory": resource.MustParse("4Gi"), "pods": resource.MustParse("110")}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	pod := func(phase corev1.PodPhase) *corev1.Pod {
		return &corev1.Pod{
			Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{"cpu": resource.MustParse("250m"), "memory": resource.MustParse("512Mi")},
			}}}},
			Status: corev1.PodStatus{Phase: phase},
		}
	}
	got := overviewOf(nil, []*corev1.Node{n}, []*corev1.Pod{pod("Running"), pod("Pending"), pod("Succeeded")}, "").Nodes[0]
	if got.State.Word != "Cordoned" || got.Pods.Used != "2" || got.CPU != (meter{"0.5", "2", 25}) || got.Memory != (meter{"1 GiB", "4 GiB", 25}) {
		t.Errorf("node is %+v", got)
	}
}

// object fills in what the store would.
func object[T client.Object](o T, uid, name string, owner client.Object, kind string) T {
	o.SetUID(types.UID(uid))
	o.SetNamespace("shop")
	o.SetName(name)
	if owner != nil {
		yes := true
		o.SetOwnerReferences([]metav1.OwnerReference{{Kind: kind, Name: owner.GetName(), UID: owner.GetUID(), Controller: &yes}})
	}
	return o
}

func TestIdleReplicaSetsAndManyHealthyPodsAreFolded(t *testing.T) {
	d := object(&appsv1.Deployment{}, "d", "web", nil, "")
	d.Annotations = map[string]string{revisionAnnotation: "2"}
	old := object(&appsv1.ReplicaSet{}, "r1", "web-1", d, "Deployment")
	none := int32(0)
	old.Annotations, old.Spec.Replicas = map[string]string{revisionAnnotation: "1"}, &none
	now := object(&appsv1.ReplicaSet{}, "r2", "web-2", d, "Deployment")
	now.Annotations = map[string]string{revisionAnnotation: "2"}
	o := owned{Deployments: []*appsv1.Deployment{d}, ReplicaSets: []*appsv1.ReplicaSet{old, now}}
	for i := range unfolded + 1 {
		p := object(&corev1.Pod{}, string(rune('a'+i)), "web-2-"+string(rune('a'+i)), now, "ReplicaSet")
		p.Spec.NodeName, p.Status.Phase = "n1", corev1.PodRunning
		if i > 0 {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		}
		o.Pods = append(o.Pods, p)
	}
	web := groups(o)[0].Items[0]
	if len(web.Children) != 1 || web.Children[0].Name != "web-2" || len(web.Folds) != 1 || web.Folds[0].Label != "1 earlier revision, idle" {
		t.Fatalf("deployment is %+v", web)
	}
	set := web.Children[0]
	if len(set.Children) != 1 || set.Children[0].State.Word != "Progressing" || len(set.Folds) != 1 || set.Folds[0].Label != "12 healthy pods" {
		t.Errorf("replica set shows %d pods and folds %+v", len(set.Children), set.Folds)
	}
}

func TestServiceCountsItsOwnEndpoints(t *testing.T) {
	s := object(&corev1.Service{Spec: corev1.ServiceSpec{
		ClusterIP: "10.43.0.7", Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Name: "http", Port: 80}},
	}}, "s", "web", nil, "")
	yes, no := true, false
	slice := func(service string) *discoveryv1.EndpointSlice {
		e := object(&discoveryv1.EndpointSlice{}, service, service, nil, "")
		e.Labels = map[string]string{discoveryv1.LabelServiceName: service}
		e.Endpoints = []discoveryv1.Endpoint{{Conditions: discoveryv1.EndpointConditions{Ready: &yes}}, {Conditions: discoveryv1.EndpointConditions{Ready: &no}}}
		return e
	}
	i := groups(owned{Services: []*corev1.Service{s}, Slices: []*discoveryv1.EndpointSlice{slice("web"), slice("other")}})[0].Items[0]
	var facts []string
	for _, f := range i.Facts {
		facts = append(facts, f.Name+" "+f.Value)
	}
	if got := strings.Join(facts, ", "); !strings.Contains(got, "endpoints 1 of 2 ready, http 10.43.0.7:80") || i.State.Word != "Healthy" {
		t.Errorf("service is %s: %s", i.State.Word, got)
	}
}

func TestEventsAreBoundedAndTheNewestFirst(t *testing.T) {
	var all []said
	for i := range shownEvents + 10 {
		all = append(all, said{UID: "s", Time: at(time.Unix(int64(i), 0)), Object: "Pod x"})
	}
	all = append(all, said{UID: "other", Time: at(time.Unix(1e6, 0))})
	p := sourceOf("shop", &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop", UID: "s"}}, owned{}, all, "")
	if len(p.Events) != unfoldedEvents || len(p.Events)+len(p.Earlier) != shownEvents || p.Left != 10 || p.Events[0].Time.Unix() != shownEvents+9 {
		t.Errorf("%d events, %d earlier, %d left, the first of %v", len(p.Events), len(p.Earlier), p.Left, p.Events[0].Time)
	}
}

func TestVersionDependsOnContentAlone(t *testing.T) {
	a := newPicture("overview", "x", overview{Nodes: []node{{Name: "n1"}}})
	if b := newPicture("overview", "x", overview{Nodes: []node{{Name: "n1"}}}); a.Version != b.Version {
		t.Error("the same content has two versions")
	}
	if c := newPicture("overview", "x", overview{Nodes: []node{{Name: "n2"}}}); a.Version == c.Version {
		t.Error("two contents have the same version")
	}
}

func TestAutoscalerShowsItsTargetAndUsage(t *testing.T) {
	a := object(&autoscalingv2.HorizontalPodAutoscaler{}, "a", "web", nil, "")
	target, now, seen := int32(50), int32(72), int64(0)
	a.Spec = autoscalingv2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: "web"}, MaxReplicas: 8,
		Metrics: []autoscalingv2.MetricSpec{{Resource: &autoscalingv2.ResourceMetricSource{Name: "cpu", Target: autoscalingv2.MetricTarget{AverageUtilization: &target}}}},
	}
	a.Status = autoscalingv2.HorizontalPodAutoscalerStatus{ObservedGeneration: &seen, DesiredReplicas: 3, CurrentMetrics: []autoscalingv2.MetricStatus{
		{Resource: &autoscalingv2.ResourceMetricStatus{Name: "cpu", Current: autoscalingv2.MetricValueStatus{AverageUtilization: &now}}},
	}}
	i := groups(owned{Autoscalers: []*autoscalingv2.HorizontalPodAutoscaler{a}})[0].Items[0]
	var facts []string
	for _, f := range i.Facts {
		facts = append(facts, f.Name+" "+f.Value)
	}
	if got := strings.Join(facts, ", "); got != "scales Deployment web, replicas 3, between 1 and 8, cpu 72%, target 50%" || i.State.Word != "Healthy" {
		t.Errorf("autoscaler is %s: %s", i.State.Word, got)
	}
}
