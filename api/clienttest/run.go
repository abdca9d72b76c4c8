package clienttest

import (
	"context"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"berth.dev/berth/api/client"
)

// Run is the contract of a client.Client: what Kubernetes promises, and Berth's
// parts rely on. Each test gets a Client of its own; the namespace "default"
// must be usable in it. Objects are valid and say what defaulting would.
func Run(t *testing.T, newClient func(t *testing.T) client.Client) {
	for name, test := range map[string]func(*testing.T, client.Client){
		"create fills what was stored":              testCreate,
		"get and list are the caller's own":         testOwnership,
		"update of an old version is a conflict":    testConflict,
		"an update without a change writes nothing": testNoChange,
		"status is apart":                           testStatus,
		"list selects and sorts":                    testList,
		"watch goes on where a list ended":          testWatch,
		"watch shows a selection":                   testWatchSelection,
		"delete holds to its preconditions":         testDelete,
		"a bound Pod is deleted gracefully":         testGrace,
		"tokens of service accounts":                testRequestToken,
		"Follow sees everything once":               testFollow,
	} {
		t.Run(name, func(t *testing.T) { test(t, newClient(t)) })
	}
}

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string]string{"k": "v"}}
}

func somePod(name, node string) *corev1.Pod {
	grace := int64(30)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{
			NodeName: node, RestartPolicy: corev1.RestartPolicyAlways, DNSPolicy: corev1.DNSClusterFirst, TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{Name: "main", Image: "example.org/image:1", ImagePullPolicy: corev1.PullIfNotPresent, TerminationMessagePolicy: corev1.TerminationMessageReadFile}},
		},
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testCreate(t *testing.T, c client.Client) {
	obj := configMap("a")
	must(t, c.Create(t.Context(), obj))
	if obj.UID == "" || obj.ResourceVersion == "" || obj.CreationTimestamp.IsZero() {
		t.Errorf("created object lacks what the server sets: %+v", obj.ObjectMeta)
	}
	if err := c.Create(t.Context(), configMap("a")); !apierrors.IsAlreadyExists(err) {
		t.Errorf("second create: %v", err)
	}
	if err := c.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "none"}, &corev1.ConfigMap{}); !apierrors.IsNotFound(err) {
		t.Errorf("get of nothing: %v", err)
	}
	if err := c.Update(t.Context(), configMap("none")); !apierrors.IsNotFound(err) {
		t.Errorf("update of nothing: %v", err)
	}
}

func testOwnership(t *testing.T, c client.Client) {
	must(t, c.Create(t.Context(), configMap("a")))
	var one, two corev1.ConfigMap
	key := types.NamespacedName{Namespace: "default", Name: "a"}
	must(t, c.Get(t.Context(), key, &one))
	one.Data["k"] = "changed"
	must(t, c.Get(t.Context(), key, &two))
	if two.Data["k"] != "v" {
		t.Error("a change of an object that Get returned reached the store")
	}
}

func testConflict(t *testing.T, c client.Client) {
	obj := configMap("a")
	must(t, c.Create(t.Context(), obj))
	old := obj.DeepCopy()
	obj.Data["k"] = "2"
	must(t, c.Update(t.Context(), obj))
	if obj.ResourceVersion == old.ResourceVersion {
		t.Error("the version has not changed")
	}
	old.Data["k"] = "3"
	if err := c.Update(t.Context(), old); !apierrors.IsConflict(err) {
		t.Errorf("update of an old version: %v", err)
	}
	old.ResourceVersion = ""
	must(t, c.Update(t.Context(), old)) // without a version the last one wins
}

func testNoChange(t *testing.T, c client.Client) {
	obj := configMap("a")
	must(t, c.Create(t.Context(), obj))
	before := obj.ResourceVersion
	must(t, c.Update(t.Context(), obj))
	if obj.ResourceVersion != before {
		t.Errorf("version %s became %s", before, obj.ResourceVersion)
	}
}

func testStatus(t *testing.T, c client.Client) {
	pod := somePod("a", "n1")
	must(t, c.Create(t.Context(), pod))
	pod.Status.Phase, pod.Labels = corev1.PodRunning, map[string]string{"x": "y"}
	must(t, c.UpdateStatus(t.Context(), pod))
	if pod.Status.Phase != corev1.PodRunning || pod.Labels["x"] != "" {
		t.Errorf("UpdateStatus wrote phase %q, labels %v", pod.Status.Phase, pod.Labels)
	}
	generation := pod.Generation
	pod.Status.Phase, pod.Labels = corev1.PodFailed, map[string]string{"x": "y"}
	must(t, c.Update(t.Context(), pod))
	if pod.Status.Phase != corev1.PodRunning || pod.Labels["x"] != "y" || pod.Generation != generation {
		t.Errorf("Update wrote phase %q, labels %v, generation %d → %d", pod.Status.Phase, pod.Labels, generation, pod.Generation)
	}
}

