package v1alpha1

import (
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// defaultMaxSize of a repository, in bytes.
const defaultMaxSize = 1 << 30

// SetDefaults fills what a Source leaves out.
func SetDefaults(s *Source) {
	spec := &s.Spec
	if spec.Ref == (Ref{}) {
		spec.Ref.Branch = "main"
	}
	if spec.Interval == nil {
		spec.Interval = &metav1.Duration{Duration: 30 * time.Second}
	}
	if spec.TargetNamespace == "" {
		spec.TargetNamespace = metav1.NamespaceDefault
	}
	if spec.Prune == nil {
		prune := true
		spec.Prune = &prune
	}
	if spec.MaxPrune == nil {
		half := intstr.FromString("50%")
		spec.MaxPrune = &half
	}
	if spec.MaxSize == nil {
		spec.MaxSize = resource.NewQuantity(defaultMaxSize, resource.BinarySI)
	}
	for i := range spec.SyncWindows {
		if w := &spec.SyncWindows[i]; w.TimeZone == "" {
			w.TimeZone = "UTC"
		}
	}
	for i := range spec.Notifications {
		if n := &spec.Notifications[i]; n.Type == "" {
			n.Type = NotificationGeneric
		}
	}
	if spec.HealthTimeout == nil {
		spec.HealthTimeout = &metav1.Duration{Duration: 10 * time.Minute}
	}
}
