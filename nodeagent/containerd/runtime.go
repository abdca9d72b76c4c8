package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/moby/sys/signal"

	"berth.dev/berth/nodeagent/pods"
)

// groupLabel is the annotation by which the runc shim groups containers, and
// our label of the same meaning (containerd, cmd/containerd-shim-runc-v2).
const groupLabel = "io.containerd.runc.v2.group"

// Options is what a Runtime needs. All fields must be set, but RuncPath.
type Options struct {
	// Address is containerd's socket.
	Address string
	// RuncPath is runc's path; empty: the one in containerd's PATH.
	RuncPath string
	// RuncRoot is where runc keeps its state.
	RuncRoot string
	// Daemon is the containerd at Address when it is ours, else nil: it is
	// started anew when it cannot mend itself.
	Daemon *Daemon
	Log    *slog.Logger
}

// Runtime runs containers with containerd.
type Runtime struct {
	opts   Options
	client *containerd.Client
	oomMin int
	sayOOM sync.Once

	mu     sync.Mutex
	images map[string]pods.Image // by target digest
}

var (
	_ pods.Runtime = (*Runtime)(nil)
	_ pods.Images  = (*Runtime)(nil)
	_ pods.Execer  = (*Runtime)(nil)
)

// Connect dials containerd. The connection mends itself when containerd restarts.
func Connect(opts Options) (*Runtime, error) {
	quiet()
	c, err := containerd.New(opts.Address, containerd.WithDefaultNamespace(namespace), containerd.WithTimeout(10*time.Second))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd at %s: %w", opts.Address, err)
	}
	return &Runtime{opts: opts, client: c, oomMin: oomFloor(), images: map[string]pods.Image{}}, nil
}

// Close ends the connection. Containers are not touched.
func (r *Runtime) Close() error { return r.client.Close() }

// Version is containerd's version.
func (r *Runtime) Version(ctx context.Context) (string, error) {
	v, err := r.client.Version(ctx)
	return v.Version, err
}

// startLimit is how long containerd may take to start a container. A containerd
// that was killed in the middle of a start may wait for that shim for ever; the
// caller tries again.
const startLimit = 30 * time.Second

var errStuck = errors.New("containerd did not start the container within " + startLimit.String())

// mend starts containerd anew when it has kept the remains of a start that
// failed: they would fail every further start of the container, and only its own start
// clears them away. Running containers do not notice.
func (r *Runtime) mend(id string) {
	if r.opts.Daemon == nil {
		return
	}
	remains := filepath.Join(r.opts.Daemon.Dir, "state", "io.containerd.runtime.v2.task", namespace, id)
	for range 10 { // what is being cleared away is gone in a moment
		if _, err := os.Stat(remains); err != nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	r.opts.Log.Warn("containerd keeps the remains of a failed start; it is started anew", "container", id)
	if err := r.opts.Daemon.Kill(); err != nil {
		r.opts.Log.Warn("end containerd", "err", err)
	}
}

// stuck names the limit when it is what ended a start.
func stuck(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errStuck) {
		return cause
	}
	return err
}

// Start implements pods.Runtime.
func (r *Runtime) Start(ctx context.Context, c pods.Container) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, errStuck)
	defer cancel()
	image, err := r.client.GetImage(ctx, c.Image.Name)
	if err != nil {
		return fmt.Errorf("find image %s: %w", c.Image.Name, err)
	}
	container, err := r.create(ctx, image, c)
	if err != nil {
		return err
	}
	task, err := container.NewTask(ctx, fileIO(c), containerd.WithNoNewKeyring)
	if err != nil {
		err = stuck(ctx, err)
		r.discard(container)
		r.mend(c.ID)
		return fmt.Errorf("create: %w", err)
	}
	if err := task.Start(ctx); err != nil {
		cleanup, cancel := detached()
		_, _ = task.Delete(cleanup, containerd.WithProcessKill)
		cancel()
		r.discard(container)
		return fmt.Errorf("run: %w", err)
	}
	return nil
}

