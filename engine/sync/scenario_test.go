package sync_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	gosync "sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/sync"
)

// otherKinds are those that everyKind leaves out, saying as little as they may.
const otherKinds = `apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: slow}
provisioner: example.org/slow
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 100
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: vol}
spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], storageClassName: manual, hostPath: {path: /srv}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: bound}
spec: {accessModes: [ReadWriteOnce], storageClassName: manual, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: later}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 0.5Gi}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: headless
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {priorityClassName: high, containers: [{name: c, image: v1, volumeMounts: [{name: data, mountPath: /data}]}], volumes: [{name: data, emptyDir: {}}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: each}
spec: {selector: {matchLabels: {app: each}}, template: {metadata: {labels: {app: each}}, spec: {containers: [{name: c, image: v1}]}}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: works}]}}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec: {schedule: "0 3 * * *", jobTemplate: {spec: {template: {spec: {restartPolicy: OnFailure, containers: [{name: c, image: works}]}}}}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: budget}
spec: {minAvailable: 50%, selector: {matchLabels: {app: db}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
---
apiVersion: v1
kind: LimitRange
metadata: {name: limits}
spec: {limits: [{type: Container, defaultRequest: {cpu: 10m}}]}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: quota}
spec: {hard: {pods: "99", count/jobs.batch: "9"}}
---
apiVersion: v1
kind: ReplicationController
metadata: {name: old}
spec: {replicas: 0, template: {metadata: {labels: {app: old}}, spec: {containers: [{name: c, image: v1}]}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: old}
spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: v1, kind: ReplicationController, name: old}}
---
apiVersion: berth.dev/v1alpha1
kind: Source
metadata: {name: below}
spec: {url: "https://git.example.org/x.git"}
---
`

// TestEveryKindIsNoChangeOnceItIsApplied, also to an engine that has seen none of
// it before, and after its controllers have written what they write.
func TestEveryKindIsNoChangeOnceItIsApplied(t *testing.T) {
	f := start(t)
	f.remote.other("below", "b1", configMap("below", "1"))
	if err := f.Bootstrap(t.Context()); err != nil { // with the default class
		t.Fatal(err)
	}
	createSource(t, f)
	body := everyKind + otherKinds + fmt.Sprintf(web, 2, "v1")
	// An autoscaler is not healthy here, where nothing is measured.
	f.push(t, "c1", "", body, metav1.Condition{Type: "Applied", Status: metav1.ConditionTrue, Reason: "Succeeded"})
	for _, gvk := range sync.Kinds() {
		if n := f.source(t).Status.Objects[gvk.Kind]; n == 0 {
			t.Errorf("no %s is looked at here", gvk.Kind)
		}
	}
	enginetest.Eventually(t, wait, func() string {
		var c corev1.PersistentVolumeClaim
		if err := f.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "bound"}, &c); err != nil || c.Status.Phase != corev1.ClaimBound {
			return fmt.Sprint("the claim is ", c.Status.Phase, err)
		}
		return ""
	})
	f.restart(t)
	f.awaitSource(t, "below", healthy)
	enginetest.Eventually(t, wait, func() string {
		out, err := f.engine.Check(t.Context(), f.source(t), f.revision("c2", body))
		if err != nil || len(out.Diagnostics) > 0 || len(out.Plan.Steps) > 0 {
			return fmt.Sprintf("%v\n%v\n%s%d steps", err, out.Diagnostics, out.Plan.Text(), len(out.Plan.Steps))
		}
		return ""
	})
}

// TestAPodThatMovesInItsFileKeepsItsStatus: its class is said by nobody but the
// server, once.
func TestAPodThatMovesInItsFileKeepsItsStatus(t *testing.T) {
	f := start(t)
	createSource(t, f)
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: v1}]}\n"
	f.push(t, "c1", "", pod, ready())
	f.push(t, "c2", "", configMap("a", "1")+"---\n"+pod, ready())
	var p corev1.Pod
	if err := f.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "p"}, &p); err != nil || p.Annotations["berth.dev/origin"] != "a.yaml:6" || p.Status.QOSClass != corev1.PodQOSBestEffort {
		t.Errorf("%v %v %+v", err, p.Annotations, p.Status)
	}
}

