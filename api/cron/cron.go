// Package cron reads the five fields of a cron schedule and says when its next
// slot is. It is pure: the time and its zone are arguments.
//
// Fields are as crontab(5) of Vixie cron has them: minute, hour, day of month,
// month, day of week; lists, ranges and steps; the names of months and days; 0
// and 7 are Sunday; @hourly, @daily, @midnight, @weekly, @monthly, @yearly and
// @annually. When both days are restricted, either suffices.
//
// Where the clock is set forward or back, a slot with fixed hours comes once: at
// the end of the gap when its time is skipped, and the first time when its time
// comes twice. A schedule of every hour, or of every few, follows elapsed time.
package cron

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Schedule is a set of minutes of the calendar.
type Schedule struct {
	minute, hour, day, month, weekday uint64
	// everyDay and everyWeekday: the field says nothing, so the other decides.
	everyDay, everyWeekday bool
	// everyHour: the hours are * or */n, so the schedule follows elapsed time.
	everyHour bool
}

type bounds struct {
	name     string
	min, max int
	names    []string
}

var (
	months = []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
	days   = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
)

// shorthand is what the names that begin with @ stand for.
func shorthand(s string) (string, bool) {
	switch strings.ToLower(s) {
	case "@hourly":
		return "0 * * * *", true
	case "@daily", "@midnight":
		return "0 0 * * *", true
	case "@weekly":
		return "0 0 * * 0", true
	case "@monthly":
		return "0 0 1 * *", true
	case "@yearly", "@annually":
		return "0 0 1 1 *", true
	}
	return "", false
}

// Parse reads a schedule. The error names the field; a date that never comes,
// such as the 30th of February, is one.
func Parse(text string) (*Schedule, error) {
	if strings.HasPrefix(text, "@") {
		long, ok := shorthand(text)
		if !ok {
			return nil, fmt.Errorf("%q is no schedule; those with a name are @hourly, @daily, @weekly, @monthly and @yearly", text)
		}
		text = long
	}
	fields := strings.Fields(text)
	if len(fields) != 5 {
		return nil, fmt.Errorf("%q has %d fields and not 5: minute, hour, day of month, month, day of week, such as \"30 2 * * mon-fri\"", text, len(fields))
	}
	s := &Schedule{}
	for i, f := range []struct {
		into *uint64
		b    bounds
	}{
		{&s.minute, bounds{"minute", 0, 59, nil}},
		{&s.hour, bounds{"hour", 0, 23, nil}},
		{&s.day, bounds{"day of month", 1, 31, nil}},
		{&s.month, bounds{"month", 1, 12, months}},
		{&s.weekday, bounds{"day of week", 0, 7, days}},
	} {
		set, err := f.b.parse(fields[i])
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", f.b.name, fields[i], err)
		}
		*f.into = set
	}
	if s.weekday&(1<<7) != 0 {
		s.weekday = s.weekday&^(1<<7) | 1
	}
	s.everyHour = strings.HasPrefix(fields[1], "*")
	// As in Vixie cron, a field that begins with * restricts nothing by itself.
	s.everyDay, s.everyWeekday = strings.HasPrefix(fields[2], "*"), strings.HasPrefix(fields[4], "*")
	if !s.comes() {
		return nil, fmt.Errorf("%q never comes: no such month has that day", text)
	}
	return s, nil
}

// comes: some month of the schedule has one of its days.
func (s *Schedule) comes() bool {
	if s.everyDay || !s.everyWeekday {
		return true
	}
	for m := 1; m <= 12; m++ {
		length := time.Date(2000, time.Month(m)+1, 0, 0, 0, 0, 0, time.UTC).Day() // a leap year
		if s.month&(1<<m) != 0 && bits.TrailingZeros64(s.day) <= length {
			return true
		}
	}
	return false
}

func (b bounds) parse(text string) (uint64, error) {
	var out uint64
	for part := range strings.SplitSeq(text, ",") {
		span, stepText, hasStep := strings.Cut(part, "/")
		step := 1
		if hasStep {
			var err error
			if step, err = strconv.Atoi(stepText); err != nil || step < 1 {
				return 0, fmt.Errorf("the step %q is not a number of 1 or more", stepText)
			}
		}
		from, to := b.min, b.max
		if span != "*" && span != "?" {
			low, high, isRange := strings.Cut(span, "-")
			var err error
			if from, err = b.value(low); err != nil {
				return 0, err
			}
			switch {
			case isRange:
				if to, err = b.value(high); err != nil {
					return 0, err
				}
			case !hasStep:
				to = from
			}
		} else if b.max == 7 {
			to = 6
		}
		if from > to {
			return 0, fmt.Errorf("the range %s ends before it begins", span)
		}
		for v := from; v <= to; v += step {
			out |= 1 << v
		}
	}
	return out, nil
}

