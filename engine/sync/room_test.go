package sync_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/enginetest"
)

// sized is a Deployment of Pods that need memory.
const sized = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: %d
  strategy: %s
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: %s, resources: {%s: {memory: 20Gi}}}]
`

// TestAPlanSaysWhichPodsFit: one node of 64Gi is there.
func TestAPlanSaysWhichPodsFit(t *testing.T) {
	f := start(t)
	createSource(t, f)
	rolling, recreate := "{rollingUpdate: {maxUnavailable: 0}}", "{type: Recreate}"
	effects := func(body string) string {
		t.Helper()
		out, err := f.engine.Check(t.Context(), f.source(t), f.revision("next", body))
		if err != nil || out.Failed() || len(out.Plan.Steps) != 1 {
			t.Fatalf("%v %v\n%s", err, out.Diagnostics, out.Plan.Text())
		}
		return strings.Join(out.Plan.Steps[0].Effects, "; ")
	}
	const lacks = "0/1 nodes fit: 1 lacks memory (need 20Gi, free 4Gi)"
	enginetest.Eventually(t, wait, func() string { // the namespace is made as the cluster begins
		if _, ok := f.engine.Live.Namespaces.Get(types.NamespacedName{Name: "default"}); !ok {
			return "there is no namespace yet"
		}
		return ""
	})
	if got, want := effects(fmt.Sprintf(sized, 5, rolling, "v1", "requests")), "starts 5 pods; 3 of 5 new pods fit: "+lacks; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// A limit is a request where none is said.
	if got, want := effects(fmt.Sprintf(sized, 5, rolling, "v1", "limits")), "starts 5 pods; 3 of 5 new pods fit: "+lacks; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	f.push(t, "c1", "", fmt.Sprintf(sized, 3, rolling, "v1", "requests"), ready())
	for body, want := range map[string]string{
		fmt.Sprintf(sized, 3, rolling, "v2", "requests"):  "restarts 3 pods, one more at a time (maxSurge 1, maxUnavailable 0); 0 of 3 new pods fit: " + lacks,
		fmt.Sprintf(sized, 3, recreate, "v2", "requests"): "restarts 3 pods, all at once (Recreate)",
		fmt.Sprintf(sized, 4, rolling, "v1", "requests"):  "1 pod more; 0 of 1 new pod fits: " + lacks,
		fmt.Sprintf(sized, 2, rolling, "v1", "requests"):  "1 pod fewer",
	} {
		if got := effects(body); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}

	// A Pod of a class that is there takes the room of others.
	if err := f.Create(t.Context(), &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "high"}, Value: 1000}); err != nil {
		t.Fatal(err)
	}
	important := strings.Replace(strings.ReplaceAll(fmt.Sprintf(sized, 1, recreate, "v1", "requests"), "web", "big"), "spec:\n      containers", "spec:\n      priorityClassName: high\n      containers", 1)
	got := effects(fmt.Sprintf(sized, 3, rolling, "v1", "requests") + "---\n" + important)
	if !strings.HasPrefix(got, "starts 1 pod; preempts pod default/web-") || !strings.HasSuffix(got, " of lower priority") {
		t.Errorf("got %s", got)
	}
}

// TestAPlanKnowsWhereTheVolumeOfAClaimIs: a Pod that mounts a bound claim can run
// on the volume's node alone.
func TestAPlanKnowsWhereTheVolumeOfAClaimIs(t *testing.T) {
	f := start(t)
	createSource(t, f)
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "far"}}
	pv.Spec.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	pv.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	pv.Spec.Local = &corev1.LocalVolumeSource{Path: "/mnt/far"}
	pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{"elsewhere"}}},
	}}}}
	none := ""
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "data"}}
	claim.Spec.AccessModes, claim.Spec.StorageClassName, claim.Spec.VolumeName = pv.Spec.AccessModes, &none, "far"
	claim.Spec.Resources.Requests = pv.Spec.Capacity
	for _, o := range []client.Object{pv, claim} {
		if err := f.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	body := strings.Replace(fmt.Sprintf(sized, 1, "{}", "v1", "requests"), "      containers:",
		"      volumes: [{name: d, persistentVolumeClaim: {claimName: data}}]\n      containers:", 1)
	enginetest.Eventually(t, wait, func() string {
		out, err := f.engine.Check(t.Context(), f.source(t), f.revision("next", body))
		if err != nil || out.Failed() || len(out.Plan.Steps) != 1 {
			return fmt.Sprintf("%v %v", err, out.Diagnostics)
		}
		const want = "starts 1 pod; 0 of 1 new pod fits: 0/1 nodes fit: 1 cannot reach the volume of claim data"
		if got := strings.Join(out.Plan.Steps[0].Effects, "; "); got != want {
			return "got " + got
		}
		return ""
	})
}
