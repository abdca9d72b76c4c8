package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth.dev/berth/nodeagent/containerd"
	"berth.dev/berth/nodeagent/namespaces"
	"berth.dev/berth/nodeagent/network"
)

// Teardown removes what an agent of these options leaves running: containers,
// shims, its own containerd, namespaces, mounts, links, routes, rules and control
// groups. What is on disk stays. No agent may run meanwhile. Of opts it needs
// DataDir, BinDir, ContainerdAddress, CgroupParent and Log.
func Teardown(ctx context.Context, opts Options) error {
	opts = withDefaults(opts)
	errs := []error{stopContainers(ctx, opts)}
	pins := &namespaces.Pins{Dir: filepath.Join(runDir(opts), "ns")}
	uids, err := pins.List()
	errs = append(errs, err)
	for _, uid := range uids {
		errs = append(errs, pins.Unpin(uid))
	}
	errs = append(errs, network.Remove())
	if opts.ContainerdAddress == "" {
		errs = append(errs, daemon(opts).Stop(ctx))
	}
	errs = append(errs, unmountAll(opts.DataDir))
	removeCgroups(opts.CgroupParent)
	for _, dir := range []string{"pods", "volumes", "config", filepath.Join("network", "addresses")} {
		errs = append(errs, os.RemoveAll(filepath.Join(opts.DataDir, dir)))
	}
	return errors.Join(errs...)
}

func stopContainers(ctx context.Context, opts Options) error {
	address := opts.ContainerdAddress
	if address == "" {
		d := daemon(opts)
		address = d.Address()
		if !exists(address) && !exists(filepath.Join(opts.DataDir, "containerd", "state")) {
			return nil // never started, or stopped before
		}
		// Shims must be ended through containerd, so it has to run.
		if _, err := d.Ensure(ctx); err != nil {
			return err
		}
	}
	runtime, err := containerd.Connect(runtimeOptions(opts, address))
	if err != nil {
		return err
	}
	defer runtime.Close()
	present, err := runtime.List(ctx)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	results := make(chan error)
	slots := make(chan struct{}, 8)
	for _, p := range present {
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			results <- runtime.Remove(bounded, p.ID)
		}()
	}
	var errs []error
	for range present {
		errs = append(errs, <-results)
	}
	return errors.Join(errs...)
}

// unmountAll removes the mounts below the data directory, the last first.
func unmountAll(dir string) error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	var points []string
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], filepath.Clean(dir)+"/") {
			points = append(points, fields[4])
		}
	}
	var errs []error
	for i := len(points) - 1; i >= 0; i-- {
		if err := unix.Unmount(points[i], unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", points[i], err))
		}
	}
	return errors.Join(errs...)
}

// removeCgroups removes the pods' control groups, the innermost first.
func removeCgroups(parent string) {
	for _, pattern := range []string{"/sys/fs/cgroup/*/" + parent, "/sys/fs/cgroup/" + parent} {
		roots, _ := filepath.Glob(pattern)
		for _, root := range roots {
			var dirs []string
			_ = filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, p)
				}
				return nil
			})
			for i := len(dirs) - 1; i >= 0; i-- {
				_ = os.Remove(dirs[i])
			}
		}
	}
}
