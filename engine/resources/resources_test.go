package resources_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	gosync "sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/watch"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/clienttest"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/resources"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	clienttest.Run(t, func(t *testing.T) client.Client { return enginetest.Resources(t) })
}

func named(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "default", Name: name}
}

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: named(name), Data: map[string]string{"k": value}}
}

func deployment(name string) *appsv1.Deployment {
	l := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: named(name),
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: l},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: l},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "example.org/i:1"}}},
			},
		},
	}
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: named(name), Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "example.org/i:1"}}}}
}

func service(name string, nodePorts ...int32) *corev1.Service {
	s := &corev1.Service{ObjectMeta: named(name), Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(80)}},
	}}
	if len(nodePorts) > 0 {
		s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, nodePorts[0]
	}
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, r *resources.Resources, objs ...client.Object) {
	t.Helper()
	for _, o := range objs {
		must(t, r.Create(t.Context(), o))
	}
}

func key(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: "default", Name: name}
}

func get[T client.Object](t *testing.T, r *resources.Resources, name string, into T) T {
	t.Helper()
	must(t, r.Get(t.Context(), key(name), into))
	return into
}

// causes are the fields that a 422 names.
func causes(t *testing.T, err error) string {
	t.Helper()
	var s *apierrors.StatusError
	if !errors.As(err, &s) || !apierrors.IsInvalid(err) || s.ErrStatus.Code != 422 {
		t.Fatalf("%v is not a 422", err)
	}
	var out []string
	for _, c := range s.ErrStatus.Details.Causes {
		out = append(out, c.Field)
	}
	return strings.Join(out, " ")
}

func TestDefaultsAreStored(t *testing.T) {
	r := enginetest.Resources(t)
	create(t, r, deployment("web"), service("web"))
	d := get(t, r, "web", &appsv1.Deployment{})
	c := d.Spec.Template.Spec.Containers[0]
	if *d.Spec.Replicas != 1 || d.Spec.Strategy.RollingUpdate.MaxSurge.String() != "25%" || *d.Spec.RevisionHistoryLimit != 10 || c.ImagePullPolicy != corev1.PullIfNotPresent {
		t.Errorf("spec is %+v", d.Spec)
	}
	s := get(t, r, "web", &corev1.Service{})
	if s.Spec.Type != corev1.ServiceTypeClusterIP || s.Spec.Ports[0].Protocol != corev1.ProtocolTCP || s.Spec.SessionAffinity != corev1.ServiceAffinityNone || s.Spec.ClusterIP == "" {
		t.Errorf("spec is %+v", s.Spec)
	}
}

func TestInvalidObjectsNameTheirFields(t *testing.T) {
	r := enginetest.Resources(t)
	d := deployment("Web_1")
	d.Spec.Template.Spec.Containers[0].Name = "Not A Name"
	minus := int32(-1)
	d.Spec.Replicas = &minus
	got := causes(t, r.Create(t.Context(), d))
	for _, want := range []string{"metadata.name", "spec.replicas", "spec.template.spec.containers[0].name"} {
		if !slices.Contains(strings.Fields(got), want) {
			t.Errorf("causes are %s, without %s", got, want)
		}
	}
	bad := service("web")
	bad.Spec.Ports[0].Port = 0
	if got := causes(t, r.Create(t.Context(), bad)); got != "spec.ports[0].port" {
		t.Errorf("causes are %s", got)
	}
	src := &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: v1alpha1.SourceSpec{URL: "ftp://x", Path: "../up"}}
	if got := causes(t, r.Create(t.Context(), src)); got != "spec.url spec.path" {
		t.Errorf("causes are %s", got)
	}
}

