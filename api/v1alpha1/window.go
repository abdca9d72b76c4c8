package v1alpha1

import (
	"fmt"
	"time"

	"berth.dev/berth/api/cron"
)

// Times are when a SyncWindow is open. Its schedule and zone are read here.
func (w *SyncWindow) Times() (*WindowTimes, error) {
	schedule, err := cron.Parse(w.Schedule)
	if err != nil {
		return nil, fmt.Errorf("schedule: %w", err)
	}
	zone, err := time.LoadLocation(w.TimeZone)
	if err != nil || w.TimeZone == "Local" {
		return nil, fmt.Errorf("timeZone: %q is not known; write it as in Europe/Berlin", w.TimeZone)
	}
	return &WindowTimes{schedule: schedule, zone: zone, duration: w.Duration.Duration}, nil
}

// WindowTimes tells when a window is open.
//
// +k8s:deepcopy-gen=false
type WindowTimes struct {
	schedule *cron.Schedule
	zone     *time.Location
	duration time.Duration
}

// At says whether the window is open, and when that changes next; the zero time
// when it does not.
func (t *WindowTimes) At(now time.Time) (open bool, changes time.Time) {
	now = now.In(t.zone)
	// The last opening that is not over: openings may overlap.
	var opened time.Time
	for at := now.Add(-t.duration); ; {
		next, ok := t.schedule.Next(at)
		if !ok || next.After(now) {
			if opened.IsZero() {
				return false, next
			}
			return true, opened.Add(t.duration)
		}
		opened, at = next, next
	}
}
