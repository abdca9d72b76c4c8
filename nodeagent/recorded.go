package nodeagent

import (
	"path/filepath"

	corev1 "k8s.io/api/core/v1"

	"berth.dev/berth/nodeagent/pods"
)

// RecordedPods are the pods that the agent of a data directory runs, also while
// it does not run itself: a store that was lost gets them from here.
func RecordedPods(dataDir string) ([]*corev1.Pod, error) {
	return pods.Recorded(filepath.Join(dataDir, "pods"))
}
