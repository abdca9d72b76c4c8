package pods

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// view is all that a pod's status is made of.
type view struct {
	pod     *corev1.Pod
	rec     *record
	running map[string]bool
	waiting map[string]wait
	answers map[string]string
	sandbox bool // namespaces and address are there
	nodeIP  string
	now     time.Time
}

// status is the Pod's status. It is pure, and keeps the conditions that others own.
func status(v view) corev1.PodStatus {
	s := *v.pod.Status.DeepCopy()
	s.ObservedGeneration = v.pod.Generation
	s.HostIP, s.HostIPs = v.nodeIP, []corev1.HostIP{{IP: v.nodeIP}}
	start := v.rec.Start
	s.StartTime = &start
	s.QOSClass = qosClass(v.pod)
	if v.rec.IP.IsValid() {
		s.PodIP, s.PodIPs = v.rec.IP.String(), []corev1.PodIP{{IP: v.rec.IP.String()}}
	}
	s.InitContainerStatuses, s.ContainerStatuses = nil, nil
	for i := range v.pod.Spec.InitContainers {
		s.InitContainerStatuses = append(s.InitContainerStatuses, v.container(&v.pod.Spec.InitContainers[i], true))
	}
	for i := range v.pod.Spec.Containers {
		s.ContainerStatuses = append(s.ContainerStatuses, v.container(&v.pod.Spec.Containers[i], false))
	}
	s.EphemeralContainerStatuses = nil
	for _, c := range ephemeral(v.pod) {
		s.EphemeralContainerStatuses = append(s.EphemeralContainerStatuses, v.container(c, false))
	}
	s.Phase = v.phase()
	if v.rec.Start.Time.IsZero() {
		s.StartTime = nil
	}
	if s.Phase == corev1.PodFailed && v.rec.Expired {
		s.Reason, s.Message = "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"
	}
	v.conditions(&s)
	return s
}

func (v view) container(c *corev1.Container, init bool) corev1.ContainerStatus {
	rec := v.rec.Containers[c.Name]
	out := corev1.ContainerStatus{Name: c.Name, Image: c.Image, RestartCount: 0}
	up := false
	out.Started = &up
	if rec == nil {
		out.State.Waiting = v.why(c, init)
		return out
	}
	out.RestartCount = int32(rec.Restarts)
	if rec.Image.Digest != "" {
		out.Image, out.ImageID = rec.Image.Name, imageID(rec.Image)
	}
	if rec.Last != nil {
		out.LastTerminationState.Terminated = terminated(rec.Last)
	}
	w, waits := v.waiting[c.Name]
	switch {
	case v.running[c.Name] && rec.Started != nil:
		out.ContainerID = "containerd://" + rec.ID
		started := *rec.Started
		out.State.Running = &corev1.ContainerStateRunning{StartedAt: started}
		up = rec.Up
		out.Ready = rec.Ready && rec.Up
	case rec.Exit != nil && waits && w.reason != "":
		out.State.Waiting = &corev1.ContainerStateWaiting{Reason: w.reason, Message: w.message}
		out.LastTerminationState.Terminated = terminated(rec.Exit)
		out.ContainerID = containerRef(rec.Exit.ID)
	case rec.Exit != nil:
		out.State.Terminated = terminated(rec.Exit)
		out.ContainerID = containerRef(rec.Exit.ID)
		out.Ready = init && rec.Exit.Code == 0
	default:
		out.State.Waiting = v.why(c, init)
	}
	return out
}

// why says what a container that never ran is waiting for.
func (v view) why(c *corev1.Container, init bool) *corev1.ContainerStateWaiting {
	if w, ok := v.waiting[c.Name]; ok {
		return &corev1.ContainerStateWaiting{Reason: w.reason, Message: w.message}
	}
	if !init && !v.initialized() {
		return &corev1.ContainerStateWaiting{Reason: reasonInit}
	}
	return &corev1.ContainerStateWaiting{Reason: cmp.Or(map[bool]string{true: reasonInit}[init && v.sandbox], reasonCreating)}
}

func imageID(i Image) string {
	name, _, _ := strings.Cut(i.Name, "@")
	if at := strings.LastIndexByte(name, ':'); at > strings.LastIndexByte(name, '/') {
		name = name[:at]
	}
	return name + "@" + i.Digest
}

func containerRef(id string) string {
	if id == "" {
		return ""
	}
	return "containerd://" + id
}

func terminated(e *exitRecord) *corev1.ContainerStateTerminated {
	return &corev1.ContainerStateTerminated{
		ExitCode: e.Code, Reason: e.Reason, Message: e.Message, StartedAt: e.Started, FinishedAt: e.Finished,
		ContainerID: containerRef(e.ID),
	}
}

