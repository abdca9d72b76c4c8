package web

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/health"
)

// state is how something is doing: Word is what people read, Tone picks the
// colour and the icon. Nothing is told by colour alone.
type state struct {
	Word   string
	Tone   string
	Reason string
}

// Tones, which are classes of the style sheet and names of the icons.
const (
	toneGood   = "good"
	toneBusy   = "busy"
	toneBad    = "bad"
	tonePaused = "paused"
	toneIdle   = "idle"
)

// stateOf is the state of a Source in one word and a sentence.
func stateOf(s *v1alpha1.Source) state {
	if s.Suspended() {
		return state{"Suspended", tonePaused, "Nothing is fetched or applied; what runs goes on."}
	}
	c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReady)
	if c == nil {
		return state{"Waiting", toneIdle, "Waits for its first commit."}
	}
	if c.Status == metav1.ConditionTrue {
		return state{Word: "Ready", Tone: toneGood}
	}
	switch c.Reason {
	case v1alpha1.ReasonProgressing:
		return state{"Progressing", toneBusy, c.Message}
	case v1alpha1.ReasonDegraded:
		return state{"Degraded", toneBad, c.Message}
	case v1alpha1.ReasonTimeout:
		return state{"Degraded", toneBad, "Not healthy within " + words(s.Spec.HealthTimeout) + ": " + c.Message}
	case v1alpha1.ReasonPruneHeld:
		return state{"Held", tonePaused, c.Message}
	case v1alpha1.ReasonOutsideWindow, v1alpha1.ReasonDependency:
		return state{"Waiting", tonePaused, c.Message}
	case v1alpha1.ReasonWave:
		return state{"Progressing", toneBusy, c.Message}
	case v1alpha1.ReasonRolledBack:
		return state{"Rolled back", toneBad, c.Message}
	case v1alpha1.ReasonSuspended:
		return state{"Progressing", toneBusy, "Resumes."}
	case v1alpha1.ReasonEmptyRepository:
		return state{"Waiting", toneIdle, c.Message}
	}
	return state{"Failed", toneBad, c.Message}
}

func words(d *metav1.Duration) string {
	if d == nil {
		return "its time"
	}
	return span(d.Duration)
}

// healthState is the health of an object as a state.
func healthState(h health.Health) state {
	tone := [...]string{toneGood, toneBusy, toneBad}[h.State]
	return state{h.State.String(), tone, h.Reason}
}

// condition is one condition of a Source as a sentence.
type condition struct {
	Type     string
	State    state
	Sentence string
	Since    when
}

// conditions are the steps of a Source in the order in which a commit takes
// them. The later ones may be about an earlier commit, and then say so.
func conditions(s *v1alpha1.Source) []condition {
	var out []condition
	for _, kind := range []string{v1alpha1.ConditionFetched, v1alpha1.ConditionVerified, v1alpha1.ConditionCompiled, v1alpha1.ConditionApplied, v1alpha1.ConditionHealthy} {
		c := meta.FindStatusCondition(s.Status.Conditions, kind)
		if c == nil {
			continue
		}
		st := conditionState(c)
		applied, observed := s.Status.Applied, s.Status.Observed
		if former := kind == v1alpha1.ConditionApplied || kind == v1alpha1.ConditionHealthy; former && st.Tone == toneGood &&
			applied != nil && observed != nil && applied.ID != observed.ID {
			st.Word += ", of " + short(applied.ID)
		}
		out = append(out, condition{Type: kind, State: st, Sentence: sentence(c), Since: at(c.LastTransitionTime.Time)})
	}
	return out
}

func conditionState(c *metav1.Condition) state {
	switch {
	case c.Status == metav1.ConditionTrue && c.Reason != v1alpha1.ReasonHistoryRewrite:
		return state{Word: "yes", Tone: toneGood}
	case c.Reason == v1alpha1.ReasonProgressing, c.Reason == v1alpha1.ReasonWave:
		return state{Word: "not yet", Tone: toneBusy}
	case c.Reason == v1alpha1.ReasonOutsideWindow, c.Reason == v1alpha1.ReasonDependency:
		return state{Word: "waits", Tone: tonePaused}
	case c.Reason == v1alpha1.ReasonPruneHeld:
		return state{Word: "held", Tone: tonePaused}
	case c.Status == metav1.ConditionTrue:
		return state{Word: "yes, with a remark", Tone: tonePaused}
	}
	return state{Word: "no", Tone: toneBad}
}

// sentence is the message, or what the condition means where it says nothing.
func sentence(c *metav1.Condition) string {
	if c.Message != "" {
		return c.Message
	}
	if c.Status != metav1.ConditionTrue {
		return c.Reason
	}
	switch c.Type {
	case v1alpha1.ConditionFetched:
		return "The repository was read."
	case v1alpha1.ConditionCompiled:
		return "Every file compiles."
	case v1alpha1.ConditionApplied:
		return "The commit is the cluster's desired state."
	}
	return "Everything that the commit asks for runs."
}
