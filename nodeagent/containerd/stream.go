package containerd

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
)

// drainLimit is how long the output of a process that has ended is waited for:
// something that it started may hold its end open.
const drainLimit = 2 * time.Second

// Process is a further process in a container, with a person at its other end.
type Process struct {
	Command []string
	// TTY gives it a terminal; Stderr is unused then.
	TTY bool
	Terminal
}

// Terminal is what a person sees and types.
type Terminal struct {
	// Stdin may be nil, as may what is not to be seen.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Resize blocks until the terminal has a new size, in characters; false ends it. May be nil.
	Resize func() (width, height uint16, ok bool)
}

// Attend runs a process in a container until it ends, and returns its exit
// code. A done context kills the process: who looks away leaves nothing running.
func (r *Runtime) Attend(ctx context.Context, id string, p Process) (int, error) {
	container, err := r.client.LoadContainer(ctx, id)
	if err != nil {
		return 0, fmt.Errorf("find container %s: %w", id, err)
	}
	spec, err := container.Spec(ctx)
	if err != nil {
		return 0, err
	}
	task, err := container.Task(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("find the running container %s: %w", id, err)
	}
	process := *spec.Process
	process.Args, process.Terminal = p.Command, p.TTY
	if p.TTY {
		process.Env = append(append([]string{}, process.Env...), "TERM=xterm")
	}
	// The shim cannot do without files to write to.
	if p.Stdout == nil {
		p.Stdout = io.Discard
	}
	if p.Stderr == nil {
		p.Stderr = io.Discard
	}
	var end chan struct{}
	if p.Stdin != nil {
		end = make(chan struct{})
		p.Stdin = &ending{Reader: p.Stdin, end: end}
	}
	options := []cio.Opt{cio.WithFIFODir(filepath.Join(filepath.Dir(r.opts.RuncRoot), "exec"))}
	if p.TTY {
		options = append(options, cio.WithStreams(p.Stdin, p.Stdout, nil), cio.WithTerminal)
	} else {
		options = append(options, cio.WithStreams(p.Stdin, p.Stdout, p.Stderr))
	}
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	exec, err := task.Exec(ctx, fmt.Sprintf("exec-%d", time.Now().UnixNano()), &process, cio.NewCreator(options...))
	if err != nil {
		return 0, err
	}
	defer func() {
		cleanup, cancel := detached()
		defer cancel()
		_, _ = exec.Delete(cleanup, containerd.WithProcessKill) // it may have ended
	}()
	// The wait outlives a long session; it ends with the process.
	exited, err := exec.Wait(context.WithoutCancel(ctx))
	if err != nil {
		return 0, err
	}
	// Not with ctx: a start that is given up half way leaves a process that
	// nobody knows of.
	if err := startProcess(exec); err != nil {
		return 0, fmt.Errorf("start %s: %w", p.Command[0], err)
	}
	if p.Resize != nil {
		go resize(ctx, exec, p.Resize)
	}
	if end != nil {
		go func() {
			select {
			case <-end:
				_ = exec.CloseIO(ctx, containerd.WithStdinCloser) // it may have ended
			case <-ctx.Done():
			}
		}()
	}
	select {
	case status := <-exited:
		drained := make(chan struct{})
		go func() {
			exec.IO().Wait()
			close(drained)
		}()
		select {
		case <-drained:
		case <-time.After(drainLimit):
			exec.IO().Cancel()
		}
		return int(status.ExitCode()), status.Error()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// ending tells when a reader has come to its end: only then may the process
// see the end of its input.
type ending struct {
	io.Reader
	once sync.Once
	end  chan struct{}
}

// Read implements io.Reader.
func (e *ending) Read(b []byte) (int, error) {
	n, err := e.Reader.Read(b)
	if err != nil {
		e.once.Do(func() { close(e.end) })
	}
	return n, err
}

// startProcess starts a process whatever becomes of who asked for it.
func startProcess(p containerd.Process) error {
	ctx, cancel := detached()
	defer cancel()
	return p.Start(ctx)
}

// CloseStdin lets a container see the end of its input.
func (r *Runtime) CloseStdin(id string) error {
	ctx, cancel := detached()
	defer cancel()
	_, err := r.client.TaskService().CloseIO(ctx, &tasksapi.CloseIORequest{ContainerID: id, Stdin: true})
	if err = resolve(err); err != nil && !isNotFound(err) {
		return fmt.Errorf("close the input of container %s: %w", id, err)
	}
	return nil
}

// Resize gives a container's terminal new sizes until next says false or the
// context is done.
func (r *Runtime) Resize(ctx context.Context, id string, next func() (width, height uint16, ok bool)) {
	container, err := r.client.LoadContainer(ctx, id)
	if err != nil {
		return // it has ended
	}
	if task, err := container.Task(ctx, nil); err == nil {
		resize(ctx, task, next)
	}
}

func resize(ctx context.Context, p interface {
	Resize(ctx context.Context, w, h uint32) error
}, next func() (uint16, uint16, bool)) {
	for {
		width, height, ok := next()
		if !ok {
			return
		}
		if p.Resize(ctx, uint32(width), uint32(height)) != nil {
			return // it has ended
		}
	}
}
