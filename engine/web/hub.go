package web

import (
	"cmp"
	"slices"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/live"
)

// hub tells open pages that something on them may have changed.
type hub struct {
	views *live.Cluster

	mu   sync.Mutex
	open map[*subscription]struct{}
}

// subscription is an open page: of one Source, or of all when source is empty.
type subscription struct {
	source  string
	changed chan struct{}
}

// limit is how many pages may be open at a time: each costs a connection.
const limit = 200

// newHub hooks itself to the views, which must not be running yet.
func newHub(views *live.Cluster) *hub {
	h := &hub{views: views, open: map[*subscription]struct{}{}}
	views.Sources.OnChange(func(old, now *v1alpha1.Source) { h.changed(cmp.Or(now, old).Name, true) })
	views.Nodes.OnChange(func(_, _ *corev1.Node) { h.changed("", true) })
	views.Namespaces.OnChange(func(old, now *corev1.Namespace) { h.touched(cmp.Or(now, old), false) })
	views.Services.OnChange(func(old, now *corev1.Service) { h.touched(cmp.Or(now, old), false) })
	views.EndpointSlices.OnChange(func(old, now *discoveryv1.EndpointSlice) { h.sliceTouched(cmp.Or(now, old)) })
	views.Deployments.OnChange(func(old, now *appsv1.Deployment) { h.touched(cmp.Or(now, old), false) })
	views.ReplicaSets.OnChange(func(old, now *appsv1.ReplicaSet) { h.touched(cmp.Or(now, old), false) })
	views.Controllers.OnChange(func(old, now *corev1.ReplicationController) { h.touched(cmp.Or(now, old), false) })
	views.StatefulSets.OnChange(func(old, now *appsv1.StatefulSet) { h.touched(cmp.Or(now, old), false) })
	views.DaemonSets.OnChange(func(old, now *appsv1.DaemonSet) { h.touched(cmp.Or(now, old), false) })
	views.Claims.OnChange(func(old, now *corev1.PersistentVolumeClaim) { h.claimTouched(cmp.Or(now, old)) })
	views.CronJobs.OnChange(func(old, now *batchv1.CronJob) { h.touched(cmp.Or(now, old), false) })
	views.Jobs.OnChange(func(old, now *batchv1.Job) { h.touched(cmp.Or(now, old), false) })
	views.Autoscalers.OnChange(func(old, now *autoscalingv2.HorizontalPodAutoscaler) { h.touched(cmp.Or(now, old), false) })
	views.Pods.OnChange(func(old, now *corev1.Pod) { h.touched(cmp.Or(now, old), true) })
	return h
}

// subscribe opens a page; nil when too many are open. The caller must close it.
func (h *hub) subscribe(source string) *subscription {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.open) >= limit {
		return nil
	}
	s := &subscription{source: source, changed: make(chan struct{}, 1)}
	h.open[s] = struct{}{}
	return s
}

func (h *hub) close(s *subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.open, s)
}

// changed wakes the pages of a Source, and the overview where it shows such things.
func (h *hub) changed(source string, onOverview bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.open {
		if s.source == "" && onOverview || s.source != "" && s.source == source {
			s.signal()
		}
	}
}

// everywhere wakes all pages: nobody knows yet whose the object is.
func (h *hub) everywhere() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.open {
		s.signal()
	}
}

// signal never blocks: several changes become one.
func (s *subscription) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (h *hub) touched(o client.Object, onOverview bool) {
	source, known := h.owner(o)
	if !known {
		h.everywhere()
		return
	}
	if source != "" || onOverview {
		h.changed(source, onOverview)
	}
}

func (h *hub) sliceTouched(s *discoveryv1.EndpointSlice) {
	key := client.Key(s)
	key.Name = s.Labels[discoveryv1.LabelServiceName]
	if svc, ok := h.views.Services.Get(key); ok {
		h.touched(svc, false)
	}
}

// claimTouched: a claim is its Source's, or that of the StatefulSet that made it.
func (h *hub) claimTouched(c *corev1.PersistentVolumeClaim) {
	h.touched(c, false)
	for _, s := range h.views.StatefulSets.InNamespace(c.Namespace) {
		if slices.ContainsFunc(claimsOf(h.views, s), func(o *corev1.PersistentVolumeClaim) bool { return o.Name == c.Name }) {
			h.touched(s, false)
		}
	}
}

// owner follows the controllers of an object to the label of its Source; known
// is false when the way ends at an object that is not in the views.
func (h *hub) owner(o client.Object) (source string, known bool) {
	for range 3 {
		ref := metav1.GetControllerOf(o)
		if ref == nil {
			return o.GetLabels()[v1alpha1.LabelSource], true
		}
		key := client.Key(o)
		key.Name = ref.Name
		var found bool
		switch ref.Kind {
		case "ReplicaSet":
			o, found = h.views.ReplicaSets.Get(key)
		case "ReplicationController":
			o, found = h.views.Controllers.Get(key)
		case "Deployment":
			o, found = h.views.Deployments.Get(key)
		case "StatefulSet":
			o, found = h.views.StatefulSets.Get(key)
		case "DaemonSet":
			o, found = h.views.DaemonSets.Get(key)
		case "CronJob":
			o, found = h.views.CronJobs.Get(key)
		case "Job":
			o, found = h.views.Jobs.Get(key)
		default:
			return "", true
		}
		if !found {
			return "", false
		}
	}
	return "", true
}
