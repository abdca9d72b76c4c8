package controllers_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/controllers"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/resources"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const wait = 20 * time.Second

func start(t *testing.T, broken ...string) *resources.Resources {
	r := enginetest.Resources(t)
	enginetest.AddNode(t, r, "n1", "64", "64Gi")
	k := &enginetest.Kubelet{Client: r, Broken: map[string]bool{}}
	for _, image := range broken {
		k.Broken[image] = true
	}
	views := live.New()
	enginetest.Go(t, controllers.New(controllers.Options{Resources: r, Live: views, Clock: clock.RealClock{}, Log: enginetest.Log(t)}).Run)
	enginetest.Go(t, func(ctx context.Context) error { return views.Run(ctx, r) })
	enginetest.Go(t, k.Run)
	return r
}

func deployment(name, image string, replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}},
			},
		},
	}
}

func create(t *testing.T, r *resources.Resources, objs ...client.Object) {
	t.Helper()
	for _, o := range objs {
		if err := r.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
}

func get[T client.Object](t *testing.T, r *resources.Resources, name string, into T) T {
	t.Helper()
	if err := r.Get(t.Context(), types.NamespacedName{Namespace: spaceOf(into), Name: name}, into); err != nil {
		t.Fatal(err)
	}
	return into
}

func pods(t *testing.T, r *resources.Resources) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	if err := r.List(t.Context(), &list, client.ListOptions{Namespace: "default"}); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func isComplete(t *testing.T, r *resources.Resources, name, image string, n int32) func() string {
	return func() string {
		d := get(t, r, name, &appsv1.Deployment{})
		s := d.Status
		if s.ObservedGeneration != d.Generation || s.UpdatedReplicas != n || s.AvailableReplicas != n || s.Replicas != n {
			return fmt.Sprintf("generation %d, want %d replicas: %+v", d.Generation, n, s)
		}
		running := 0
		for _, p := range pods(t, r) {
			if p.Spec.Containers[0].Image == image && p.DeletionTimestamp == nil {
				running++
			}
		}
		if running != int(n) {
			return fmt.Sprintf("%d pods run %s, want %d", running, image, n)
		}
		return ""
	}
}

func TestDeploymentRollsWithinItsLimits(t *testing.T) {
	r := start(t)
	d := deployment("web", "v1", 10)
	surge, unavailable := intstr.FromString("25%"), intstr.FromString("25%")
	d.Spec.Strategy = appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable}}
	create(t, r, d)
	enginetest.Eventually(t, wait, isComplete(t, r, "web", "v1", 10))

	// 25% of 10 is 3 more at the most and 2 fewer available at the least.
	var most, least atomic.Int64
	least.Store(100)
	enginetest.Go(t, func(ctx context.Context) error {
		return client.Follow(ctx, r, &corev1.PodList{}, client.ListOptions{Namespace: "default"}, &counter{seen: map[types.UID]*corev1.Pod{}, most: &most, least: &least})
	})
	d = get(t, r, "web", &appsv1.Deployment{})
	d.Spec.Template.Spec.Containers[0].Image = "v2"
	d.ResourceVersion = ""
	if err := r.Update(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, isComplete(t, r, "web", "v2", 10))
	if most.Load() > 13 || least.Load() < 8 {
		t.Errorf("during the rollout there were up to %d pods (limit 13) and down to %d ready (limit 8)", most.Load(), least.Load())
	}
	var sets appsv1.ReplicaSetList
	if err := r.List(t.Context(), &sets, client.ListOptions{Namespace: "default"}); err != nil || len(sets.Items) != 2 {
		t.Fatalf("%d replica sets, %v", len(sets.Items), err)
	}
}

// counter sees every state that the Pods go through.
type counter struct {
	seen        map[types.UID]*corev1.Pod
	synced      bool
	most, least *atomic.Int64
}

func (c *counter) Synced() { c.synced = true }

func (c *counter) Set(obj client.Object) {
	c.seen[obj.GetUID()] = obj.(*corev1.Pod)
	c.count()
}

func (c *counter) Gone(obj client.Object) {
	delete(c.seen, obj.GetUID())
	c.count()
}

func (c *counter) count() {
	if !c.synced {
		return
	}
	var total, ready int64
	for _, p := range c.seen {
		if p.DeletionTimestamp != nil {
			continue
		}
		total++
		for _, cond := range p.Status.Conditions {
			if cond.Type == corev1.PodReady && cond.Status == corev1.ConditionTrue {
				ready++
			}
		}
	}
	c.most.Store(max(c.most.Load(), total))
	c.least.Store(min(c.least.Load(), ready))
}

func TestBrokenRolloutKeepsTheOldPodsAndAFixEndsIt(t *testing.T) {
	r := start(t, "broken")
	create(t, r, deployment("web", "v1", 4))
	enginetest.Eventually(t, wait, isComplete(t, r, "web", "v1", 4))
	d := get(t, r, "web", &appsv1.Deployment{})
	d.Spec.Template.Spec.Containers[0].Image = "broken"
	d.ResourceVersion = ""
	if err := r.Update(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, func() string {
		old, broken := 0, 0
		for _, p := range pods(t, r) {
			if p.Spec.Containers[0].Image == "v1" {
				old++
			} else {
				broken++
			}
		}
		// 4 replicas: one may be missing, one may be more.
		if old != 3 || broken != 2 {
			return fmt.Sprintf("%d old and %d broken pods, want 3 and 2", old, broken)
		}
		return ""
	})
	d = get(t, r, "web", &appsv1.Deployment{})
	d.Spec.Template.Spec.Containers[0].Image = "v1"
	d.ResourceVersion = ""
	if err := r.Update(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, isComplete(t, r, "web", "v1", 4))
}

