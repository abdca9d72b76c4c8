package worker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// lookEvery is the time between two looks at the memory of a process that works.
	lookEvery = 25 * time.Millisecond
	// keepBelow is the memory of a process that is kept for more work, in bytes.
	keepBelow = 192 << 20
	// maxFrame is the longest piece of work or answer, in bytes.
	maxFrame = 512 << 20
	// tailLength is how much of what a process writes to stderr is kept, in bytes.
	tailLength = 8 << 10
)

// process is one process and the pipes to it.
type process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr *head
	ended  chan struct{}
	err    error // how it ended; read after ended is closed
	retire *time.Timer
}

func start(cmd *exec.Cmd) (*process, error) {
	w := &process{cmd: cmd, stderr: &head{}, ended: make(chan struct{}), retire: time.NewTimer(time.Hour)}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.in, w.out = in, bufio.NewReaderSize(out, 64<<10)
	cmd.Stderr = w.stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a process of the compiler: %w", err)
	}
	return w, nil
}

// end ends the process and waits for it.
func (w *process) end() {
	_ = w.cmd.Process.Kill() // it may have ended
	w.wait()
}

// wait takes note of the end of the process; it is called when that is certain.
func (w *process) wait() {
	select {
	case <-w.ended:
	default:
		w.err = w.cmd.Wait()
		close(w.ended)
	}
}

// alive is false for a process that has ended by itself while nobody looked.
func (w *process) alive() bool {
	return syscall.Kill(w.cmd.Process.Pid, 0) == nil && !zombie(w.cmd.Process.Pid)
}

// do has the process do a piece of work. After an error the process is of no use.
func (w *process) do(ctx context.Context, work []byte, l Limits) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, l.Timeout, ErrTimeout)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer stop(nil)
	watch.Go(func() { w.watch(ctx, l.Memory, stop) })
	// Whatever ends the context ends the process, and with it the reading below.
	kill := context.AfterFunc(ctx, func() { _ = w.cmd.Process.Kill() })
	defer kill()
	out, err := w.exchange(work, l)
	if err == nil {
		return out, nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	w.end()
	return nil, w.died(err)
}

func (w *process) exchange(work []byte, l Limits) ([]byte, error) {
	header := binary.BigEndian.AppendUint64(nil, uint64(l.Memory))
	if err := writeFrame(w.in, append(header, work...)); err != nil {
		return nil, err
	}
	return readFrame(w.out)
}

// died says why a process ended that nobody has ended.
func (w *process) died(err error) error {
	text := w.stderr.String()
	if strings.Contains(text, "out of memory") || strings.Contains(text, "cannot allocate memory") {
		return ErrMemory
	}
	if line, _, _ := strings.Cut(text, "\n"); line != "" {
		return &DiedError{Reason: line}
	}
	if w.err != nil {
		err = w.err
	}
	return &DiedError{Reason: err.Error()}
}

// watch ends work that uses too much memory.
func (w *process) watch(ctx context.Context, limit int64, stop context.CancelCauseFunc) {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if w.memory() > limit {
				stop(ErrMemory)
				return
			}
		}
	}
}

func (w *process) large() bool { return w.memory() > keepBelow }

// memory is what the process has for itself, in bytes.
func (w *process) memory() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.cmd.Process.Pid))
	if err != nil {
		return 0 // it has ended
	}
	_, rest, _ := bytes.Cut(b, []byte("RssAnon:"))
	fields := strings.Fields(string(rest[:min(len(rest), 40)]))
	if len(fields) == 0 {
		return 0
	}
	kilobytes, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return 0
	}
	return kilobytes << 10
}

// zombie: it has ended, and nobody has waited for it.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	i := bytes.LastIndexByte(b, ')') // proc(5): the name may hold anything
	return err != nil || i < 0 || len(b) < i+3 || b[i+2] == 'Z'
}

// head keeps the beginning of what is written: Go says why it ends before it
// lists what it was doing.
type head struct {
	mu sync.Mutex
	b  []byte
}

// Write implements io.Writer.
func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.b = append(h.b, p[:min(len(p), tailLength-len(h.b))]...)
	return len(p), nil
}

func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return string(h.b)
}

func writeFrame(w io.Writer, payload []byte) error {
	if len(payload) > maxFrame {
		return errors.New("more than 512 MiB at once")
	}
	if _, err := w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(payload)))); err != nil {
		return err
	}
	_, err := w.Write(payload)
	return err
}

func readFrame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxFrame {
		return nil, errors.New("the answer is longer than 512 MiB")
	}
	payload := make([]byte, n)
	_, err := io.ReadFull(r, payload)
	return payload, err
}
