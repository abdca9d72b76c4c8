package clients

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	appsapply "k8s.io/client-go/applyconfigurations/apps/v1"
	coreapply "k8s.io/client-go/applyconfigurations/core/v1"
	metaapply "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/pager"
)

func TestLeaderElection(t *testing.T) {
	s := serve(t)
	var leaders atomic.Int32
	candidate := func(name string) (led chan struct{}, stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		led, done := make(chan struct{}), make(chan struct{})
		lock := &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: "default", Name: "operator"},
			Client:     clientset(t, s.protobuf()).CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: name},
		}
		go func() {
			defer close(done)
			leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
				Lock: lock, LeaseDuration: 2 * time.Second, RenewDeadline: time.Second, RetryPeriod: 200 * time.Millisecond, ReleaseOnCancel: true,
				Callbacks: leaderelection.LeaderCallbacks{
					OnStartedLeading: func(ctx context.Context) {
						if n := leaders.Add(1); n != 1 {
							t.Errorf("%d leaders at a time", n)
						}
						close(led)
						<-ctx.Done()
						leaders.Add(-1)
					},
					OnStoppedLeading: func() {},
				},
			})
		}()
		return led, func() { cancel(); <-done }
	}
	first, stopFirst := candidate("one")
	waitFor(t, first)
	second, stopSecond := candidate("two")
	select {
	case <-second:
		t.Error("the second leads beside the first")
	case <-time.After(time.Second):
	}
	stopFirst()
	waitFor(t, second)
	stopSecond()
	eventually(t, "nobody leads", func() bool { return leaders.Load() == 0 })
}

func waitFor(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody leads after 10 s")
	}
}

func TestDynamicClient(t *testing.T) {
	s := serve(t)
	d, err := discovery.NewDiscoveryClientForConfig(s.config)
	if err != nil {
		t.Fatal(err)
	}
	groups, err := restmapper.GetAPIGroupResources(d)
	if err != nil {
		t.Fatal(err)
	}
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	mapping, err := mapper.RESTMapping(schema.GroupKind{Group: "berth.dev", Kind: "Source"})
	if err != nil || mapping.Scope.Name() != meta.RESTScopeNameRoot {
		t.Fatalf("mapping of Source: %+v, %v", mapping, err)
	}
	set, err := dynamic.NewForConfig(s.config)
	if err != nil {
		t.Fatal(err)
	}
	sources := set.Resource(mapping.Resource)
	w, err := sources.Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	obj := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "berth.dev/v1alpha1", "kind": "Source",
		"metadata": map[string]any{"name": "shop"}, "spec": map[string]any{"path": "deploy"},
	}}
	made, err := sources.Create(t.Context(), obj, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-w.ResultChan():
		if got := e.Object.(*unstructured.Unstructured); e.Type != watch.Added || got.GetResourceVersion() != made.GetResourceVersion() {
			t.Errorf("event %s of version %s, want ADDED of %s", e.Type, got.GetResourceVersion(), made.GetResourceVersion())
		}
	case <-time.After(5 * time.Second):
		t.Error("no event after 5 s")
	}
	branch, _, err := unstructured.NestedString(made.Object, "spec", "ref", "branch")
	if err != nil || branch != "main" {
		t.Errorf("the default branch is %q (%v), want main", branch, err)
	}
	if err := sources.Delete(t.Context(), "shop", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

func TestServerSideApplyByTypedClient(t *testing.T) {
	s := serve(t)
	deployments := clientset(t, s.protobuf()).AppsV1().Deployments("default")
	labels := map[string]string{"app": "web"}
	web := func(replicas int32, image string) *appsapply.DeploymentApplyConfiguration {
		return appsapply.Deployment("web", "default").WithSpec(appsapply.DeploymentSpec().
			WithReplicas(replicas).
			WithSelector(metaapply.LabelSelector().WithMatchLabels(labels)).
			WithTemplate(coreapply.PodTemplateSpec().WithLabels(labels).WithSpec(coreapply.PodSpec().
				WithContainers(coreapply.Container().WithName("web").WithImage(image)))))
	}
	if _, err := deployments.Apply(t.Context(), web(2, "web:1"), metav1.ApplyOptions{FieldManager: "ci"}); err != nil {
		t.Fatal(err)
	}
	_, err := deployments.Apply(t.Context(), web(3, "web:1"), metav1.ApplyOptions{FieldManager: "ann"})
	if !apierrors.IsConflict(err) {
		t.Fatalf("another manager's field: %v, want a conflict", err)
	}
	if _, err := deployments.Apply(t.Context(), web(3, "web:1"), metav1.ApplyOptions{FieldManager: "ann", Force: true}); err != nil {
		t.Fatal(err)
	}
	// A controller that read the object takes over what it owns and applies it back.
	live, err := deployments.Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	mine, err := appsapply.ExtractDeployment(live, "ann")
	if err != nil {
		t.Fatal(err)
	}
	if mine.Spec == nil || mine.Spec.Replicas == nil || *mine.Spec.Replicas != 3 {
		t.Errorf("ann owns %+v, want replicas 3", mine.Spec)
	}
	if *live.Spec.Replicas != 3 || live.Generation != 2 {
		t.Errorf("replicas %d at generation %d, want 3 at 2", *live.Spec.Replicas, live.Generation)
	}
}

// All pages of a list are of one revision, whatever is written meanwhile.
func TestPagesAreOfOneRevision(t *testing.T) {
	s := serve(t)
	const count = 900
	for i := range count {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("p-%04d", i)}, Data: map[string]string{"v": "old"}}
		if err := s.Create(t.Context(), cm); err != nil {
			t.Fatal(err)
		}
	}
	set := clientset(t, s.protobuf())
	pages := 0
	p := pager.New(func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		list, err := set.CoreV1().ConfigMaps("default").List(ctx, o)
		pages++
		// Between two pages one is changed, one is gone, one is new.
		changed := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("p-%04d", count-pages)}, Data: map[string]string{"v": "new"}}
		if err := s.Update(ctx, changed); err != nil {
			t.Error(err)
		}
		if err := set.CoreV1().ConfigMaps("default").Delete(ctx, fmt.Sprintf("p-%04d", count-20-pages), metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		added := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("q-%04d", pages)}}
		if err := s.Create(ctx, added); err != nil {
			t.Error(err)
		}
		return list, err
	})
	p.PageSize = 100
	total := 0
	err := p.EachListItem(t.Context(), metav1.ListOptions{}, func(o runtime.Object) error {
		total++
		if c := o.(*corev1.ConfigMap); c.Data["v"] != "old" {
			t.Errorf("%s is of a later revision: %v", c.Name, c.Data)
		}
		return nil
	})
	if err != nil || total != count || pages != count/100 {
		t.Errorf("%d objects in %d pages (%v), want %d in %d", total, pages, err, count, count/100)
	}
}

