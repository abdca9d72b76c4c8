package resources

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/upstream"
)

// LimitRangerAnnotation says on a Pod what a LimitRange has filled in, as in
// Kubernetes.
const LimitRangerAnnotation = "kubernetes.io/limit-ranger"

// limitsIn are the items of all LimitRanges of a namespace, by the names of those.
func (t *Tx) limitsIn(ctx context.Context, namespace string) ([]corev1.LimitRangeItem, error) {
	if found, ok := t.limits[namespace]; ok {
		return found, nil
	}
	objects, err := t.objectsIn(ctx, t.r.byKind[corev1.SchemeGroupVersion.WithKind("LimitRange")], namespace)
	if err != nil {
		return nil, fmt.Errorf("look for limits in namespace %s: %w", namespace, err)
	}
	slices.SortFunc(objects, func(a, b client.Object) int { return strings.Compare(a.GetName(), b.GetName()) })
	found := []corev1.LimitRangeItem{}
	for _, o := range objects {
		found = append(found, o.(*corev1.LimitRange).Spec.Limits...)
	}
	t.limits[namespace] = found
	return found, nil
}

// rangePod gives the containers of a new Pod the requests and limits that they
// leave out, then holds them to the bounds.
func (t *Tx) rangePod(ctx context.Context, p *corev1.Pod) error {
	items, err := t.limitsIn(ctx, p.Namespace)
	if err != nil || len(items) == 0 {
		return err
	}
	fillDefaults(p, items)
	p.Status.QOSClass = upstream.PodQOS(p)
	var errs []error
	for _, item := range items {
		switch item.Type {
		case corev1.LimitTypeContainer:
			for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
				errs = append(errs, bounded(item, c.Resources.Requests, c.Resources.Limits)...)
			}
		case corev1.LimitTypePod:
			errs = append(errs, bounded(item, upstream.PodRequests(p), upstream.PodLimits(p))...)
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewForbidden(corev1.Resource("pods"), p.Name, utilerrors.NewAggregate(errs))
}

// rangeClaim holds the size of a claim to the bounds.
func (t *Tx) rangeClaim(ctx context.Context, c *corev1.PersistentVolumeClaim) error {
	items, err := t.limitsIn(ctx, c.Namespace)
	if err != nil {
		return err
	}
	var errs []error
	size, asks := c.Spec.Resources.Requests[corev1.ResourceStorage]
	for _, item := range items {
		if item.Type != corev1.LimitTypePersistentVolumeClaim {
			continue
		}
		if low, ok := item.Min[corev1.ResourceStorage]; ok {
			errs = append(errs, atLeast(item.Type, corev1.ResourceStorage, low, size, asks, nil))
		}
		if high, ok := item.Max[corev1.ResourceStorage]; ok && size.Cmp(high) > 0 { // a claim has no limit that counts
			errs = append(errs, fmt.Errorf("maximum storage usage per PersistentVolumeClaim is %s, but request is %s", high.String(), size.String()))
		}
	}
	if err := utilerrors.NewAggregate(errs); err != nil {
		return apierrors.NewForbidden(corev1.Resource("persistentvolumeclaims"), c.Name, err)
	}
	return nil
}

// fillDefaults sets what no container says, and notes it on the Pod.
func fillDefaults(p *corev1.Pod, items []corev1.LimitRangeItem) {
	requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
	for _, item := range items {
		if item.Type == corev1.LimitTypeContainer {
			missing(requests, item.DefaultRequest)
			missing(limits, item.Default)
		}
	}
	var notes []string
	for _, list := range []struct {
		word       string
		containers []corev1.Container
	}{{"container", p.Spec.Containers}, {"init container", p.Spec.InitContainers}} {
		for i := range list.containers {
			c := &list.containers[i]
			notes = append(notes, filled(&c.Resources.Requests, requests, "request for "+list.word+" "+c.Name)...)
			notes = append(notes, filled(&c.Resources.Limits, limits, "limit for "+list.word+" "+c.Name)...)
		}
	}
	if len(notes) == 0 {
		return
	}
	if p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	p.Annotations[LimitRangerAnnotation] = "LimitRanger plugin set: " + strings.Join(notes, "; ")
}

func filled(list *corev1.ResourceList, from corev1.ResourceList, what string) []string {
	if len(from) > 0 && *list == nil {
		*list = corev1.ResourceList{}
	}
	set := missing(*list, from)
	if len(set) == 0 {
		return nil
	}
	return []string{strings.Join(set, ", ") + " " + what}
}

// missing takes over what a list lacks, and returns the names of that.
func missing(list, from corev1.ResourceList) []string {
	var set []string
	for _, name := range slices.Sorted(maps.Keys(from)) {
		if _, ok := list[name]; !ok {
			list[name] = from[name].DeepCopy()
			set = append(set, string(name))
		}
	}
	return set
}

// bounded says, in Kubernetes' words, how requests and limits are out of the
// bounds of an item.
func bounded(item corev1.LimitRangeItem, requests, limits corev1.ResourceList) []error {
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	limitOf := func(name corev1.ResourceName) *resource.Quantity {
		if q, ok := limits[name]; ok {
			return &q
		}
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(item.Min)) {
		request, ok := requests[name]
		note(atLeast(item.Type, name, item.Min[name], request, ok, limitOf(name)))
	}
	for _, name := range slices.Sorted(maps.Keys(item.Max)) {
		request, ok := requests[name]
		note(atMost(item.Type, name, item.Max[name], request, ok, limitOf(name)))
	}
	for _, name := range slices.Sorted(maps.Keys(item.MaxLimitRequestRatio)) {
		note(withinRatio(item.Type, name, item.MaxLimitRequestRatio[name], requests[name], limitOf(name)))
	}
	return errs
}

func atLeast(t corev1.LimitType, name corev1.ResourceName, low, request resource.Quantity, asks bool, limit *resource.Quantity) error {
	bound := fmt.Sprintf("minimum %s usage per %s is %s", name, t, low.String())
	switch {
	case !asks:
		return errors.New(bound + ".  No request is specified")
	case request.Cmp(low) < 0:
		return fmt.Errorf("%s, but request is %s", bound, request.String())
	case limit != nil && limit.Cmp(low) < 0:
		return fmt.Errorf("%s, but limit is %s", bound, limit.String())
	}
	return nil
}

func atMost(t corev1.LimitType, name corev1.ResourceName, high, request resource.Quantity, asks bool, limit *resource.Quantity) error {
	bound := fmt.Sprintf("maximum %s usage per %s is %s", name, t, high.String())
	switch {
	case limit == nil:
		return errors.New(bound + ".  No limit is specified")
	case limit.Cmp(high) > 0:
		return fmt.Errorf("%s, but limit is %s", bound, limit.String())
	case asks && request.Cmp(high) > 0:
		return fmt.Errorf("%s, but request is %s", bound, request.String())
	}
	return nil
}

func withinRatio(t corev1.LimitType, name corev1.ResourceName, most, request resource.Quantity, limit *resource.Quantity) error {
	bound := fmt.Sprintf("%s max limit to request ratio per %s is %s", name, t, most.String())
	switch {
	case request.IsZero():
		return errors.New(bound + ", but no request is specified or request is 0")
	case limit == nil || limit.IsZero():
		return errors.New(bound + ", but no limit is specified or limit is 0")
	}
	if ratio := limit.AsApproximateFloat64() / request.AsApproximateFloat64(); ratio > most.AsApproximateFloat64() {
		return fmt.Errorf("%s, but provided ratio is %f", bound, ratio)
	}
	return nil
}

// keepRanged takes over what a LimitRange filled in on the live Pod, so that to
// leave it out again is no change.
func keepRanged(pod, old *corev1.Pod) {
	note, ok := old.Annotations[LimitRangerAnnotation]
	if !ok {
		return
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[LimitRangerAnnotation] = note
	keep := func(now, was []corev1.Container) {
		for i := range now {
			at := slices.IndexFunc(was, func(c corev1.Container) bool { return c.Name == now[i].Name })
			if at < 0 {
				continue
			}
			filled(&now[i].Resources.Requests, was[at].Resources.Requests, "")
			filled(&now[i].Resources.Limits, was[at].Resources.Limits, "")
		}
	}
	keep(pod.Spec.Containers, old.Spec.Containers)
	keep(pod.Spec.InitContainers, old.Spec.InitContainers)
}
