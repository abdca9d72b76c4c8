package web

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/health"
	"berth.dev/berth/engine/strategy"
)

// revisionAnnotation numbers the ReplicaSets of a Deployment.
const revisionAnnotation = "deployment.kubernetes.io/revision"

// owned is what a Source has in the cluster, and what follows from it.
type owned struct {
	Deployments  []*appsv1.Deployment
	ReplicaSets  []*appsv1.ReplicaSet
	Controllers  []*corev1.ReplicationController
	StatefulSets []*appsv1.StatefulSet
	DaemonSets   []*appsv1.DaemonSet
	CronJobs     []*batchv1.CronJob
	Jobs         []*batchv1.Job
	Autoscalers  []*autoscalingv2.HorizontalPodAutoscaler
	Pods         []*corev1.Pod
	Claims       []*corev1.PersistentVolumeClaim
	Services     []*corev1.Service
	Slices       []*discoveryv1.EndpointSlice
	Namespaces   []*corev1.Namespace
	Stored       []stored
}

// stored is an object of a kind that is read when it is shown. It never holds
// a value.
type stored struct {
	Kind, Namespace, Name, Origin string
	UID                           types.UID
	// Keys are the names of what is in it; for Secrets only those who may
	// know them are told.
	Keys   []string
	Hidden bool
	Count  int
}

// group is objects of kinds that belong together.
type group struct {
	Title string
	Items []item
}

// item is an object in the tree.
type item struct {
	// ID is the same for the same object in every rendering.
	ID              string
	Kind, Namespace string
	Name, Origin    string
	// State is nil for what cannot be well or ill.
	State    *state
	Facts    []fact
	Created  when
	Children []item
	// Folds are children that few people want to see.
	Folds []fold
}

// fold is items behind one line.
type fold struct {
	ID, Label string
	Items     []item
}

// unfolded is how many pods of a ReplicaSet are shown without being asked for.
const unfolded = 12

// fact is something to know about an object.
type fact struct {
	Name, Value string
	Code        bool
}

func itemOf(kind string, o client.Object) item {
	return item{
		ID: string(o.GetUID()), Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName(),
		Origin: o.GetAnnotations()[v1alpha1.AnnotationOrigin], Created: at(o.GetCreationTimestamp().Time),
	}
}

func (i item) with(h health.Health) item {
	s := healthState(h)
	i.State = &s
	return i
}

func (i *item) fact(name, value string) {
	if value != "" {
		i.Facts = append(i.Facts, fact{Name: name, Value: value})
	}
}

func (i *item) code(name, value string) {
	if value != "" {
		i.Facts = append(i.Facts, fact{Name: name, Value: value, Code: true})
	}
}

func (i *item) fold(id, label string, items []item) {
	if len(items) > 0 {
		i.Folds = append(i.Folds, fold{ID: id + "-" + i.ID, Label: label, Items: items})
	}
}

// uids are all objects whose events concern a Source.
func (o owned) uids(source types.UID) map[types.UID]bool {
	out := map[types.UID]bool{source: true}
	note(out, o.Deployments)
	note(out, o.ReplicaSets)
	note(out, o.Controllers)
	note(out, o.StatefulSets)
	note(out, o.DaemonSets)
	note(out, o.CronJobs)
	note(out, o.Claims)
	note(out, o.Jobs)
	note(out, o.Autoscalers)
	note(out, o.Pods)
	note(out, o.Services)
	note(out, o.Namespaces)
	for _, s := range o.Stored {
		out[s.UID] = true
	}
	return out
}

func note[T client.Object](set map[types.UID]bool, objs []T) {
	for _, o := range objs {
		set[o.GetUID()] = true
	}
}