// An Event is one object under two groups.
func TestEventsInBothGroups(t *testing.T) {
	s := serve(t)
	set := clientset(t, s.protobuf())
	w, err := set.CoreV1().Events("default").Watch(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=web"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	made, err := set.EventsV1().Events("default").Create(t.Context(), &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "e1", Namespace: "default"}, EventTime: metav1.NowMicro(),
		ReportingController: "example.org/operator", ReportingInstance: "operator-1", Action: "Scale", Reason: "Scaled", Type: "Normal",
		Regarding: corev1.ObjectReference{Kind: "Deployment", Namespace: "default", Name: "web"}, Note: "to 3",
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	core, err := set.CoreV1().Events("default").Get(t.Context(), "e1", metav1.GetOptions{})
	if err != nil || core.Message != "to 3" || core.InvolvedObject.Name != "web" || core.UID != made.UID {
		t.Errorf("the core Event: %+v (%v)", core, err)
	}
	if e := <-w.ResultChan(); e.Type != watch.Added || e.Object.(*corev1.Event).Reason != "Scaled" {
		t.Errorf("watched %v", e)
	}
	list, err := set.EventsV1().Events("").List(t.Context(), metav1.ListOptions{FieldSelector: "regarding.name=web,reason=Scaled"})
	if err != nil || len(list.Items) != 1 || list.Items[0].Note != "to 3" {
		t.Errorf("listed %+v (%v)", list, err)
	}
}

func TestDeleteCollection(t *testing.T) {
	s := serve(t)
	set := clientset(t, s.protobuf())
	for _, name := range []string{"a", "b", "c"} {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"gone": fmt.Sprint(name != "c")}}}
		if _, err := set.CoreV1().ConfigMaps("default").Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	selected := metav1.ListOptions{LabelSelector: "gone=true"}
	if err := set.CoreV1().ConfigMaps("default").DeleteCollection(t.Context(), metav1.DeleteOptions{DryRun: []string{"All"}}, selected); err != nil {
		t.Fatal(err)
	}
	left := func() int {
		list, err := set.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return len(list.Items)
	}
	if n := left(); n != 3 {
		t.Errorf("a dry run left %d, want 3", n)
	}
	if err := set.CoreV1().ConfigMaps("default").DeleteCollection(t.Context(), metav1.DeleteOptions{}, selected); err != nil {
		t.Fatal(err)
	}
	if n := left(); n != 1 {
		t.Errorf("%d are left, want 1", n)
	}
}

// Every kind that is served can be listed and watched by a typed client, and the
// OpenAPI document of v2 can be read.
func TestDiscoveryTellsTheTruth(t *testing.T) {
	s := serve(t)
	d, err := discovery.NewDiscoveryClientForConfig(s.config)
	if err != nil {
		t.Fatal(err)
	}
	set, err := dynamic.NewForConfig(s.config)
	if err != nil {
		t.Fatal(err)
	}
	lists, err := d.ServerPreferredResources()
	if err != nil {
		t.Fatal(err)
	}
	kinds := 0
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list.APIResources {
			if !slices.Contains(r.Verbs, "list") {
				continue
			}
			kinds++
			got, err := set.Resource(gv.WithResource(r.Name)).List(t.Context(), metav1.ListOptions{Limit: 1})
			if err != nil {
				t.Errorf("list %s %s: %v", gv, r.Name, err)
				continue
			}
			// Measurements are of no moment of the store.
			versioned := gv.Group == "metrics.k8s.io" || got.GetResourceVersion() != ""
			if got.GetKind() != r.Kind+"List" || !versioned {
				t.Errorf("list %s %s: %s at %q", gv, r.Name, got.GetKind(), got.GetResourceVersion())
			}
		}
	}
	if kinds < 25 {
		t.Errorf("only %d kinds", kinds)
	}
	doc, err := d.OpenAPISchema()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, def := range doc.GetDefinitions().GetAdditionalProperties() {
		found = found || def.GetName() == "io.k8s.api.apps.v1.StatefulSet"
	}
	if !found {
		t.Error("the OpenAPI v2 document has no StatefulSet")
	}
}
