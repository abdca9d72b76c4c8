package web

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// said is what of an Event the page shows.
type said struct {
	UID     types.UID `json:"-"`
	Time    when
	Warning bool
	Object  string
	Reason  string
	Message string
	Count   int32
}

func saidOf(e *corev1.Event) said {
	last := cmp.Or(e.LastTimestamp.Time, e.EventTime.Time, e.CreationTimestamp.Time)
	return said{
		UID: e.InvolvedObject.UID, Time: at(last), Warning: e.Type == corev1.EventTypeWarning,
		Object: e.InvolvedObject.Kind + " " + e.InvolvedObject.Name,
		Reason: e.Reason, Message: e.Message, Count: max(1, e.Count),
	}
}

// newest are the events about some objects, the latest first.
func newest(all []said, about map[types.UID]bool) []said {
	var out []said
	for _, e := range all {
		if about[e.UID] {
			out = append(out, e)
		}
	}
	slices.SortStableFunc(out, func(a, b said) int {
		return cmp.Or(b.Time.Compare(a.Time.Time), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Message, b.Message))
	})
	return out
}
