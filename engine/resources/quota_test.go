package resources_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/resources"
)

func list(pairs ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

func quota(name string, hard ...string) *corev1.ResourceQuota {
	return &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.ResourceQuotaSpec{Hard: list(hard...)}}
}

// barePod has one container with these requests and limits.
func barePod(name string, requests, limits corev1.ResourceList) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "c", Image: "v1", Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits},
		}}},
	}
}

func mustCreate(t *testing.T, r *resources.Resources, objs ...client.Object) {
	t.Helper()
	for _, o := range objs {
		if err := r.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
}

// used is the status of a quota in words.
func used(t *testing.T, r *resources.Resources, name string) string {
	t.Helper()
	q := quota(name)
	if err := r.Get(t.Context(), client.Key(q), q); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, k := range []corev1.ResourceName{"pods", "cpu", "requests.cpu", "limits.memory", "services", "services.nodeports", "services.loadbalancers",
		"secrets", "configmaps", "persistentvolumeclaims", "requests.storage", "count/deployments.apps", "count/pods", "local.storageclass.storage.k8s.io/requests.storage"} {
		if n, ok := q.Status.Used[k]; ok {
			out = append(out, fmt.Sprintf("%s=%s", k, n.String()))
		}
	}
	return strings.Join(out, ",")
}

func TestQuotaRefusesWhatExceedsIt(t *testing.T) {
	r := enginetest.Resources(t)
	mustCreate(t, r, quota("q", "pods", "2"), barePod("a", nil, nil), barePod("b", nil, nil))
	err := r.Create(t.Context(), barePod("c", nil, nil))
	want := `pods "c" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2`
	if !apierrors.IsForbidden(err) || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if got := used(t, r, "q"); got != "pods=2" {
		t.Errorf("used %s", got)
	}
}

func TestQuotaCountsEachResource(t *testing.T) {
	service := func(name string, kind corev1.ServiceType) client.Object {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.ServiceSpec{Type: kind, Ports: []corev1.ServicePort{{Port: 80}}}}
	}
	class := "local"
	claim := func(name, size string) client.Object {
		return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{"ReadWriteOnce"}, Resources: corev1.VolumeResourceRequirements{Requests: list("storage", size)},
		}}
	}
	for _, c := range []struct {
		hard      []string
		fits, not client.Object
		used, why string
	}{
		{[]string{"cpu", "1"}, barePod("a", list("cpu", "600m"), nil), barePod("b", list("cpu", "600m"), nil), "cpu=600m",
			"requested: cpu=600m, used: cpu=600m, limited: cpu=1"},
		{[]string{"requests.cpu", "1", "limits.memory", "1Gi"}, barePod("a", list("cpu", "1"), list("memory", "1Gi")), barePod("b", list("cpu", "1"), list("memory", "1Gi")),
			"requests.cpu=1,limits.memory=1Gi", "requested: limits.memory=1Gi,requests.cpu=1, used: limits.memory=1Gi,requests.cpu=1, limited: limits.memory=1Gi,requests.cpu=1"},
		{[]string{"services", "1", "services.nodeports", "5"}, service("a", "NodePort"), service("b", "ClusterIP"), "services=1,services.nodeports=1", "requested: services=1, used: services=1, limited: services=1"},
		{[]string{"services.nodeports", "1"}, service("a", "NodePort"), service("b", "LoadBalancer"), "services.nodeports=1", "requested: services.nodeports=1"},
		{[]string{"services.loadbalancers", "1"}, service("a", "LoadBalancer"), service("b", "LoadBalancer"), "services.loadbalancers=1", "requested: services.loadbalancers=1"},
		{[]string{"secrets", "1"}, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}}, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"}}, "secrets=1", "requested: secrets=1"},
		{[]string{"configmaps", "1"}, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}}, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"}}, "configmaps=1", "requested: configmaps=1"},
		{[]string{"persistentvolumeclaims", "1"}, claim("a", "1Gi"), claim("b", "1Gi"), "persistentvolumeclaims=1", "requested: persistentvolumeclaims=1"},
		{[]string{"requests.storage", "3Gi"}, claim("a", "2Gi"), claim("b", "2Gi"), "requests.storage=2Gi", "requested: requests.storage=2Gi, used: requests.storage=2Gi, limited: requests.storage=3Gi"},
		{[]string{"local.storageclass.storage.k8s.io/requests.storage", "3Gi"}, claim("a", "2Gi"), claim("b", "2Gi"), "local.storageclass.storage.k8s.io/requests.storage=2Gi", "limited: local.storageclass"},
		{[]string{"count/deployments.apps", "1"}, deployment("a"), deployment("b"), "count/deployments.apps=1", "requested: count/deployments.apps=1, used: count/deployments.apps=1, limited: count/deployments.apps=1"},
	} {
		t.Run(c.hard[0], func(t *testing.T) {
			r := enginetest.Resources(t)
			mustCreate(t, r, quota("q", c.hard...), c.fits)
			if got := used(t, r, "q"); got != c.used {
				t.Errorf("used %s, want %s", got, c.used)
			}
			if err := r.Create(t.Context(), c.not); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), c.why) {
				t.Errorf("got %v\nwant %s", err, c.why)
			}
			q := quota("q")
			if err := r.Get(t.Context(), client.Key(q), q); err != nil {
				t.Fatal(err)
			}
			if err := r.Recount(t.Context(), q); err != nil {
				t.Fatal(err)
			}
			for name, n := range q.Status.Used {
				if !strings.Contains(c.used, fmt.Sprintf("%s=%s", name, n.String())) {
					t.Errorf("counted anew, %s is %s, and %s when it was charged", name, n.String(), c.used)
				}
			}
		})
	}
}