func TestRecreateNeverRunsTwoVersions(t *testing.T) {
	r := start(t)
	d := deployment("db", "v1", 3)
	d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType
	create(t, r, d)
	enginetest.Eventually(t, wait, isComplete(t, r, "db", "v1", 3))
	mixed := &versions{seen: map[types.UID]string{}}
	enginetest.Go(t, func(ctx context.Context) error {
		return client.Follow(ctx, r, &corev1.PodList{}, client.ListOptions{Namespace: "default"}, mixed)
	})
	d = get(t, r, "db", &appsv1.Deployment{})
	d.Spec.Template.Spec.Containers[0].Image = "v2"
	d.ResourceVersion = ""
	if err := r.Update(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, isComplete(t, r, "db", "v2", 3))
	if mixed.together.Load() {
		t.Error("pods of both versions existed at one time")
	}
}

type versions struct {
	seen     map[types.UID]string
	together atomic.Bool
}

func (v *versions) Synced() {}

func (v *versions) Gone(obj client.Object) { delete(v.seen, obj.GetUID()) }

func (v *versions) Set(obj client.Object) {
	v.seen[obj.GetUID()] = obj.(*corev1.Pod).Spec.Containers[0].Image
	for _, image := range v.seen {
		if image != v.seen[obj.GetUID()] {
			v.together.Store(true)
		}
	}
}

func TestScaleDownAndDelete(t *testing.T) {
	r := start(t)
	create(t, r, deployment("web", "v1", 8))
	enginetest.Eventually(t, wait, isComplete(t, r, "web", "v1", 8))
	d := get(t, r, "web", &appsv1.Deployment{})
	two := int32(2)
	d.Spec.Replicas = &two
	d.ResourceVersion = ""
	if err := r.Update(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, isComplete(t, r, "web", "v1", 2))
	if err := r.Delete(t.Context(), d, client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, func() string {
		var sets appsv1.ReplicaSetList
		if err := r.List(t.Context(), &sets, client.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		if n, m := len(pods(t, r)), len(sets.Items); n+m > 0 {
			return fmt.Sprintf("%d pods and %d replica sets are left", n, m)
		}
		return ""
	})
}

func TestServiceEndpointsFollowReadiness(t *testing.T) {
	r := start(t, "broken")
	create(t, r, deployment("web", "v1", 3), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
	})
	ready := func(want int) func() string {
		return func() string {
			var list discoveryv1.EndpointSliceList
			if err := r.List(t.Context(), &list, client.ListOptions{Namespace: "default"}); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range list.Items {
				for _, e := range s.Endpoints {
					if *e.Conditions.Ready {
						got = append(got, e.Addresses[0])
					}
				}
				if len(s.Endpoints) > 0 && *s.Ports[0].Port != 8080 {
					return fmt.Sprintf("port %d", *s.Ports[0].Port)
				}
			}
			if slices.Sort(got); len(slices.Compact(got)) != want {
				return fmt.Sprintf("%d ready endpoints, want %d", len(got), want)
			}
			return ""
		}
	}
	enginetest.Eventually(t, wait, ready(3))
	d := get(t, r, "web", &appsv1.Deployment{})
	d.Spec.Template.Spec.Containers[0].Image = "broken"
	d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	d.ResourceVersion = ""
	if err := r.Update(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, ready(0))
}

func TestUnschedulablePodSaysWhyAndIsTriedAgain(t *testing.T) {
	r := start(t)
	d := deployment("big", "v1", 1)
	d.Spec.Template.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("100Gi")}
	create(t, r, d)
	enginetest.Eventually(t, wait, func() string {
		for _, p := range pods(t, r) {
			for _, c := range p.Status.Conditions {
				if c.Type == corev1.PodScheduled && strings.Contains(c.Message, "0/1 nodes fit: 1 lacks memory (need 100Gi, free 64Gi)") {
					return ""
				}
			}
		}
		return "no pod says why it waits"
	})
	enginetest.AddNode(t, r, "n2", "8", "128Gi")
	enginetest.Eventually(t, wait, isComplete(t, r, "big", "v1", 1))
}

func TestNamespaceTakesItsContentAlong(t *testing.T) {
	r := start(t)
	create(t, r, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	d := deployment("web", "v1", 3)
	d.Namespace = "shop"
	create(t, r, d, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "c"}})
	if err := r.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	late := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "late"}}
	if err := r.Create(t.Context(), late); err == nil {
		t.Error("something was created in a namespace that is going")
	}
	enginetest.Eventually(t, wait, func() string {
		var list corev1.NamespaceList
		if err := r.List(t.Context(), &list, client.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		for _, ns := range list.Items {
			if ns.Name == "shop" {
				return "the namespace is still there"
			}
		}
		return ""
	})
	var all corev1.PodList
	if err := r.List(t.Context(), &all, client.ListOptions{Namespace: "shop"}); err != nil || len(all.Items) > 0 {
		t.Errorf("%d pods are left, %v", len(all.Items), err)
	}
}

// spaceOf is the namespace in which objects of a kind are looked up.
func spaceOf(o client.Object) string {
	if _, ok := o.(*corev1.Node); ok {
		return ""
	}
	return "default"
}
