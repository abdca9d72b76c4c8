package containerd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketPathLimit is the longest path of a Unix socket, in bytes (unix(7)).
const socketPathLimit = 107

// Daemon is a containerd that Berth starts. It runs in a session of its own:
// the end of Berth, of whatever kind, ends neither it nor the containers.
type Daemon struct {
	// Dir holds its configuration, state and data.
	Dir string
	// BinDir holds containerd, its shim and runc.
	BinDir string
	Log    *slog.Logger
}

// Address is the path of its socket.
func (d *Daemon) Address() string { return filepath.Join(d.Dir, "containerd.sock") }

func (d *Daemon) pidFile() string { return filepath.Join(d.Dir, "containerd.pid") }

// shimSockets is where shims listen. The name is longer by "/" and 64 digits,
// so that it has to be short.
func (d *Daemon) shimSockets() string { return filepath.Join(d.Dir, "s") }

// Check says what is missing before anything is started.
func (d *Daemon) Check() error {
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "runc"} {
		if _, err := os.Stat(filepath.Join(d.BinDir, name)); err != nil {
			return fmt.Errorf("%s is not in %s: run `make runtime`, or name a running containerd with --containerd", name, d.BinDir)
		}
	}
	if longest := len(d.shimSockets()) + 1 + 64; longest > socketPathLimit {
		return fmt.Errorf("the data directory's path is too long for sockets (%s, %d characters too many): choose a shorter --data-dir", d.Dir, longest-socketPathLimit)
	}
	return nil
}

// Ensure adopts the containerd that runs, or starts one, and waits until it answers.
func (d *Daemon) Ensure(ctx context.Context) (pid int, err error) {
	if pid := d.running(); pid != 0 {
		if err := d.await(ctx, pid, nil); err != nil {
			return 0, err
		}
		return pid, nil
	}
	return d.start(ctx)
}

// Run keeps containerd running until the context ends, and leaves it running then.
func (d *Daemon) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		pid, err := d.Ensure(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			d.Log.Error("start containerd", "err", err)
			sleep(ctx, time.Second)
			continue
		}
		if err := awaitExit(ctx, pid); err != nil {
			d.Log.Warn("watch containerd", "pid", pid, "err", err)
			sleep(ctx, time.Second)
		}
		if ctx.Err() == nil {
			d.Log.Warn("containerd ended; it is started again, containers are not touched", "pid", pid)
		}
	}
	return nil
}

// Kill ends containerd at once; Run starts it again. Containers are not touched.
func (d *Daemon) Kill() error {
	pid := d.running()
	if pid == 0 {
		return nil
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill containerd (process %d): %w", pid, err)
	}
	return nil
}

// running is the pid of a containerd of ours, or 0. The pid file alone is not
// proof: the number may have been given to another process.
func (d *Daemon) running() int {
	data, err := os.ReadFile(d.pidFile())
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 {
		return 0
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(cmdline), d.configFile()) {
		return 0
	}
	return pid
}

func (d *Daemon) configFile() string { return filepath.Join(d.Dir, "config.toml") }

func (d *Daemon) start(ctx context.Context) (int, error) {
	if err := d.Check(); err != nil {
		return 0, err
	}
	if err := os.MkdirAll(d.shimSockets(), 0o711); err != nil {
		return 0, fmt.Errorf("make containerd's folder: %w", err)
	}
	if err := os.WriteFile(d.configFile(), []byte(d.config()), 0o600); err != nil {
		return 0, fmt.Errorf("write containerd's configuration: %w", err)
	}
	log, err := os.OpenFile(filepath.Join(d.Dir, "containerd.log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, fmt.Errorf("open containerd's log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(d.BinDir, "containerd"), "--config", d.configFile(), "--log-level", "warn")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(),
		"PATH="+d.BinDir+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"GOGC=50")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start containerd: %w", err)
	}
	ended := make(chan struct{})
	go func() { // the parent must reap; it ends with containerd
		_ = cmd.Wait()
		close(ended)
	}()
	if err := os.WriteFile(d.pidFile(), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		_ = cmd.Process.Kill()
		return 0, fmt.Errorf("write containerd's pid: %w", err)
	}
	if err := d.await(ctx, cmd.Process.Pid, ended); err != nil {
		return 0, err
	}
	return cmd.Process.Pid, nil
}

// await waits until the socket accepts.
func (d *Daemon) await(ctx context.Context, pid int, ended <-chan struct{}) error {
	deadline := time.Now().Add(30 * time.Second)
	for wait := 5 * time.Millisecond; ; wait = min(wait*2, 100*time.Millisecond) {
		if conn, err := net.Dial("unix", d.Address()); err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ended:
			return fmt.Errorf("containerd ended at once: %s", d.lastLog())
		case <-time.After(wait):
		}
		if unix.Kill(pid, 0) != nil {
			return fmt.Errorf("containerd ended at once: %s", d.lastLog())
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("containerd (pid %d) does not answer on %s after 30 s: see %s", pid, d.Address(), filepath.Join(d.Dir, "containerd.log"))
		}
	}
}

func (d *Daemon) lastLog() string {
	data, _ := os.ReadFile(filepath.Join(d.Dir, "containerd.log"))
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return lines[len(lines)-1]
}

// Stop ends containerd, its shims' sockets included. The shims must have ended.
func (d *Daemon) Stop(ctx context.Context) error {
	pid := d.running()
	if pid != 0 {
		if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("stop containerd: %w", err)
		}
		bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := awaitExit(bounded, pid); err == nil && bounded.Err() != nil {
			_ = unix.Kill(pid, unix.SIGKILL)
			_ = awaitExit(ctx, pid)
		}
	}
	for _, name := range []string{d.pidFile(), d.Address(), d.Address() + ".ttrpc"} {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", name, err)
		}
	}
	return os.RemoveAll(filepath.Join(d.Dir, "state"))
}

// awaitExit waits for the end of any process, a child or not.
func awaitExit(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open pid %d: %w", pid, err)
	}
	file := os.NewFile(uintptr(fd), "pidfd")
	defer file.Close()
	stop := context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	err = raw.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, _ := unix.Poll(poll, 0)
		return n > 0
	})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("wait for pid %d: %w", pid, err)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