func testList(t *testing.T, c client.Client) {
	for _, name := range []string{"c", "a", "b"} {
		obj := configMap(name)
		obj.Labels = map[string]string{"first": map[bool]string{true: "yes", false: "no"}[name == "a"], "test": "list"}
		must(t, c.Create(t.Context(), obj))
	}
	names := func(opts client.ListOptions) (out string) {
		var list corev1.ConfigMapList
		must(t, c.List(t.Context(), &list, opts))
		if list.ResourceVersion == "" {
			t.Error("a list without a version")
		}
		for _, item := range list.Items {
			out += item.Name
		}
		return out
	}
	all := labels.SelectorFromSet(labels.Set{"test": "list"})
	if got := names(client.ListOptions{Labels: all}); got != "abc" {
		t.Errorf("all: %s", got)
	}
	if got := names(client.ListOptions{Namespace: "default", Labels: labels.SelectorFromSet(labels.Set{"first": "yes"})}); got != "a" {
		t.Errorf("by label: %s", got)
	}
	if got := names(client.ListOptions{Namespace: "default", Fields: fields.OneTermEqualSelector("metadata.name", "b")}); got != "b" {
		t.Errorf("by name: %s", got)
	}
	if got := names(client.ListOptions{Namespace: "elsewhere"}); got != "" {
		t.Errorf("elsewhere: %s", got)
	}
}

// next returns the next event that is not a bookmark.
func next(t *testing.T, w watch.Interface) watch.Event {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case event, ok := <-w.ResultChan():
			if !ok {
				t.Fatal("the watch has ended")
			}
			if event.Type != watch.Bookmark {
				return event
			}
		case <-timeout:
			t.Fatal("no event within 10 s")
		}
	}
}

func expect(t *testing.T, w watch.Interface, kind watch.EventType, name string) client.Object {
	t.Helper()
	event := next(t, w)
	obj, ok := event.Object.(client.Object)
	if !ok || event.Type != kind || obj.GetName() != name {
		t.Fatalf("event %s of %+v, want %s of %s", event.Type, event.Object, kind, name)
	}
	return obj
}

func testWatch(t *testing.T, c client.Client) {
	must(t, c.Create(t.Context(), configMap("before")))
	var list corev1.ConfigMapList
	opts := client.ListOptions{Namespace: "default"}
	must(t, c.List(t.Context(), &list, opts))
	obj := configMap("a")
	must(t, c.Create(t.Context(), obj)) // between list and watch
	opts.ResourceVersion = list.ResourceVersion
	w, err := c.Watch(t.Context(), &corev1.ConfigMapList{}, opts)
	must(t, err)
	defer w.Stop()
	expect(t, w, watch.Added, "a")
	obj.Data["k"] = "2"
	must(t, c.Update(t.Context(), obj))
	if got := expect(t, w, watch.Modified, "a"); got.GetResourceVersion() != obj.ResourceVersion {
		t.Errorf("version %s in the event, %s of the update", got.GetResourceVersion(), obj.ResourceVersion)
	}
	must(t, c.Delete(t.Context(), configMap("a"), client.DeleteOptions{}))
	last := expect(t, w, watch.Deleted, "a").GetResourceVersion()
	must(t, c.Create(t.Context(), configMap("b")))
	expect(t, w, watch.Added, "b")
	opts.ResourceVersion = last
	again, err := c.Watch(t.Context(), &corev1.ConfigMapList{}, opts)
	must(t, err)
	defer again.Stop()
	expect(t, again, watch.Added, "b") // neither lost nor repeated
}

func testWatchSelection(t *testing.T, c client.Client) {
	var list corev1.PodList
	must(t, c.List(t.Context(), &list, client.ListOptions{}))
	w, err := c.Watch(t.Context(), &corev1.PodList{}, client.ListOptions{Fields: fields.OneTermEqualSelector("spec.nodeName", "n1"), ResourceVersion: list.ResourceVersion})
	must(t, err)
	defer w.Stop()
	must(t, c.Create(t.Context(), somePod("other", "n2")))
	mine := somePod("mine", "n1")
	must(t, c.Create(t.Context(), mine))
	expect(t, w, watch.Added, "mine")
	now := int64(0)
	must(t, c.Delete(t.Context(), mine, client.DeleteOptions{GracePeriodSeconds: &now}))
	expect(t, w, watch.Deleted, "mine")
}

func testDelete(t *testing.T, c client.Client) {
	obj := configMap("a")
	must(t, c.Create(t.Context(), obj))
	if err := c.Delete(t.Context(), configMap("a"), client.DeleteOptions{UID: "another"}); !apierrors.IsConflict(err) {
		t.Errorf("another UID: %v", err)
	}
	if err := c.Delete(t.Context(), configMap("a"), client.DeleteOptions{ResourceVersion: "1"}); !apierrors.IsConflict(err) {
		t.Errorf("another version: %v", err)
	}
	must(t, c.Delete(t.Context(), configMap("a"), client.DeleteOptions{UID: obj.UID}))
	if err := c.Delete(t.Context(), configMap("a"), client.DeleteOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("second delete: %v", err)
	}
}

