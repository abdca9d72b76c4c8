package logs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/utils/clock"
)

// gather is how long the collector waits after a container has written, so
// that a chatty one costs a batch and not a line.
const gather = 10 * time.Millisecond

// Collector moves what containers wrote into their logs.
type Collector struct {
	// Dir holds a folder per pod.
	Dir   string
	Clock clock.PassiveClock
	Log   *slog.Logger

	notify *os.File
	fd     int

	mu      sync.Mutex
	streams map[string]*instance // by path of the log
	watches map[int32]*instance
	buffer  []byte
	out     []byte
}

// Open readies a Collector. Run must be running for logs to be written.
func Open(dir string, c clock.PassiveClock, log *slog.Logger) (*Collector, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of logs: %w", err)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch files (too many watchers? see fs.inotify.max_user_instances): %w", err)
	}
	return &Collector{
		Dir: dir, Clock: c, Log: log, notify: os.NewFile(uintptr(fd), "inotify"), fd: fd,
		streams: map[string]*instance{}, watches: map[int32]*instance{}, buffer: make([]byte, 64<<10),
	}, nil
}

// Instance names one run of one container.
type Instance struct {
	// Pod is the pod's folder: namespace_name_uid.
	Pod, Container string
	Restart        int
}

func (c *Collector) base(i Instance) string {
	return filepath.Join(c.Dir, i.Pod, i.Container, fmt.Sprint(i.Restart))
}

// Begin makes the capture files of a new run and starts to collect from them.
func (c *Collector) Begin(i Instance) (stdout, stderr string, err error) {
	base := c.base(i)
	if err := os.MkdirAll(filepath.Dir(base), 0o755); err != nil {
		return "", "", fmt.Errorf("make the folder of a log: %w", err)
	}
	for _, name := range []string{".stdout", ".stderr"} {
		file, err := os.OpenFile(base+name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
		if err != nil {
			return "", "", fmt.Errorf("make the capture file of a log: %w", err)
		}
		if err := file.Close(); err != nil {
			return "", "", err
		}
	}
	return base + ".stdout", base + ".stderr", c.Adopt(i)
}

// Adopt goes on collecting where an agent before this one has stopped.
func (c *Collector) Adopt(i Instance) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	base := c.base(i)
	if c.streams[base] != nil {
		return nil
	}
	s, err := openInstance(base)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it has finished
	}
	if err != nil {
		return err
	}
	c.streams[base] = s
	for k := range s.raw {
		wd, err := unix.InotifyAddWatch(c.fd, s.raw[k].Name(), unix.IN_MODIFY)
		if err != nil {
			return fmt.Errorf("watch a capture file: %w", err)
		}
		s.wd[k] = int32(wd)
		c.watches[int32(wd)] = s
	}
	return c.drain(s, false, s.lastWrite(c.Clock.Now()))
}

// Finish collects the rest after the container has ended and the shim has let
// go of its files, and removes the capture files.
func (c *Collector) Finish(i Instance) error {
	if err := c.Adopt(i); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[c.base(i)]
	if s == nil {
		return nil
	}
	err := c.drain(s, true, c.Clock.Now())
	for _, wd := range s.wd {
		delete(c.watches, wd)
		_, _ = unix.InotifyRmWatch(c.fd, uint32(wd))
	}
	delete(c.streams, s.base)
	return errors.Join(err, s.remove())
}

// Prune removes the logs of runs before keep.
func (c *Collector) Prune(i Instance, keep int) {
	files, _ := filepath.Glob(filepath.Join(c.Dir, i.Pod, i.Container, "*.log*"))
	for _, file := range files {
		var run int
		if _, err := fmt.Sscanf(filepath.Base(file), "%d.log", &run); err == nil && run < keep {
			_ = os.Remove(file)
		}
	}
}

// Remove deletes all logs of a pod.
func (c *Collector) Remove(pod string) error {
	return os.RemoveAll(filepath.Join(c.Dir, pod))
}

// Run collects until the context ends.
func (c *Collector) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = c.notify.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	defer c.close()
	events := make([]byte, 64<<10)
	for {
		n, err := c.notify.Read(events)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watch containers' output: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(gather):
		}
		c.collect(events[:n])
	}
}

func (c *Collector) collect(events []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	dirty := map[*instance]bool{}
	for len(events) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(events))
		size := binary.NativeEndian.Uint32(events[12:])
		events = events[unix.SizeofInotifyEvent+int(size):]
		if wd == -1 { // the queue was full: look at all
			for _, s := range c.streams {
				dirty[s] = true
			}
		}
		if s := c.watches[wd]; s != nil {
			dirty[s] = true
		}
	}
	for s := range dirty {
		close(s.wrote)
		s.wrote = make(chan struct{})
		if err := c.drain(s, false, c.Clock.Now()); err != nil {
			c.Log.Error("write a container's log", "file", s.base+".log", "err", err)
		}
	}
}

func (c *Collector) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.streams {
		s.close()
	}
	_ = c.notify.Close()
}

// snapshot opens the files of a log, the oldest first, and tells how to go on: a
// channel that is closed when the log grows next (nil when it has ended) and
// how often it was rotated.
func (c *Collector) snapshot(base string) (files []*os.File, grown <-chan struct{}, rotations int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.streams[base]; s != nil {
		grown, rotations = s.grown, s.rotations
	}
	names := append(olderFiles(base), base+".log")
	for _, name := range names {
		f, err := os.Open(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			closeAll(files)
			return nil, nil, 0, fmt.Errorf("open the log: %w", err)
		}
		files = append(files, f)
	}
	if len(files) == 0 {
		return nil, nil, 0, ErrNoLog
	}
	return files, grown, rotations, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