func TestImmutableFields(t *testing.T) {
	r := enginetest.Resources(t)
	yes := true
	create(t, r, deployment("web"), service("web"), &corev1.Secret{ObjectMeta: named("s"), Data: map[string][]byte{"k": []byte("hunter2")}, Immutable: &yes})
	d := get(t, r, "web", &appsv1.Deployment{})
	d.Spec.Selector.MatchLabels = map[string]string{"app": "other"}
	d.Spec.Template.Labels = map[string]string{"app": "other"}
	if got := causes(t, r.Update(t.Context(), d)); got != "spec.selector" {
		t.Errorf("selector: %s", got)
	}
	s := get(t, r, "web", &corev1.Service{})
	s.Spec.ClusterIP, s.Spec.ClusterIPs = "10.43.77.77", []string{"10.43.77.77"}
	if got := causes(t, r.Update(t.Context(), s)); !strings.Contains(got, "spec.clusterIP") {
		t.Errorf("clusterIP: %s", got)
	}
	secret := get(t, r, "s", &corev1.Secret{})
	secret.Data["k"] = []byte("hunter3")
	err := r.Update(t.Context(), secret)
	if got := causes(t, err); got != "data" {
		t.Errorf("secret: %s", got)
	}
	if strings.Contains(err.Error(), "hunter") {
		t.Errorf("the error shows a value: %v", err)
	}
}

func TestInvalidSecretKeepsItsValue(t *testing.T) {
	r := enginetest.Resources(t)
	err := r.Create(t.Context(), &corev1.Secret{
		ObjectMeta: named("s"), Type: corev1.SecretTypeDockerConfigJson, StringData: map[string]string{corev1.DockerConfigJsonKey: `{"auths": hunter2`},
	})
	if !apierrors.IsInvalid(err) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}

func TestGenerationCountsChangesOfTheSpec(t *testing.T) {
	r := enginetest.Resources(t)
	d := deployment("web")
	create(t, r, d)
	steps := []struct {
		what   string
		change func()
		want   int64
	}{
		{"nothing", func() {}, 1},
		{"a label", func() { d.Labels = map[string]string{"x": "y"} }, 1},
		{"the origin", func() { d.Annotations = map[string]string{v1alpha1.AnnotationOrigin: "a.yaml:1"} }, 1},
		{"replicas", func() { three := int32(3); d.Spec.Replicas = &three }, 2},
	}
	for _, s := range steps {
		s.change()
		must(t, r.Update(t.Context(), d))
		if d.Generation != s.want {
			t.Errorf("after a change of %s the generation is %d, want %d", s.what, d.Generation, s.want)
		}
	}
	d.Status.Replicas, d.Status.ObservedGeneration = 3, 2
	must(t, r.UpdateStatus(t.Context(), d))
	if d.Generation != 2 {
		t.Errorf("a change of the status made generation %d", d.Generation)
	}
}

func TestStatusIsApart(t *testing.T) {
	r := enginetest.Resources(t)
	d := deployment("web")
	d.Status.Replicas = 7
	create(t, r, d)
	if d.Status.Replicas != 0 {
		t.Errorf("create took a status of %d replicas", d.Status.Replicas)
	}
	five := int32(5)
	d.Status.Replicas, d.Spec.Replicas = 1, &five
	must(t, r.UpdateStatus(t.Context(), d))
	if live := get(t, r, "web", &appsv1.Deployment{}); live.Status.Replicas != 1 || *live.Spec.Replicas != 1 {
		t.Errorf("UpdateStatus wrote %d replicas, status %d", *live.Spec.Replicas, live.Status.Replicas)
	}
	if err := r.UpdateStatus(t.Context(), configMap("a", "1")); !apierrors.IsBadRequest(err) {
		t.Errorf("a status of a ConfigMap: %v", err)
	}
}

func TestNothingChangedIsNotWritten(t *testing.T) {
	r := enginetest.Resources(t)
	create(t, r, deployment("web"))
	d := get(t, r, "web", &appsv1.Deployment{})
	// As a client writes it that says none of the defaults.
	again := deployment("web")
	must(t, r.Update(t.Context(), again))
	if again.ResourceVersion != d.ResourceVersion {
		t.Errorf("version %s became %s", d.ResourceVersion, again.ResourceVersion)
	}
	status := d.DeepCopy()
	must(t, r.UpdateStatus(t.Context(), status))
	if status.ResourceVersion != d.ResourceVersion {
		t.Errorf("an equal status made version %s out of %s", status.ResourceVersion, d.ResourceVersion)
	}
}

