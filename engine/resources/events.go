package resources

import (
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/fields"

	"berth.dev/berth/api/client"
)

// storedForm is set for a kind that is another one in other words: it has no
// keys of its own in the store.
type storedForm struct {
	// group and plural of the kind that is stored.
	group, plural string
	newStored     func() client.Object
	// load and save translate. Both may share what the other one holds.
	load func(client.Object) (client.Object, error)
	save func(client.Object) (client.Object, error)
}

// newEventForm is the Event of events.k8s.io, which is the core one with newer
// names (k8s.io/api/events/v1).
func newEventForm() *storedForm {
	return &storedForm{
		group: "", plural: "events", newStored: newOf[corev1.Event],
		load: func(o client.Object) (client.Object, error) { return newEvent(o.(*corev1.Event)), nil },
		save: func(o client.Object) (client.Object, error) { return coreEvent(o.(*eventsv1.Event)), nil },
	}
}

func newEvent(e *corev1.Event) *eventsv1.Event {
	out := &eventsv1.Event{
		ObjectMeta: e.ObjectMeta, EventTime: e.EventTime,
		ReportingController: e.ReportingController, ReportingInstance: e.ReportingInstance,
		Action: e.Action, Reason: e.Reason, Regarding: e.InvolvedObject, Related: e.Related, Note: e.Message, Type: e.Type,
		DeprecatedSource: e.Source, DeprecatedFirstTimestamp: e.FirstTimestamp, DeprecatedLastTimestamp: e.LastTimestamp, DeprecatedCount: e.Count,
	}
	if e.Series != nil {
		out.Series = &eventsv1.EventSeries{Count: e.Series.Count, LastObservedTime: e.Series.LastObservedTime}
	}
	return out
}

func coreEvent(e *eventsv1.Event) *corev1.Event {
	out := &corev1.Event{
		ObjectMeta: e.ObjectMeta, EventTime: e.EventTime,
		ReportingController: e.ReportingController, ReportingInstance: e.ReportingInstance,
		Action: e.Action, Reason: e.Reason, InvolvedObject: e.Regarding, Related: e.Related, Message: e.Note, Type: e.Type,
		Source: e.DeprecatedSource, FirstTimestamp: e.DeprecatedFirstTimestamp, LastTimestamp: e.DeprecatedLastTimestamp, Count: e.DeprecatedCount,
	}
	if e.Series != nil {
		out.Series = &corev1.EventSeries{Count: e.Series.Count, LastObservedTime: e.Series.LastObservedTime}
	}
	return out
}

// newEventFields are the names that k8s.io/kubernetes/pkg/apis/events/v1 gives
// to the fields of the core Event.
func newEventFields(o client.Object) fields.Set {
	e := o.(*eventsv1.Event)
	return fields.Set{
		"reason":                    e.Reason,
		"regarding.kind":            e.Regarding.Kind,
		"regarding.namespace":       e.Regarding.Namespace,
		"regarding.name":            e.Regarding.Name,
		"regarding.uid":             string(e.Regarding.UID),
		"regarding.apiVersion":      e.Regarding.APIVersion,
		"regarding.resourceVersion": e.Regarding.ResourceVersion,
		"regarding.fieldPath":       e.Regarding.FieldPath,
		"reportingController":       e.ReportingController,
		"type":                      e.Type,
	}
}
