package plan

import (
	"cmp"
	"slices"
)

// Wave is the part of a plan that is written in one transaction.
type Wave struct {
	Number int
	Steps  []Step
	// Last: the plan is carried out with it. It holds what is deleted.
	Last bool
}

// Next is the lowest wave in which there is something to write. Without waves it
// is the whole plan.
func (p Plan) Next() Wave {
	w := Wave{Last: true, Steps: p.Steps}
	first := true
	for _, s := range p.Steps {
		switch {
		case !s.writes():
		case first:
			w.Number, first = s.Wave, false
		case s.Wave > w.Number: // steps are sorted by wave
			w.Last = false
		}
	}
	if !w.Last {
		w.Steps = slices.DeleteFunc(slices.Clone(p.Steps), func(s Step) bool { return !s.writes() || s.Wave != w.Number })
	}
	return w
}

// Through are the steps of the waves up to one.
func (p Plan) Through(n int) []Step {
	return slices.DeleteFunc(slices.Clone(p.Steps), func(s Step) bool { return !s.writes() || s.Wave > n })
}

// Pending are the objects that the plan has still to write or to remove.
func (p Plan) Pending() map[Key]bool {
	out := map[Key]bool{}
	for _, s := range p.Steps {
		if s.writes() || s.removes() {
			out[s.Key] = true
		}
	}
	return out
}

// writes: the step makes the object what the commit says it is.
func (s Step) writes() bool {
	return s.Action == Create || s.Action == Change || s.Action == Replace
}

// removes: the object goes out of the Source's hands.
func (s Step) removes() bool {
	return s.Action == Delete || s.Action == Release || s.Action == Keep
}

// compareWaves puts removals last; they have no wave.
func compareWaves(a, b Step) int {
	if a.removes() != b.removes() {
		if a.removes() {
			return 1
		}
		return -1
	}
	return cmp.Compare(a.Wave, b.Wave)
}

func waves(wanted []Desired) []int {
	var out []int
	for _, d := range wanted {
		out = append(out, d.Wave)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
