package pods

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/nodeagent/logs"
)

// adopt begins a worker for each pod on disk, finds its containers again, and
// removes what belongs to no pod. It needs no control plane.
func (r *Runner) adopt(ctx context.Context) error {
	all, broken, err := r.records.load()
	if err != nil {
		return err
	}
	for _, file := range broken {
		r.Log.Error("a pod's record cannot be read; it is set aside and the pod is started anew", "file", file+".broken")
	}
	present, err := r.Runtime.List(ctx)
	if err != nil {
		return err
	}
	states := map[string]State{}
	for _, p := range present {
		states[p.ID] = p.State
	}
	var uids []string
	known := map[string]bool{}
	for _, rec := range all {
		uid := string(rec.Pod.UID)
		if !rec.Done {
			uids = append(uids, uid)
		}
		for _, c := range rec.Containers {
			known[c.ID] = true
		}
	}
	for _, p := range present {
		if !known[p.ID] {
			if err := r.Runtime.Remove(ctx, p.ID); err != nil {
				r.Log.Warn("remove a container that belongs to no pod", "container", p.ID, "err", err)
			}
		}
	}
	if err := r.Network.Known(ctx, uids); err != nil {
		r.Log.Warn("release the network of pods that are gone", "err", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var resumed sync.WaitGroup
	for _, rec := range all {
		w := r.newWorker(rec)
		r.workers[types.UID(w.uid)] = w
		resumed.Add(1)
		r.group.Go(func() error {
			w.resume(r.ctx, states)
			w.noteLogs()
			resumed.Done()
			r.mu.Lock()
			defer r.mu.Unlock()
			r.spawn(w)
			return nil
		})
	}
	// Before that, a log would seem to have ended and a container not to run.
	r.group.Go(func() error {
		resumed.Wait()
		close(r.adopted)
		return nil
	})
	return nil
}

// resume takes up the containers of a record.
func (w *worker) resume(ctx context.Context, states map[string]State) {
	w.stopping = false // a stop that was under way begins again
	w.r.Config.Use(ctx, w.pod)
	for _, c := range allContainers(w.pod) {
		rec := w.rec.Containers[c.Name]
		if rec == nil || rec.ID == "" {
			continue
		}
		if err := w.r.Logs.Adopt(w.instance(c.Name, rec.Restarts)); err != nil {
			w.r.Log.Warn("go on with a container's log", "pod", w.name(), "container", c.Name, "err", err)
		}
		state, there := states[rec.ID]
		switch {
		case there && (state != Created || rec.Started != nil):
			if rec.Started == nil { // it was started just before the agent ended
				now := metav1.NewTime(w.r.Clock.Now())
				rec.Started = &now
			}
			w.watch(ctx, c)
		case rec.Started == nil: // the start was cut short and is done again
			if err := w.r.Runtime.Remove(ctx, rec.ID); err != nil {
				w.r.Log.Warn("remove a container that was not started", "pod", w.name(), "container", c.Name, "err", err)
			}
			rec.Exit, rec.ID = rec.Last, ""
			if rec.Exit != nil {
				rec.Restarts--
			}
		default: // the machine was restarted
			w.running[c.Name] = &run{id: rec.ID, cancel: func() {}, ended: make(chan struct{})}
			w.ended(ctx, exitMail{name: c.Name, id: rec.ID, exit: Exit{Code: 255, At: w.r.Clock.Now()}})
		}
	}
}

// logNames is what log reading must know of a pod; it is replaced, never changed.
type logNames struct {
	namespace, name string
	pod             *corev1.Pod
	runs            map[string]int
	running         map[string]live // by container
}

// live is a container that runs.
type live struct {
	id      string
	started time.Time
}

func (n *logNames) find(container string, previous bool) (logs.Instance, error) {
	names := slices.Sorted(maps.Keys(n.runs))
	if container == "" && len(n.pod.Spec.Containers) == 1 {
		container = n.pod.Spec.Containers[0].Name
	}
	restart, ok := n.runs[container]
	if !ok {
		if containerOf(n.pod, container) != nil {
			return logs.Instance{}, &WaitError{Reason: reasonCreating, Message: fmt.Sprintf("container %q in pod %q is waiting to start: %s", container, n.name, reasonCreating)}
		}
		return logs.Instance{}, fmt.Errorf("container %q is not in pod %s/%s: it has %s", container, n.namespace, n.name, strings.Join(names, ", "))
	}
	if previous {
		restart--
	}
	if restart < 0 {
		return logs.Instance{}, fmt.Errorf("previous terminated container %q in pod %q not found", container, n.name)
	}
	return logs.Instance{Pod: LogFolder(n.pod), Container: container, Restart: restart}, nil
}

// noteLogs publishes where the pod's logs are.
func (w *worker) noteLogs() {
	n := &logNames{namespace: w.pod.Namespace, name: w.pod.Name, pod: w.pod, runs: map[string]int{}, running: map[string]live{}}
	for name, rec := range w.rec.Containers {
		if rec.ID != "" || rec.Exit != nil {
			n.runs[name] = rec.Restarts
		}
	}
	for name, r := range w.running {
		n.running[name] = live{r.id, w.rec.container(name).Start()}
	}
	w.logOf.Store(n)
}