func TestFinalizersHoldADeletion(t *testing.T) {
	r := enginetest.Resources(t)
	cm := configMap("a", "1")
	cm.Finalizers = []string{"example.org/wait"}
	create(t, r, cm)
	must(t, r.Delete(t.Context(), configMap("a", ""), client.DeleteOptions{}))
	cm = get(t, r, "a", &corev1.ConfigMap{})
	if cm.DeletionTimestamp == nil {
		t.Fatal("no deletion timestamp")
	}
	was := cm.ResourceVersion
	must(t, r.Delete(t.Context(), configMap("a", ""), client.DeleteOptions{}))
	if cm = get(t, r, "a", cm); cm.ResourceVersion != was {
		t.Error("a second deletion wrote again")
	}
	cm.Finalizers = nil
	must(t, r.Update(t.Context(), cm))
	if err := r.Get(t.Context(), key("a"), cm); !apierrors.IsNotFound(err) {
		t.Errorf("after its finalizer: %v", err)
	}
}

// TestBindHoldsClaims: a Pod gets no node while a claim that it mounts is going, or
// gone, for nothing else keeps a claim that is being deleted.
func TestBindHoldsClaims(t *testing.T) {
	r := enginetest.Resources(t)
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: named("data")}
	claim.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	claim.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	user := func(name string) *corev1.Pod {
		p := pod(name)
		for _, volume := range []string{"a", "b"} {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
			}})
		}
		return p
	}
	create(t, r, user("early"), user("late"))
	refused := func(when string) {
		t.Helper()
		if err := r.Bind(t.Context(), key("late"), "", "n1"); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), "claim data, which it mounts") {
			t.Errorf("%s: %v", when, err)
		}
	}
	refused("before it is made")
	create(t, r, claim)
	must(t, r.Bind(t.Context(), key("early"), "", "n1"))
	must(t, r.Delete(t.Context(), claim, client.DeleteOptions{}))
	refused("while it is going")
}

func TestPodDeletion(t *testing.T) {
	r := enginetest.Resources(t)
	create(t, r, pod("free"), pod("bound"), pod("done"))
	must(t, r.Delete(t.Context(), pod("free"), client.DeleteOptions{}))
	if err := r.Get(t.Context(), key("free"), &corev1.Pod{}); !apierrors.IsNotFound(err) {
		t.Errorf("a Pod without a node: %v", err)
	}
	for _, name := range []string{"bound", "done"} {
		must(t, r.Bind(t.Context(), key(name), "", "n1"))
	}
	if err := r.Bind(t.Context(), key("bound"), "", "n2"); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), "on node n1 already") {
		t.Errorf("second bind: %v", err)
	}
	must(t, r.Delete(t.Context(), pod("bound"), client.DeleteOptions{}))
	if p := get(t, r, "bound", &corev1.Pod{}); p.DeletionTimestamp == nil || *p.DeletionGracePeriodSeconds != 30 {
		t.Errorf("deletion is %v", p.DeletionTimestamp)
	}
	p := get(t, r, "done", &corev1.Pod{})
	p.Status.Phase = corev1.PodSucceeded
	must(t, r.UpdateStatus(t.Context(), p))
	must(t, r.Delete(t.Context(), pod("done"), client.DeleteOptions{}))
	if err := r.Get(t.Context(), key("done"), p); !apierrors.IsNotFound(err) {
		t.Errorf("a Pod that has ended: %v", err)
	}
	zero := int64(0)
	must(t, r.Delete(t.Context(), pod("bound"), client.DeleteOptions{GracePeriodSeconds: &zero}))
	if err := r.Get(t.Context(), key("bound"), p); !apierrors.IsNotFound(err) {
		t.Errorf("after grace 0: %v", err)
	}
}

func TestTransactionIsAllOrNothing(t *testing.T) {
	r := enginetest.Resources(t)
	last := configMap("last", "0")
	create(t, r, last, configMap("doomed", "0"))
	tx := r.Begin()
	for i := range 300 {
		must(t, tx.Create(t.Context(), configMap(fmt.Sprintf("new-%d", i), "1")))
	}
	must(t, tx.Delete(t.Context(), configMap("doomed", ""), client.DeleteOptions{}))
	mine := last.DeepCopy()
	mine.Data["k"] = "mine"
	must(t, tx.Update(t.Context(), mine))
	last.Data["k"] = "theirs"
	must(t, r.Update(t.Context(), last))
	if err := tx.Commit(t.Context()); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `"last"`) {
		t.Fatalf("%v, want a conflict of last", err)
	}
	var all corev1.ConfigMapList
	must(t, r.List(t.Context(), &all, client.ListOptions{Namespace: "default"}))
	if len(all.Items) != 2 || all.Items[1].Data["k"] != "theirs" {
		t.Errorf("%d ConfigMaps after a transaction that failed", len(all.Items))
	}
}

