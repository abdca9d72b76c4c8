package podstest

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"berth.dev/berth/nodeagent/pods"
)

// Fake runs containers in name only. A container's program says what it does:
// "sleep" runs until a signal, "exit N" ends with N, all else is not there.
type Fake struct {
	mu         sync.Mutex
	containers map[string]*fakeContainer
	// Images are the images that are there, by reference.
	Known map[string]pods.Image
}

type fakeContainer struct {
	spec  pods.Container
	ended chan struct{}
	exit  pods.Exit
}

var (
	_ pods.Runtime = (*Fake)(nil)
	_ pods.Images  = (*Fake)(nil)
	_ pods.Execer  = (*Fake)(nil)
)

// NewFake returns a Fake without containers.
func NewFake() *Fake {
	return &Fake{containers: map[string]*fakeContainer{}, Known: map[string]pods.Image{}}
}

// Start implements pods.Runtime.
func (f *Fake) Start(_ context.Context, c pods.Container) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.containers[c.ID] != nil {
		return fmt.Errorf("container %s is there already", c.ID)
	}
	fc := &fakeContainer{spec: c, ended: make(chan struct{})}
	switch {
	case len(c.Args) == 1 && c.Args[0] == "sleep":
	case len(c.Args) == 2 && c.Args[0] == "exit":
		code, err := strconv.Atoi(c.Args[1])
		if err != nil {
			return err
		}
		fc.end(uint32(code))
	default:
		return fmt.Errorf("no such program: %q", c.Args)
	}
	f.containers[c.ID] = fc
	return nil
}

func (c *fakeContainer) end(code uint32) {
	select {
	case <-c.ended:
	default:
		c.exit = pods.Exit{Code: code, At: time.Now()}
		close(c.ended)
	}
}

func (f *Fake) find(id string) *fakeContainer {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.containers[id]
}

// Wait implements pods.Runtime.
func (f *Fake) Wait(ctx context.Context, id string) (pods.Exit, error) {
	c := f.find(id)
	if c == nil {
		return pods.Exit{}, pods.ErrNotFound
	}
	select {
	case <-c.ended:
		return c.exit, nil
	case <-ctx.Done():
		return pods.Exit{}, ctx.Err()
	}
}

// Kill implements pods.Runtime.
func (f *Fake) Kill(_ context.Context, id, signal string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.containers[id]; c != nil {
		c.end(map[string]uint32{"SIGKILL": 137}[signal])
	}
	return nil
}

// End ends a container from outside, as if its program had.
func (f *Fake) End(id string, code uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.containers[id]; c != nil {
		c.end(code)
	}
}

// Remove implements pods.Runtime.
func (f *Fake) Remove(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.containers[id]; c != nil {
		c.end(137)
		delete(f.containers, id)
	}
	return nil
}

// List implements pods.Runtime.
func (f *Fake) List(context.Context) ([]pods.Present, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []pods.Present
	for id, c := range f.containers {
		state := pods.Running
		select {
		case <-c.ended:
			state = pods.Exited
		default:
		}
		out = append(out, pods.Present{ID: id, Group: c.spec.Group, State: state})
	}
	return out, nil
}

// Image implements pods.Images.
func (f *Fake) Image(_ context.Context, ref string) (pods.Image, error) {
	if image, ok := f.Known[ref]; ok {
		return image, nil
	}
	return pods.Image{}, pods.ErrNoImage
}

// Pull implements pods.Images: there is no registry.
func (f *Fake) Pull(_ context.Context, ref string, _ []pods.Credential) (pods.Image, error) {
	return pods.Image{}, fmt.Errorf("pull %s: there is no registry", ref)
}

// Exec implements pods.Execer: every command ends with 0.
func (f *Fake) Exec(context.Context, string, []string, io.Writer) (int, error) { return 0, nil }
