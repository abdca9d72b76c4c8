package pods

import (
	"context"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"

	"berth.dev/berth/nodeagent/probe"
)

type probeKind string

const (
	startup   probeKind = "Startup"
	liveness  probeKind = "Liveness"
	readiness probeKind = "Readiness"
)

// eager is the first wait between two readiness or startup probes that a
// container has not yet passed; it doubles up to the probe's own period. Such
// extra probes do not count as failures: a program that answers after 80 ms is
// ready after 80 ms, not after a period (docs/decisions/eager-probes.md).
const eager = 20 * time.Millisecond

// probe asks a running container's probes until ctx ends.
func (w *worker) probe(ctx context.Context, c *corev1.Container, rec *containerRecord) {
	if c.StartupProbe == nil {
		rec.Up = true
	}
	if rec.Up && c.ReadinessProbe == nil {
		rec.Ready = true
	}
	target := probe.Target{IP: w.rec.IP.String(), Ports: c.Ports, Exec: func(ctx context.Context, argv []string, out io.Writer) (int, error) {
		return w.r.Exec.Exec(ctx, rec.ID, argv, out)
	}}
	if rec.Up {
		w.probeRunning(ctx, c, rec, target)
		return
	}
	w.ask(ctx, c.Name, rec.ID, startup, c.StartupProbe, target, rec.Start(), false)
}

// probeRunning begins the probes that wait for the startup probe.
func (w *worker) probeRunning(ctx context.Context, c *corev1.Container, rec *containerRecord, t probe.Target) {
	if c.ReadinessProbe != nil {
		w.ask(ctx, c.Name, rec.ID, readiness, c.ReadinessProbe, t, rec.Start(), rec.Ready)
	}
	if c.LivenessProbe != nil {
		w.ask(ctx, c.Name, rec.ID, liveness, c.LivenessProbe, t, rec.Start(), true)
	}
}

// ask runs one probe. Only what changes is reported. passed says that the
// container has passed it before.
func (w *worker) ask(ctx context.Context, name, id string, kind probeKind, p *corev1.Probe, t probe.Target, started time.Time, passed bool) {
	send := func(ok, verdict bool, message string) {
		w.inbox.put(func(m *mail) { m.probes = append(m.probes, probeMail{name, id, kind, ok, message, verdict}) })
	}
	h, counts := p.ProbeHandler, tally{success: max(1, int(p.SuccessThreshold)), failure: max(1, int(p.FailureThreshold))}
	period, timeout := seconds(p.PeriodSeconds, 10), seconds(p.TimeoutSeconds, 1)
	first := time.Until(started.Add(time.Duration(p.InitialDelaySeconds) * time.Second))
	w.r.group.Go(func() error {
		pause(ctx, first)
		wait, slot := eager, time.Now()
		last := ""
		for ctx.Err() == nil {
			ok, message := probe.Check(ctx, h, t, timeout)
			if ctx.Err() != nil {
				return nil
			}
			extra := !passed && !ok && time.Since(slot) < period && wait < period && kind != liveness
			if !extra {
				slot = time.Now()
				if counts.add(ok) {
					send(ok, true, message)
				} else if !ok && message != last {
					send(ok, false, message)
				}
				passed = passed || ok
			} else if message != last {
				send(false, false, message)
			}
			last = message
			if kind == startup && ok {
				return nil
			}
			if !passed && kind != liveness && wait < period {
				pause(ctx, wait)
				wait *= 2
				continue
			}
			pause(ctx, period)
		}
		return nil
	})
}

// tally counts answers in a row.
type tally struct {
	success, failure int
	run              int
	last             bool
	state            int // 1 passed, -1 failed, 0 not known
}

// add tells whether a threshold has just been reached.
func (c *tally) add(ok bool) bool {
	if c.run == 0 || ok != c.last {
		c.run, c.last = 0, ok
	}
	c.run++
	switch {
	case ok && c.run >= c.success && c.state != 1:
		c.state = 1
		return true
	case !ok && c.run >= c.failure && c.state != -1:
		c.state = -1
		return true
	}
	return false
}

// probed takes an answer in.
func (w *worker) probed(ctx context.Context, m probeMail) {
	rec, r := w.rec.Containers[m.name], w.running[m.name]
	if rec == nil || r == nil || r.id != m.id || r.stopped != "" {
		return
	}
	c := w.find(m.name)
	if c == nil {
		return
	}
	if !m.ok {
		w.answers[m.name] = fmt.Sprintf("%s probe failed: %s", m.kind, m.message)
		if m.verdict || m.kind != liveness {
			w.sayOnce(ctx, corev1.EventTypeWarning, "Unhealthy", w.answers[m.name])
		}
	}
	if !m.verdict {
		return
	}
	switch {
	case m.kind == readiness:
		rec.Ready = m.ok
		if m.ok {
			delete(w.answers, m.name)
		}
	case m.kind == startup && m.ok:
		rec.Up = true
		delete(w.answers, m.name)
		inner, cancel := context.WithCancel(ctx)
		former := r.cancel
		r.cancel = func() { former(); cancel() }
		w.probe(inner, c, rec)
	case !m.ok:
		why := fmt.Sprintf("Container %s failed %s probe, will be restarted: %s", m.name, lower(m.kind), m.message)
		w.stop(ctx, c, r, w.probeGrace(c, m.kind), why)
	}
}

// probeGrace is how long a container that failed a probe may take to end.
func (w *worker) probeGrace(c *corev1.Container, kind probeKind) time.Duration {
	p := c.LivenessProbe
	if kind == startup {
		p = c.StartupProbe
	}
	if p != nil && p.TerminationGracePeriodSeconds != nil {
		return time.Duration(*p.TerminationGracePeriodSeconds) * time.Second
	}
	return w.grace()
}

func (w *worker) find(name string) *corev1.Container {
	return containerOf(w.pod, name)
}

func lower(k probeKind) string {
	return map[probeKind]string{startup: "startup", liveness: "liveness", readiness: "readiness"}[k]
}

func seconds(n, otherwise int32) time.Duration {
	if n <= 0 {
		n = otherwise
	}
	return time.Duration(n) * time.Second
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