func TestGeneratedNamesOfATransactionDiffer(t *testing.T) {
	r := enginetest.Resources(t)
	tx := r.Begin()
	var names []string
	for range 2 {
		rand.Seed(1) // the same first name again
		obj := configMap("", "1")
		obj.GenerateName = "a-"
		must(t, tx.Create(t.Context(), obj))
		names = append(names, obj.Name)
	}
	must(t, tx.Commit(t.Context()))
	if names[0] == names[1] {
		t.Errorf("both are %s", names[0])
	}
}

func TestATransactionChangesAnObjectOnce(t *testing.T) {
	r := enginetest.Resources(t)
	tx := r.Begin()
	must(t, tx.Create(t.Context(), configMap("a", "1")))
	if err := tx.Create(t.Context(), configMap("a", "2")); !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), "twice") {
		t.Errorf("%v", err)
	}
}

func TestServicesOfOneTransactionShareNothing(t *testing.T) {
	r := enginetest.Resources(t)
	tx := r.Begin()
	services := make([]*corev1.Service, 400)
	for i := range services {
		services[i] = service(fmt.Sprintf("s-%d", i), 0)
		must(t, tx.Create(t.Context(), services[i]))
	}
	must(t, tx.Commit(t.Context()))
	seen := map[string]string{}
	for _, s := range services {
		for _, have := range []string{s.Spec.ClusterIP, fmt.Sprint(s.Spec.Ports[0].NodePort)} {
			if other := seen[have]; other != "" {
				t.Fatalf("%s and %s both have %s", s.Name, other, have)
			}
			seen[have] = s.Name
		}
	}
}

