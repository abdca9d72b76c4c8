package controllers

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"berth.dev/berth/api/client"
)

const (
	// eventTTL is how long an Event is kept, as in Kubernetes.
	eventTTL         = time.Hour
	eventExpiryEvery = 5 * time.Minute
)

// eventExpiry deletes Events that nobody has repeated for eventTTL.
type eventExpiry struct{ *cluster }

func newEventExpiry(c *cluster) *eventExpiry { return &eventExpiry{c} }

// Run works until the context ends.
func (e *eventExpiry) Run(ctx context.Context) error {
	ticker := e.clock.NewTicker(eventExpiryEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
			if err := e.expire(ctx); err != nil && ctx.Err() == nil {
				e.log.Warn("expire events", "err", err)
			}
		}
	}
}

func (e *eventExpiry) expire(ctx context.Context) error {
	var all corev1.EventList
	if err := e.resources.List(ctx, &all, client.ListOptions{}); err != nil {
		return err
	}
	for i := range all.Items {
		event := &all.Items[i]
		if e.clock.Since(lastSaid(event)) <= eventTTL {
			continue
		}
		err := e.resources.Delete(ctx, event, client.DeleteOptions{UID: event.UID, ResourceVersion: event.ResourceVersion})
		// A conflict: it was said again at this moment, and stays.
		if ignoreNotFound(err) != nil && !apierrors.IsConflict(err) {
			return err
		}
	}
	return nil
}

// lastSaid is when an Event was last repeated; those of events.k8s.io have the
// time at which they were first said, and a series when they were repeated.
func lastSaid(e *corev1.Event) time.Time {
	if e.Series != nil && !e.Series.LastObservedTime.IsZero() {
		return e.Series.LastObservedTime.Time
	}
	for _, t := range []time.Time{e.LastTimestamp.Time, e.EventTime.Time} {
		if !t.IsZero() {
			return t
		}
	}
	return e.CreationTimestamp.Time
}