// TestSpellingsOfQuantitiesAreNoChange: neither at once nor in the next ten polls
// is anything written, and nothing restarts.
func TestSpellingsOfQuantitiesAreNoChange(t *testing.T) {
	f := start(t)
	createSource(t, f)
	sized := func(cpu, memory, limit string) string {
		return strings.Replace(fmt.Sprintf(web, 1, "v1"), "image: v1", fmt.Sprintf("image: v1, resources: {requests: {cpu: %s, memory: %s}, limits: {memory: %s}}", cpu, memory, limit), 1)
	}
	seen := func() (versions []string) {
		t.Helper()
		var d appsv1.Deployment
		if err := f.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "web"}, &d); err != nil {
			t.Fatal(err)
		}
		var pods corev1.PodList
		if err := f.List(t.Context(), &pods, client.ListOptions{Namespace: "default"}); err != nil {
			t.Fatal(err)
		}
		versions = append(versions, fmt.Sprint(d.UID, d.Generation, d.Annotations["berth.dev/revision"]))
		for _, p := range pods.Items {
			versions = append(versions, fmt.Sprint(p.UID))
		}
		return versions
	}
	f.push(t, "c1", "", sized(`"0.5"`, "1024Mi", "1.5Gi"), ready())
	before := seen()
	for i, body := range []string{sized("500m", "1Gi", "1536Mi"), sized("0.5", `"1073741824"`, "1610612736"), sized("5e-1", "1048576Ki", "1.5Gi")} {
		out, err := f.engine.Check(t.Context(), f.source(t), f.revision("check", body))
		if err != nil || out.Failed() || !out.Plan.Empty() {
			t.Errorf("%v %v\n%s", err, out.Diagnostics, out.Plan.Text())
		}
		f.push(t, fmt.Sprint("d", i), "", body, ready())
	}
	for range 10 {
		f.engine.Recheck()
		time.Sleep(10 * time.Millisecond)
	}
	if after := seen(); !slices.Equal(before, after) {
		t.Errorf("%v → %v", before, after)
	}
}

// TestALargeConfigMapIsApplied whole, and can be gone back to.
func TestALargeConfigMapIsApplied(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", strings.Repeat("x", 1_000_000)), ready())
	f.push(t, "c2", "", configMap("a", "1"), ready())
	f.annotate(t, map[string]string{"berth.dev/rollback": "c1 instead of c2"})
	enginetest.Eventually(t, wait, func() string {
		var c corev1.ConfigMap
		if err := f.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "a"}, &c); err != nil || len(c.Data["k"]) != 1_000_000 {
			return fmt.Sprint(err, len(c.Data["k"]))
		}
		return ""
	})
}

// TestAGoodCommitDoesNotWaitForTheRetriesOfABadOne, which come ever less often.
func TestAGoodCommitDoesNotWaitForTheRetriesOfABadOne(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1"), ready())
	f.push(t, "c2", "", "fault\n", applied("ApplyFailed", "the compiler has died"))
	time.Sleep(2 * time.Second) // by now the next try is two seconds away
	began := time.Now()
	f.push(t, "c3", "", configMap("a", "3"), ready())
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %s", took)
	}
	if s := f.source(t); s.Status.Applied.ID != "c3" || f.configMaps(t) != "a=3" {
		t.Errorf("applied %s: %s", s.Status.Applied.ID, f.configMaps(t))
	}
}

// TestANewerCommitEndsTheWaitForTheHealthOfAnOlderOne at once.
func TestANewerCommitEndsTheWaitForTheHealthOfAnOlderOne(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", fmt.Sprintf(web, 1, "v1"), ready())
	f.push(t, "c2", "", fmt.Sprintf(web, 1, "broken"), metav1.Condition{Type: "Healthy", Status: metav1.ConditionFalse, Reason: "Progressing"})
	began := time.Now()
	f.push(t, "c3", "", fmt.Sprintf(web, 1, "v3"), metav1.Condition{Type: "Applied", Status: metav1.ConditionTrue, Reason: "Succeeded", Message: "1 to change"})
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %s", took)
	}
}

// order remembers what was made, and in which order objects went.
type order struct {
	mu   gosync.Mutex
	made map[types.UID]bool
	late []string
	went []string
	over bool
}

func (o *order) Synced() {}

func (o *order) Set(obj client.Object) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over && !o.made[obj.GetUID()] {
		o.late = append(o.late, fmt.Sprintf("%T %s", obj, obj.GetName()))
	}
	o.made[obj.GetUID()] = true
}

func (o *order) Gone(obj client.Object) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.went = append(o.went, fmt.Sprintf("%T %s", obj, obj.GetName()))
}