func TestConcurrentServicesShareNothing(t *testing.T) {
	r := enginetest.Resources(t)
	var wg gosync.WaitGroup
	services := make([]*corev1.Service, 40)
	for i := range services {
		services[i] = service(fmt.Sprintf("s-%d", i), 0)
		wg.Go(func() {
			if err := r.Create(t.Context(), services[i]); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	seen := map[any]bool{}
	for _, s := range services {
		if seen[s.Spec.ClusterIP] || seen[s.Spec.Ports[0].NodePort] {
			t.Errorf("%s shares %s or %d", s.Name, s.Spec.ClusterIP, s.Spec.Ports[0].NodePort)
		}
		seen[s.Spec.ClusterIP], seen[s.Spec.Ports[0].NodePort] = true, true
	}
}

func TestTakenNodePortNamesItsHolder(t *testing.T) {
	r := enginetest.Resources(t)
	create(t, r, service("one", 30080))
	err := r.Create(t.Context(), service("two", 30080))
	if got := causes(t, err); got != "spec.ports[0].nodePort" || !strings.Contains(err.Error(), "is taken by Service default/one") {
		t.Errorf("%v", err)
	}
	err = r.Create(t.Context(), service("low", 80))
	if got := causes(t, err); got != "spec.ports[0].nodePort" || !strings.Contains(err.Error(), "from 30000 to 32767") {
		t.Errorf("%v", err)
	}
	outside := service("outside")
	outside.Spec.ClusterIP = "192.168.1.1"
	if err = r.Create(t.Context(), outside); causes(t, err) != "spec.clusterIP" {
		t.Errorf("%v", err)
	}
}

func TestANodePortMovesWithinOneTransaction(t *testing.T) {
	r := enginetest.Resources(t)
	create(t, r, service("old", 30080))
	tx := r.Begin()
	must(t, tx.Delete(t.Context(), service("old"), client.DeleteOptions{}))
	must(t, tx.Create(t.Context(), service("new", 30080)))
	must(t, tx.Commit(t.Context()))
	if err := r.Create(t.Context(), service("third", 30080)); err == nil || !strings.Contains(err.Error(), "default/new") {
		t.Errorf("a third Service: %v", err)
	}
	must(t, r.Delete(t.Context(), service("new"), client.DeleteOptions{}))
	create(t, r, service("third", 30080))
}

func TestClusterIPIsReleasedAndStable(t *testing.T) {
	r := enginetest.Resources(t)
	s := service("web")
	create(t, r, s)
	was := s.Spec.ClusterIP
	// An update that does not name it keeps it.
	again := service("web")
	again.Labels = map[string]string{"x": "y"}
	must(t, r.Update(t.Context(), again))
	if again.Spec.ClusterIP != was {
		t.Errorf("an update made %s out of %s", again.Spec.ClusterIP, was)
	}
	must(t, r.Delete(t.Context(), service("web"), client.DeleteOptions{}))
	taker := service("taker")
	taker.Spec.ClusterIP = was
	create(t, r, taker) // it is free
	must(t, r.Delete(t.Context(), taker.DeepCopy(), client.DeleteOptions{}))
	s = service("web")
	create(t, r, s)
	if s.Spec.ClusterIP != was {
		t.Errorf("created again, it has %s and had %s", s.Spec.ClusterIP, was)
	}
}

func TestAnUpdateKeepsTheNodePort(t *testing.T) {
	r := enginetest.Resources(t)
	s := service("web", 0)
	create(t, r, s)
	was := s.Spec.Ports[0].NodePort
	again := service("web", 0) // as a repository has it: without the defaults
	again.Labels = map[string]string{"x": "y"}
	must(t, r.Update(t.Context(), again))
	if again.Spec.Ports[0].NodePort != was {
		t.Errorf("node port %d became %d", was, again.Spec.Ports[0].NodePort)
	}
	// No longer a NodePort: it is given back.
	plain := service("web")
	must(t, r.Update(t.Context(), plain))
	if plain.Spec.Ports[0].NodePort != 0 {
		t.Errorf("a ClusterIP Service has node port %d", plain.Spec.Ports[0].NodePort)
	}
	create(t, r, service("other", was))
}

func TestLocalTrafficNeedsNoHealthPort(t *testing.T) {
	r := enginetest.Resources(t)
	s := service("web", 0)
	s.Spec.Type, s.Spec.ExternalTrafficPolicy = corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal
	create(t, r, s)
	again := s.DeepCopy()
	again.Labels = map[string]string{"x": "y"}
	must(t, r.Update(t.Context(), again))
}

func TestHeadlessServiceHasNoAddress(t *testing.T) {
	r := enginetest.Resources(t)
	for _, name := range []string{"one", "two"} {
		s := service(name)
		s.Spec.ClusterIP = corev1.ClusterIPNone
		create(t, r, s)
		if s.Spec.ClusterIP != corev1.ClusterIPNone || !slices.Equal(s.Spec.ClusterIPs, []string{corev1.ClusterIPNone}) {
			t.Errorf("it has %s, %v", s.Spec.ClusterIP, s.Spec.ClusterIPs)
		}
	}
	external := &corev1.Service{ObjectMeta: named("away"), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.org"}}
	create(t, r, external)
	if external.Spec.ClusterIP != "" {
		t.Errorf("an ExternalName has %s", external.Spec.ClusterIP)
	}
}

func TestNamespaceMustBeThere(t *testing.T) {
	r := enginetest.Resources(t)
	cm := configMap("a", "1")
	cm.Namespace = "nowhere"
	if err := r.Create(t.Context(), cm.DeepCopy()); !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), `namespaces "nowhere"`) {
		t.Errorf("in a Namespace that is not there: %v", err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "nowhere"}}
	tx := r.Begin()
	must(t, tx.Create(t.Context(), ns))
	must(t, tx.Create(t.Context(), cm.DeepCopy()))
	must(t, tx.Commit(t.Context()))

	live := ns.DeepCopy()
	if err := r.FinalizeNamespace(t.Context(), live); !apierrors.IsConflict(err) {
		t.Errorf("the end of one that is not being deleted: %v", err)
	}
	late := r.Begin()
	more := configMap("late", "1")
	more.Namespace = "nowhere"
	must(t, late.Create(t.Context(), more))
	must(t, r.Update(t.Context(), live)) // no change
	defer func() {
		if err := late.Commit(t.Context()); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `namespaces "nowhere"`) {
			t.Errorf("what was decided on before the Namespace went: %v", err)
		}
	}()

	tx = r.Begin()
	must(t, tx.Delete(t.Context(), ns.DeepCopy(), client.DeleteOptions{}))
	other := configMap("b", "1")
	other.Namespace = "nowhere"
	if err := tx.Create(t.Context(), other.DeepCopy()); !apierrors.IsForbidden(err) {
		t.Errorf("in a Namespace that the same transaction deletes: %v", err)
	}
	must(t, tx.Commit(t.Context()))
	if err := r.Create(t.Context(), other.DeepCopy()); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "is being deleted") {
		t.Errorf("in a Namespace that is being deleted: %v", err)
	}
	must(t, r.FinalizeNamespace(t.Context(), ns))
	if err := r.Get(t.Context(), types.NamespacedName{Name: "nowhere"}, ns); !apierrors.IsNotFound(err) {
		t.Errorf("after its end: %v", err)
	}
}

