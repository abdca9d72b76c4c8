package cron

import (
	"strings"
	"testing"
	"time"
	_ "time/tzdata"
)

func at(t *testing.T, zone, text string) time.Time {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	out, err := time.ParseInLocation("2006-01-02 15:04:05", text, loc)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestNext(t *testing.T) {
	for _, c := range []struct{ spec, zone, from, want string }{
		{"* * * * *", "UTC", "2026-11-29 10:00:30", "2026-11-29T10:01:00Z 2026-11-29T10:02:00Z"},
		{"*/15 * * * *", "UTC", "2026-11-29 10:00:00", "2026-11-29T10:15:00Z 2026-11-29T10:30:00Z"},
		{"5/20 * * * *", "UTC", "2026-11-29 10:00:00", "2026-11-29T10:05:00Z 2026-11-29T10:25:00Z"},
		{"30 2 * * mon-fri", "UTC", "2026-11-27 03:00:00", "2026-11-30T02:30:00Z 2026-12-01T02:30:00Z"},
		{"0 0 * * 7", "UTC", "2026-11-28 00:00:00", "2026-11-29T00:00:00Z 2026-12-06T00:00:00Z"},
		{"0 0 * * 5-7", "UTC", "2026-11-27 00:00:00", "2026-11-28T00:00:00Z 2026-11-29T00:00:00Z"},
		{"0 0 * JAN,Feb sun", "UTC", "2026-11-28 00:00:00", "2027-01-03T00:00:00Z 2027-01-10T00:00:00Z"},
		{"@hourly", "UTC", "2026-11-28 00:10:00", "2026-11-28T01:00:00Z 2026-11-28T02:00:00Z"},
		{"@yearly", "UTC", "2026-11-28 00:10:00", "2027-01-01T00:00:00Z 2028-01-01T00:00:00Z"},
		// Either day suffices when both are restricted.
		{"0 0 13 * fri", "UTC", "2026-11-10 00:00:00", "2026-11-13T00:00:00Z 2026-11-20T00:00:00Z"},
		{"0 0 29 2 *", "UTC", "2026-11-10 00:00:00", "2028-02-29T00:00:00Z 2032-02-29T00:00:00Z"},
		{"0 0 29 2 *", "UTC", "2097-11-10 00:00:00", "2104-02-29T00:00:00Z 2108-02-29T00:00:00Z"},
		// The clock is set back at 03:00 on 2026-10-25 in Berlin: 02:30 comes twice.
		{"30 2 * * *", "Europe/Berlin", "2026-10-24 12:00:00", "2026-10-25T02:30:00+02:00 2026-10-26T02:30:00+01:00"},
		{"0 * * * *", "Europe/Berlin", "2026-10-25 01:30:00", "2026-10-25T02:00:00+02:00 2026-10-25T02:00:00+01:00 2026-10-25T03:00:00+01:00"},
		{"*/30 2 * * *", "Europe/Berlin", "2026-10-25 01:30:00", "2026-10-25T02:00:00+02:00 2026-10-25T02:30:00+02:00 2026-10-26T02:00:00+01:00"},
		// It is set forward at 02:00 on 2026-03-08 in New York: 02:30 does not come.
		{"30 2 * * *", "America/New_York", "2026-03-07 12:00:00", "2026-03-08T03:00:00-04:00 2026-03-09T02:30:00-04:00"},
		{"0 */1 * * *", "America/New_York", "2026-03-08 00:30:00", "2026-03-08T01:00:00-05:00 2026-03-08T03:00:00-04:00"},
		{"0,30 2,3 * * *", "America/New_York", "2026-03-08 00:30:00", "2026-03-08T03:00:00-04:00 2026-03-08T03:30:00-04:00 2026-03-09T02:00:00-04:00"},
		// Midnight itself is skipped in Santiago on 2026-09-06.
		{"0 0 * * *", "America/Santiago", "2026-09-05 12:00:00", "2026-09-06T01:00:00-03:00 2026-09-07T00:00:00-03:00"},
		{"15 * * * sun", "America/Santiago", "2026-09-05 12:00:00", "2026-09-06T01:15:00-03:00 2026-09-06T02:15:00-03:00"},
	} {
		s, err := Parse(c.spec)
		if err != nil {
			t.Errorf("%s: %v", c.spec, err)
			continue
		}
		when := at(t, c.zone, c.from)
		for _, want := range strings.Fields(c.want) {
			next, ok := s.Next(when)
			if got := next.Format(time.RFC3339); !ok || got != want {
				t.Errorf("%s in %s after %s: got %s, want %s", c.spec, c.zone, when, got, want)
				break
			}
			when = next
		}
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	for spec, want := range map[string]string{
		"":             "has 0 fields and not 5",
		"* * * *":      "has 4 fields",
		"60 * * * *":   `minute "60": "60" is not from 0 to 59`,
		"* * 0 * *":    `day of month "0"`,
		"* * * * 8":    "not from 0 to 7",
		"5-1 * * * *":  "ends before it begins",
		"*/0 * * * *":  "the step",
		"* * * foo *":  "month",
		"0 0 30 2 *":   "never comes",
		"0 0 31 4,6 *": "never comes",
		"@often":       "@hourly",
		"@every 5m":    "no schedule",
	} {
		if _, err := Parse(spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", spec, err, want)
		}
	}
}