// groups is the tree of objects.
func groups(o owned) []group {
	sorted(o.Deployments)
	sorted(o.ReplicaSets)
	sorted(o.Controllers)
	sorted(o.StatefulSets)
	sorted(o.DaemonSets)
	sorted(o.CronJobs)
	sorted(o.Claims)
	sorted(o.Jobs)
	sorted(o.Autoscalers)
	sorted(o.Pods)
	sorted(o.Services)
	sorted(o.Namespaces)
	var workloads, services, storage, config, namespaces []item
	for _, c := range o.Claims {
		storage = append(storage, claimItem(c))
	}
	for _, d := range o.Deployments {
		workloads = append(workloads, deploymentItem(d, o))
	}
	for _, rs := range o.ReplicaSets {
		if metav1.GetControllerOf(rs) == nil {
			workloads = append(workloads, replicaSetItem(rs, o))
		}
	}
	for _, rc := range o.Controllers {
		i := replicaSetItem(strategy.AsReplicaSet(rc), o)
		i.Kind = "ReplicationController"
		workloads = append(workloads, i)
	}
	for _, s := range o.StatefulSets {
		workloads = append(workloads, statefulSetItem(s, o))
	}
	for _, d := range o.DaemonSets {
		workloads = append(workloads, daemonSetItem(d, o))
	}
	for _, c := range o.CronJobs {
		workloads = append(workloads, cronJobItem(c, o))
	}
	for _, j := range o.Jobs {
		if metav1.GetControllerOf(j) == nil {
			workloads = append(workloads, jobItem(j, o))
		}
	}
	for _, a := range o.Autoscalers {
		workloads = append(workloads, autoscalerItem(a))
	}
	for _, p := range o.Pods {
		if metav1.GetControllerOf(p) == nil {
			workloads = append(workloads, podItem(p))
		}
	}
	for _, s := range o.Services {
		services = append(services, serviceItem(s, o.Slices))
	}
	slices.SortStableFunc(o.Stored, func(a, b stored) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	for _, s := range o.Stored {
		config = append(config, storedItem(s))
	}
	for _, ns := range o.Namespaces {
		i := itemOf("Namespace", ns)
		if ns.DeletionTimestamp != nil {
			i.State = &state{"Progressing", toneBusy, "is being deleted"}
		}
		namespaces = append(namespaces, i)
	}
	var out []group
	for _, g := range []group{{"Workloads", workloads}, {"Services", services}, {"Storage", storage}, {"Configuration", config}, {"Namespaces", namespaces}} {
		if len(g.Items) > 0 {
			out = append(out, g)
		}
	}
	return out
}

func sorted[T client.Object](objs []T) {
	slices.SortFunc(objs, func(a, b T) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
}

func controlledBy[T client.Object](objs []T, uid types.UID) []T {
	var out []T
	for _, o := range objs {
		if ref := metav1.GetControllerOf(o); ref != nil && ref.UID == uid {
			out = append(out, o)
		}
	}
	return out
}

func deploymentItem(d *appsv1.Deployment, o owned) item {
	sets := controlledBy(o.ReplicaSets, d.UID)
	slices.SortStableFunc(sets, func(a, b *appsv1.ReplicaSet) int { return cmp.Compare(revisionOf(b), revisionOf(a)) })
	var current []*corev1.Pod
	i := itemOf("Deployment", d)
	var idle []item
	for _, rs := range sets {
		if rs.Annotations[revisionAnnotation] == d.Annotations[revisionAnnotation] {
			current = controlledBy(o.Pods, rs.UID)
		} else if replicas(rs.Spec.Replicas) == 0 && rs.Status.Replicas == 0 {
			idle = append(idle, within(replicaSetItem(rs, o)))
			continue
		}
		i.Children = append(i.Children, within(replicaSetItem(rs, o)))
	}
	i.fold("idle", count(len(idle), "earlier revision")+", idle", idle)
	i.fact("replicas", fmt.Sprintf("%d of %d ready", d.Status.ReadyReplicas, replicas(d.Spec.Replicas)))
	return i.with(health.Deployment(d, current))
}

// within is an item below another one, which has told the namespace.
func within(i item) item {
	i.Namespace = ""
	return i
}

func revisionOf(rs *appsv1.ReplicaSet) int {
	n, _ := strconv.Atoi(rs.Annotations[revisionAnnotation]) // one without a number is the oldest
	return n
}

func replicas(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

func replicaSetItem(rs *appsv1.ReplicaSet, o owned) item {
	pods := controlledBy(o.Pods, rs.UID)
	i := itemOf("ReplicaSet", rs)
	i.fact("revision", rs.Annotations[revisionAnnotation])
	i.fact("pods", fmt.Sprintf("%d of %d ready", rs.Status.ReadyReplicas, replicas(rs.Spec.Replicas)))
	i.pods(pods)
	return i.with(health.ReplicaSet(rs, pods))
}

func statefulSetItem(s *appsv1.StatefulSet, o owned) item {
	pods := controlledBy(o.Pods, s.UID)
	i := itemOf("StatefulSet", s)
	i.fact("replicas", fmt.Sprintf("%d of %d ready", s.Status.ReadyReplicas, replicas(s.Spec.Replicas)))
	i.pods(pods)
	return i.with(health.StatefulSet(s, pods))
}

func daemonSetItem(d *appsv1.DaemonSet, o owned) item {
	pods := controlledBy(o.Pods, d.UID)
	i := itemOf("DaemonSet", d)
	i.fact("nodes", fmt.Sprintf("%d of %d ready", d.Status.NumberReady, d.Status.DesiredNumberScheduled))
	i.pods(pods)
	return i.with(health.DaemonSet(d, pods))
}

// claimItem says how large a claim is, and where it is kept. One that nobody
// mounts yet waits for that: it is not ill.
func claimItem(c *corev1.PersistentVolumeClaim) item {
	i := itemOf("PersistentVolumeClaim", c)
	size := c.Status.Capacity[corev1.ResourceStorage]
	if size.IsZero() {
		size = c.Spec.Resources.Requests[corev1.ResourceStorage]
	}
	i.fact("size", size.String())
	if c.Spec.StorageClassName != nil {
		i.fact("class", *c.Spec.StorageClassName)
	}
	i.code("volume", c.Spec.VolumeName)
	return i.with(health.Claim(c, true))
}

// cronJobItem shows the Jobs that run and those that failed; the others are folded.
func cronJobItem(c *batchv1.CronJob, o owned) item {
	i := itemOf("CronJob", c)
	i.code("schedule", c.Spec.Schedule)
	if c.Spec.TimeZone != nil {
		i.fact("time zone", *c.Spec.TimeZone)
	}
	if last := c.Status.LastScheduleTime; last != nil {
		i.fact("last slot", last.UTC().Format("2006-01-02 15:04 UTC"))
	}
	var done []item
	for _, j := range controlledBy(o.Jobs, c.UID) {
		job := within(jobItem(j, o))
		if j.Status.CompletionTime != nil && job.State.Tone == toneGood {
			done = append(done, job)
		} else {
			i.Children = append(i.Children, job)
		}
	}
	i.fold("done", count(len(done), "job")+" completed", done)
	return i.with(health.CronJob(c))
}

func jobItem(j *batchv1.Job, o owned) item {
	pods := controlledBy(o.Pods, j.UID)
	i := itemOf("Job", j)
	done := strconv.Itoa(int(j.Status.Succeeded))
	if j.Spec.Completions != nil {
		done += fmt.Sprintf(" of %d", *j.Spec.Completions)
	}
	i.fact("succeeded", done)
	if j.Status.Failed > 0 {
		i.fact("failed", strconv.Itoa(int(j.Status.Failed)))
	}
	i.pods(pods)
	return i.with(health.Job(j, pods))
}

// pods are the children; many that are well are folded.
func (i *item) pods(pods []*corev1.Pod) {
	var well []item
	for _, p := range pods {
		if pod := within(podItem(p)); len(pods) > unfolded && pod.State.Tone == toneGood {
			well = append(well, pod)
		} else {
			i.Children = append(i.Children, pod)
		}
	}
	i.fold("well", count(len(well), "healthy pod"), well)
}

func podItem(p *corev1.Pod) item {
	i := itemOf("Pod", p)
	i.fact("node", p.Spec.NodeName)
	i.code("address", p.Status.PodIP)
	restarts := int32(0)
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		restarts += s.RestartCount
	}
	i.fact("restarts", strconv.Itoa(int(restarts)))
	var images []string
	for _, c := range p.Spec.Containers {
		images = append(images, c.Image)
	}
	i.code("image", strings.Join(images, ", "))
	return i.with(health.Pod(p))
}

func serviceItem(s *corev1.Service, all []*discoveryv1.EndpointSlice) item {
	i := itemOf("Service", s)
	i.fact("type", string(s.Spec.Type))
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		i.code("name outside", s.Spec.ExternalName)
		return i
	}
	ready, total := endpoints(s, all)
	i.fact("endpoints", fmt.Sprintf("%d of %d ready", ready, total))
	if s.Spec.ClusterIP == corev1.ClusterIPNone {
		i.fact("address", "headless")
	}
	for _, p := range s.Spec.Ports {
		port := strconv.Itoa(int(p.Port))
		if p.NodePort != 0 {
			port += " (node port " + strconv.Itoa(int(p.NodePort)) + ")"
		}
		if p.Protocol != "" && p.Protocol != corev1.ProtocolTCP {
			port += "/" + string(p.Protocol)
		}
		if s.Spec.ClusterIP != corev1.ClusterIPNone && s.Spec.ClusterIP != "" {
			port = s.Spec.ClusterIP + ":" + port
		}
		i.code(cmp.Or(p.Name, "port"), port)
	}
	if len(s.Spec.Selector) == 0 {
		return i
	}
	h := health.Health{State: health.Healthy}
	if ready == 0 {
		h = health.Health{State: health.Progressing, Reason: "no pod behind it is ready"}
	}
	return i.with(h)
}

// endpoints counts the addresses behind a Service.
func endpoints(s *corev1.Service, all []*discoveryv1.EndpointSlice) (ready, total int) {
	for _, slice := range all {
		if slice.Namespace != s.Namespace || slice.Labels[discoveryv1.LabelServiceName] != s.Name {
			continue
		}
		for _, e := range slice.Endpoints {
			total++
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				ready++
			}
		}
	}
	return ready, total
}

func storedItem(s stored) item {
	i := item{ID: string(s.UID), Kind: s.Kind, Namespace: s.Namespace, Name: s.Name, Origin: s.Origin}
	switch {
	case s.Kind == "ServiceAccount":
	case s.Hidden, s.Count == 0:
		i.fact("holds", count(s.Count, "key"))
	default:
		i.code(strings.TrimLeft(count(s.Count, "key"), "0123456789 "), strings.Join(s.Keys, ", "))
	}
	return i
}