func TestTheClustersOwnNamespacesStay(t *testing.T) {
	r := enginetest.Resources(t)
	err := r.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, client.DeleteOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "delete what is in it instead") {
		t.Errorf("%v", err)
	}
}

func TestReplaceMakesAnotherObject(t *testing.T) {
	r := enginetest.Resources(t)
	create(t, r, deployment("web"))
	before := get(t, r, "web", &appsv1.Deployment{})
	w, err := r.Watch(t.Context(), &appsv1.DeploymentList{}, client.ListOptions{})
	must(t, err)
	defer w.Stop()
	next := deployment("web")
	next.Spec.Selector.MatchLabels["v"], next.Spec.Template.Labels["v"] = "2", "2"
	tx := r.Begin()
	must(t, tx.Replace(t.Context(), next))
	must(t, tx.Commit(t.Context()))
	after := get(t, r, "web", &appsv1.Deployment{})
	if after.UID == before.UID || after.Generation != 1 || after.ResourceVersion == before.ResourceVersion {
		t.Errorf("before %s, after %s with generation %d", before.UID, after.UID, after.Generation)
	}
	// To who watches, one has gone and another has come.
	if e := expect(t, w, watch.Deleted, "web"); e.GetUID() != before.UID {
		t.Error("the deleted one is not the old one")
	} else if again, err := r.Watch(t.Context(), &appsv1.DeploymentList{}, client.ListOptions{ResourceVersion: e.GetResourceVersion()}); err != nil {
		t.Error(err)
	} else {
		defer again.Stop()
		expect(t, again, watch.Deleted, "web") // who resumes here loses nothing
		expect(t, again, watch.Added, "web")
	}
	if e := expect(t, w, watch.Added, "web"); e.GetUID() != after.UID || e.GetResourceVersion() != after.ResourceVersion {
		t.Error("the added one is not the new one")
	}
	stale := before.DeepCopy()
	stale.ResourceVersion = ""
	if err := r.Update(t.Context(), stale); !apierrors.IsConflict(err) {
		t.Errorf("an update of the former object: %v", err)
	}
}

func next(t *testing.T, w watch.Interface) watch.Event {
	t.Helper()
	select {
	case e, ok := <-w.ResultChan():
		if !ok {
			t.Fatal("the watch has ended")
		}
		return e
	case <-time.After(10 * time.Second):
		t.Fatal("no event within 10 s")
	}
	return watch.Event{}
}

func expect(t *testing.T, w watch.Interface, kind watch.EventType, name string) client.Object {
	t.Helper()
	e := next(t, w)
	obj, ok := e.Object.(client.Object)
	if !ok || e.Type != kind || obj.GetName() != name {
		t.Fatalf("event %s of %+v, want %s of %s", e.Type, e.Object, kind, name)
	}
	return obj
}

