package resources

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
)

// noteSchedule writes on a CronJob when its schedule was changed, so that a new
// schedule never fires for the past. Only the server says so.
func (r *Resources) noteSchedule(obj, old client.Object) {
	c, ok := obj.(*batchv1.CronJob)
	if !ok {
		return
	}
	was := old.(*batchv1.CronJob)
	value := was.Annotations[v1alpha1.AnnotationScheduleChanged]
	if c.Spec.Schedule != was.Spec.Schedule || timeZone(c) != timeZone(was) {
		value = r.clock.Now().UTC().Format(time.RFC3339)
	}
	if value == c.Annotations[v1alpha1.AnnotationScheduleChanged] {
		return
	}
	a := map[string]string{}
	for k, v := range c.Annotations {
		a[k] = v
	}
	delete(a, v1alpha1.AnnotationScheduleChanged)
	if value != "" {
		a[v1alpha1.AnnotationScheduleChanged] = value
	}
	c.Annotations = a
}

func timeZone(c *batchv1.CronJob) string {
	if c.Spec.TimeZone == nil {
		return ""
	}
	return *c.Spec.TimeZone
}
