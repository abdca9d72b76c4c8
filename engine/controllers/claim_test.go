package controllers_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/resources"
)

// startStorage runs the controllers over nodes that say where they keep volumes.
func startStorage(t *testing.T, nodes ...string) *resources.Resources {
	t.Helper()
	r := enginetest.Resources(t)
	for _, name := range nodes {
		enginetest.AddNode(t, r, name, "4", "8Gi")
		n := get(t, r, name, &corev1.Node{})
		n.Labels = map[string]string{corev1.LabelHostname: name}
		n.Annotations = map[string]string{v1alpha1.AnnotationClaims: "/data/claims"}
		if err := r.Update(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	attend(t, r)
	return r
}

func claim(name, size string, edit ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
	for _, f := range edit {
		f(c)
	}
	return c
}

func mounting(claims ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for i, name := range claims {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: fmt.Sprintf("v%d", i), VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name},
			}})
		}
	}
}

func hasPhase(t *testing.T, r *resources.Resources, name string, want corev1.PersistentVolumeClaimPhase) {
	t.Helper()
	enginetest.Eventually(t, wait, func() string {
		if c := get(t, r, name, &corev1.PersistentVolumeClaim{}); c.Status.Phase != want {
			return fmt.Sprintf("claim %s is %s, want %s", name, c.Status.Phase, want)
		}
		return ""
	})
}

func volumePhase(t *testing.T, r *resources.Resources, name string, want corev1.PersistentVolumePhase) {
	t.Helper()
	enginetest.Eventually(t, wait, func() string {
		var pv corev1.PersistentVolume
		if err := r.Get(t.Context(), types.NamespacedName{Name: name}, &pv); err != nil || pv.Status.Phase != want {
			return fmt.Sprintf("volume %s is %s, want %s, %v", name, pv.Status.Phase, want, err)
		}
		return ""
	})
}

func TestAClaimGetsItsVolumeWithTheNodeOfItsFirstPod(t *testing.T) {
	r := startStorage(t, "n1", "n2")
	create(t, r, claim("data", "1Gi"))
	if c := get(t, r, "data", &corev1.PersistentVolumeClaim{}); c.Spec.StorageClassName == nil || *c.Spec.StorageClassName != "local" {
		t.Fatalf("class %v, want the default one", c.Spec.StorageClassName)
	}
	first := sizedPod("first", "1Gi", "", mounting("data"))
	first.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "n2"}
	create(t, r, first)
	bound(t, r, "first", "n2")
	hasPhase(t, r, "data", corev1.ClaimBound)
	c := get(t, r, "data", &corev1.PersistentVolumeClaim{})
	pv := &corev1.PersistentVolume{}
	if err := r.Get(t.Context(), types.NamespacedName{Name: c.Spec.VolumeName}, pv); err != nil {
		t.Fatal(err)
	}
	if v1alpha1.NodeOfVolume(pv) != "n2" || pv.Spec.Local.Path != "/data/claims/pvc-"+string(c.UID) {
		t.Errorf("volume %+v", pv.Spec)
	}
	volumePhase(t, r, pv.Name, corev1.VolumeBound)

	// Another Pod of the claim follows it to its node, and waits if it cannot go there.
	create(t, r, sizedPod("second", "1Gi", "", mounting("data")))
	bound(t, r, "second", "n2")
	third := sizedPod("third", "1Gi", "", mounting("data"))
	third.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "n1"}
	create(t, r, third)
	waits(t, r, "third", "cannot reach the volume of claim data")
}

