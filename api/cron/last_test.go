package cron

import (
	"testing"
	"time"
)

func TestLast(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.DateTime, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for name, c := range map[string]struct{ schedule, after, until, want string }{
		"each minute, three days on": {"* * * * *", "2026-03-01 10:00:30", "2026-03-04 10:00:10", "2026-03-04 10:00:00"},
		"on the minute itself":       {"* * * * *", "2026-03-01 10:00:00", "2026-03-01 10:01:00", "2026-03-01 10:01:00"},
		"not the slot that it was":   {"* * * * *", "2026-03-01 10:00:00", "2026-03-01 10:00:59", ""},
		"once a year, a century on":  {"0 0 1 1 *", "1990-06-01 00:00:00", "2090-06-01 00:00:00", "2090-01-01 00:00:00"},
		"the 29th of February":       {"0 0 29 2 *", "1999-01-01 00:00:00", "2003-12-31 00:00:00", "2000-02-29 00:00:00"},
		"none yet":                   {"0 0 1 1 *", "2026-01-02 00:00:00", "2026-12-31 23:59:59", ""},
		"the clock was set back":     {"* * * * *", "2027-01-01 00:00:00", "2026-01-01 00:00:00", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Parse(c.schedule)
			if err != nil {
				t.Fatal(err)
			}
			got, ok := s.Last(at(c.after), at(c.until))
			if ok != (c.want != "") || ok && !got.Equal(at(c.want)) {
				t.Errorf("got %v %v, want %q", got, ok, c.want)
			}
		})
	}
}