func (r *Runtime) create(ctx context.Context, image containerd.Image, c pods.Container) (containerd.Container, error) {
	runc := &options.Options{BinaryName: r.opts.RuncPath, Root: r.opts.RuncRoot}
	opts := []containerd.NewContainerOpts{
		containerd.WithImage(image),
		containerd.WithSnapshotter(snapshotter),
		containerd.WithNewSnapshot(c.ID, image),
		containerd.WithRuntime("io.containerd.runc.v2", runc),
		containerd.WithContainerLabels(map[string]string{groupLabel: c.Group}),
		containerd.WithNewSpec(r.spec(c)),
	}
	container, err := r.client.NewContainer(ctx, c.ID, opts...)
	if errdefs.IsAlreadyExists(err) { // left by an agent that was killed while it created
		if err := r.Remove(ctx, c.ID); err != nil {
			return nil, err
		}
		container, err = r.client.NewContainer(ctx, c.ID, opts...)
	}
	if err != nil {
		r.dropSnapshot(c.ID)
		return nil, fmt.Errorf("prepare: %w", err)
	}
	return container, nil
}

func (r *Runtime) dropSnapshot(id string) {
	ctx, cancel := detached()
	defer cancel()
	if err := r.client.SnapshotService(snapshotter).Remove(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		r.opts.Log.Warn("remove snapshot", "container", id, "err", err)
	}
}

func (r *Runtime) discard(c containerd.Container) {
	ctx, cancel := detached()
	defer cancel()
	if err := c.Delete(ctx, containerd.WithSnapshotCleanup); err != nil && !errdefs.IsNotFound(err) {
		r.opts.Log.Warn("remove container", "container", c.ID(), "err", err)
	}
}

// detached is for cleaning up after a context has ended.
func detached() (context.Context, context.CancelFunc) {
	return context.WithTimeout(namespaces.WithNamespace(context.Background(), namespace), 30*time.Second)
}

// fileIO makes the shim append to the container's files. The shim's own scheme
// file:// would mix the two streams in one file; plain paths keep them apart.
func fileIO(c pods.Container) cio.Creator {
	return func(string) (cio.IO, error) {
		return files{cio.Config{Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr, Terminal: c.TTY}}, nil
	}
}

type files struct{ config cio.Config }

func (f files) Config() cio.Config { return f.config }
func (files) Cancel()              {}
func (files) Wait()                {}
func (files) Close() error         { return nil }

// Wait implements pods.Runtime.
func (r *Runtime) Wait(ctx context.Context, id string) (pods.Exit, error) {
	ctx = namespaces.WithNamespace(ctx, namespace)
	for {
		res, err := r.client.TaskService().Wait(ctx, &tasksapi.WaitRequest{ContainerID: id})
		switch {
		case err == nil:
			return pods.Exit{Code: res.ExitStatus, At: res.ExitedAt.AsTime(), OOM: r.oomKilled(ctx, id)}, nil
		case ctx.Err() != nil:
			return pods.Exit{}, ctx.Err()
		}
		err = resolve(err)
		if isNotFound(err) {
			return r.exitWithoutTask(ctx, id)
		}
		r.opts.Log.Debug("wait for a container again", "container", id, "err", err)
		sleep(ctx, 100*time.Millisecond)
	}
}

// exitWithoutTask tells a container whose shim has died, and containerd has
// cleaned up after it, from one that never was.
func (r *Runtime) exitWithoutTask(ctx context.Context, id string) (pods.Exit, error) {
	if _, err := r.client.ContainerService().Get(ctx, id); err != nil {
		if errdefs.IsNotFound(err) {
			return pods.Exit{}, pods.ErrNotFound
		}
		return pods.Exit{}, err
	}
	return pods.Exit{Code: 137, At: time.Now()}, nil
}

