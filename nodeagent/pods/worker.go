package pods

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/nodeagent/logs"
)

// Reasons that a container waits, besides those of images.
const (
	reasonCreating    = "ContainerCreating"
	reasonInit        = "PodInitializing"
	reasonCrashLoop   = "CrashLoopBackOff"
	reasonConfigError = "CreateContainerConfigError"
	reasonSetup       = "FailedCreatePodSandBox"
	reasonMount       = "FailedMount"
)

// retryFirst and retryMax bound the waits after a failure to prepare a pod.
const (
	retryFirst = time.Second
	retryMax   = time.Minute
)

// worker brings one pod to what it should be.
type worker struct {
	r     *Runner
	inbox *inbox
	uid   string

	pod *corev1.Pod // as it is in the cluster now
	rec *record

	ready    bool // namespaces, address and volumes are there
	attached Attachment
	volumes  map[string]string
	etc      []Mount
	running  map[string]*run
	waiting  map[string]wait // why a container does not run
	pulls    map[string]*pull
	stopping bool
	gone     bool
	torn     bool
	retry    time.Duration
	retryAt  time.Time
	answers  map[string]string // the last answer of a readiness or startup probe
	said     map[string]bool
	saved    uint64 // of the record on disk
	logOf    atomic.Pointer[logNames]
}

// wait is why a container does not run.
type wait struct{ reason, message string }

func (r *Runner) newWorker(rec *record) *worker {
	return &worker{
		r: r, inbox: newInbox(), uid: string(rec.Pod.UID), pod: rec.Pod, rec: rec,
		running: map[string]*run{}, waiting: map[string]wait{}, pulls: map[string]*pull{},
		answers: map[string]string{}, said: map[string]bool{},
	}
}

// loop serves the pod until it is gone or the context ends. Containers are left
// running when the context ends.
func (w *worker) loop(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.r.Config.Use(ctx, w.pod)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.inbox.notify:
		case <-timer.C:
		}
		w.open(ctx, w.inbox.take())
		if w.step(ctx) {
			return
		}
		if ctx.Err() != nil {
			return
		}
		w.noteLogs()
		w.publish()
		timer.Reset(w.next())
	}
}

// open takes the mail in.
func (w *worker) open(ctx context.Context, m mail) {
	if m.pod != nil {
		w.pod = m.pod
		w.rec.Pod = m.pod
		w.r.Config.Use(ctx, m.pod)
	}
	w.gone = w.gone || m.gone
	if m.config && w.ready && !w.torn {
		w.refresh(ctx)
	}
	if m.config {
		w.retryAt = time.Time{}
	}
	for _, e := range m.exits {
		w.ended(ctx, e)
	}
	for _, p := range m.probes {
		w.probed(ctx, p)
	}
	for _, p := range m.pulls {
		w.pulled(ctx, p)
	}
}

// step moves the pod on and tells whether it is gone for good.
func (w *worker) step(ctx context.Context) (done bool) {
	switch {
	case w.gone || w.pod.DeletionTimestamp != nil:
		return w.terminate(ctx)
	case w.rec.Done || terminal(w.pod):
		w.rec.Done = true
		w.release(ctx)
		w.save()
		return false
	}
	if w.prepare(ctx) {
		w.advance(ctx)
		if finished(w.pod, w.rec) {
			w.rec.Done = true
			w.release(ctx)
		}
	}
	w.save()
	return false
}

func (w *worker) save() {
	if err := w.r.records.save(w.rec, &w.saved); err != nil {
		w.r.Log.Error("keep the pod's record", "pod", w.name(), "err", err)
	}
}

func (w *worker) name() string { return w.pod.Namespace + "/" + w.pod.Name }

// prepare makes what the containers need around them.
func (w *worker) prepare(ctx context.Context) bool {
	if w.ready {
		return true
	}
	if now := w.r.Clock.Now(); now.Before(w.retryAt) {
		return false
	}
	err := w.setup(ctx)
	if err == nil {
		w.ready, w.retry = true, 0
		return true
	}
	if ctx.Err() == nil {
		w.unprepared(ctx, err)
	}
	return false
}

func (w *worker) setup(ctx context.Context) error {
	var err error
	if w.attached, err = w.r.Network.Setup(ctx, w.sandbox()); err != nil {
		return &setupError{reasonSetup, err}
	}
	w.rec.IP = w.attached.IP
	if w.pod.Spec.HostNetwork {
		w.rec.IP = w.r.NodeIP
	}
	w.save() // the address is the pod's from here on
	if w.volumes, err = w.r.Volumes.Setup(ctx, w.pod, w.rec.IP); err != nil {
		return &setupError{reasonMount, err}
	}
	files := etcFiles(w.pod, w.rec.IP, w.r.Domain, w.r.DNS, w.r.hostResolv())
	if w.etc, err = writeEtc(filepath.Join(w.r.records.dir, w.uid, "etc"), files); err != nil {
		return &setupError{reasonSetup, err}
	}
	return nil
}

