package plan

import (
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/strategy"
)

// Room answers as the scheduler would where Pods go. It belongs to one plan:
// what is placed and removed in it is there for the next question.
type Room interface {
	// PodsOf are the Pods of a live object that take up room, sorted by name.
	PodsOf(live client.Object) []*corev1.Pod
	// Remove takes a Pod off its node; again for the same Pod changes nothing.
	Remove(pod *corev1.Pod)
	// Place gives a Pod a node, or says why none fits. known is false when it
	// was asked too often to look any more. ended are the Pods of a lower
	// priority that it preempts for that, by namespace and name.
	Place(pod *corev1.Pod) (why string, ended []string, known bool)
}

// fit adds to the effects which Pods would not fit. What the plan ends makes
// room first: all of it is written at once, and a Pod that waits is placed as
// soon as there is room.
func fit(steps []Step, room Room) {
	for i := range steps {
		s := &steps[i]
		switch s.Action {
		case Delete, Replace:
			removePods(room, room.PodsOf(s.Live))
		case Change:
			was, _ := workloadOf(s.Live)
			if w, ok := workloadOf(s.Desired); ok && w.pods < was.pods && scales(s.Desired) {
				running := room.PodsOf(s.Live)
				removePods(room, running[min(w.pods, len(running)):])
			}
		}
	}
	for i := range steps {
		s := &steps[i]
		w, ok := workloadOf(s.Desired)
		if !ok || !s.writes() {
			continue
		}
		f := &fitting{room: room, pod: w.pod(s.Key)}
		was, _ := workloadOf(s.Live)
		d, isDeployment := s.Desired.(*appsv1.Deployment)
		switch {
		case s.Action != Change:
			f.start(w.pods)
		case isDeployment && !d.Spec.Paused && !equality.Semantic.DeepEqual(was.template, w.template):
			f.roll(d, w.pods, room.PodsOf(s.Live))
		case scales(s.Desired):
			f.start(w.pods - was.pods)
		}
		if text := f.text(); text != "" {
			if s.hidden() {
				text = "not all of its new pods fit on the nodes" // what they need is a value
			}
			s.Effects = append(s.Effects, text)
		}
		if len(f.ended) > 0 {
			s.Effects = append(s.Effects, "preempts "+preempted(f.ended))
		}
	}
}

// scales: the object is one whose number of Pods follows its spec.
func scales(obj client.Object) bool {
	switch obj.(type) {
	case *appsv1.Deployment, *appsv1.ReplicaSet, *appsv1.StatefulSet, *corev1.ReplicationController:
		return true
	}
	return false
}

func removePods(room Room, pods []*corev1.Pod) {
	for _, p := range pods {
		room.Remove(p)
	}
}

// fitting places the new Pods of one workload.
type fitting struct {
	room Room
	pod  *corev1.Pod
	// fits of wanted Pods; why the next one does not.
	fits, wanted int
	why          string
	unknown      bool
	// ended are the Pods that have to make room.
	ended []string
}

// place reports whether one more Pod fits. They are all alike: when one does
// not, the next will only when something ends.
func (f *fitting) place() bool {
	why, ended, known := f.room.Place(f.pod)
	f.ended = append(f.ended, ended...)
	if why == "" && known {
		f.fits++
		return true
	}
	f.why, f.unknown = why, !known
	return false
}

func (f *fitting) start(pods int) {
	f.wanted = max(0, pods)
	for f.fits < f.wanted && f.place() {
	}
}

// roll exchanges the Pods that run by the steps of a rollout, as long as one
// makes room for the next.
func (f *fitting) roll(d *appsv1.Deployment, pods int, running []*corev1.Pod) {
	if strategy.Recreates(d) {
		removePods(f.room, running)
		f.start(pods)
		return
	}
	f.wanted = pods
	surge, unavailable := strategy.Limits(d)
	most, least := pods+int(surge), pods-int(unavailable)
	for moved := true; moved && !f.unknown; {
		moved = false
		for f.fits < pods && f.fits+len(running) < most && f.place() {
			moved = true
		}
		for len(running) > 0 && f.fits+len(running) > least {
			f.room.Remove(running[len(running)-1])
			running, moved = running[:len(running)-1], true
		}
	}
}

func (f *fitting) text() string {
	switch {
	case f.fits >= f.wanted:
		return ""
	case f.unknown:
		return "not looked at: whether its new pods fit, for the plan makes too many"
	}
	noun := "new pods fit"
	if f.wanted == 1 {
		noun = "new pod fits"
	}
	return fmt.Sprintf("%d of %d %s: %s", f.fits, f.wanted, noun, f.why)
}

// preempted names the first of the Pods that have to make room.
func preempted(ended []string) string {
	const named = 3
	if len(ended) == 1 {
		return "pod " + ended[0] + " of lower priority"
	}
	text := fmt.Sprintf("%d pods of lower priority: ", len(ended))
	if len(ended) <= named {
		return text + strings.Join(ended, ", ")
	}
	return text + strings.Join(ended[:named], ", ") + fmt.Sprintf(" and %d more", len(ended)-named)
}