func testGrace(t *testing.T, c client.Client) {
	must(t, c.Create(t.Context(), somePod("free", "")))
	must(t, c.Delete(t.Context(), somePod("free", ""), client.DeleteOptions{}))
	if err := c.Get(t.Context(), client.Key(somePod("free", "")), &corev1.Pod{}); !apierrors.IsNotFound(err) {
		t.Errorf("a Pod that no node runs is still there: %v", err)
	}
	pod := somePod("bound", "n1")
	must(t, c.Create(t.Context(), pod))
	must(t, c.Delete(t.Context(), pod, client.DeleteOptions{}))
	var live corev1.Pod
	must(t, c.Get(t.Context(), client.Key(pod), &live))
	if live.DeletionTimestamp == nil || live.DeletionGracePeriodSeconds == nil || *live.DeletionGracePeriodSeconds != 30 {
		t.Errorf("deletion %v, grace %v", live.DeletionTimestamp, live.DeletionGracePeriodSeconds)
	}
	live.Status.Phase = corev1.PodRunning
	must(t, c.UpdateStatus(t.Context(), &live)) // its node still reports
	five := int64(5)
	must(t, c.Delete(t.Context(), pod, client.DeleteOptions{GracePeriodSeconds: &five}))
	must(t, c.Get(t.Context(), client.Key(pod), &live))
	if *live.DeletionGracePeriodSeconds != 5 {
		t.Errorf("a shorter grace is %d, want 5", *live.DeletionGracePeriodSeconds)
	}
	now := int64(0)
	must(t, c.Delete(t.Context(), pod, client.DeleteOptions{UID: pod.UID, GracePeriodSeconds: &now}))
	if err := c.Get(t.Context(), client.Key(pod), &live); !apierrors.IsNotFound(err) {
		t.Errorf("after grace 0: %v", err)
	}
}

func testRequestToken(t *testing.T, c client.Client) {
	robot := types.NamespacedName{Namespace: "default", Name: "robot"}
	if err := c.RequestToken(t.Context(), robot, &authenticationv1.TokenRequest{}); !apierrors.IsNotFound(err) {
		t.Errorf("of no account: %v", err)
	}
	must(t, c.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "robot"}}))
	pod := somePod("a", "")
	pod.Spec.ServiceAccountName = "robot"
	must(t, c.Create(t.Context(), pod))
	request := func(seconds int64, uid types.UID) *authenticationv1.TokenRequest {
		return &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			Audiences: []string{"vault"}, ExpirationSeconds: &seconds,
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "a", UID: uid},
		}}
	}
	made := request(1200, pod.UID)
	must(t, c.RequestToken(t.Context(), robot, made))
	if left := time.Until(made.Status.ExpirationTimestamp.Time); made.Status.Token == "" || left > 1201*time.Second || left < 1100*time.Second {
		t.Errorf("a token of %d characters that ends in %v", len(made.Status.Token), left)
	}
	if err := c.RequestToken(t.Context(), robot, request(599, pod.UID)); !apierrors.IsInvalid(err) {
		t.Errorf("too short a life: %v", err)
	}
	if err := c.RequestToken(t.Context(), robot, request(1200, "another")); !apierrors.IsConflict(err) {
		t.Errorf("another UID of the Pod: %v", err)
	}
}

// recorder notes what Follow says.
type recorder struct {
	said chan string
}

func (r recorder) Set(obj client.Object)  { r.said <- "set " + obj.GetName() }
func (r recorder) Gone(obj client.Object) { r.said <- "gone " + obj.GetName() }
func (r recorder) Synced()                { r.said <- "synced" }

func testFollow(t *testing.T, c client.Client) {
	selected := func(name string) *corev1.ConfigMap {
		obj := configMap(name)
		obj.Labels = map[string]string{"follow": "me"}
		return obj
	}
	must(t, c.Create(t.Context(), selected("a")))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := recorder{make(chan string, 100)}
	done := make(chan error, 1)
	go func() {
		done <- client.Follow(ctx, c, &corev1.ConfigMapList{}, client.ListOptions{Labels: labels.SelectorFromSet(labels.Set{"follow": "me"})}, r)
	}()
	say := func(want string) {
		t.Helper()
		select {
		case got := <-r.said:
			if got != want {
				t.Fatalf("Follow says %q, want %q", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("Follow does not say %q", want)
		}
	}
	say("set a")
	say("synced")
	b := selected("b")
	must(t, c.Create(t.Context(), b))
	say("set b")
	b.Labels = nil
	must(t, c.Update(t.Context(), b))
	say("gone b")
	must(t, c.Delete(t.Context(), selected("a"), client.DeleteOptions{}))
	say("gone a")
	cancel()
	must(t, <-done)
}
