package pods

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/event"
	"berth.dev/berth/nodeagent/logs"
)

// Options is what a Runner needs. All fields must be set.
type Options struct {
	Client   client.Client
	NodeName string
	NodeIP   netip.Addr
	// NodeMemory is the node's memory in bytes.
	NodeMemory int64
	Runtime    Runtime
	Images     Images
	Exec       Execer
	Network    Network
	Volumes    Volumes
	Config     Config
	Links      ServiceLinks
	Logs       *logs.Collector
	Events     *event.Recorder
	// Dir holds the records, CgroupParent the pods' control groups, such as "berth".
	Dir, CgroupParent string
	// DNS is the name server of the pods, Domain the cluster's domain.
	DNS    netip.Addr
	Domain string
	// Starts is how many containers are started at once.
	Starts int
	Clock  clock.PassiveClock
	Log    *slog.Logger
}

// Runner runs the pods that are bound to its node.
type Runner struct {
	Options
	records   records
	publisher *publisher
	slots     chan struct{}
	group     *errgroup.Group
	ctx       context.Context
	events    chan func(context.Context)
	adopted   chan struct{}

	mu      sync.Mutex
	workers map[types.UID]*worker
}

// New readies a Runner.
func New(opts Options) *Runner {
	return &Runner{
		Options: opts, records: records{opts.Dir}, publisher: newPublisher(opts.Client, opts.Log),
		slots: make(chan struct{}, max(1, opts.Starts)), workers: map[types.UID]*worker{}, events: make(chan func(context.Context), 4096), adopted: make(chan struct{}),
	}
}

// Run adopts what runs and follows the cluster until the context ends. Pods are
// left running.
func (r *Runner) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	r.group, r.ctx = group, ctx
	if err := r.adopt(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	group.Go(func() error { return r.publisher.run(ctx) })
	group.Go(func() error { return r.tellAll(ctx) })
	group.Go(func() error {
		return client.Follow(ctx, r.Client, &corev1.PodList{}, client.ListOptions{
			Fields: fields.OneTermEqualSelector("spec.nodeName", r.NodeName),
		}, &follower{r: r, seen: map[types.UID]bool{}})
	})
	return group.Wait()
}

// Adopted is closed when the pods on disk and their containers have been taken up.
func (r *Runner) Adopted() <-chan struct{} { return r.adopted }

// ConfigChanged tells pods that a ConfigMap or Secret of theirs has changed.
func (r *Runner) ConfigChanged(uids []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, uid := range uids {
		if w := r.workers[types.UID(uid)]; w != nil {
			w.inbox.put(func(m *mail) { m.config = true })
		}
	}
}

// follower hands what happens to Pods to their workers.
type follower struct {
	r      *Runner
	seen   map[types.UID]bool
	synced bool
}

func (f *follower) Set(obj client.Object) {
	pod := obj.(*corev1.Pod)
	if !f.synced {
		f.seen[pod.UID] = true
	}
	r := f.r
	r.mu.Lock()
	w := r.workers[pod.UID]
	if w == nil {
		w = r.newWorker(newRecord(pod, r.Clock.Now()))
		w.noteLogs()
		r.spawn(w)
	}
	r.mu.Unlock()
	w.inbox.put(func(m *mail) { m.pod = pod })
	r.publisher.contradict(pod)
}

func (f *follower) Gone(obj client.Object) { f.r.lost(obj.GetUID()) }

// Synced ends the pods that were deleted while no agent was here to see it.
func (f *follower) Synced() {
	f.r.mu.Lock()
	var lost []types.UID
	for uid := range f.r.workers {
		if !f.seen[uid] {
			lost = append(lost, uid)
		}
	}
	f.r.mu.Unlock()
	f.synced, f.seen = true, nil
	for _, uid := range lost {
		f.r.lost(uid)
	}
}

func (r *Runner) lost(uid types.UID) {
	r.mu.Lock()
	w := r.workers[uid]
	r.mu.Unlock()
	if w != nil {
		w.inbox.put(func(m *mail) { m.gone = true })
	}
}

// spawn starts a worker. The caller holds r.mu.
func (r *Runner) spawn(w *worker) {
	uid := types.UID(w.uid)
	r.workers[uid] = w
	r.group.Go(func() error {
		w.loop(r.ctx)
		if r.ctx.Err() == nil {
			r.mu.Lock()
			delete(r.workers, uid)
			r.mu.Unlock()
			r.publisher.forget(uid)
			r.Config.Drop(r.ctx, w.uid)
		}
		return nil
	})
}

// slot waits for the right to do what is heavy.
func (r *Runner) slot(ctx context.Context) (release func(), ok bool) {
	select {
	case r.slots <- struct{}{}:
		return func() { <-r.slots }, true
	case <-ctx.Done():
		return nil, false
	}
}

// tell queues an event; one more than can be held is dropped, for events
// must not hold pods up.
func (r *Runner) tell(_ context.Context, f func(context.Context)) {
	select {
	case r.events <- f:
	default:
		r.Log.Warn("too many events wait for the control plane; one is dropped")
	}
}

func (r *Runner) tellAll(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case f := <-r.events:
			f(ctx)
		}
	}
}

// publish hands the pod's status to the publisher.
func (w *worker) publish() {
	if w.gone || terminal(w.pod) { // its last word is said
		return
	}
	running := map[string]bool{}
	for name := range w.running {
		running[name] = true
	}
	next := *w.pod
	next.Status = status(view{
		pod: w.pod, rec: w.rec, running: running, waiting: w.waiting, answers: w.answers,
		sandbox: w.ready, nodeIP: w.r.NodeIP.String(), now: w.r.Clock.Now(),
	})
	w.r.publisher.put(&next, &w.pod.Status)
}

func (r *Runner) cgroup(uid string) string { return "/" + r.CgroupParent + "/pod" + uid }

// removeCgroup removes what runc leaves of a pod's control group.
func (r *Runner) removeCgroup(uid string) {
	for _, pattern := range []string{"/sys/fs/cgroup/*" + r.cgroup(uid), "/sys/fs/cgroup" + r.cgroup(uid)} {
		dirs, _ := filepath.Glob(pattern)
		for _, dir := range dirs {
			_ = os.Remove(dir)
		}
	}
}

func (r *Runner) hostResolv() string {
	data, _ := os.ReadFile("/etc/resolv.conf")
	return string(data)
}

// Find returns the record of a pod's container for reading its log.
func (r *Runner) Find(namespace, name, container string, previous bool) (logs.Instance, error) {
	_, at := r.find(namespace, name)
	if at == nil {
		return logs.Instance{}, r.notHere(namespace, name)
	}
	return at.find(container, previous)
}

// find is the worker of a pod and what it has published; nil when there is none.
// Of two of one name, one of which still ends, it is the younger.
func (r *Runner) find(namespace, name string) (found *worker, its *logNames) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.workers {
		at := w.logOf.Load()
		if at == nil || at.namespace != namespace || at.name != name {
			continue
		}
		if its == nil || its.pod.CreationTimestamp.Before(&at.pod.CreationTimestamp) {
			found, its = w, at
		}
	}
	return found, its
}

func (r *Runner) notHere(namespace, name string) error {
	return fmt.Errorf("pod %s/%s is not on node %s", namespace, name, r.NodeName)
}

func metaOf(pod *corev1.Pod) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}
}
