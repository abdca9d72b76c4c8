package controllers

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"

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
	t := e.resources.Begin()
	for i := range all.Items {
		if e.clock.Since(all.Items[i].LastTimestamp.Time) > eventTTL {
			if err := t.Delete(ctx, &all.Items[i], client.DeleteOptions{}); ignoreNotFound(err) != nil {
				return err
			}
		}
	}
	return t.Commit(ctx)
}
