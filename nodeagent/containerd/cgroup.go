package containerd

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"strings"

	"encoding/json"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// oomKilled reads the container's cgroup, which stays until Remove.
func (r *Runtime) oomKilled(ctx context.Context, id string) bool {
	record, err := r.client.ContainerService().Get(ctx, id)
	if err != nil || record.Spec == nil {
		return false
	}
	var spec specs.Spec
	if json.Unmarshal(record.Spec.GetValue(), &spec) != nil || spec.Linux == nil {
		return false
	}
	for _, file := range []string{
		filepath.Join("/sys/fs/cgroup/memory", spec.Linux.CgroupsPath, "memory.oom_control"), // v1
		filepath.Join("/sys/fs/cgroup", spec.Linux.CgroupsPath, "memory.events"),             // v2
	} {
		if n, ok := counter(file, "oom_kill"); ok {
			return n != "0"
		}
	}
	return false
}

// counter reads "name value" out of a cgroup file.
func counter(file, name string) (string, bool) {
	f, err := os.Open(file)
	if err != nil {
		return "", false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), " "); ok && key == name {
			return value, true
		}
	}
	return "", false
}
