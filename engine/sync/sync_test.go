package sync_test

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
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/yaml"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/controllers"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/resources"
	"berth.dev/berth/engine/sync"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const wait = 20 * time.Second

// remote is a repository in memory: its commits are YAML documents, and a line
// that begins with "error" does not compile, and "fault" is one of the compiler.
type remote struct {
	mu     gosync.Mutex
	head   string
	commit map[string]content
	err    error
	open   []manifest.Reference
	// others are the newest commits of other repositories than shop's, by Source.
	others map[string]string
	signed string
}

type content struct{ message, body string }

func (r *remote) push(id, message, body string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.commit == nil {
		r.commit = map[string]content{}
	}
	r.head, r.commit[id], r.err = id, content{message, body}, nil
}

// other makes a commit the newest of another repository.
func (r *remote) other(source, id, body string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.commit == nil {
		r.commit = map[string]content{}
	}
	if r.others == nil {
		r.others = map[string]string{}
	}
	r.others[source], r.commit[id] = id, content{body: body}
}

// signer says who signed every commit.
func (r *remote) signer(who string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.signed = who
}

func (r *remote) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// Fetch implements sync.Fetcher.
func (r *remote) Fetch(_ context.Context, src *v1alpha1.Source) (revision.Revision, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id, ok := r.others[src.Name]; ok {
		return revision.Revision{Commit: id}, nil
	}
	if r.err != nil {
		return revision.Revision{}, r.err
	}
	return revision.Revision{Commit: r.head, Message: r.commit[r.head].message, Subject: r.commit[r.head].message, SignedBy: r.signed}, nil
}

// Compile implements sync.Compiler.
func (r *remote) Compile(_ context.Context, rev revision.Revision, _ sync.CompileOptions) (manifest.Set, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	set := manifest.Set{Open: r.open}
	line := 1
	for _, doc := range strings.Split(r.commit[rev.Commit].body, "---\n") {
		if strings.HasPrefix(doc, "fault") {
			return set, errors.New("the compiler has died")
		} else if strings.HasPrefix(doc, "error") {
			set.Diagnostics = append(set.Diagnostics, v1alpha1.Diagnostic{Severity: v1alpha1.SeverityError, Path: "a.yaml", Line: int32(line), Column: 1, Message: doc})
		} else if strings.TrimSpace(doc) != "" {
			obj := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte(doc), &obj.Object); err != nil {
				return set, err
			}
			set.Manifests = append(set.Manifests, manifest.Manifest{Object: obj, Origin: manifest.Origin{Path: "a.yaml", Line: line}})
		}
		line += strings.Count(doc, "\n") + 1
	}
	return set, nil
}

type fixture struct {
	*resources.Resources
	remote  *remote
	engine  *sync.Engine
	kubelet *enginetest.Kubelet
	// stop ends the engine.
	stop func()
}

func start(t *testing.T) *fixture {
	r := enginetest.Resources(t)
	enginetest.AddNode(t, r, "n1", "64", "64Gi")
	views := live.New()
	f := &fixture{Resources: r, remote: &remote{}}
	enginetest.Go(t, controllers.New(controllers.Options{Resources: r, Live: views, Clock: clock.RealClock{}, Log: enginetest.Log(t)}).Run)
	f.kubelet = &enginetest.Kubelet{Client: r, Broken: map[string]bool{"broken": true},
		Exit: map[string]int32{"ok": 0, "ok2": 0, "bad": 1, "works": 0, "fails": 1}}
	enginetest.Go(t, f.kubelet.Run)
	enginetest.Go(t, func(ctx context.Context) error { return views.Run(ctx, r) })
	f.restart(t)
	t.Cleanup(f.kill)
	return f
}

// restart runs another engine over the same store, in the place of the one that
// runs.
func (f *fixture) restart(t *testing.T) {
	t.Helper()
	f.kill()
	views := live.New()
	engine := sync.New(sync.Options{Resources: f.Resources, Live: views, Fetcher: f.remote, Compiler: f.remote, Clock: clock.RealClock{}, Log: enginetest.Log(t)})
	ctx, cancel := context.WithCancel(context.Background())
	var running gosync.WaitGroup
	running.Go(func() { _ = engine.Run(ctx) })
	running.Go(func() { _ = views.Run(ctx, f.Resources) })
	f.engine, f.stop = engine, func() { cancel(); running.Wait() }
}