func TestAClaimIsKeptWhileItIsMountedAndItsVolumeGoesThen(t *testing.T) {
	r := startStorage(t, "n1")
	create(t, r, claim("data", "1Gi"), sizedPod("user", "1Gi", "", mounting("data")))
	bound(t, r, "user", "n1")
	hasPhase(t, r, "data", corev1.ClaimBound)
	volume := get(t, r, "data", &corev1.PersistentVolumeClaim{}).Spec.VolumeName
	if err := r.Delete(t.Context(), claim("data", "1Gi"), client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	create(t, r, sizedPod("late", "1Gi", "", mounting("data")))
	waits(t, r, "late", `persistentvolumeclaim "data" is being deleted`)
	if c := get(t, r, "data", &corev1.PersistentVolumeClaim{}); c.DeletionTimestamp == nil {
		t.Error("it is not being deleted")
	}
	now := int64(0)
	for _, name := range []string{"user", "late"} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
		if err := r.Delete(t.Context(), p, client.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
			t.Fatal(err)
		}
	}
	enginetest.Eventually(t, wait, func() string {
		err := r.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "data"}, &corev1.PersistentVolumeClaim{})
		if !apierrors.IsNotFound(err) {
			return fmt.Sprintf("the claim is there, %v", err)
		}
		return ""
	})
	// The volume waits for its node to remove the data, and says so.
	enginetest.Eventually(t, wait, func() string {
		var pv corev1.PersistentVolume
		if err := r.Get(t.Context(), types.NamespacedName{Name: volume}, &pv); err != nil || !v1alpha1.RemovableVolume(&pv) || !strings.Contains(pv.Status.Message, "waits for the agent of node n1") {
			return fmt.Sprintf("volume %+v %+v, %v", pv.ObjectMeta, pv.Status, err)
		}
		return ""
	})
	// With the node the data is gone.
	if err := r.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, func() string {
		err := r.Get(t.Context(), types.NamespacedName{Name: volume}, &corev1.PersistentVolume{})
		if !apierrors.IsNotFound(err) {
			return fmt.Sprintf("the volume is there, %v", err)
		}
		return ""
	})
}

// made is a volume that people made on a node.
func made(name, size, class, node string) *corev1.PersistentVolume {
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}}
	pv.Spec.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
	pv.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	pv.Spec.StorageClassName, pv.Spec.PersistentVolumeReclaimPolicy = class, corev1.PersistentVolumeReclaimRetain
	pv.Spec.Local = &corev1.LocalVolumeSource{Path: "/mnt/" + name}
	pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
	}}}}
	return pv
}

// inClass is the class of a claim.
func inClass(class string) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = &class }
}

func TestAVolumeThatIsInUseIsNotRemovable(t *testing.T) {
	r := startStorage(t, "n1")
	create(t, r, claim("data", "1Gi"), sizedPod("user", "1Gi", "", mounting("data")))
	hasPhase(t, r, "data", corev1.ClaimBound)
	name := get(t, r, "data", &corev1.PersistentVolumeClaim{}).Spec.VolumeName
	if err := r.Delete(t.Context(), &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}}, client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	create(t, r, claim("other", "1Gi"), sizedPod("other", "1Gi", "", mounting("other")))
	hasPhase(t, r, "other", corev1.ClaimBound) // the controllers have been round
	var pv corev1.PersistentVolume
	if err := r.Get(t.Context(), types.NamespacedName{Name: name}, &pv); err != nil || v1alpha1.RemovableVolume(&pv) {
		t.Errorf("volume %+v, %v", pv.ObjectMeta, err)
	}
}

func TestVolumesThatPeopleMake(t *testing.T) {
	r := startStorage(t, "n1", "n2")
	// Without a class: the smallest that is large enough, at once.
	create(t, r, made("big", "10Gi", "", "n1"), made("small", "1Gi", "", "n1"), made("right", "5Gi", "", "n1"), claim("now", "4Gi", inClass("")))
	hasPhase(t, r, "now", corev1.ClaimBound)
	if v := get(t, r, "now", &corev1.PersistentVolumeClaim{}).Spec.VolumeName; v != "right" {
		t.Errorf("volume %s, want right", v)
	}
	// A class that does not exist: a name that both have, as in Kubernetes' own first example.
	create(t, r, made("set-aside", "1Gi", "manual", "n1"), claim("manual", "1Gi", inClass("manual")))
	hasPhase(t, r, "manual", corev1.ClaimBound)
	// A class without a provisioner: with the Pod, where there is one.
	wait := storagev1.VolumeBindingWaitForFirstConsumer
	create(t, r, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "disks"}, Provisioner: "kubernetes.io/no-provisioner", VolumeBindingMode: &wait})
	create(t, r, claim("later", "4Gi", inClass("disks")), sizedPod("later", "1Gi", "", mounting("later")))
	waits(t, r, "later", `no free volume of class disks is large enough for persistentvolumeclaim "later"`)
	create(t, r, made("disk", "8Gi", "disks", "n2"))
	bound(t, r, "later", "n2")
	hasPhase(t, r, "later", corev1.ClaimBound)
	// Retained: released, and neither given to another claim nor removed.
	if err := r.Delete(t.Context(), claim("now", "4Gi"), client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	volumePhase(t, r, "right", corev1.VolumeReleased)
	// One with the name that a claim asks for.
	create(t, r, claim("named", "1Gi", inClass(""), func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "big" }))
	hasPhase(t, r, "named", corev1.ClaimBound)
	volumePhase(t, r, "big", corev1.VolumeBound)
}

