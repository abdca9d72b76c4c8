package resources_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/engine/enginetest"
)

// TestAPodGetsThePriorityOfItsClass: as Kubernetes' Priority admission gives it.
func TestAPodGetsThePriorityOfItsClass(t *testing.T) {
	r := enginetest.Resources(t)
	never, preempts, five := corev1.PreemptNever, corev1.PreemptLowerPriority, int32(5)
	class := func(name string, value int32, isDefault bool, policy *corev1.PreemptionPolicy) *schedulingv1.PriorityClass {
		return &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value, GlobalDefault: isDefault, PreemptionPolicy: policy}
	}
	admit := func(name, class string, priority *int32, policy *corev1.PreemptionPolicy) (*corev1.Pod, error) {
		p := pod(name)
		p.Spec.PriorityClassName, p.Spec.Priority, p.Spec.PreemptionPolicy = class, priority, policy
		return p, r.Create(t.Context(), p)
	}
	is := func(what string, p *corev1.Pod, err error, class string, priority int32, policy corev1.PreemptionPolicy) {
		t.Helper()
		if err != nil || p.Spec.PriorityClassName != class || *p.Spec.Priority != priority || *p.Spec.PreemptionPolicy != policy {
			t.Errorf("%s: %q, %v, %v, %v", what, p.Spec.PriorityClassName, p.Spec.Priority, p.Spec.PreemptionPolicy, err)
		}
	}
	p, err := admit("none", "", nil, nil)
	is("no class", p, err, "", 0, preempts)
	create(t, r, class("high", 1000, false, nil), class("polite", 2000, false, &never))
	p, err = admit("high", "high", nil, nil)
	is("a class", p, err, "high", 1000, preempts)
	p, err = admit("polite", "polite", nil, &never)
	is("one that does not preempt", p, err, "polite", 2000, never)
	p, err = admit("critical", "system-node-critical", nil, nil)
	is("the system's", p, err, "system-node-critical", 2_000_001_000, preempts)
	create(t, r, class("usual", 20, true, nil), class("usual-too", 10, true, nil))
	p, err = admit("default", "", nil, nil)
	is("the lowest default", p, err, "usual-too", 10, preempts)

	for what, admit := range map[string]func() (*corev1.Pod, error){
		"no PriorityClass with name missing was found":      func() (*corev1.Pod, error) { return admit("a", "missing", nil, nil) },
		"the integer value of priority (5) must not":        func() (*corev1.Pod, error) { return admit("b", "high", &five, nil) },
		"the string value of PreemptionPolicy (Never) must": func() (*corev1.Pod, error) { return admit("c", "high", nil, &never) },
	} {
		if _, err := admit(); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want it forbidden: %s", err, what)
		}
	}
}