// kill ends the engine that runs, wherever it is.
func (f *fixture) kill() {
	if f.stop != nil {
		f.stop()
		f.stop = nil
	}
}

// push makes a commit the newest and waits until the Source says so of its
// condition: status, reason and a part of the message.
func (f *fixture) push(t *testing.T, id, message, body string, want metav1.Condition) {
	t.Helper()
	f.remote.push(id, message, body)
	f.engine.Pushed("shop", time.Now())
	f.await(t, id, want)
}

func (f *fixture) await(t *testing.T, id string, want metav1.Condition) {
	t.Helper()
	enginetest.Eventually(t, wait, func() string {
		s := f.source(t)
		c := meta.FindStatusCondition(s.Status.Conditions, want.Type)
		if s.Status.Observed == nil || s.Status.Observed.ID != id || c == nil || c.Status != want.Status || c.Reason != want.Reason || !strings.Contains(c.Message, want.Message) {
			return fmt.Sprintf("source observed %+v, condition %+v", s.Status.Observed, c)
		}
		return ""
	})
}

func (f *fixture) source(t *testing.T) *v1alpha1.Source {
	t.Helper()
	var s v1alpha1.Source
	if err := f.Get(t.Context(), types.NamespacedName{Name: "shop"}, &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

func (f *fixture) configMaps(t *testing.T) string {
	t.Helper()
	var list corev1.ConfigMapList
	if err := f.List(t.Context(), &list, client.ListOptions{Namespace: "default"}); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range list.Items {
		names = append(names, c.Name+"="+c.Data["k"])
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func createSource(t *testing.T, f *fixture) {
	t.Helper()
	if err := f.Create(t.Context(), &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}); err != nil {
		t.Fatal(err)
	}
}

func configMap(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {k: %q}\n", name, value)
}

const web = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: %d
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: %s}]}
`

func ready() metav1.Condition {
	return metav1.Condition{Type: "Ready", Status: metav1.ConditionTrue, Reason: "Succeeded"}
}

func TestCommitBecomesTheDesiredState(t *testing.T) {
	f := start(t)
	f.remote.push("c1", "first", fmt.Sprintf(web, 3, "v1")+"---\n"+configMap("a", "1"))
	createSource(t, f)
	f.await(t, "c1", ready())
	s := f.source(t)
	if s.Status.Applied.ID != "c1" || s.Status.Healthy.ID != "c1" || s.Status.Objects["Deployment"] != 1 {
		t.Errorf("status is %+v", s.Status)
	}
	var stages []string
	for _, st := range s.Status.Timeline {
		stages = append(stages, st.Name)
	}
	if got := strings.Join(stages, " "); got != "fetched compiled applied scheduled started ready" {
		t.Errorf("timeline is %s", got)
	}
	var d appsv1.Deployment
	if err := f.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "web"}, &d); err != nil {
		t.Fatal(err)
	}
	if d.Labels["berth.dev/source"] != "shop" || d.Annotations["berth.dev/origin"] != "a.yaml:1" || d.Annotations["berth.dev/revision"] != "c1" {
		t.Errorf("origin is %v %v", d.Labels, d.Annotations)
	}
	if s.Status.Timeline[5].Message == "" {
		t.Error("the time to ready is not said")
	}

	f.push(t, "c2", "replicas", fmt.Sprintf(web, 5, "v1")+"---\n"+configMap("a", "1"), ready())
	var cm corev1.ConfigMap
	if err := f.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "a"}, &cm); err != nil {
		t.Fatal(err)
	}
	if cm.Annotations["berth.dev/revision"] != "c1" {
		t.Errorf("an unchanged object was rewritten by %s", cm.Annotations["berth.dev/revision"])
	}
}

func TestExplicitDefaultsAreNoChange(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", fmt.Sprintf(web, 1, "v1:1"), ready())
	explicit := strings.Replace(fmt.Sprintf(web, 1, "v1:1"), "image: v1:1", "image: v1:1, imagePullPolicy: IfNotPresent, terminationMessagePath: /dev/termination-log", 1)
	out, err := f.engine.Check(t.Context(), f.source(t), f.revision("c2", explicit))
	if err != nil || !out.Plan.Empty() {
		t.Errorf("%v\n%s", err, out.Plan.Text())
	}
}

func (f *fixture) revision(id, body string) revision.Revision {
	f.remote.mu.Lock()
	defer f.remote.mu.Unlock()
	if f.remote.commit == nil {
		f.remote.commit = map[string]content{}
	}
	f.remote.commit[id] = content{body: body}
	return revision.Revision{Commit: id}
}

func TestErrorsChangeNothingAndAFixEndsThem(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1")+"---\n"+configMap("b", "1"), ready())
	f.push(t, "c2", "", configMap("a", "2")+"---\nerror: unknown field", metav1.Condition{
		Type: "Ready", Status: metav1.ConditionFalse, Reason: "CompileFailed", Message: "a.yaml:6:1",
	})
	if got := f.configMaps(t); got != "a=1 b=1" {
		t.Errorf("after a commit with errors: %s", got)
	}
	if s := f.source(t); s.Status.Applied.ID != "c1" || len(s.Status.Diagnostics) != 1 {
		t.Errorf("applied %s with %d diagnostics, want c1 with 1", s.Status.Applied.ID, len(s.Status.Diagnostics))
	}
	f.push(t, "c3", "", configMap("a", "3")+"---\n"+configMap("b", "1"), ready())
	if got := f.configMaps(t); got != "a=3 b=1" {
		t.Errorf("after the fix: %s", got)
	}
	if s := f.source(t); len(s.Status.Diagnostics) != 0 {
		t.Errorf("an error outlived its commit: %v", s.Status.Diagnostics)
	}
}

func TestPruneDeletesOnlyWhatTheSourceCreatedAndHoldsTheRest(t *testing.T) {
	f := start(t)
	foreign := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "foreign"}, Data: map[string]string{"k": "0"}}
	before := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "before"}, Data: map[string]string{"k": "0"}}
	for _, cm := range []*corev1.ConfigMap{foreign, before} {
		if err := f.Create(t.Context(), cm); err != nil {
			t.Fatal(err)
		}
	}
	createSource(t, f)
	f.push(t, "c1", "", strings.Join([]string{configMap("a", "1"), configMap("b", "1"), configMap("c", "1"), configMap("before", "1")}, "---\n"), ready())
	// What was there before is released, b is deleted.
	f.push(t, "c2", "", configMap("a", "1")+"---\n"+configMap("c", "1"), ready())
	if got := f.configMaps(t); got != "a=1 before=1 c=1 foreign=0" {
		t.Errorf("after the prune: %s", got)
	}
	f.push(t, "c3", "", "", metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "PruneHeld", Message: "would delete all 2 objects"})
	if got := f.configMaps(t); got != "a=1 before=1 c=1 foreign=0" {
		t.Errorf("a held prune deleted: %s", got)
	}
	f.push(t, "c4", "Remove it all\n\nBerth-Allow-Prune: true\n", "", ready())
	if got := f.configMaps(t); got != "before=1 foreign=0" {
		t.Errorf("after the approved prune: %s", got)
	}
}

func TestFailedFetchChangesNothing(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1"), ready())
	f.remote.fail(&sync.FetchError{Reason: "EmptyRepository", Err: errors.New("repository is empty")})
	f.engine.Pushed("shop", time.Now())
	f.await(t, "c1", metav1.Condition{Type: "Fetched", Status: metav1.ConditionFalse, Reason: "EmptyRepository", Message: "repository is empty"})
	if got := f.configMaps(t); got != "a=1" {
		t.Errorf("after a failed fetch: %s", got)
	}
}

func TestNewestCommitWinsOverOneThatNeverGetsHealthy(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", fmt.Sprintf(web, 2, "v1"), ready())
	f.push(t, "c2", "", fmt.Sprintf(web, 2, "broken"), metav1.Condition{Type: "Healthy", Status: metav1.ConditionFalse, Reason: "Progressing"})
	for i := range 10 {
		f.remote.push(fmt.Sprint("d", i), "", fmt.Sprintf(web, 2, fmt.Sprint("v", i)))
		f.engine.Pushed("shop", time.Now())
	}
	f.await(t, "d9", ready())
	if s := f.source(t); s.Status.Applied.ID != "d9" || s.Status.Healthy.ID != "d9" {
		t.Errorf("applied %s, healthy %s", s.Status.Applied.ID, s.Status.Healthy.ID)
	}
}

func TestObjectOfAnotherSourceIsRefusedWithBothPlaces(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1"), ready())
	other := &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "other"}}
	v1alpha1.SetDefaults(other)
	out, err := f.engine.Check(t.Context(), other, f.revision("x1", configMap("a", "9")))
	if err != nil || !out.Failed() || !strings.Contains(out.Diagnostics[0].String(), "a.yaml:1: ConfigMap/a: belongs to Source shop (a.yaml:1)") {
		t.Errorf("%v %v", err, out.Diagnostics)
	}
}

func TestImmutableFieldNeedsPermissionToReplace(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", fmt.Sprintf(web, 1, "v1"), ready())
	changed := strings.ReplaceAll(fmt.Sprintf(web, 1, "v1"), "app: web", "app: web2")
	out, err := f.engine.Check(t.Context(), f.source(t), f.revision("c2", changed))
	if err != nil || !out.Failed() || !strings.Contains(out.Diagnostics[0].String(), "a.yaml:1: Deployment/web: spec.selector: cannot be changed on the live object") {
		t.Fatalf("%v %v", err, out.Diagnostics)
	}
	var before, after appsv1.Deployment
	key := types.NamespacedName{Namespace: "default", Name: "web"}
	if err := f.Get(t.Context(), key, &before); err != nil {
		t.Fatal(err)
	}
	allowed := strings.Replace(changed, "metadata: {name: web}", `metadata: {name: web, annotations: {berth.dev/replace: allowed}}`, 1)
	f.push(t, "c3", "", allowed, ready())
	if err := f.Get(t.Context(), key, &after); err != nil || after.UID == before.UID {
		t.Errorf("%v, UID %s → %s", err, before.UID, after.UID)
	}
	enginetest.Eventually(t, wait, func() string {
		var pods corev1.PodList
		if err := f.List(t.Context(), &pods, client.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		if len(pods.Items) != 1 || pods.Items[0].Labels["app"] != "web2" {
			return fmt.Sprintf("%d pods", len(pods.Items))
		}
		return ""
	})
}

// TestABoundClaimIsNotReplaced: its data would be lost, permission or not.
func TestABoundClaimIsNotReplaced(t *testing.T) {
	const claim = `apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, annotations: {berth.dev/replace: allowed}}
