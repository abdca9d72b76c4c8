package web

import (
	"fmt"
	"slices"
	"time"

	"berth.dev/berth/api/v1alpha1"
)

// sourcePage is the model of the page of one Source.
type sourcePage struct {
	card
	// Found is false when there is no such Source (yet).
	Found bool
	// Running is the commit whose content the cluster runs, where it is not
	// the newest one.
	Running     *commit
	RunningWord string
	// Rejected: the newest commit was not applied.
	Rejected   bool
	Conditions []condition
	Timeline   []stage
	Errors     []diagnostic
	Warnings   []diagnostic
	Groups     []group
	// Events are the newest ones, Earlier those before them.
	Events, Earlier []said
	// Left is how many events are not shown.
	Left int
	Base string
}

// stage is a step of the last change.
type stage struct {
	Name    string
	Reached bool
	Time    when
	// Offset since the first stage.
	Offset  string
	Message string
	// From and Width are the step's part of the whole, in thousandths.
	From, Width int64
	// Next is the stage that is being waited for, or that was not passed.
	Next bool
	// Word says where a stage that is not reached stands, and Tone how.
	Word, Tone string
}

// diagnostic is an error or a warning in pieces.
type diagnostic struct {
	Place, Object, Field, Message string
}

// shownEvents bounds the list of events; unfoldedEvents of them are shown
// without being asked for.
const (
	shownEvents    = 50
	unfoldedEvents = 12
)

// sourceOf is the page of a Source: s and what belongs to it.
func sourceOf(name string, s *v1alpha1.Source, o owned, events []said, base string) sourcePage {
	if s == nil {
		return sourcePage{card: card{Name: name, State: state{Word: "Not found", Tone: toneIdle}}, Base: base}
	}
	p := sourcePage{
		card: cardOf(s, base), Found: true, Conditions: conditions(s), Timeline: timeline(s), Groups: groups(o),
		Base: base,
	}
	if a, newest := s.Status.Applied, s.Status.Observed; a != nil && newest != nil && a.ID != newest.ID {
		running := commitOf(a)
		p.Running, p.Rejected, p.RunningWord = &running, true, "was applied"
		if h := s.Status.Healthy; h != nil && h.ID == a.ID {
			p.RunningWord = "runs and was healthy"
		}
	}
	for _, d := range s.Status.Diagnostics {
		if d.Severity == v1alpha1.SeverityWarning {
			p.Warnings = append(p.Warnings, diagnosticOf(d))
		} else {
			p.Errors = append(p.Errors, diagnosticOf(d))
		}
	}
	if len(p.Errors) > 0 && p.State.Word == "Failed" {
		p.State.Reason = "The newest commit has " + count(len(p.Errors), "error") + " and was not applied."
	}
	about := newest(events, o.uids(s.UID))
	shown := about[:min(len(about), shownEvents)]
	p.Left = len(about) - len(shown)
	p.Events = shown[:min(len(shown), unfoldedEvents)]
	p.Earlier = shown[len(p.Events):]
	return p
}

func diagnosticOf(d v1alpha1.Diagnostic) diagnostic {
	out := diagnostic{Place: d.Path, Object: d.Object, Field: d.Field, Message: d.Message}
	if d.Path != "" && d.Line > 0 {
		out.Place += fmt.Sprintf(":%d", d.Line)
		if d.Column > 0 {
			out.Place += fmt.Sprintf(":%d", d.Column)
		}
	}
	return out
}

// timeline is all stages in their order. Only the built-in endpoint knows when
// a commit was pushed.
func timeline(s *v1alpha1.Source) []stage {
	reached := s.Status.Timeline
	names := []string{
		v1alpha1.StagePushed, v1alpha1.StageFetched, v1alpha1.StageCompiled, v1alpha1.StageApplied,
		v1alpha1.StageScheduled, v1alpha1.StageStarted, v1alpha1.StageReady,
	}
	if s.Spec.URL != "" || len(reached) > 0 && reached[0].Name != v1alpha1.StagePushed {
		names = names[1:]
	}
	out := make([]stage, 0, len(names))
	var previous time.Duration
	total := time.Duration(1)
	if len(reached) > 0 {
		total = max(1, reached[len(reached)-1].Time.Sub(reached[0].Time.Time))
	}
	for _, name := range names {
		i := slices.IndexFunc(reached, func(st v1alpha1.Stage) bool { return st.Name == name })
		if i < 0 {
			out = append(out, stage{Name: name, Word: "waiting"})
			continue
		}
		offset := max(0, reached[i].Time.Sub(reached[0].Time.Time))
		st := stage{Name: name, Reached: true, Time: at(reached[i].Time.Time), Offset: "+" + span(offset), Message: reached[i].Message}
		st.From = int64(1000 * previous / total)
		st.Width = max(4, int64(1000*(offset-previous)/total))
		previous = offset
		out = append(out, st)
	}
	if s.Status.Observed != nil && !s.Suspended() {
		if i := slices.IndexFunc(out, func(st stage) bool { return !st.Reached }); i >= 0 {
			out[i].Next = true
			out[i].Word, out[i].Tone = standing(stateOf(s))
			for j := i + 1; j < len(out) && out[i].Tone == toneBad; j++ {
				out[j].Word = "not reached"
			}
		}
	}
	return out
}

// standing is what a Source's state means for the stage that it has not passed.
func standing(s state) (word, tone string) {
	switch s.Word {
	case "Failed":
		return "failed", toneBad
	case "Held":
		return "held", tonePaused
	case "Degraded":
		return "in trouble", toneBad
	}
	return "waiting", toneBusy
}