// initialized tells whether all init containers have done their part.
func (v view) initialized() bool {
	for i := range v.pod.Spec.InitContainers {
		c := &v.pod.Spec.InitContainers[i]
		rec := v.rec.Containers[c.Name]
		switch {
		case rec == nil:
			return false
		case sidecar(c):
			if !rec.Up && rec.Exit == nil {
				return false
			}
		case rec.Exit == nil || rec.Exit.Code != 0:
			return false
		}
	}
	return true
}

// finished tells whether every container has ended for good.
func finished(pod *corev1.Pod, rec *record) bool {
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if r := rec.Containers[c.Name]; !sidecar(c) && r != nil && r.Exit != nil && r.Exit.Code != 0 && !restarts(pod, c, r.Exit.Code) {
			return true
		}
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		r := rec.Containers[c.Name]
		over := r != nil && r.Exit != nil && (rec.Expired || !restarts(pod, c, r.Exit.Code))
		if !over {
			return false
		}
	}
	return true
}

func terminal(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func (v view) phase() corev1.PodPhase {
	if !v.rec.Done {
		for i := range v.pod.Spec.Containers {
			c := &v.pod.Spec.Containers[i]
			if rec := v.rec.Containers[c.Name]; rec != nil && (v.running[c.Name] || rec.Restarts > 0 || rec.Exit != nil) {
				return corev1.PodRunning
			}
		}
		return corev1.PodPending
	}
	if terminal(v.pod) {
		return v.pod.Status.Phase
	}
	for i := range v.pod.Spec.Containers {
		rec := v.rec.Containers[v.pod.Spec.Containers[i].Name]
		if rec == nil || rec.Exit == nil || rec.Exit.Code != 0 {
			return corev1.PodFailed
		}
	}
	return corev1.PodSucceeded
}

// conditions sets the conditions that the node owns.
func (v view) conditions(s *corev1.PodStatus) {
	unready := v.unready(s)
	gates := v.gates(s)
	set := func(kind corev1.PodConditionType, ok bool, reason, message string) {
		c := corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: v.pod.Generation}
		if ok {
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, "", ""
		}
		setCondition(s, c, metav1.NewTime(v.now))
	}
	done := ""
	if s.Phase == corev1.PodSucceeded {
		done = "PodCompleted"
	} else if s.Phase == corev1.PodFailed {
		done = "PodFailed"
	}
	set(corev1.PodReadyToStartContainers, v.sandbox, "", "")
	set(corev1.PodInitialized, v.initialized() || s.Phase == corev1.PodSucceeded, cmp.Or(done, "ContainersNotInitialized"), v.uninitialized(s))
	set(corev1.ContainersReady, unready == "" && done == "", cmp.Or(done, "ContainersNotReady"), unready)
	if unready == "" && gates != "" {
		set(corev1.PodReady, false, "ReadinessGatesNotReady", gates)
		return
	}
	set(corev1.PodReady, unready == "" && done == "", cmp.Or(done, "ContainersNotReady"), unready)
}

// unready names the containers that are not ready and what they answered last.
func (v view) unready(s *corev1.PodStatus) string {
	var names, answers []string
	for _, c := range s.ContainerStatuses {
		if c.Ready {
			continue
		}
		names = append(names, c.Name)
		if a := v.answers[c.Name]; a != "" {
			answers = append(answers, a)
		}
	}
	for i, c := range s.InitContainerStatuses {
		if sidecar(&v.pod.Spec.InitContainers[i]) && !c.Ready {
			names = append(names, c.Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	out := fmt.Sprintf("containers with unready status: [%s]", strings.Join(names, " "))
	if len(answers) > 0 {
		out += ": " + strings.Join(answers, "; ")
	}
	return out
}

func (v view) uninitialized(s *corev1.PodStatus) string {
	var names []string
	for i, c := range s.InitContainerStatuses {
		if !c.Ready && !(sidecar(&v.pod.Spec.InitContainers[i]) && *c.Started) {
			names = append(names, c.Name)
		}
	}
	return fmt.Sprintf("containers with incomplete status: [%s]", strings.Join(names, " "))
}

// gates names the readiness gates that are not true.
func (v view) gates(s *corev1.PodStatus) string {
	var missing []string
	for _, gate := range v.pod.Spec.ReadinessGates {
		ok := false
		for _, c := range s.Conditions {
			ok = ok || c.Type == gate.ConditionType && c.Status == corev1.ConditionTrue
		}
		if !ok {
			missing = append(missing, string(gate.ConditionType))
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return "readiness gates that are not true: " + strings.Join(missing, ", ")
}

// setCondition keeps the time of the last change of a condition that has not changed.
func setCondition(s *corev1.PodStatus, c corev1.PodCondition, now metav1.Time) {
	for i := range s.Conditions {
		have := &s.Conditions[i]
		if have.Type != c.Type {
			continue
		}
		c.LastTransitionTime, c.LastProbeTime = now, have.LastProbeTime
		if have.Status == c.Status {
			c.LastTransitionTime = have.LastTransitionTime
		}
		*have = c
		return
	}
	c.LastTransitionTime = now
	s.Conditions = append(s.Conditions, c)
}