// Kill implements pods.Runtime.
func (r *Runtime) Kill(ctx context.Context, id, name string) error {
	sig, err := signal.ParseSignal(name)
	if err != nil {
		return err
	}
	ctx = namespaces.WithNamespace(ctx, namespace)
	_, err = r.client.TaskService().Kill(ctx, &tasksapi.KillRequest{ContainerID: id, Signal: uint32(sig), All: sig == syscall.SIGKILL})
	if err = resolve(err); err == nil || isNotFound(err) || errdefs.IsFailedPrecondition(err) {
		return nil
	}
	return fmt.Errorf("send %s: %w", name, err)
}

// Remove implements pods.Runtime.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	container, err := r.client.LoadContainer(ctx, id)
	if errdefs.IsNotFound(err) {
		r.dropSnapshot(id)
		return nil
	}
	if err != nil {
		return fmt.Errorf("load container %s: %w", id, err)
	}
	task, err := container.Task(ctx, nil)
	if err == nil {
		_, err = task.Delete(ctx, containerd.WithProcessKill)
	}
	if err != nil && !isNotFound(err) {
		return fmt.Errorf("end container %s: %w", id, err)
	}
	if err := container.Delete(ctx, containerd.WithSnapshotCleanup); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove container %s: %w", id, err)
	}
	return nil
}

// List implements pods.Runtime.
func (r *Runtime) List(ctx context.Context) ([]pods.Present, error) {
	ctx = namespaces.WithNamespace(ctx, namespace)
	containers, err := r.client.ContainerService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	tasks, err := r.client.TaskService().List(ctx, &tasksapi.ListTasksRequest{})
	if err != nil {
		return nil, fmt.Errorf("list tasks: %w", resolve(err))
	}
	states := map[string]pods.State{}
	for _, t := range tasks.Tasks {
		switch t.Status {
		case tasktypes.Status_RUNNING, tasktypes.Status_PAUSED, tasktypes.Status_PAUSING:
			states[t.ID] = pods.Running
		case tasktypes.Status_STOPPED:
			states[t.ID] = pods.Exited
		}
	}
	var out []pods.Present
	for _, c := range containers {
		state := pods.Created
		if s, ok := states[c.ID]; ok {
			state = s
		}
		out = append(out, pods.Present{ID: c.ID, Group: c.Labels[groupLabel], State: state})
	}
	return out, nil
}

// Exec implements pods.Execer.
func (r *Runtime) Exec(ctx context.Context, id string, command []string, out io.Writer) (int, error) {
	container, err := r.client.LoadContainer(ctx, id)
	if err != nil {
		return 0, err
	}
	spec, err := container.Spec(ctx)
	if err != nil {
		return 0, err
	}
	task, err := container.Task(ctx, nil)
	if err != nil {
		return 0, err
	}
	process := *spec.Process
	process.Args, process.Terminal = command, false
	execID := fmt.Sprintf("exec-%d", time.Now().UnixNano())
	cleanup, cancel := detached()
	defer cancel()
	p, err := task.Exec(ctx, execID, &process, cio.NewCreator(cio.WithStreams(nil, out, out), cio.WithFIFODir(filepath.Join(filepath.Dir(r.opts.RuncRoot), "exec"))))
	if err != nil {
		return 0, err
	}
	defer func() { _, _ = p.Delete(cleanup, containerd.WithProcessKill) }()
	exited, err := p.Wait(cleanup)
	if err != nil {
		return 0, err
	}
	if err := startProcess(p); err != nil {
		return 0, err
	}
	select {
	case status := <-exited:
		p.IO().Wait()
		return int(status.ExitCode()), status.Error()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// resolve turns an error of the wire into containerd's own.
func resolve(err error) error { return errgrpc.ToNative(err) }

func isNotFound(err error) bool { return errdefs.IsNotFound(err) || errors.Is(err, os.ErrNotExist) }
