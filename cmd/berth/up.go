package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"berth.dev/berth/nodeagent"
)

// gcPercent trades a little CPU for a smaller heap (a percentage of the live heap).
const gcPercent = 75

func upCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run the control plane and the node agent of this machine",
		Long: `Run the control plane and the node agent of this machine in one process.

Everything is kept under the data directory. When berth up ends, containers go
on running; the next berth up takes them over. berth down ends them.

With --store, several machines are one cluster: see docs/high-availability.md.`,
		Example: `  berth up
  berth up --data-dir /srv/berth --listen 127.0.0.1:7443
  berth up --store etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379 --store-ca ca.pem`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return up(cmd.Context(), o, cmd.ErrOrStderr()) },
	}
	o.register(cmd.Flags())
	return cmd
}

func up(ctx context.Context, o options, stderr io.Writer) error {
	if os.Geteuid() != 0 {
		return errors.New("berth up makes namespaces, mounts and network rules: run it as root")
	}
	o.agent = true
	return serve(ctx, o, stderr)
}

// reachable is the address of the server for clients on this machine.
func reachable(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if ip := net.ParseIP(host); err == nil && (ip == nil || ip.IsUnspecified()) {
		host = "127.0.0.1"
	}
	return "https://" + net.JoinHostPort(host, port)
}

// stoppedFile is there when berth down has ended what the store says is running.
func stoppedFile(dir string) string { return filepath.Join(dir, "stopped") }

func lockFile(dir string) string { return filepath.Join(dir, "berth.pid") }

// lockDataDir keeps a second process out, and leaves the number of this one.
func lockDataDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(lockFile(dir), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 32)) // an unreadable number is left out
		f.Close()
		return nil, fmt.Errorf("the data directory %s is in use by berth with process number %s; stop that one first (berth down), or choose another with --data-dir",
			dir, strings.TrimSpace(string(holder)))
	}
	if err := f.Truncate(0); err != nil {
		return nil, fmt.Errorf("write %s: %w", f.Name(), err)
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return nil, fmt.Errorf("write %s: %w; is the disk full?", f.Name(), err)
	}
	return f, nil
}

// downWait is how long a server may take to stop.
const downWait = 20 * time.Second

func downCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop the server of this machine and everything it runs",
		Long: `Stop the server of this machine, its containers and its containerd, and remove
its namespaces, mounts, links, routes and rules. What is on disk stays: the
store, the pushed repositories and the images. berth up goes on from there.`,
		Example: "  berth down",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return down(cmd.Context(), o, cmd.OutOrStdout()) },
	}
	cmd.Flags().StringVar(&o.dataDir, "data-dir", defaultDataDir, "where everything is kept")
	cmd.Flags().StringVar(&o.binDir, "bin-dir", "", "where containerd, its shim and runc are (default: beside berth)")
	cmd.Flags().StringVar(&o.containerd, "containerd", "", "socket of the containerd that was used (default: our own)")
	return cmd
}

func down(ctx context.Context, o options, out io.Writer) error {
	if err := o.complete(); err != nil {
		return err
	}
	if _, err := os.Stat(o.dataDir); errors.Is(err, os.ErrNotExist) {
		fmt.Fprintf(out, "nothing to stop: %s does not exist\n", o.dataDir)
		return nil
	}
	if err := stopServer(ctx, o.dataDir); err != nil {
		return err
	}
	lock, err := lockDataDir(o.dataDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	// Before anything stops: a start that finds the mark knows that nothing runs.
	if err := os.WriteFile(stoppedFile(o.dataDir), nil, 0o600); err != nil {
		return fmt.Errorf("note that everything is stopped: %w", err)
	}
	err = nodeagent.Teardown(ctx, nodeagent.Options{DataDir: o.dataDir, BinDir: o.binDir, ContainerdAddress: o.containerd, Log: log})
	if err != nil {
		return fmt.Errorf("remove what the node ran: %w", err)
	}
	fmt.Fprintf(out, "berth is down; its data is still in %s\n", o.dataDir)
	return nil
}

// stopServer ends the process that holds the data directory, and waits for it.
func stopServer(ctx context.Context, dir string) error {
	deadline := time.Now().Add(downWait)
	for {
		lock, err := lockDataDir(dir)
		if err == nil {
			return lock.Close()
		}
		if time.Now().After(deadline) {
			return err
		}
		b, readErr := os.ReadFile(lockFile(dir))
		pid, parseErr := strconv.Atoi(strings.TrimSpace(string(b)))
		if readErr != nil || parseErr != nil || pid <= 1 {
			return err
		}
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop process %d: %w", pid, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