type setupError struct {
	reason string
	err    error
}

func (e *setupError) Error() string { return e.err.Error() }
func (e *setupError) Unwrap() error { return e.err }

// unprepared says why the pod waits, and when it is tried again.
func (w *worker) unprepared(ctx context.Context, err error) {
	reason := reasonSetup
	var failed *setupError
	if errors.As(err, &failed) {
		reason = failed.reason
	}
	var waits *WaitError
	if errors.As(err, &waits) && waits.Reason != "" {
		reason = waits.Reason
	}
	w.retry = min(max(2*w.retry, retryFirst), retryMax)
	w.retryAt = w.r.Clock.Now().Add(w.retry)
	for _, c := range allContainers(w.pod) {
		w.waiting[c.Name] = wait{reasonCreating, err.Error()}
	}
	w.sayOnce(ctx, corev1.EventTypeWarning, reason, err.Error())
}

// sandbox is what the network must know of the pod.
func (w *worker) sandbox() Sandbox {
	s := Sandbox{
		UID: w.uid, Namespace: w.pod.Namespace, Name: w.pod.Name, Hostname: hostname(w.pod),
		HostNetwork: w.pod.Spec.HostNetwork, HostIPC: w.pod.Spec.HostIPC,
	}
	for _, c := range w.pod.Spec.Containers {
		for _, p := range c.Ports {
			port := p.HostPort
			if w.pod.Spec.HostNetwork {
				port = p.ContainerPort
			}
			if port != 0 {
				s.Ports = append(s.Ports, HostPort{HostIP: addr(p.HostIP), Port: uint16(port), ContainerPort: uint16(p.ContainerPort), Protocol: p.Protocol})
			}
		}
	}
	return s
}

// refresh brings mounted ConfigMaps and Secrets up to date.
func (w *worker) refresh(ctx context.Context) {
	if _, err := w.r.Volumes.Setup(ctx, w.pod, w.rec.IP); err != nil && ctx.Err() == nil {
		w.sayOnce(ctx, corev1.EventTypeWarning, reasonMount, "keep the mounted files as they are: "+err.Error())
	}
}

// next is how long the worker can sleep.
func (w *worker) next() time.Duration {
	const long = time.Hour
	now := w.r.Clock.Now()
	out := long
	at := func(t time.Time) {
		if !t.IsZero() {
			out = min(out, max(t.Sub(now), time.Millisecond))
		}
	}
	if w.rec.Done || w.stopping {
		return long
	}
	if !w.ready {
		at(w.retryAt)
		return out
	}
	for name := range w.waiting {
		if p := w.pulls[name]; p != nil && !p.running {
			at(p.until)
		}
		if c := w.rec.Containers[name]; c != nil && c.Until.After(now) {
			at(c.Until)
		}
	}
	if limit := w.pod.Spec.ActiveDeadlineSeconds; limit != nil {
		at(w.rec.Start.Add(time.Duration(*limit) * time.Second))
	}
	return out
}

// release gives back what a pod holds whose containers have all ended. The logs
// stay until the Pod is deleted.
func (w *worker) release(ctx context.Context) {
	if w.torn {
		return
	}
	for _, c := range w.rec.Containers {
		if c.ID != "" {
			if err := w.r.Runtime.Remove(ctx, c.ID); err != nil {
				w.r.Log.Warn("remove a container", "pod", w.name(), "err", err)
				return
			}
		}
	}
	err := errors.Join(w.r.Network.Teardown(ctx, w.uid), w.r.Volumes.Teardown(ctx, w.uid))
	w.r.removeCgroup(w.uid)
	if err != nil {
		w.r.Log.Error("release the pod", "pod", w.name(), "err", err)
		return
	}
	w.torn, w.ready = true, false
	w.r.Config.Drop(ctx, w.uid)
}

func (w *worker) instance(name string, restart int) logs.Instance {
	return logs.Instance{Pod: LogFolder(w.pod), Container: name, Restart: restart}
}

// LogFolder is the name of the folder of a pod's logs.
func LogFolder(pod *corev1.Pod) string {
	return pod.Namespace + "_" + pod.Name + "_" + string(pod.UID)
}

func (w *worker) say(ctx context.Context, kind, reason, message string) {
	gvk := corev1.SchemeGroupVersion.WithKind("Pod")
	pod := metav1.ObjectMeta{Namespace: w.pod.Namespace, Name: w.pod.Name, UID: w.pod.UID}
	w.r.tell(ctx, func(ctx context.Context) {
		if kind == corev1.EventTypeWarning {
			w.r.Events.Warning(ctx, gvk, &pod, reason, "%s", message)
		} else {
			w.r.Events.Normal(ctx, gvk, &pod, reason, "%s", message)
		}
	})
}

// sayOnce does not repeat itself.
func (w *worker) sayOnce(ctx context.Context, kind, reason, message string) {
	if key := reason + "\x00" + message; !w.said[key] {
		w.said[key] = true
		w.say(ctx, kind, reason, message)
	}
}
