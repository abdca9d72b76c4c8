package containerd

import (
	"context"
	"fmt"
	"math"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth.dev/berth/nodeagent/pods"
)

// rlimitFiles is the limit of open files in a container, as containerd's own
// unit gives it: programs that need many should not have to ask.
const rlimitFiles = 1 << 20

// spec turns a container into its OCI form.
func (r *Runtime) spec(c pods.Container) oci.SpecOpts {
	return func(ctx context.Context, client oci.Client, record *containers.Container, s *oci.Spec) error {
		s.Annotations = map[string]string{groupLabel: c.Group}
		s.Process.Args, s.Process.Env, s.Process.Cwd = c.Args, c.Env, c.WorkingDir
		s.Process.Terminal = c.TTY
		s.Process.NoNewPrivileges = c.Security.NoNewPrivileges
		s.Process.Rlimits = fileLimit()
		s.Root.Readonly = c.Security.ReadOnlyRootfs
		s.Linux.CgroupsPath = path.Join(c.CgroupParent, c.ID)
		s.Linux.Namespaces = joined(c)
		if c.JoinPID != "" {
			if err := r.joinPID(ctx, s, c.JoinPID); err != nil {
				return err
			}
		}
		s.Linux.Sysctl = nil
		s.Mounts = append(s.Mounts, mounts(c)...)
		r.resources(s, c.Resources)
		if err := user(ctx, client, record, s, c); err != nil {
			return err
		}
		return privileges(ctx, client, record, s, c)
	}
}

func joined(c pods.Container) []specs.LinuxNamespace {
	out := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	if !c.HostPID {
		out = append(out, specs.LinuxNamespace{Type: specs.PIDNamespace})
	}
	for _, ns := range []specs.LinuxNamespace{
		{Type: specs.NetworkNamespace, Path: c.Sandbox.NetPath},
		{Type: specs.IPCNamespace, Path: c.Sandbox.IPCPath},
		{Type: specs.UTSNamespace, Path: c.Sandbox.UTSPath},
	} {
		if ns.Path != "" {
			out = append(out, ns)
		}
	}
	return out
}

// joinPID lets a container see the processes of another one.
func (r *Runtime) joinPID(ctx context.Context, s *oci.Spec, id string) error {
	container, err := r.client.LoadContainer(ctx, id)
	if err != nil {
		return fmt.Errorf("find container %s: %w", id, err)
	}
	task, err := container.Task(ctx, nil)
	if err != nil {
		return fmt.Errorf("find the processes of container %s: %w", id, err)
	}
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: fmt.Sprintf("/proc/%d/ns/pid", task.Pid())})
	return nil
}

func mounts(c pods.Container) []specs.Mount {
	out := []specs.Mount{{
		Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
		Options: []string{"ro", "nosuid", "noexec", "nodev"},
	}}
	for _, m := range c.Mounts {
		mode := "rw"
		if m.ReadOnly {
			mode = "ro"
		}
		propagation := m.Propagation
		if propagation == "" {
			propagation = "rprivate"
		}
		out = append(out, specs.Mount{Destination: m.Destination, Type: "bind", Source: m.Source, Options: []string{"rbind", mode, propagation}})
	}
	return out
}

// resources sets limits; runc converts those of cgroup v1 to v2 itself.
func (r *Runtime) resources(s *oci.Spec, want pods.Resources) {
	if s.Linux.Resources == nil {
		s.Linux.Resources = &specs.LinuxResources{}
	}
	cpu := &specs.LinuxCPU{}
	if want.CPUShares > 0 {
		cpu.Shares = &want.CPUShares
	}
	if want.CPUQuota > 0 {
		cpu.Quota, cpu.Period = &want.CPUQuota, &want.CPUPeriod
	}
	s.Linux.Resources.CPU = cpu
	if want.MemoryLimit > 0 {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &want.MemoryLimit, Swap: &want.MemoryLimit}
	}
	adj := want.OOMScoreAdj
	if adj < r.oomMin {
		r.sayOOM.Do(func() {
			r.opts.Log.Warn("this process may not lower oom_score_adj (CAP_SYS_RESOURCE is missing): containers get its own value instead", "want", adj, "have", r.oomMin)
		})
		adj = r.oomMin
	}
	s.Process.OOMScoreAdj = &adj
}

// user sets who the container's process is: the pod's word before the image's.
func user(ctx context.Context, client oci.Client, record *containers.Container, s *oci.Spec, c pods.Container) error {
	sec := c.Security
	if c.Image.User != "" {
		if err := oci.WithUser(c.Image.User)(ctx, client, record, s); err != nil {
			return fmt.Errorf("find user %q of the image: %w", c.Image.User, err)
		}
	}
	if sec.User != nil {
		s.Process.User.UID = uint32(*sec.User)
		if c.Image.User == "" {
			s.Process.User.GID = 0
		}
		s.Process.User.Username = ""
	}
	if sec.Group != nil {
		s.Process.User.GID = uint32(*sec.Group)
	}
	if sec.NonRoot && s.Process.User.UID == 0 {
		return fmt.Errorf("runAsNonRoot is set and the container would run as root: set runAsUser, or a user in the image")
	}
	s.Process.User.AdditionalGids = append(s.Process.User.AdditionalGids, s.Process.User.GID)
	for _, gid := range sec.SupplementalGroups {
		s.Process.User.AdditionalGids = append(s.Process.User.AdditionalGids, uint32(gid))
	}
	return nil
}

func privileges(ctx context.Context, client oci.Client, record *containers.Container, s *oci.Spec, c pods.Container) error {
	sec := c.Security
	if sec.Privileged {
		return oci.Compose(oci.WithPrivileged, oci.WithAllDevicesAllowed, oci.WithHostDevices, oci.WithWriteableSysfs, oci.WithWriteableCgroupfs)(ctx, client, record, s)
	}
	opts := []oci.SpecOpts{oci.WithDefaultUnixDevices}
	if drop := capabilities(sec.DropCaps); drop.all {
		opts = append(opts, oci.WithCapabilities(nil))
	} else {
		opts = append(opts, oci.WithDroppedCapabilities(drop.names))
	}
	if add := capabilities(sec.AddCaps); add.all {
		opts = append(opts, oci.WithAllCurrentCapabilities)
	} else {
		opts = append(opts, oci.WithAddedCapabilities(add.names))
	}
	if !sec.UnconfinedSeccomp {
		opts = append(opts, seccomp.WithDefaultProfile())
	}
	return oci.Compose(opts...)(ctx, client, record, s)
}

type capSet struct {
	all   bool
	names []string
}

func capabilities(in []string) capSet {
	var out capSet
	for _, name := range in {
		name = strings.ToUpper(name)
		if name == "ALL" {
			out.all = true
			continue
		}
		if !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		out.names = append(out.names, name)
	}
	return out
}

// fileLimit is rlimitFiles, or what this process may give.
func fileLimit() []specs.POSIXRlimit {
	limit := uint64(rlimitFiles)
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err == nil {
		limit = min(limit, own.Max)
	}
	return []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: limit, Soft: limit}}
}

// oomFloor is the lowest oom_score_adj that this process may give.
func oomFloor() int {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err == nil && data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0 {
		return math.MinInt
	}
	text, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0
	}
	own, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return own
}
