package pods

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// run is a container that runs.
type run struct {
	id     string
	cancel context.CancelFunc // ends its probes and hooks
	ended  chan struct{}      // closed at its exit
	// stopped says that the agent has begun to stop it, and why.
	stopped string
}

// advance starts what should run and can.
func (w *worker) advance(ctx context.Context) {
	if w.expired() {
		w.expire(ctx)
		return
	}
	// Before all others: they help to see why those do not start.
	for _, c := range ephemeral(w.pod) {
		w.keep(ctx, c)
	}
	for i := range w.pod.Spec.InitContainers {
		c := &w.pod.Spec.InitContainers[i]
		if sidecar(c) {
			if !w.keep(ctx, c) || !w.rec.container(c.Name).Up {
				return
			}
			continue
		}
		rec := w.rec.container(c.Name)
		if rec.Exit != nil && rec.Exit.Code == 0 {
			delete(w.waiting, c.Name)
			continue
		}
		w.keep(ctx, c)
		return
	}
	for i := range w.pod.Spec.Containers {
		w.keep(ctx, &w.pod.Spec.Containers[i])
	}
}

// sidecar is an init container that runs as long as the pod.
func sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func restarts(pod *corev1.Pod, c *corev1.Container, code int32) bool {
	switch {
	case sidecar(c):
		return true
	case ephemeralOf(pod, c.Name) != nil:
		return false
	}
	policy := pod.Spec.RestartPolicy
	for i := range pod.Spec.InitContainers { // "Always" means OnFailure for them
		if pod.Spec.InitContainers[i].Name == c.Name && policy == corev1.RestartPolicyAlways {
			policy = corev1.RestartPolicyOnFailure
		}
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return code != 0
	}
	return true
}

// keep starts a container unless it runs, has ended for good, or must wait. It
// tells whether it runs.
func (w *worker) keep(ctx context.Context, c *corev1.Container) bool {
	rec := w.rec.container(c.Name)
	if w.running[c.Name] != nil {
		delete(w.waiting, c.Name)
		return true
	}
	if rec.Exit != nil && !restarts(w.pod, c, rec.Exit.Code) {
		delete(w.waiting, c.Name)
		return false
	}
	if now := w.r.Clock.Now(); rec.Exit != nil && now.Before(rec.Until) {
		message := fmt.Sprintf("back-off %s restarting failed container=%s pod=%s(%s)", rec.Backoff, c.Name, w.pod.Name+"_"+w.pod.Namespace, w.uid)
		if w.waiting[c.Name].reason != reasonCrashLoop {
			w.say(ctx, corev1.EventTypeWarning, "BackOff", fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)", c.Name, w.pod.Name, w.pod.Namespace, w.uid))
		}
		w.waiting[c.Name] = wait{reasonCrashLoop, message}
		return false
	}
	image, ok := w.image(ctx, c)
	if !ok {
		return false
	}
	err := w.start(ctx, c, image)
	if err == nil {
		delete(w.waiting, c.Name)
		return true
	}
	if ctx.Err() == nil {
		w.notStarted(ctx, c, err)
	}
	return false
}

// start runs a container, once all it refers to is there.
func (w *worker) start(ctx context.Context, c *corev1.Container, image Image) error {
	spec, err := w.container(ctx, c, image)
	if err != nil {
		return err
	}
	release, ok := w.r.slot(ctx)
	if !ok {
		return ctx.Err()
	}
	defer release()
	rec := w.rec.container(c.Name)
	if rec.Exit != nil {
		rec.Restarts++
		rec.restarting()
	}
	rec.Last, rec.Exit = lastExit(rec), nil
	rec.Image, rec.Up, rec.Ready, rec.Started = image, false, false, nil
	rec.ID = containerID(w.uid, c.Name, rec.Restarts)
	spec.ID = rec.ID
	w.save() // a start that is cut short is found by this
	if c.Stdin {
		if spec.Stdin, err = w.makeStdin(c.Name); err != nil {
			return err
		}
	}
	if spec.Stdout, spec.Stderr, err = w.r.Logs.Begin(w.instance(c.Name, rec.Restarts)); err != nil {
		return err
	}
	w.r.Logs.Prune(w.instance(c.Name, 0), rec.Restarts-1)
	if err := w.r.Runtime.Start(ctx, spec); err != nil {
		_ = w.r.Logs.Finish(w.instance(c.Name, rec.Restarts))
		return &startError{err}
	}
	now := metav1.NewTime(w.r.Clock.Now())
	rec.Started = &now
	w.say(ctx, corev1.EventTypeNormal, "Created", "Created container: "+c.Name)
	w.say(ctx, corev1.EventTypeNormal, "Started", "Started container "+c.Name)
	w.watch(ctx, c)
	w.postStart(ctx, c)
	return nil
}

