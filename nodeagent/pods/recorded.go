package pods

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
)

// Recorded are the pods that an agent with this folder of records runs, as it
// last saw them in the cluster. No agent needs to run; a record that cannot be
// read is left out, as the agent will do.
func Recorded(dir string) ([]*corev1.Pod, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var out []*corev1.Pod
	for _, file := range files {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read pods: %w", err)
		}
		var r record
		if json.Unmarshal(data, &r) == nil && r.Pod != nil && r.Pod.UID != "" && r.Containers != nil {
			out = append(out, r.Pod)
		}
	}
	return out, nil
}