func (b bounds) value(text string) (int, error) {
	for i, name := range b.names {
		if strings.EqualFold(text, name) {
			return i + b.min, nil
		}
	}
	v, err := strconv.Atoi(text)
	if err != nil || v < b.min || v > b.max {
		return 0, fmt.Errorf("%q is not from %d to %d", text, b.min, b.max)
	}
	return v, nil
}

// horizon is how far Next looks: the 29th of February on a given weekday comes
// once in 28 years, and in 40 over a century that is no leap year.
const horizon = 41 * 366

// Next is the first slot after t, in the zone of t. It is false when there is
// none.
func (s *Schedule) Next(t time.Time) (time.Time, bool) {
	if s.everyHour {
		return s.nextElapsed(t)
	}
	return s.nextFixed(t)
}

// nextFixed goes over the calendar: each slot of it becomes one moment.
func (s *Schedule) nextFixed(t time.Time) (time.Time, bool) {
	loc := t.Location()
	y, m, d := t.Date()
	for i := -1; i < horizon; i++ {
		day := time.Date(y, m, d+i, 12, 0, 0, 0, time.UTC)
		if !s.matches(day) {
			continue
		}
		var first time.Time
		for h := range 24 {
			if s.hour&(1<<h) == 0 {
				continue
			}
			for minute := range 60 {
				if s.minute&(1<<minute) == 0 {
					continue
				}
				at := moment(day, h, minute, loc)
				if at.After(t) && (first.IsZero() || at.Before(first)) {
					first = at
				}
			}
		}
		if !first.IsZero() {
			return first, true
		}
	}
	return time.Time{}, false
}

// moment is when a wall clock shows a time for the first time, or the end of the
// gap in which it would.
func moment(day time.Time, hour, minute int, loc *time.Location) time.Time {
	at := time.Date(day.Year(), day.Month(), day.Day(), hour, minute, 0, 0, loc)
	if at.Hour() != hour || at.Minute() != minute {
		// It is skipped. time.Date goes by the offset of one side of the gap.
		_, end := at.ZoneBounds()
		if start, _ := at.ZoneBounds(); !start.IsZero() && at.Sub(start) < 24*time.Hour && at.After(start) {
			return start
		}
		return end
	}
	if start, _ := at.ZoneBounds(); !start.IsZero() {
		_, before := start.Add(-time.Second).Zone()
		_, now := at.Zone()
		if earlier := at.Add(time.Duration(now-before) * time.Second); before > now && earlier.Before(start) && earlier.Hour() == hour && earlier.Minute() == minute {
			return earlier
		}
	}
	return at
}

// nextElapsed goes over elapsed minutes and looks at what the wall clock shows.
func (s *Schedule) nextElapsed(t time.Time) (time.Time, bool) {
	t = t.Add(time.Minute - time.Duration(t.Second())*time.Second - time.Duration(t.Nanosecond()))
	for limit := t.AddDate(0, 0, horizon); t.Before(limit); {
		switch {
		case !s.matches(t):
			y, m, d := t.Date()
			next := time.Date(y, m, d+1, 0, 0, 0, 0, t.Location())
			if !next.After(t) { // midnight itself is skipped where the clock is set then
				next = t.Add(time.Hour)
			}
			t = next
		case s.hour&(1<<t.Hour()) == 0:
			t = t.Add(time.Duration(60-t.Minute()) * time.Minute)
		case s.minute&(1<<t.Minute()) == 0:
			t = t.Add(time.Minute)
		default:
			return t, true
		}
	}
	return time.Time{}, false
}

// matches looks at the date alone.
func (s *Schedule) matches(t time.Time) bool {
	if s.month&(1<<int(t.Month())) == 0 {
		return false
	}
	day, weekday := s.day&(1<<t.Day()) != 0, s.weekday&(1<<int(t.Weekday())) != 0
	if s.everyDay || s.everyWeekday {
		return day && weekday
	}
	return day || weekday
}

// Last is the latest slot after one time and not after another, in the zone of
// until. It is false when there is none. It costs little however far apart the
// two are.
func (s *Schedule) Last(after, until time.Time) (time.Time, bool) {
	after = after.In(until.Location())
	for span := 2 * time.Hour; ; span *= 2 {
		from := until.Add(-span)
		if from.Before(after) || span <= 0 {
			from = after
		}
		var last time.Time
		for at, ok := s.Next(from); ok && !at.After(until); at, ok = s.Next(at) {
			last = at
		}
		if !last.IsZero() {
			return last, true
		}
		if !from.After(after) {
			return time.Time{}, false
		}
	}
}
