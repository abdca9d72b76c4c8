package pods

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// ephemeral are the containers that were added to a running pod to look at it
// (kubectl debug). They start once, at once, and never again.
func ephemeral(pod *corev1.Pod) []*corev1.Container {
	var out []*corev1.Container
	for i := range pod.Spec.EphemeralContainers {
		// The two types have the same fields, in the same order, as their documentation promises.
		c := corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		out = append(out, &c)
	}
	return out
}

// ephemeralOf finds an ephemeral container by its name, or nil.
func ephemeralOf(pod *corev1.Pod, name string) *corev1.EphemeralContainer {
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return &pod.Spec.EphemeralContainers[i]
		}
	}
	return nil
}

// target is the container whose processes an ephemeral one sees; empty when it
// names none.
func (w *worker) target(c *corev1.Container) (string, error) {
	e := ephemeralOf(w.pod, c.Name)
	if e == nil || e.TargetContainerName == "" {
		return "", nil
	}
	r := w.running[e.TargetContainerName]
	if r == nil {
		return "", &WaitError{Reason: reasonConfigError, Message: fmt.Sprintf("container %s, whose processes this one is to see, is not running", e.TargetContainerName)}
	}
	return r.id, nil
}
