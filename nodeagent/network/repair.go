package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Repair makes the bridge again and attaches every pod's link to it.
func (n *Network) Repair() error {
	if err := n.bridge(); err != nil {
		return err
	}
	bridge, err := netlink.LinkByName(Bridge)
	if err != nil {
		return fmt.Errorf("find %s: %w", Bridge, err)
	}
	var errs []error
	for uid := range n.addresses.Owners() {
		link, err := netlink.LinkByName(linkName(uid))
		if err != nil || link.Attrs().MasterIndex == bridge.Attrs().Index {
			continue
		}
		if err := netlink.LinkSetMaster(link, bridge); err != nil {
			errs = append(errs, fmt.Errorf("attach a pod's link to %s: %w", Bridge, err))
			continue
		}
		errs = append(errs, netlink.LinkSetHairpin(link, true), netlink.LinkSetUp(link))
	}
	return errors.Join(errs...)
}

// Run watches the bridge and repairs it when somebody deletes or changes it.
func (n *Network) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		updates := make(chan netlink.LinkUpdate, 64)
		if err := netlink.LinkSubscribe(updates, ctx.Done()); err != nil {
			return fmt.Errorf("watch links: %w", err)
		}
		n.watch(ctx, updates)
	}
	return nil
}

func (n *Network) watch(ctx context.Context, updates <-chan netlink.LinkUpdate) {
	for update := range updates {
		if ctx.Err() != nil || update.Attrs().Name != Bridge {
			continue
		}
		if whole() { // what the message is of has passed, or was our own doing
			continue
		}
		// The kernel is still taking the link apart when it says so.
		for attempt := range 5 {
			time.Sleep(time.Duration(attempt) * 20 * time.Millisecond)
			err := n.Repair()
			if err == nil {
				n.opts.Log.Warn("the bridge was deleted or taken down and has been repaired", "link", Bridge)
				break
			}
			if attempt == 4 {
				n.opts.Log.Error("repair the bridge", "err", err)
			}
		}
	}
}

// whole tells whether the bridge is there and up.
func whole() bool {
	link, err := netlink.LinkByName(Bridge)
	return err == nil && link.Attrs().Flags&net.FlagUp != 0
}

// Remove takes everything away: links, the bridge, routes and rules.
func Remove() error {
	errs := []error{(&Network{}).strays(nil)}
	link, err := netlink.LinkByName(Bridge)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !isLinkNotFound(err) {
		errs = append(errs, fmt.Errorf("remove %s: %w", Bridge, err))
	}
	return errors.Join(append(errs, removeTable())...)
}

// insideSettings sets the switches of the pod's own namespace: a redirect
// would make it bypass the gateway, and with it the Services' rules.
func insideSettings(path string) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		done <- func() error {
			fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return err
			}
			for _, s := range []struct{ file, value string }{
				{"ipv4/conf/all/accept_redirects", "0"},
				{"ipv4/conf/eth0/accept_redirects", "0"},
				{"ipv6/conf/eth0/disable_ipv6", "1"},
				{"ipv4/ip_unprivileged_port_start", "0"},
				{"ipv4/ping_group_range", "0 2147483647"},
			} {
				err := os.WriteFile(filepath.Join("/proc/sys/net", s.file), []byte(s.value), 0)
				if err != nil && !errors.Is(err, os.ErrNotExist) {
					return fmt.Errorf("set %s in the pod: %w", s.file, err)
				}
			}
			return nil
		}()
	}()
	return <-done
}