func TestClaimsThatWait(t *testing.T) {
	r := startStorage(t, "n1")
	create(t, r, sizedPod("a", "1Gi", "", mounting("none")))
	waits(t, r, "a", `persistentvolumeclaim "none" not found`)
	create(t, r, claim("none", "1Gi"))
	bound(t, r, "a", "n1")

	only := func(c *corev1.PersistentVolumeClaim) {
		c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
	}
	create(t, r, claim("single", "1Gi", only), sizedPod("one", "1Gi", "", mounting("single")))
	bound(t, r, "one", "n1")
	create(t, r, sizedPod("two", "1Gi", "", mounting("single")), sizedPod("three", "1Gi", "", mounting("single")))
	waits(t, r, "two", `"single" is ReadWriteOncePod, and pod one has it`)
	waits(t, r, "three", `"single" is ReadWriteOncePod, and pod one has it`)
	now := int64(0)
	if err := r.Delete(t.Context(), sizedPod("one", "1Gi", ""), client.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	// One of the two that wait has it now, and the other one waits for that.
	enginetest.Eventually(t, wait, func() string {
		two, three := get(t, r, "two", &corev1.Pod{}), get(t, r, "three", &corev1.Pod{})
		if two.Spec.NodeName == three.Spec.NodeName {
			return fmt.Sprintf("both are on node %q", two.Spec.NodeName)
		}
		waiting, holder := two, three
		if two.Spec.NodeName != "" {
			waiting, holder = three, two
		}
		want := "and pod " + holder.Name + " has it"
		for _, c := range waiting.Status.Conditions {
			if strings.Contains(c.Message, want) {
				return ""
			}
		}
		return fmt.Sprintf("%s does not say %q", waiting.Name, want)
	})
}

// TestAPodWithoutANodeHoldsNoClaim: the claim of a dead node goes, though a Pod
// waits that names it.
func TestAPodWithoutANodeHoldsNoClaim(t *testing.T) {
	r := startStorage(t, "n1")
	create(t, r, claim("data", "1Gi"), sizedPod("huge", "100Gi", "", mounting("data")))
	waits(t, r, "huge", "memory")
	if err := r.Delete(t.Context(), claim("data", "1Gi"), client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, func() string {
		err := r.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "data"}, &corev1.PersistentVolumeClaim{})
		if !apierrors.IsNotFound(err) {
			return fmt.Sprintf("the claim is still there, %v", err)
		}
		return ""
	})
}

// TestAClaimWaitsForTheVolumeThatItNames: it is not lost, for it never had one.
func TestAClaimWaitsForTheVolumeThatItNames(t *testing.T) {
	r := startStorage(t, "n1")
	create(t, r, claim("early", "1Gi", inClass(""), func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "pv1" }))
	enginetest.Eventually(t, wait, func() string {
		var events corev1.EventList
		if err := r.List(t.Context(), &events, client.ListOptions{Namespace: "default"}); err != nil {
			t.Fatal(err)
		}
		for _, e := range events.Items {
			if strings.Contains(e.Message, "volume pv1, which spec.volumeName asks for, is not there yet") {
				return ""
			}
		}
		return "no event says what it waits for"
	})
	if p := get(t, r, "early", &corev1.PersistentVolumeClaim{}).Status.Phase; p == corev1.ClaimLost {
		t.Errorf("phase %s", p)
	}
	create(t, r, made("pv1", "1Gi", "", "n1"))
	hasPhase(t, r, "early", corev1.ClaimBound)
}

