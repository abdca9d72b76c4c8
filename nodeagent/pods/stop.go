package pods

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/nodeagent/probe"
)

// terminate stops a pod that is being deleted and tells when nothing is left.
func (w *worker) terminate(ctx context.Context) (done bool) {
	for _, p := range w.pulls {
		if p.running {
			p.cancel()
		}
	}
	w.pulls = map[string]*pull{}
	w.waiting = map[string]wait{}
	w.rec.Stopping = true
	grace := w.grace()
	if !w.stopping || grace == 0 {
		w.stopping = true
		for _, c := range allContainers(w.pod) {
			if r := w.running[c.Name]; r != nil {
				w.stop(ctx, c, r, grace, "Stopping container "+c.Name)
			}
		}
	}
	if len(w.running) > 0 {
		w.save()
		return false
	}
	w.rec.Done = true
	w.release(ctx)
	if !w.torn {
		return false // tried again when something comes
	}
	if w.gone {
		if err := errors.Join(w.r.records.remove(w.uid), w.r.Logs.Remove(LogFolder(w.pod))); err != nil {
			w.r.Log.Error("forget the pod", "pod", w.name(), "err", err)
		}
		return true
	}
	w.save()
	w.publish()
	w.r.publisher.delete(w.pod)
	return false
}

// grace is how long the containers may take.
func (w *worker) grace() time.Duration {
	if w.gone {
		return 0
	}
	seconds := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if s := w.pod.Spec.TerminationGracePeriodSeconds; s != nil {
		seconds = *s
	}
	if s := w.pod.DeletionGracePeriodSeconds; s != nil {
		seconds = *s
	}
	return time.Duration(max(seconds, 0)) * time.Second
}

// stop ends a container: preStop, its stop signal, and SIGKILL when its time is
// over. It does not wait; the exit comes as mail.
func (w *worker) stop(ctx context.Context, c *corev1.Container, r *run, grace time.Duration, why string) {
	if r.stopped != "" && grace > 0 {
		return
	}
	if r.stopped == "" {
		w.say(ctx, corev1.EventTypeNormal, "Killing", why)
	}
	r.stopped = why
	r.cancel()
	rec := w.rec.container(c.Name)
	signal, ip := rec.Image.StopSignal, w.rec.IP.String()
	if signal == "" {
		signal = "SIGTERM"
	}
	hook := c.Lifecycle
	w.r.group.Go(func() error {
		bounded, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		if grace > 0 {
			if hook != nil && hook.PreStop != nil {
				if err := w.hook(bounded, c, hook.PreStop, r, ip); err != nil && bounded.Err() == nil {
					w.say(ctx, corev1.EventTypeWarning, "FailedPreStopHook", fmt.Sprintf("preStop of container %s: %s", c.Name, err))
				}
			}
			w.kill(ctx, r, signal)
			select {
			case <-r.ended:
				return nil
			case <-bounded.Done():
			}
		}
		if ctx.Err() == nil {
			w.kill(ctx, r, "SIGKILL")
		}
		return nil
	})
}

func (w *worker) kill(ctx context.Context, r *run, signal string) {
	select {
	case <-r.ended:
		return
	default:
	}
	if err := w.r.Runtime.Kill(ctx, r.id, signal); err != nil && ctx.Err() == nil {
		w.r.Log.Warn("stop a container", "pod", w.name(), "container", r.id, "err", err)
	}
}

// hook carries out a preStop or postStart.
func (w *worker) hook(ctx context.Context, c *corev1.Container, h *corev1.LifecycleHandler, r *run, ip string) error {
	switch {
	case h.Exec != nil:
		code, err := w.r.Exec.Exec(ctx, r.id, h.Exec.Command, discard{})
		if err == nil && code != 0 {
			err = fmt.Errorf("command ended with %d", code)
		}
		return err
	case h.Sleep != nil:
		t := time.NewTimer(time.Duration(h.Sleep.Seconds) * time.Second)
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.ended:
		case <-ctx.Done():
		}
		return nil
	case h.HTTPGet != nil:
		return hookRequest(ctx, c, h.HTTPGet, ip)
	}
	return nil
}

func hookRequest(ctx context.Context, c *corev1.Container, h *corev1.HTTPGetAction, ip string) error {
	port, err := probe.Port(h.Port, c.Ports)
	if err != nil {
		return err
	}
	host := h.Host
	if host == "" {
		host = ip
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, strconv.Itoa(port))+h.Path, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// postStart runs the hook beside the container; when it fails, the container is
// stopped, as its documentation says.
func (w *worker) postStart(ctx context.Context, c *corev1.Container) {
	if c.Lifecycle == nil || c.Lifecycle.PostStart == nil {
		return
	}
	r, ip := w.running[c.Name], w.rec.IP.String()
	w.r.group.Go(func() error {
		if err := w.hook(ctx, c, c.Lifecycle.PostStart, r, ip); err != nil && ctx.Err() == nil {
			w.say(ctx, corev1.EventTypeWarning, "FailedPostStartHook", fmt.Sprintf("postStart of container %s: %s", c.Name, err))
			w.kill(ctx, r, "SIGKILL")
		}
		return nil
	})
}

// expire ends a pod whose activeDeadlineSeconds are over.
func (w *worker) expire(ctx context.Context) {
	w.rec.Expired = true
	for _, c := range allContainers(w.pod) {
		rec := w.rec.container(c.Name)
		if r := w.running[c.Name]; r != nil {
			w.stop(ctx, c, r, w.grace(), "Pod was active on the node longer than the specified deadline")
		} else if rec.Exit == nil {
			now := metav1.NewTime(w.r.Clock.Now())
			rec.Exit = &exitRecord{Code: 137, Reason: "DeadlineExceeded", Started: now, Finished: now}
		}
		delete(w.waiting, c.Name)
	}
}
