package simulate

import (
	"cmp"
	"fmt"
	"slices"
	gosync "sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/scheduler"
)

// Result is how a simulation ended.
type Result struct {
	// Nodes by name.
	Nodes []Node `json:"nodes"`
	// Waiting are the Pods that fit nowhere, by namespace and name.
	Waiting []Waiting `json:"waiting,omitempty"`
	// Unhealthy says what the Source waits for; empty when it is healthy.
	Unhealthy string `json:"unhealthy,omitempty"`
	// Late: time ran out before everything had come to rest.
	Late bool `json:"late,omitempty"`
}

// Node is a node with what landed on it. CPU is in thousandths of a core, memory
// in bytes.
type Node struct {
	Name   string `json:"name"`
	CPU    int64  `json:"cpu"`
	Memory int64  `json:"memory"`
	// Pods that run, as namespace/name; Completed are those that have ended.
	Pods      []string `json:"pods,omitempty"`
	Completed []string `json:"completed,omitempty"`
}

// Waiting is a Pod that fits nowhere, and why.
type Waiting struct {
	Pod string `json:"pod"`
	Why string `json:"why"`
}

// RefusedError says that the objects were not applied.
type RefusedError struct{ Diagnostics []v1alpha1.Diagnostic }

func (e *RefusedError) Error() string { return "the cluster refuses the objects" }

// refused is not nil once the Source was refused.
func (s *simulation) refused() error {
	src, ok := s.views.Sources.Get(types.NamespacedName{Name: source})
	if !ok {
		return nil
	}
	for _, t := range []string{v1alpha1.ConditionCompiled, v1alpha1.ConditionApplied} {
		c := meta.FindStatusCondition(src.Status.Conditions, t)
		if c == nil || c.Status != metav1.ConditionFalse {
			continue
		}
		if v1alpha1.HasErrors(src.Status.Diagnostics) {
			return &RefusedError{src.Status.Diagnostics}
		}
		if slices.Contains([]string{v1alpha1.ReasonCompileFailed, v1alpha1.ReasonApplyFailed, v1alpha1.ReasonConflict}, c.Reason) {
			return fmt.Errorf("apply the objects: %s", c.Message)
		}
	}
	return nil
}

// settled: all is applied, and each Pod has got as far as it gets.
func (s *simulation) settled() bool {
	src, ok := s.views.Sources.Get(types.NamespacedName{Name: source})
	if !ok || src.Status.Applied == nil || src.Status.Applied.ID != commit {
		return false
	}
	if !s.made() {
		return false
	}
	for _, p := range s.views.Pods.All() {
		if p.DeletionTimestamp != nil || (!ended(p) && !is(p, corev1.PodReady, corev1.ConditionTrue) && !is(p, corev1.PodScheduled, corev1.ConditionFalse)) {
			return false
		}
	}
	return true
}

// made: the controllers have made what they are asked for.
func (s *simulation) made() bool {
	for _, d := range s.views.Deployments.All() {
		if !d.Spec.Paused && (d.Status.ObservedGeneration != d.Generation || d.Status.Replicas < *d.Spec.Replicas) {
			return false
		}
	}
	for _, rs := range s.views.ReplicaSets.All() {
		if rs.Status.ObservedGeneration != rs.Generation || rs.Status.Replicas != *rs.Spec.Replicas {
			return false
		}
	}
	for _, rc := range s.views.Controllers.All() {
		if rc.Status.ObservedGeneration != rc.Generation || rc.Status.Replicas != *rc.Spec.Replicas {
			return false
		}
	}
	for _, set := range s.views.StatefulSets.All() {
		// With OrderedReady one that does not fit is waited for.
		if set.Status.ObservedGeneration != set.Generation || (set.Status.Replicas < *set.Spec.Replicas && set.Status.ReadyReplicas == set.Status.Replicas) {
			return false
		}
	}
	for _, d := range s.views.DaemonSets.All() {
		if d.Status.ObservedGeneration != d.Generation || len(s.views.Pods.OwnedBy(d.UID)) < int(d.Status.DesiredNumberScheduled) {
			return false
		}
	}
	for _, j := range s.views.Jobs.All() {
		suspended := j.Spec.Suspend != nil && *j.Spec.Suspend
		if !suspended && j.Status.Active == 0 && len(j.Status.Conditions) == 0 {
			return false
		}
	}
	return true
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

func is(p *corev1.Pod, t corev1.PodConditionType, status corev1.ConditionStatus) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == t && c.Status == status })
}

func (s *simulation) result(late bool) Result {
	out := Result{Late: late}
	byName := map[string]*Node{}
	for i := range s.Nodes {
		out.Nodes = append(out.Nodes, Node{Name: s.nodeName(i)})
	}
	for i := range out.Nodes {
		byName[out.Nodes[i].Name] = &out.Nodes[i]
	}
	pods := s.views.Pods.All()
	slices.SortFunc(pods, func(a, b *corev1.Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	for _, p := range pods {
		name, n := p.Namespace+"/"+p.Name, byName[p.Spec.NodeName]
		switch {
		case n == nil:
			out.Waiting = append(out.Waiting, Waiting{name, why(p)})
		case ended(p):
			n.Completed = append(n.Completed, name)
		default:
			n.Pods = append(n.Pods, name)
			requests := scheduler.PodRequests(p)
			n.CPU += requests[corev1.ResourceCPU]
			n.Memory += requests[corev1.ResourceMemory]
		}
	}
	out.Unhealthy = s.unhealthy()
	return out
}

func why(p *corev1.Pod) string {
	if len(p.Spec.SchedulingGates) > 0 {
		return "waits for its scheduling gate " + p.Spec.SchedulingGates[0].Name
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Message != "" {
			return c.Message
		}
	}
	return "no node was chosen yet"
}

func (s *simulation) unhealthy() string {
	src, ok := s.views.Sources.Get(types.NamespacedName{Name: source})
	if !ok {
		return "nothing was applied yet"
	}
	if c := meta.FindStatusCondition(src.Status.Conditions, v1alpha1.ConditionHealthy); c == nil || c.Status != metav1.ConditionTrue {
		if c == nil {
			return "nothing was applied yet"
		}
		return c.Message
	}
	return ""
}

// settling notes when something happened last.
type settling struct {
	mu gosync.Mutex
	at time.Time
}

func (s *settling) follow(views *live.Cluster, now clock.PassiveClock) {
	note := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.at = now.Now()
	}
	note()
	views.Pods.OnChange(func(_, _ *corev1.Pod) { note() })
	views.Sources.OnChange(func(_, _ *v1alpha1.Source) { note() })
}

func (s *settling) last() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}
