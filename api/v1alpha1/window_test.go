package v1alpha1

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestWindowTimes(t *testing.T) {
	w := SyncWindow{Kind: WindowAllow, Schedule: "0 9 * * mon-fri", Duration: metav1.Duration{Duration: 8 * time.Hour}, TimeZone: "Europe/Berlin"}
	times, err := w.Times()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		now     string
		open    bool
		changes string
	}{
		{"2026-11-27T07:59:59Z", false, "2026-11-27T08:00:00Z"},
		{"2026-11-27T08:00:00Z", true, "2026-11-27T16:00:00Z"},
		{"2026-11-27T15:59:59Z", true, "2026-11-27T16:00:00Z"},
		{"2026-11-27T16:00:00Z", false, "2026-11-30T08:00:00Z"},
	} {
		now, _ := time.Parse(time.RFC3339, c.now)
		open, changes := times.At(now)
		if got := changes.UTC().Format(time.RFC3339); open != c.open || got != c.changes {
			t.Errorf("at %s: open %v until %s, want %v until %s", c.now, open, got, c.open, c.changes)
		}
	}
}

func TestWindowsOverlap(t *testing.T) {
	w := SyncWindow{Kind: WindowDeny, Schedule: "0 * * * *", Duration: metav1.Duration{Duration: 90 * time.Minute}, TimeZone: "UTC"}
	times, err := w.Times()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 27, 10, 10, 0, 0, time.UTC)
	open, changes := times.At(now)
	if want := time.Date(2026, 11, 27, 11, 30, 0, 0, time.UTC); !open || !changes.Equal(want) {
		t.Errorf("open %v until %s, want until %s", open, changes, want)
	}
}
