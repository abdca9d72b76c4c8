package pods

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"berth.dev/berth/nodeagent/logs"
	"berth.dev/berth/nodeagent/usage"
)

// Attachable is a running container that somebody can attach to.
type Attachable struct {
	// ID is the container's in the runtime.
	ID       string
	Instance logs.Instance
	// Stdin is the FIFO that the container reads from; empty when it reads nothing.
	Stdin string
	// CloseStdin: the container sees the end of its input when the first client
	// goes away (stdinOnce).
	CloseStdin bool
	TTY        bool
}

// Attachable finds a running container of a pod.
func (r *Runner) Attachable(namespace, name, container string) (Attachable, error) {
	w, at := r.find(namespace, name)
	if at == nil {
		return Attachable{}, r.notHere(namespace, name)
	}
	c, id := containerOf(at.pod, container), at.running[container].id
	instance, err := at.find(container, false)
	// One that has just been started has no log yet.
	if c == nil && err == nil || c != nil && id == "" || errors.Is(err, logs.ErrNoLog) {
		return Attachable{}, fmt.Errorf("container %s of pod %s/%s is not running", container, namespace, name)
	}
	if err != nil {
		return Attachable{}, err
	}
	out := Attachable{ID: id, Instance: instance, CloseStdin: c.StdinOnce && !c.TTY, TTY: c.TTY}
	if c.Stdin {
		out.Stdin = w.stdin(container)
	}
	return out, nil
}

// Running lists the containers that run, for measuring them.
func (r *Runner) Running() []usage.Container {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []usage.Container
	for uid, w := range r.workers {
		at := w.logOf.Load()
		if at == nil {
			continue
		}
		for name, c := range at.running {
			out = append(out, usage.Container{
				ID: c.id, PodUID: uid, Namespace: at.namespace, PodName: at.name, Name: name,
				Cgroup: path.Join(r.cgroup(string(uid)), c.id), Started: c.started,
			})
		}
	}
	return out
}

// stdin is where a container reads from.
func (w *worker) stdin(name string) string {
	return filepath.Join(w.r.records.dir, w.uid, name+".stdin")
}

// makeStdin makes the FIFO that a container reads from. The shim keeps it open:
// a client that goes away, or an agent that ends, is no end of the input.
func (w *worker) makeStdin(name string) (string, error) {
	path := w.stdin(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("make the folder of a container's input: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("remove a former container's input: %w", err)
	}
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return "", fmt.Errorf("make a container's input: %w", err)
	}
	return path, nil
}