func TestQuotaNeedsWhatItLimitsToBeSaid(t *testing.T) {
	r := enginetest.Resources(t)
	mustCreate(t, r, quota("q", "requests.cpu", "1", "limits.memory", "1Gi"))
	err := r.Create(t.Context(), barePod("a", nil, nil))
	if want := `pods "a" is forbidden: failed quota: q: must specify limits.memory for: c; requests.cpu for: c`; err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func TestQuotaScopes(t *testing.T) {
	deadline := int64(60)
	ends := barePod("x", nil, nil)
	ends.Spec.ActiveDeadlineSeconds = &deadline
	plain, sure := barePod("x", nil, nil), barePod("x", list("cpu", "1"), nil)
	urgent := barePod("x", nil, nil)
	urgent.Spec.PriorityClassName = "system-cluster-critical"
	class := func(op corev1.ScopeSelectorOperator, values ...string) *corev1.ScopeSelector {
		return &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{{ScopeName: corev1.ResourceQuotaScopePriorityClass, Operator: op, Values: values}}}
	}
	for _, c := range []struct {
		name     string
		scopes   []corev1.ResourceQuotaScope
		selector *corev1.ScopeSelector
		in, out  *corev1.Pod
	}{
		{"Terminating", []corev1.ResourceQuotaScope{"Terminating"}, nil, ends, plain},
		{"NotTerminating", []corev1.ResourceQuotaScope{"NotTerminating"}, nil, plain, ends},
		{"BestEffort", []corev1.ResourceQuotaScope{"BestEffort"}, nil, plain, sure},
		{"NotBestEffort", []corev1.ResourceQuotaScope{"NotBestEffort"}, nil, sure, plain},
		{"class In", nil, class("In", "system-cluster-critical"), urgent, plain},
		{"class NotIn", nil, class("NotIn", "system-cluster-critical"), plain, urgent},
		{"class Exists", nil, class("Exists"), urgent, plain},
		{"class DoesNotExist", nil, class("DoesNotExist"), plain, urgent},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := enginetest.Resources(t)
			q := quota("q", "pods", "0")
			q.Spec.Scopes, q.Spec.ScopeSelector = c.scopes, c.selector
			mustCreate(t, r, q, c.out.DeepCopy())
			in := c.in.DeepCopy()
			in.Name = "in"
			if err := r.Create(t.Context(), in); !apierrors.IsForbidden(err) {
				t.Errorf("what is in the scope is not limited: %v", err)
			}
		})
	}
}