// TestAPodGoesWhereAllItsClaimsHaveVolumes: two claims do not share the one
// volume of a node, though each alone would find it there.
func TestAPodGoesWhereAllItsClaimsHaveVolumes(t *testing.T) {
	r := startStorage(t, "n1", "n2")
	later := storagev1.VolumeBindingWaitForFirstConsumer
	create(t, r, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "disks"}, Provisioner: "kubernetes.io/no-provisioner", VolumeBindingMode: &later})
	class := inClass("disks")
	create(t, r, made("one", "1Gi", "disks", "n1"), claim("a", "1Gi", class), claim("b", "1Gi", class))
	create(t, r, sizedPod("both", "1Gi", "", mounting("a", "b")))
	waits(t, r, "both", "volume")
	create(t, r, made("two", "1Gi", "disks", "n2"), made("three", "1Gi", "disks", "n2"))
	bound(t, r, "both", "n2")
	hasPhase(t, r, "a", corev1.ClaimBound)
	hasPhase(t, r, "b", corev1.ClaimBound)
}

func TestABoundClaimGrows(t *testing.T) {
	r := startStorage(t, "n1")
	create(t, r, claim("data", "1Gi"), sizedPod("user", "1Gi", "", mounting("data")))
	hasPhase(t, r, "data", corev1.ClaimBound)
	resize := func(size string) error {
		c := get(t, r, "data", &corev1.PersistentVolumeClaim{})
		c.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse(size)
		return r.Update(t.Context(), c)
	}
	if err := resize("2Gi"); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, func() string {
		have := get(t, r, "data", &corev1.PersistentVolumeClaim{}).Status.Capacity[corev1.ResourceStorage]
		if have.String() != "2Gi" {
			return "capacity " + have.String()
		}
		return ""
	})
	if err := resize("1Gi"); !apierrors.IsInvalid(err) {
		t.Errorf("smaller: %v, want it refused", err)
	}
}

func TestAClaimThatIsOlderThanTheDefaultClassGetsIt(t *testing.T) {
	r := enginetest.Resources(t)
	attend(t, r)
	create(t, r, claim("data", "1Gi"))
	if c := get(t, r, "data", &corev1.PersistentVolumeClaim{}); c.Spec.StorageClassName != nil {
		t.Fatalf("class %s", *c.Spec.StorageClassName)
	}
	if err := r.Bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, wait, func() string {
		if c := get(t, r, "data", &corev1.PersistentVolumeClaim{}); c.Spec.StorageClassName == nil || *c.Spec.StorageClassName != v1alpha1.LocalClass {
			return "no class yet"
		}
		return ""
	})
}

// TestAClaimThatIsMadeWithItsPodIsNotMissed: as that of a StatefulSet, in one
// transaction. No Pod is told that it is not found.
func TestAClaimThatIsMadeWithItsPodIsNotMissed(t *testing.T) {
	r := startStorage(t, "n1")
	for i := range 30 {
		name := fmt.Sprint("data-", i)
		if err := r.CreateAll(t.Context(), []client.Object{sizedPod(fmt.Sprint("user-", i), "10Mi", "", mounting(name)), claim(name, "1Gi")}); err != nil {
			t.Fatal(err)
		}
		bound(t, r, fmt.Sprint("user-", i), "n1")
	}
	var events corev1.EventList
	if err := r.List(t.Context(), &events, client.ListOptions{Namespace: "default"}); err != nil {
		t.Fatal(err)
	}
	for _, e := range events.Items {
		if e.Reason == "FailedScheduling" && strings.Contains(e.Message, "not found") {
			t.Errorf("%s: %s", e.InvolvedObject.Name, e.Message)
		}
	}
}
