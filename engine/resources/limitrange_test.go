package resources_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/resources"
)

func limitRange(items ...corev1.LimitRangeItem) *corev1.LimitRange {
	return &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "l"}, Spec: corev1.LimitRangeSpec{Limits: items}}
}

func TestLimitRangeFillsInWhatContainersLeaveOut(t *testing.T) {
	r := enginetest.Resources(t)
	mustCreate(t, r, limitRange(corev1.LimitRangeItem{
		Type: corev1.LimitTypeContainer, DefaultRequest: list("cpu", "100m", "memory", "64Mi"), Default: list("memory", "128Mi"),
	}))
	p := barePod("a", list("memory", "32Mi"), nil)
	p.Spec.InitContainers = []corev1.Container{{Name: "i", Image: "v1"}}
	mustCreate(t, r, p)
	c := p.Spec.Containers[0].Resources
	if c.Requests.Cpu().String() != "100m" || c.Requests.Memory().String() != "32Mi" || c.Limits.Memory().String() != "128Mi" || len(c.Limits) != 1 {
		t.Errorf("container has %v", c)
	}
	if i := p.Spec.InitContainers[0].Resources; i.Requests.Memory().String() != "64Mi" {
		t.Errorf("init container has %v", i)
	}
	want := "LimitRanger plugin set: cpu request for container c; memory limit for container c; cpu, memory request for init container i; memory limit for init container i"
	if got := p.Annotations[resources.LimitRangerAnnotation]; got != want {
		t.Errorf("annotation is\n%s, want\n%s", got, want)
	}
	if p.Status.QOSClass != corev1.PodQOSBurstable {
		t.Errorf("class is %s", p.Status.QOSClass)
	}
}

func TestLeavingOutWhatALimitRangeFilledInIsNoChange(t *testing.T) {
	r := enginetest.Resources(t)
	mustCreate(t, r, limitRange(corev1.LimitRangeItem{Type: corev1.LimitTypeContainer, DefaultRequest: list("cpu", "100m")}))
	p := barePod("a", nil, nil)
	mustCreate(t, r, p)
	again := barePod("a", nil, nil)
	again.Labels = map[string]string{"new": "label"}
	if err := r.Update(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	if err := r.Get(t.Context(), client.Key(p), p); err != nil || p.Generation != 1 || p.Labels["new"] == "" || p.Annotations[resources.LimitRangerAnnotation] == "" {
		t.Errorf("%v: pod is %+v", err, p.ObjectMeta)
	}
}

func TestLimitRangeHoldsToItsBounds(t *testing.T) {
	claim := func(size string) client.Object {
		return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "x"}, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{"ReadWriteOnce"}, Resources: corev1.VolumeResourceRequirements{Requests: list("storage", size)},
		}}
	}
	two := barePod("x", list("cpu", "600m"), list("cpu", "600m"))
	two.Spec.Containers = append(two.Spec.Containers, corev1.Container{Name: "d", Image: "v1", Resources: *two.Spec.Containers[0].Resources.DeepCopy()})
	for _, c := range []struct {
		name string
		item corev1.LimitRangeItem
		obj  client.Object
		want string
	}{
		{"within", corev1.LimitRangeItem{Type: "Container", Min: list("cpu", "1"), Max: list("cpu", "2")}, barePod("x", list("cpu", "1"), list("cpu", "2")), ""},
		{"request below", corev1.LimitRangeItem{Type: "Container", Min: list("cpu", "1")}, barePod("x", list("cpu", "500m"), nil),
			"minimum cpu usage per Container is 1, but request is 500m"},
		{"no request of the pod", corev1.LimitRangeItem{Type: "Pod", Min: list("cpu", "1")}, barePod("x", nil, nil),
			"minimum cpu usage per Pod is 1.  No request is specified"},
		{"limit above", corev1.LimitRangeItem{Type: "Container", Max: list("memory", "1Gi")}, barePod("x", list("memory", "1Gi"), list("memory", "2Gi")),
			"maximum memory usage per Container is 1Gi, but limit is 2Gi"},
		{"no limit of the pod", corev1.LimitRangeItem{Type: "Pod", Max: list("cpu", "1")}, barePod("x", list("cpu", "1"), nil),
			"maximum cpu usage per Pod is 1.  No limit is specified"},
		{"sum of the containers", corev1.LimitRangeItem{Type: "Pod", Max: list("cpu", "1")}, two,
			"maximum cpu usage per Pod is 1, but limit is 1200m"},
		{"ratio", corev1.LimitRangeItem{Type: "Container", MaxLimitRequestRatio: list("cpu", "2")}, barePod("x", list("cpu", "1"), list("cpu", "3")),
			"cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"},
		{"ratio without a limit", corev1.LimitRangeItem{Type: "Container", MaxLimitRequestRatio: list("cpu", "2")}, barePod("x", list("cpu", "1"), nil),
			"cpu max limit to request ratio per Container is 2, but no limit is specified or limit is 0"},
		{"small claim", corev1.LimitRangeItem{Type: "PersistentVolumeClaim", Min: list("storage", "2Gi")}, claim("1Gi"),
			"minimum storage usage per PersistentVolumeClaim is 2Gi, but request is 1Gi"},
		{"large claim", corev1.LimitRangeItem{Type: "PersistentVolumeClaim", Max: list("storage", "2Gi")}, claim("3Gi"),
			"maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"},
		{"several", corev1.LimitRangeItem{Type: "Pod", Max: list("cpu", "1", "memory", "1Gi")}, barePod("x", nil, list("cpu", "2", "memory", "2Gi")),
			"[maximum cpu usage per Pod is 1, but limit is 2, maximum memory usage per Pod is 1Gi, but limit is 2Gi]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := enginetest.Resources(t)
			mustCreate(t, r, limitRange(c.item))
			err := r.Create(t.Context(), c.obj)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (!apierrors.IsForbidden(err) || !strings.HasSuffix(err.Error(), `"x" is forbidden: `+c.want)):
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestMaxIsTheDefaultOfContainersThatSayNothing(t *testing.T) {
	r := enginetest.Resources(t)
	mustCreate(t, r, limitRange(corev1.LimitRangeItem{Type: "Container", Max: list("cpu", "2")}))
	p := barePod("a", nil, nil)
	mustCreate(t, r, p)
	if c := p.Spec.Containers[0].Resources; c.Limits.Cpu().String() != "2" || c.Requests.Cpu().String() != "2" {
		t.Errorf("container has %v", c)
	}
}