spec: {accessModes: [%s], storageClassName: "", resources: {requests: {storage: 1Gi}}%s}
`
	done := metav1.Condition{Type: "Applied", Status: metav1.ConditionTrue, Reason: "Succeeded"}
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", fmt.Sprintf(claim, "ReadWriteOnce", ""), done)
	f.push(t, "c2", "", fmt.Sprintf(claim, "ReadWriteOncePod", ""), done) // unbound: there is nothing to lose
	f.push(t, "c3", "", fmt.Sprintf(claim, "ReadWriteOncePod", ", volumeName: pv1"), done)
	out, err := f.engine.Check(t.Context(), f.source(t), f.revision("c4", fmt.Sprintf(claim, "ReadWriteOnce", ", volumeName: pv1")))
	if err != nil || !out.Failed() || !strings.Contains(out.Diagnostics[0].String(), "it is bound and has data, so it is not replaced") {
		t.Errorf("%v %v", err, out.Diagnostics)
	}
}

func TestClusterRefusalsAreFoundBeforeTheWrite(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1"), ready())
	service := "apiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {type: NodePort, ports: [{port: 80, nodePort: 30080}]}\n"
	out, err := f.engine.Check(t.Context(), f.source(t), f.revision("c2", fmt.Sprintf(service, "one")+"---\n"+fmt.Sprintf(service, "two")))
	if err != nil || !out.Failed() || !strings.Contains(out.Diagnostics[0].String(), "is taken by Service default/one") {
		t.Errorf("%v %v", err, out.Diagnostics)
	}
	var s corev1.Service
	if err := f.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "one"}, &s); !apierrors.IsNotFound(err) {
		t.Errorf("a check wrote something: %v", err)
	}
}

func TestNamespaceWithContentOfOthersIsHeld(t *testing.T) {
	f := start(t)
	createSource(t, f)
	namespace := "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n"
	f.push(t, "c1", "", configMap("a", "1")+"---\n"+configMap("b", "1")+"---\n"+namespace, ready())
	others := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "others"}}
	if err := f.Create(t.Context(), others); err != nil {
		t.Fatal(err)
	}
	without := configMap("a", "1") + "---\n" + configMap("b", "1")
	f.push(t, "c2", "", without, metav1.Condition{
		Type: "Ready", Status: metav1.ConditionFalse, Reason: "PruneHeld", Message: "would delete namespace team with what others keep in it, such as ConfigMap others",
	})
	if err := f.Delete(t.Context(), others, client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	f.push(t, "c3", "", without, ready())
}
