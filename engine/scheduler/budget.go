package scheduler

import (
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Budget is a PodDisruptionBudget as it stands.
type Budget struct {
	Namespace string
	Selector  labels.Selector
	// Allowed is how many more of its Pods may be disrupted.
	Allowed int32
	// Disrupted are the names of Pods whose disruption it knows of already.
	Disrupted map[string]bool
}

// Budgets reads PodDisruptionBudgets. It is never nil.
func Budgets(list []*policyv1.PodDisruptionBudget) []Budget {
	out := make([]Budget, 0, len(list))
	for _, b := range list {
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil {
			continue // it selects nothing
		}
		one := Budget{Namespace: b.Namespace, Selector: selector, Allowed: b.Status.DisruptionsAllowed, Disrupted: map[string]bool{}}
		for name := range b.Status.DisruptedPods {
			one.Disrupted[name] = true
		}
		out = append(out, one)
	}
	return out
}