func TestConcurrentCreatesCannotExceedAQuota(t *testing.T) {
	r := enginetest.Resources(t)
	mustCreate(t, r, quota("q", "pods", "5"))
	var made, refused int
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			err := r.Create(t.Context(), barePod(fmt.Sprint("p", i), nil, nil))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				made++
			case apierrors.IsForbidden(err):
				refused++
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if made != 5 || refused != 11 {
		t.Errorf("%d pods were created and %d refused, want 5 and 11", made, refused)
	}
	if got := used(t, r, "q"); got != "pods=5" {
		t.Errorf("used %s", got)
	}
}

func TestTwoOpenTransactionsCannotBothTakeTheLast(t *testing.T) {
	r := enginetest.Resources(t)
	mustCreate(t, r, quota("q", "pods", "1"))
	a, b := r.Begin(), r.Begin()
	if err := a.Create(t.Context(), barePod("a", nil, nil)); err != nil {
		t.Fatal(err)
	}
	if err := b.Create(t.Context(), barePod("b", nil, nil)); err != nil {
		t.Fatal(err)
	}
	if err := a.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(t.Context()); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), "charged") {
		t.Errorf("the second one: %v", err)
	}
}

func TestOneTransactionIsMeteredAsAWhole(t *testing.T) {
	r := enginetest.Resources(t)
	tx := r.Begin()
	if err := tx.Create(t.Context(), quota("q", "pods", "1")); err != nil { // with what it limits
		t.Fatal(err)
	}
	if err := tx.Create(t.Context(), barePod("a", nil, nil)); err != nil {
		t.Fatal(err)
	}
	if err := tx.Create(t.Context(), barePod("b", nil, nil)); !apierrors.IsForbidden(err) {
		t.Errorf("the second pod: %v", err)
	}
	if err := tx.Commit(t.Context()); err != nil { // what was refused is not in it
		t.Fatal(err)
	}
	if got := used(t, r, "q"); got != "pods=1" {
		t.Errorf("used %s", got)
	}
	// A quota that is raised counts for what follows, and what is refused by a
	// second one is not charged to the first.
	mustCreate(t, r, quota("r", "pods", "2"))
	tx = r.Begin()
	if err := tx.Update(t.Context(), quota("q", "pods", "9")); err != nil {
		t.Fatal(err)
	}
	if err := tx.Create(t.Context(), barePod("b", nil, nil)); err != nil {
		t.Fatal(err)
	}
	if err := tx.Create(t.Context(), barePod("c", nil, nil)); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "exceeded quota: r") {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if q, r := used(t, r, "q"), used(t, r, "r"); q != "pods=2" || r != "pods=2" {
		t.Errorf("used %s and %s", q, r)
	}
}

func TestQuotaOfAnExistingNamespaceBeginsWithWhatIsThere(t *testing.T) {
	r := enginetest.Resources(t)
	mustCreate(t, r, barePod("a", nil, nil), barePod("b", nil, nil), quota("q", "pods", "1"))
	if got := used(t, r, "q"); got != "pods=2" {
		t.Errorf("used %s", got)
	}
	if err := r.Create(t.Context(), barePod("c", nil, nil)); !apierrors.IsForbidden(err) {
		t.Errorf("a third pod: %v", err)
	}
}

func TestAServiceThatGrowsIsMetered(t *testing.T) {
	r := enginetest.Resources(t)
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	mustCreate(t, r, quota("q", "services.nodeports", "0", "services", "1"), s)
	s.Spec.Type = corev1.ServiceTypeNodePort
	if err := r.Update(t.Context(), s); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "requested: services.nodeports=1") {
		t.Errorf("got %v", err)
	}
}