func TestWatchShowsASelection(t *testing.T) {
	r := enginetest.Resources(t)
	w, err := r.Watch(t.Context(), &corev1.ConfigMapList{}, client.ListOptions{Labels: labels.SelectorFromSet(labels.Set{"in": "yes"})})
	must(t, err)
	defer w.Stop()
	cm := configMap("a", "1")
	create(t, r, cm)
	cm.Labels = map[string]string{"in": "yes"}
	must(t, r.Update(t.Context(), cm))
	expect(t, w, watch.Added, "a")
	cm.Data["k"] = "2"
	must(t, r.Update(t.Context(), cm))
	expect(t, w, watch.Modified, "a")
	cm.Labels = nil
	must(t, r.Update(t.Context(), cm))
	if gone := expect(t, w, watch.Deleted, "a"); gone.GetResourceVersion() != cm.ResourceVersion {
		t.Errorf("left at version %s, seen at %s", cm.ResourceVersion, gone.GetResourceVersion())
	}
}

func TestWatchListAndBookmarks(t *testing.T) {
	r := enginetest.Resources(t)
	create(t, r, configMap("a", "1"), configMap("b", "1"))
	row, err := r.Of(&corev1.ConfigMap{})
	must(t, err)
	w, err := r.Changes(t.Context(), row, resources.WatchRequest{Namespace: "default", Initial: true})
	must(t, err)
	defer w.Stop()
	expect(t, w, watch.Added, "a")
	expect(t, w, watch.Added, "b")
	mark := expect(t, w, watch.Bookmark, "")
	if mark.GetAnnotations()[metav1.InitialEventsAnnotationKey] != "true" || mark.GetResourceVersion() == "" {
		t.Errorf("bookmark %+v", mark)
	}
	create(t, r, configMap("c", "1"))
	expect(t, w, watch.Added, "c")
}

func TestAnOldVersionHasExpired(t *testing.T) {
	r := enginetest.Resources(t)
	big := configMap("big", strings.Repeat("x", 900_000))
	create(t, r, big)
	first := big.ResourceVersion
	for i := range 12 { // the window holds 16 MiB
		big.Data["k"] = strings.Repeat(fmt.Sprint(i%10), 900_000)
		must(t, r.Update(t.Context(), big))
	}
	for name, version := range map[string]string{"old": first, "of the future": "999999999"} {
		if _, err := r.Watch(t.Context(), &corev1.ConfigMapList{}, client.ListOptions{ResourceVersion: version}); !apierrors.IsResourceExpired(err) {
			t.Errorf("a version that is %s: %v", name, err)
		}
	}
	if _, err := r.Watch(t.Context(), &corev1.ConfigMapList{}, client.ListOptions{ResourceVersion: "x"}); !apierrors.IsBadRequest(err) {
		t.Errorf("no number: %v", err)
	}
}

func TestConcurrentUpdatesLoseNothing(t *testing.T) {
	r := enginetest.Resources(t)
	create(t, r, configMap("count", ""))
	const writers, each = 8, 15
	var wg gosync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				for {
					var cm corev1.ConfigMap
					if err := r.Get(t.Context(), key("count"), &cm); err != nil {
						t.Error(err)
						return
					}
					cm.Data[fmt.Sprintf("%d-%d", w, i)] = "here"
					err := r.Update(t.Context(), &cm)
					if err == nil {
						break
					}
					if !apierrors.IsConflict(err) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if cm := get(t, r, "count", &corev1.ConfigMap{}); len(cm.Data) != writers*each+1 {
		t.Errorf("%d keys, want %d", len(cm.Data), writers*each+1)
	}
}

func TestWatchersShareWithoutARace(t *testing.T) {
	r := enginetest.Resources(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg gosync.WaitGroup
	for range 8 {
		w, err := r.Watch(ctx, &corev1.ConfigMapList{}, client.ListOptions{Labels: labels.SelectorFromSet(labels.Set{"in": "yes"})})
		must(t, err)
		wg.Go(func() {
			for e := range w.ResultChan() {
				_ = e.Object.(*corev1.ConfigMap).Data["k"]
			}
		})
	}
	for i := range 50 {
		cm := configMap("a", fmt.Sprint(i))
		cm.Labels = map[string]string{"in": map[bool]string{true: "yes", false: "no"}[i%3 != 0]}
		if i == 0 {
			create(t, r, cm)
		} else {
			must(t, r.Update(t.Context(), cm))
		}
	}
	cancel()
	wg.Wait()
}
