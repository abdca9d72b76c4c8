package sync

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/v1alpha1"
)

// Later is why a commit that could be applied is not applied yet.
type Later struct {
	// Reason is one of v1alpha1; empty when nothing keeps the commit back.
	Reason string
	// Message in words, with what ends the wait.
	Message string
	// At is when the wait ends by itself; zero when that is not known.
	At time.Time
}

// later looks at the Sources that one depends on, and at its windows.
func (e *Engine) later(src *v1alpha1.Source, now time.Time) Later {
	if l := e.dependencies(src); l.Reason != "" {
		return l
	}
	return windows(src, now)
}

// dependencies finds the first Source that is waited for.
func (e *Engine) dependencies(src *v1alpha1.Source) Later {
	for _, name := range src.Spec.DependsOn {
		l := Later{Reason: v1alpha1.ReasonDependency, Message: fmt.Sprintf("waits for Source %s, which does not exist", name)}
		if on, ok := e.Live.Sources.Get(types.NamespacedName{Name: name}); ok {
			if isReady(on) {
				continue
			}
			l.Message = fmt.Sprintf("waits for Source %s to be ready", name)
			if c := meta.FindStatusCondition(on.Status.Conditions, v1alpha1.ConditionReady); c != nil && c.Message != "" {
				l.Message += ": " + c.Message
			}
		}
		return l
	}
	return Later{}
}

// readiness is what others go by who wait for a Source.
func readiness(s *v1alpha1.Source) string {
	if isReady(s) {
		return v1alpha1.ConditionReady
	}
	if c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		return c.Reason
	}
	return ""
}

func isReady(s *v1alpha1.Source) bool {
	c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReady)
	return c != nil && c.Status == metav1.ConditionTrue && c.ObservedGeneration == s.Generation
}

// windows is pure: a Deny window that is open keeps a commit back, and so do
// Allow windows that are all closed.
func windows(src *v1alpha1.Source, now time.Time) Later {
	var allows, open int
	var next, denied time.Time
	for i := range src.Spec.SyncWindows {
		w := &src.Spec.SyncWindows[i]
		times, err := w.Times()
		if err != nil {
			continue // refused when the Source was written
		}
		isOpen, changes := times.At(now)
		switch {
		case w.Kind == v1alpha1.WindowDeny && isOpen && changes.After(denied):
			denied = changes
		case w.Kind == v1alpha1.WindowAllow:
			allows++
			if isOpen {
				open++
			} else if next.IsZero() || !changes.IsZero() && changes.Before(next) {
				next = changes
			}
		}
	}
	l := Later{Reason: v1alpha1.ReasonOutsideWindow}
	switch {
	case !denied.IsZero():
		l.At, l.Message = denied, "a sync window with kind Deny is open until "+denied.Format(time.RFC3339)
	case allows > 0 && open == 0:
		l.At, l.Message = next, "no sync window is open; the next opens at "+next.Format(time.RFC3339)
	default:
		return Later{}
	}
	l.Message += "; to go ahead now: berth approve " + src.Name
	return l
}

// cycle finds a way from a Source over what it depends on back to itself.
func cycle(name string, dependsOn func(string) []string) []string {
	visited := map[string]bool{}
	var walk func(at string, way []string) []string
	walk = func(at string, way []string) []string {
		way = append(slices.Clone(way), at)
		if at == name && len(way) > 1 {
			return way
		}
		if visited[at] {
			return nil
		}
		visited[at] = true
		for _, next := range dependsOn(at) {
			if found := walk(next, way); found != nil {
				return found
			}
		}
		return nil
	}
	return walk(name, nil)
}

// cycles are the errors of Sources that wait for themselves: the one that is
// planned, and those that it holds.
func (p *preparation) cycles() []v1alpha1.Diagnostic {
	wants := map[string][]string{p.source.Name: p.source.Spec.DependsOn}
	for _, d := range p.wanted {
		if s, ok := d.Object.(*v1alpha1.Source); ok {
			wants[s.Name] = s.Spec.DependsOn
		}
	}
	dependsOn := func(name string) []string {
		if deps, ok := wants[name]; ok {
			return deps
		}
		if s, ok := p.engine.Live.Sources.Get(types.NamespacedName{Name: name}); ok {
			return s.Spec.DependsOn
		}
		return nil
	}
	message := func(way []string) string {
		return fmt.Sprintf("Sources wait for one another without end: %s; take one of them out of spec.dependsOn", strings.Join(way, " → "))
	}
	var out []v1alpha1.Diagnostic
	if way := cycle(p.source.Name, dependsOn); way != nil {
		out = append(out, v1alpha1.Diagnostic{Severity: v1alpha1.SeverityError, Object: "Source/" + p.source.Name, Field: "spec.dependsOn", Message: message(way)})
	}
	for _, d := range p.wanted {
		if s, ok := d.Object.(*v1alpha1.Source); ok {
			if way := cycle(s.Name, dependsOn); way != nil {
				out = append(out, v1alpha1.Diagnostic{
					Severity: v1alpha1.SeverityError, Path: d.Origin.Path, Line: int32(d.Origin.Line),
					Object: "Source/" + s.Name, Field: "spec.dependsOn", Message: message(way),
				})
			}
		}
	}
	return out
}