func lastExit(rec *containerRecord) *exitRecord {
	if rec.Exit != nil {
		return rec.Exit
	}
	return rec.Last
}

type startError struct{ err error }

func (e *startError) Error() string { return e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

// notStarted notes why. A program that cannot be run has ended, with code 128,
// as Kubernetes has it; all else is waited for.
func (w *worker) notStarted(ctx context.Context, c *corev1.Container, err error) {
	rec := w.rec.container(c.Name)
	var waits *WaitError
	var failed *startError
	switch {
	case errors.As(err, &waits):
		w.waiting[c.Name] = wait{waits.Reason, err.Error()}
		if rec.Until.Before(w.r.Clock.Now()) {
			rec.Until = w.r.Clock.Now().Add(backoffFirst)
		}
	case errors.As(err, &failed):
		now := metav1.NewTime(w.r.Clock.Now())
		rec.Exit = &exitRecord{ID: rec.ID, Code: 128, Reason: "StartError", Message: plain(err), Started: now, Finished: now}
		rec.ID = ""
		if rec.Backoff == 0 { // it will not help to try at once
			rec.Backoff = backoffFirst
		}
		rec.Until = now.Add(rec.Backoff)
		delete(w.waiting, c.Name)
		if restarts(w.pod, c, rec.Exit.Code) {
			w.waiting[c.Name] = wait{"RunContainerError", plain(err)}
		}
	default:
		w.waiting[c.Name] = wait{"CreateContainerError", err.Error()}
		rec.Until = w.r.Clock.Now().Add(backoffFirst)
	}
	w.sayOnce(ctx, corev1.EventTypeWarning, "Failed", fmt.Sprintf("container %s: %s", c.Name, plain(err)))
}

// plain takes the layers of runc and containerd off a message.
func plain(err error) string {
	text := err.Error()
	for _, layer := range []string{"failed to create shim task: ", "OCI runtime create failed: ", "runc create failed: ", "unable to start container process: ", "error during container init: "} {
		text = strings.ReplaceAll(text, layer, "")
	}
	return text
}

// container is what the runtime must know.
func (w *worker) container(ctx context.Context, c *corev1.Container, image Image) (Container, error) {
	env, err := w.environment(ctx, w.pod, c, image, w.rec.IP)
	if err != nil {
		return Container{}, err
	}
	mounts, err := w.mounts(ctx, c, env)
	if err != nil {
		return Container{}, err
	}
	args := append(expandAll(c.Command, env.values), expandAll(c.Args, env.values)...)
	switch {
	case len(c.Command) == 0 && len(c.Args) == 0:
		args = append(append([]string{}, image.Entrypoint...), image.Cmd...)
	case len(c.Command) == 0:
		args = append(append([]string{}, image.Entrypoint...), args...)
	}
	if len(args) == 0 {
		return Container{}, &WaitError{Reason: reasonConfigError, Message: fmt.Sprintf("neither the container nor image %s says which program to run: set command", image.Name)}
	}
	target, err := w.target(c)
	if err != nil {
		return Container{}, err
	}
	dir := c.WorkingDir
	if dir == "" {
		dir = image.WorkingDir
	}
	if dir == "" {
		dir = "/"
	}
	return Container{
		Group: w.uid, Image: image, Args: args, Env: env.list(), WorkingDir: dir,
		Sandbox: w.attached, HostPID: w.pod.Spec.HostPID, Mounts: mounts,
		Security: security(w.pod, c), Resources: resources(c, qosClass(w.pod), w.r.NodeMemory),
		CgroupParent: w.r.cgroup(w.uid), TTY: c.TTY, JoinPID: target,
	}, nil
}

func (w *worker) mounts(ctx context.Context, c *corev1.Container, env *variables) ([]Mount, error) {
	var out []Mount
	taken := map[string]bool{}
	for _, m := range c.VolumeMounts {
		taken[filepath.Clean(m.MountPath)] = true
		base, ok := w.volumes[m.Name]
		if !ok {
			return nil, &WaitError{Reason: reasonConfigError, Message: fmt.Sprintf("volumeMount %q names no volume of the pod", m.Name)}
		}
		sub := m.SubPath
		if m.SubPathExpr != "" {
			sub = expand(m.SubPathExpr, env.values)
		}
		if sub != "" {
			var err error
			if base, err = w.r.Volumes.SubPath(ctx, w.pod, m.Name, base, sub); err != nil {
				return nil, err
			}
		}
		mount := Mount{Source: base, Destination: m.MountPath, ReadOnly: m.ReadOnly || readOnlyClaim(w.pod, m.Name)}
		if m.MountPropagation != nil {
			switch *m.MountPropagation {
			case corev1.MountPropagationHostToContainer:
				mount.Propagation = "rslave"
			case corev1.MountPropagationBidirectional:
				mount.Propagation = "rshared"
			}
		}
		out = append(out, mount)
	}
	for _, m := range w.etc {
		if !taken[m.Destination] {
			out = append(out, m)
		}
	}
	path := c.TerminationMessagePath
	if path == "" {
		path = corev1.TerminationMessagePathDefault
	}
	if file, err := w.messageFile(c); err == nil && !taken[path] {
		out = append(out, Mount{Source: file, Destination: path})
	}
	return out, nil
}

// readOnlyClaim: the volume is a claim that the pod mounts read-only.
func readOnlyClaim(pod *corev1.Pod, volume string) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		return v.Name == volume && v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ReadOnly
	})
}