// TestAnAppGoesBeforeItsNamespace, and nothing of it is made again in between.
func TestAnAppGoesBeforeItsNamespace(t *testing.T) {
	f := start(t)
	createSource(t, f)
	keep := configMap("a", "1") + "---\n" + configMap("b", "1") + "---\n" + configMap("c", "1")
	inside := strings.Replace(fmt.Sprintf(web, 3, "v1"), "metadata: {name", "metadata: {namespace: team, name", 1)
	f.push(t, "c1", "", keep+"---\napiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n---\n"+inside, ready())
	o := &order{made: map[types.UID]bool{}}
	for _, list := range []client.ObjectList{&appsv1.DeploymentList{}, &appsv1.ReplicaSetList{}, &corev1.PodList{}, &corev1.NamespaceList{}} {
		enginetest.Go(t, func(ctx context.Context) error { return client.Follow(ctx, f.Resources, list, client.ListOptions{}, o) })
	}
	enginetest.Eventually(t, wait, func() string {
		o.mu.Lock()
		defer o.mu.Unlock()
		if len(o.made) < 1+1+3+1 {
			return fmt.Sprint(len(o.made), " objects are seen")
		}
		return ""
	})
	// What Berth made before the deletion is seen by now: what comes is made anew.
	o.mu.Lock()
	o.over = true
	o.mu.Unlock()
	f.push(t, "c2", "", keep, ready())
	enginetest.Eventually(t, wait, func() string {
		if err := f.Get(t.Context(), types.NamespacedName{Name: "team"}, &corev1.Namespace{}); !apierrors.IsNotFound(err) {
			return fmt.Sprint("the namespace is there: ", err)
		}
		return ""
	})
	f.push(t, "c3", "", keep, ready())
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.late) > 0 {
		t.Errorf("made again: %v", o.late)
	}
	var pods corev1.PodList
	if err := f.List(t.Context(), &pods, client.ListOptions{Namespace: "team"}); err != nil || len(pods.Items) > 0 {
		t.Errorf("%v, %d pods outlive their namespace", err, len(pods.Items))
	}
}

// TestWhatIsRememberedHidesNoChange: an object was found to be as it should be,
// twice, and then something of it, or about it, is another.
func TestWhatIsRememberedHidesNoChange(t *testing.T) {
	f := start(t)
	createSource(t, f)
	f.push(t, "c1", "", configMap("a", "1")+"---\n"+configMap("b", "1"), ready())
	f.push(t, "c2", "", configMap("a", "1")+"---\n"+configMap("b", "2"), ready())
	f.push(t, "c3", "", configMap("a", "1")+"---\n"+configMap("b", "3"), ready())
	live := func() *corev1.ConfigMap {
		t.Helper()
		var c corev1.ConfigMap
		if err := f.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "a"}, &c); err != nil {
			t.Fatal(err)
		}
		return &c
	}
	for _, edit := range []func(*corev1.ConfigMap){
		func(c *corev1.ConfigMap) { c.Data["k"] = "9" },
		func(c *corev1.ConfigMap) { c.Data = nil },
		func(c *corev1.ConfigMap) { delete(c.Labels, "berth.dev/source") },
	} {
		c := live()
		edit(c)
		if err := f.Update(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		enginetest.Eventually(t, wait, func() string {
			f.engine.Recheck()
			c := live()
			if c.Data["k"] != "1" || c.Labels["berth.dev/source"] != "shop" || c.Annotations["berth.dev/origin"] != "a.yaml:1" {
				return fmt.Sprint(c.Data, c.Labels, c.Annotations)
			}
			return ""
		})
	}
	f.push(t, "c4", "", annotated(configMap("a", "1"), `berth.dev/encrypted: "true"`)+"---\n"+configMap("b", "3"), ready())
	if live().Annotations["berth.dev/encrypted"] != "true" {
		t.Error("the mark of an encrypted file was passed over")
	}
	f.change(t, func(s *v1alpha1.SourceSpec) { s.Namespaces = []string{"shop"} })
	f.await(t, "c4", metav1.Condition{Type: "Compiled", Status: metav1.ConditionFalse, Reason: "CompileFailed", Message: "may only touch the namespaces shop"})
}

// TestWhatALimitRangeAddsIsNoChange: a bare Pod has more than its manifest says.
func TestWhatALimitRangeAddsIsNoChange(t *testing.T) {
	f := start(t)
	createSource(t, f)
	bounds := "apiVersion: v1\nkind: LimitRange\nmetadata: {name: bounds}\nspec: {limits: [{type: Container, default: {cpu: \"0.5\"}, defaultRequest: {cpu: 10m}}]}\n"
	f.push(t, "c1", "", bounds, ready())
	body := bounds + "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: v1}]}\n"
	f.push(t, "c2", "", body, ready())
	var p corev1.Pod
	if err := f.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "p"}, &p); err != nil || p.Spec.Containers[0].Resources.Limits.Cpu().String() != "500m" {
		t.Fatalf("%v %+v", err, p.Spec.Containers)
	}
	f.restart(t)
	enginetest.Eventually(t, wait, func() string {
		out, err := f.engine.Check(t.Context(), f.source(t), f.revision("c3", body))
		if err != nil || len(out.Diagnostics) > 0 || len(out.Plan.Steps) > 0 {
			return fmt.Sprintf("%v\n%v\n%s%d steps", err, out.Diagnostics, out.Plan.Text(), len(out.Plan.Steps))
		}
		return ""
	})
}
