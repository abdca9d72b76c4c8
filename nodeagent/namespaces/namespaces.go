// Package namespaces owns the pods' pinned network, IPC and UTS namespaces: it
// makes them and holds them with bind mounts, so that they need no process and
// outlive the agent. It never configures what is inside; that is package network's.
package namespaces

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Pins is where the namespaces are pinned: Dir/<uid>/{net,ipc,uts}.
type Pins struct{ Dir string }

// Set is the pinned namespaces of a pod. An empty path is the host's own.
type Set struct{ Net, IPC, UTS string }

// Want says which namespaces a pod has of its own.
type Want struct {
	Hostname    string
	HostNetwork bool
	HostIPC     bool
}

// Pin returns the pod's namespaces, made if they are not there. fresh says
// that the network namespace is new.
func (p *Pins) Pin(uid string, want Want) (set Set, fresh bool, err error) {
	dir := filepath.Join(p.Dir, uid)
	set = paths(dir, want)
	if pinned(set) {
		return set, false, nil
	}
	if err := p.Unpin(uid); err != nil {
		return Set{}, false, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Set{}, false, fmt.Errorf("make the folder of the namespaces: %w", err)
	}
	for _, file := range []string{set.Net, set.IPC, set.UTS} {
		if file == "" {
			continue
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			return Set{}, false, fmt.Errorf("make the place of a namespace: %w", err)
		}
	}
	done := make(chan error, 1)
	go func() {
		// The thread keeps its new namespaces, so it must not serve another
		// goroutine: it ends with this one, for it is never unlocked.
		runtime.LockOSThread()
		done <- create(set, want)
	}()
	if err := <-done; err != nil {
		_ = p.Unpin(uid)
		return Set{}, false, err
	}
	return set, true, nil
}

func paths(dir string, want Want) Set {
	set := Set{}
	if !want.HostNetwork {
		set.Net = filepath.Join(dir, "net")
		set.UTS = filepath.Join(dir, "uts")
	}
	if !want.HostIPC {
		set.IPC = filepath.Join(dir, "ipc")
	}
	return set
}

func pinned(set Set) bool {
	for _, file := range []string{set.Net, set.IPC, set.UTS} {
		if file != "" && !isNamespace(file) {
			return false
		}
	}
	return true
}

func isNamespace(file string) bool {
	var st unix.Statfs_t
	return unix.Statfs(file, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// create runs on a thread of its own.
func create(set Set, want Want) error {
	flags := 0
	if set.Net != "" {
		flags |= unix.CLONE_NEWNET | unix.CLONE_NEWUTS
	}
	if set.IPC != "" {
		flags |= unix.CLONE_NEWIPC
	}
	if flags == 0 {
		return nil
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	if set.UTS != "" {
		if err := unix.Sethostname([]byte(want.Hostname)); err != nil {
			return fmt.Errorf("set host name %q: %w", want.Hostname, err)
		}
	}
	for _, pin := range []struct{ name, file string }{{"net", set.Net}, {"ipc", set.IPC}, {"uts", set.UTS}} {
		if pin.file == "" {
			continue
		}
		if err := unix.Mount(fmt.Sprintf("/proc/thread-self/ns/%s", pin.name), pin.file, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("pin the %s namespace: %w", pin.name, err)
		}
	}
	return nil
}

// Unpin lets the pod's namespaces go. The kernel removes them, and the links
// inside, when the last process in them has ended.
func (p *Pins) Unpin(uid string) error {
	dir := filepath.Join(p.Dir, uid)
	for _, name := range []string{"net", "ipc", "uts"} {
		file := filepath.Join(dir, name)
		for isNamespace(file) {
			if err := unix.Unmount(file, unix.MNT_DETACH); err != nil {
				return fmt.Errorf("release a namespace: %w", err)
			}
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the folder of the namespaces: %w", err)
	}
	return nil
}

// List returns the pods that have namespaces.
func (p *Pins) List() ([]string, error) {
	entries, err := os.ReadDir(p.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out, nil
}