// messageFile is where the container leaves its last words.
func (w *worker) messageFile(c *corev1.Container) (string, error) {
	file := filepath.Join(w.r.records.dir, w.uid, c.Name+".message")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		return "", err
	}
	return file, os.Chmod(file, 0o666)
}

func security(pod *corev1.Pod, c *corev1.Container) Security {
	var s Security
	if p := pod.Spec.SecurityContext; p != nil {
		s.User, s.Group = p.RunAsUser, p.RunAsGroup
		s.NonRoot = p.RunAsNonRoot != nil && *p.RunAsNonRoot
		s.SupplementalGroups = append(s.SupplementalGroups, p.SupplementalGroups...)
		if p.FSGroup != nil {
			s.SupplementalGroups = append(s.SupplementalGroups, *p.FSGroup)
		}
		s.UnconfinedSeccomp = p.SeccompProfile == nil || p.SeccompProfile.Type == corev1.SeccompProfileTypeUnconfined
	} else {
		s.UnconfinedSeccomp = true // Kubernetes' default, which images are built for
	}
	p := c.SecurityContext
	if p == nil {
		return s
	}
	if p.RunAsUser != nil {
		s.User = p.RunAsUser
	}
	if p.RunAsGroup != nil {
		s.Group = p.RunAsGroup
	}
	if p.RunAsNonRoot != nil {
		s.NonRoot = *p.RunAsNonRoot
	}
	if p.SeccompProfile != nil {
		s.UnconfinedSeccomp = p.SeccompProfile.Type == corev1.SeccompProfileTypeUnconfined
	}
	s.Privileged = p.Privileged != nil && *p.Privileged
	s.ReadOnlyRootfs = p.ReadOnlyRootFilesystem != nil && *p.ReadOnlyRootFilesystem
	s.NoNewPrivileges = p.AllowPrivilegeEscalation != nil && !*p.AllowPrivilegeEscalation
	if p.Capabilities != nil {
		for _, name := range p.Capabilities.Add {
			s.AddCaps = append(s.AddCaps, string(name))
		}
		for _, name := range p.Capabilities.Drop {
			s.DropCaps = append(s.DropCaps, string(name))
		}
	}
	return s
}

// watch reports a running container's exit and asks its probes.
func (w *worker) watch(ctx context.Context, c *corev1.Container) {
	rec := w.rec.container(c.Name)
	inner, cancel := context.WithCancel(ctx)
	r := &run{id: rec.ID, cancel: cancel, ended: make(chan struct{})}
	w.running[c.Name] = r
	name, id := c.Name, rec.ID
	w.r.group.Go(func() error {
		exit, err := w.r.Runtime.Wait(ctx, id)
		if ctx.Err() != nil {
			return nil
		}
		cancel()
		close(r.ended)
		w.inbox.put(func(m *mail) { m.exits = append(m.exits, exitMail{name, id, exit, err}) })
		return nil
	})
	w.probe(inner, c, rec)
}

// ended notes an exit and removes what is left of the container.
func (w *worker) ended(ctx context.Context, m exitMail) {
	rec, r := w.rec.Containers[m.name], w.running[m.name]
	if rec == nil || r == nil || r.id != m.id {
		return
	}
	r.cancel()
	delete(w.running, m.name)
	delete(w.answers, m.name)
	if m.err != nil { // it is not there: all that can be said
		m.exit = Exit{Code: 137, At: w.r.Clock.Now()}
	}
	if err := w.r.Runtime.Remove(ctx, m.id); err != nil {
		w.r.Log.Warn("remove a container", "pod", w.name(), "container", m.name, "err", err)
	}
	if err := w.r.Logs.Finish(w.instance(m.name, rec.Restarts)); err != nil {
		w.r.Log.Warn("finish a container's log", "pod", w.name(), "container", m.name, "err", err)
	}
	started := rec.Start()
	rec.Exit = &exitRecord{
		ID: m.id, Code: int32(m.exit.Code), Reason: exitReason(m.exit), Started: metav1.NewTime(started), Finished: metav1.NewTime(m.exit.At),
		Message: w.lastWords(m.name),
	}
	rec.ID, rec.Started, rec.Ready, rec.Up = "", nil, false, false
	rec.ended(m.exit.At, m.exit.At.Sub(started))
}

func (c *containerRecord) Start() time.Time {
	if c.Started == nil {
		return time.Time{}
	}
	return c.Started.Time
}

func exitReason(e Exit) string {
	switch {
	case e.OOM && e.Code != 0:
		return "OOMKilled"
	case e.Code == 0:
		return "Completed"
	}
	return "Error"
}

// lastWords is what the container left in its message file.
func (w *worker) lastWords(name string) string {
	data, err := os.ReadFile(filepath.Join(w.r.records.dir, w.uid, name+".message"))
	if err != nil {
		return ""
	}
	const limit = 4096 // corev1.ContainerStateTerminated.Message, as kubelet limits it
	return string(data[:min(len(data), limit)])
}

func (w *worker) expired() bool {
	limit := w.pod.Spec.ActiveDeadlineSeconds
	return limit != nil && !w.r.Clock.Now().Before(w.rec.Start.Add(time.Duration(*limit)*time.Second))
}

// containerOf finds a container of a pod by its name, or nil.
func containerOf(pod *corev1.Pod, name string) *corev1.Container {
	for _, c := range allContainers(pod) {
		if c.Name == name {
			return c
		}
	}
	return nil
}

func allContainers(pod *corev1.Pod) []*corev1.Container {
	var out []*corev1.Container
	for i := range pod.Spec.InitContainers {
		out = append(out, &pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		out = append(out, &pod.Spec.Containers[i])
	}
	return append(out, ephemeral(pod)...)
}

func addr(s string) netip.Addr {
	ip, _ := netip.ParseAddr(s)
	return ip
}
